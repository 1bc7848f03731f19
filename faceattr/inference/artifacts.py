"""What a job leaves beside its table: crops, annotated copies, a gallery."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from PIL import Image

from faceattr.files import (
    LONGEST_NAME,
    atomic_write,
    refuse_existing,
    short_name,
    validate_output_folder,
    validate_output_path,
)
from faceattr.images.crop import CropRule, crop
from faceattr.images.draw import draw_faces
from faceattr.images.inputs import InputFile, kind_of_name, places
from faceattr.images.load import DECODE_MEMORY, PathLike, Picture, reason_of
from faceattr.inference.samples import Detections
from faceattr.inference.schema import ImageResult

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LARGEST = 512
# What a copy's name has behind its input's: the second of a video, the number of a face.
ADDED = re.compile(r"(\.\d{4,}\.\d{3}s)?(\.\d+)?\.jpg$")
COPY = re.compile(r"(.+?)(\.\d{4,}\.\d{3}s)?(\.jpg)+", re.IGNORECASE)
ROOM_FOR_ADDED = 32  # bytes


@dataclass(frozen=True)
class Artifacts:
    """What a job leaves beside its table; None leaves it out.

    Args:
        crops: A folder for every face, as the model's own rule cuts it.
        annotated: A folder for copies of the pictures with boxes and answers.
        gallery: An HTML page of faces by answer and confidence; its name ends in ``.html``.
    """

    crops: PathLike | None = None
    annotated: PathLike | None = None
    gallery: PathLike | None = None

    @property
    def folders(self) -> list[PathLike]:
        """Where the job itself writes pictures."""
        return [folder for folder in (self.crops, self.annotated) if folder is not None]

    def validate(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Refuse what cannot be written, or a gallery that may not be replaced, before any work."""
        for folder in self.folders:
            validate_output_folder(Path(folder))
        if self.gallery is None:
            return
        page = Path(self.gallery)
        validate_output_path(page)
        if page.suffix != ".html":
            raise ValueError(f"A gallery's name ends in .html. Received: {page}")
        refuse_existing(page, overwrite=resume or overwrite)

    def validate_inputs(self, files: Iterable[InputFile]) -> None:
        """Refuse folders (ValueError) in which a copy would take the place of an input."""
        for folder in self.folders:
            self._must_spare(folder, files)

    def _must_spare(self, folder: PathLike, files: Iterable[InputFile]) -> None:
        """The files are gone through twice where some of them lie in `folder`."""
        place_of = places()
        start = os.path.join(os.path.realpath(folder), "")
        read_at = (place_of(file.path) for file in files)
        inside = {place for place in read_at if place.startswith(start)}
        if not inside:
            return
        names = {ADDED.sub("", name): name for name in inside if ADDED.search(name)}
        if folder == self.annotated:  # whose copies may be called like the inputs
            names |= {name: name for name in inside}
        for file in files:
            if hit := names.get(place_of(str(_below(folder, file.path)))):
                raise ValueError(
                    f"In {folder}, a copy of {file.path} would replace the input {hit}. Choose a "
                    "folder that holds no inputs."
                )


NO_ARTIFACTS = Artifacts()


def artifact_path(
    folder: PathLike, file: InputFile, time: float | None = None, ending: str = ""
) -> Path:
    r"""Where a copy of an input goes: the input's own path again, below `folder`.

    ``../photos/a.jpg`` becomes ``FOLDER/_/photos/a.jpg`` and ``/photos/a.jpg``
    ``FOLDER/_root/photos/a.jpg`` (``D:\`` becomes ``_D``); a folder that is called so itself gets
    one more ``_`` in front. A frame of a video carries its second,
    ``FOLDER/clip.mp4.0012.500s.jpg``. What is called like the copy of another,
    ``a.tif.jpg``, gets one more ``.jpg``. Of very long names a hash takes the place of the end.
    """
    place = _below(folder, file.path)
    name = place.name
    if time is not None:
        name += f".{time:08.3f}s"
    if not (name + ending).lower().endswith(IMAGE_SUFFIXES) or (
        not ending and _is_called_like_a_copy(name)
    ):
        ending += ".jpg"
    return place.with_name(name + ending)


def _is_called_like_a_copy(name: str) -> bool:
    """Whether the copy of another input, an ``a.tif`` or a frame of a video, has that name."""
    if (found := COPY.fullmatch(name)) is None:
        return False
    first, second = found[1], found[2]
    is_kept = first.lower().endswith(IMAGE_SUFFIXES)
    return not is_kept and (second is not None or kind_of_name(first) == "picture")


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


def save_crops(folder: PathLike, rule: CropRule, found: Detections, picture: Picture) -> None:
    """Write every face of a picture in full size as the model's own rule cuts it, ``NAME.0.jpg``…

    Only the size is the picture's own, from that of the rule to 512 pixels, so that people
    see more. As class folders for `faceattr train` they are cut like what is labelled later.
    """
    for number, face in enumerate(found.faces):
        side = round(face.side * (1 + rule.margin))
        large = replace(rule, size=max(rule.size, min(side, LARGEST)))
        cut = crop(picture.image, face.box, large, face.landmarks, face.rotation)
        sample, ending = found.sample, f".{number}.jpg"
        _save(Image.fromarray(cut), artifact_path(folder, sample.file, sample.time, ending))


def save_annotated(folder: PathLike, max_pixels: int, result: ImageResult) -> ImageResult:
    """Write a copy of a picture with boxes and answers; nothing for an unreadable one.

    Returns the result, with the reason in it where the picture can be read no more.
    """
    sample = result.sample
    if sample.reason is not None:
        return result
    with DECODE_MEMORY.reservation() as reserve:
        try:
            picture = sample.decode(max_pixels=max_pixels, reserve=reserve)
        except (OSError, ValueError, MemoryError) as error:
            reason = reason_of(error, sample.file.path)
            return ImageResult(replace(sample.without_content(), reason=reason))
        drawn = draw_faces(picture.image, result.faces)
        _save(Image.fromarray(drawn), artifact_path(folder, sample.file, sample.time))
    return replace(result, sample=sample.without_content())


def _save(image: Image.Image, path: Path) -> None:
    # There may be thousands: `label` syncs them together, before the rows that tell of them.
    with atomic_write(path, durable=False, resumable=True) as part:
        image.save(part, quality=92)
