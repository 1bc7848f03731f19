"""Pictures that a job leaves beside its table: crops, and copies with what was found."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePath

from PIL import Image

from faceattr.files import LONGEST_NAME, short_name
from faceattr.images.crop import CropRule, crop
from faceattr.images.inputs import InputFile
from faceattr.images.load import MAX_PIXELS, ROOM, PathLike, Picture, read_picture
from faceattr.inference.overlay import draw_faces
from faceattr.inference.pipeline import Detections, Sample, reason_of
from faceattr.inference.schema import ImageResult
from faceattr.inference.table import atomic_write

KEPT = (".jpg", ".jpeg", ".png", ".webp")
LARGEST = 512
# What a copy's name has behind its input's: the second of a video, the number of a face.
ADDED = re.compile(r"(\.\d{4,}\.\d{3}s)?(\.\d+)?\.jpg$")
ROOM_FOR_ADDED = 32  # bytes


def place_of(folder: PathLike, item: Sample, ending: str = "") -> Path:
    r"""Where a copy of an item goes: the item's own path again, below `folder`.

    ``../photos/a.jpg`` becomes ``FOLDER/_/photos/a.jpg`` and ``/photos/a.jpg``
    ``FOLDER/_root/photos/a.jpg`` (``D:\`` becomes ``_D``); a folder that is called so itself gets
    one more ``_`` in front. A frame of a video carries its second,
    ``FOLDER/clip.mp4.0012.500s.jpg``. Of very long names a hash takes the place of the end.
    """
    place = _below(folder, item.file.path)
    name = place.name
    if item.time is not None:
        name += f".{item.time:08.3f}s"
    if not (name + ending).lower().endswith(KEPT):
        ending += ".jpg"
    return place.with_name(name + ending)


def _below(folder: PathLike, path: PathLike) -> Path:
    parts = parts_below(Path(path))
    return Path(folder, *parts[:-1], short_name(parts[-1], LONGEST_NAME - ROOM_FOR_ADDED))


def parts_below(path: PurePath) -> list[str]:
    """A path as folders and a name below another folder; no two files get the same."""
    own = path.parts[1:] if path.anchor else path.parts
    folders, name = own[:-1], own[-1]
    parts = ["_" if part == ".." else f"_{part}" if part[0] == "_" else part for part in folders]
    if path.anchor:
        drive = re.findall(r"[^\\/:]+", path.anchor) or ["root"]
        is_share = len(drive) > 1  # a folder of another machine
        parts = ["_share", *drive, *parts] if is_share else [f"_{drive[0]}", *parts]
    return [*parts, name]


def validate_artifact_folder(folder: PathLike, files: Iterable[InputFile], *, crops: bool) -> None:
    """Refuse a folder in which a copy would take the place of an input.

    Args:
        folder: Where the copies go.
        files: The inputs; gone through twice where some of them lie in `folder`.
        crops: The copies are crops, whose names have a number; else whole pictures.

    Raises:
        ValueError: There is such an input.
    """
    real = cache(os.path.realpath)  # many files lie in few folders

    def entry(path: PathLike) -> str:
        # Writing under a link's name replaces the link, not what it leads to.
        parent, name = os.path.split(os.fspath(path))
        return os.path.join(real(parent), name)

    start = os.path.join(real(os.fspath(folder)), "")
    inside = {name for name in (entry(file.path) for file in files) if name.startswith(start)}
    if not inside:
        return
    names = {ADDED.sub("", name): name for name in inside if ADDED.search(name)}
    if not crops:
        names |= {name: name for name in inside}
    for file in files:
        if hit := names.get(entry(_below(folder, file.path))):
            raise ValueError(
                f"In {folder}, a copy of {file.path} would replace the input {hit}. Choose a "
                "folder that holds no inputs."
            )


def save_crops(folder: PathLike, rule: CropRule, found: Detections, picture: Picture) -> None:
    """Write every face as the model's own rule cuts it, ``NAME.0.jpg`` and on.

    Only the size is the picture's own, from that of the rule to 512 pixels, so that people
    see more. As class folders for `faceattr train` they are cut like what is labelled later.

    Args:
        folder: Where to; the input's own folders are repeated below it.
        rule: How the model wants a face to be cut.
        found: The faces, with boxes in pixels of `picture`.
        picture: In full size.
    """
    for number, face in enumerate(found.faces):
        side = round(face.side * (1 + rule.margin))
        large = replace(rule, size=max(rule.size, min(side, LARGEST)))
        cut = crop(picture.image, face.box, large, face.landmarks, face.rotation)
        _save(Image.fromarray(cut), place_of(folder, found.item, f".{number}.jpg"))


def save_annotated(
    folder: PathLike, labelled: ImageResult, item: Sample, *, max_pixels: int = MAX_PIXELS
) -> ImageResult:
    """Write a copy of a picture with boxes and answers; nothing for an unreadable one.

    Returns:
        The record; with the reason in it where the picture can be read no more.
    """
    if labelled.reason is not None:
        return labelled
    with ROOM.claims() as claim:
        try:
            image = item.frame
            if image is None:
                image = read_picture(item.file.path, max_pixels=max_pixels, claim=claim).image
        except (OSError, ValueError, MemoryError) as error:
            return replace(labelled, faces=(), reason=reason_of(error, item.file))
        _save(Image.fromarray(draw_faces(image, labelled.faces)), place_of(folder, item))
    return labelled


def _save(image: Image.Image, path: Path) -> None:
    with atomic_write(path) as part:
        image.save(part, quality=92)
