"""One picture at a time: what is looked at, what is found in it, and the time it takes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np

from faceattr.detection.base import Face, enough
from faceattr.images.inputs import InputFile
from faceattr.images.load import MAX_PIXELS, ROOM, Picture, read_picture
from faceattr.images.video import BrokenOff, frames
from faceattr.inference.predictor import FaceAttributes


@dataclass(frozen=True)
class Item:
    """One picture to look at: a file, or a frame that was taken out of a video."""

    file: InputFile
    time: float | None = None
    frame: np.ndarray | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Found:
    """What a worker hands over: the faces of an item and the crops of the large ones."""

    item: Item
    faces: tuple[Face, ...] = ()
    crops: tuple[np.ndarray, ...] = ()
    reason: str | None = None


Keep = Callable[[Found, Picture], None]


@dataclass
class Clock:
    """Seconds by stage, summed over threads."""

    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                spent = self.seconds.get(stage, 0.0) + time.perf_counter() - start
                self.seconds[stage] = spent


def items_of(
    files: Iterable[InputFile], every: float, done: Mapping[str, set] | None = None
) -> Iterator[Item]:
    """The pictures, and the frames of the videos `every` so many seconds.

    Args:
        files: Files.
        every: Seconds between two frames.
        done: Inputs to leave out: by name the times that are done (None for a picture).
    """
    # A folder may be spelled otherwise than when the job began.
    times_at: dict[str, set] = {}
    for name, times in (done or {}).items():
        place = os.path.abspath(name)
        before = times_at.get(place)
        # A path that is whole already needs no second text.
        times_at[name if place == name else place] = times if before is None else before | times
    for file in files:
        finished = times_at.get(os.path.abspath(file.name), set())
        if None in finished:
            continue
        if file.is_video:
            yield from _frames_of(file, every, finished)
        else:
            yield Item(file)


def _frames_of(file: InputFile, every: float, finished: set) -> Iterator[Item]:
    try:
        for second, frame in frames(file.path, every, start=max(finished, default=0.0)):
            if second not in finished:
                yield Item(file, second, frame)
    except BrokenOff as error:
        if error.second not in finished:
            yield Item(file, error.second, reason=reason_of(error, file))
    except (OSError, ValueError) as error:
        yield Item(file, reason=reason_of(error, file))


def reason_of(error: Exception, file: InputFile) -> str:
    """Why a file cannot be read, in one line without its name."""
    text = getattr(error, "strerror", None) or str(error).removeprefix(f"{file.path}: ")
    return " ".join(text.split()) or type(error).__name__


def look(
    item: Item,
    attributes: FaceAttributes,
    clock: Clock,
    *,
    keep: Keep | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Found:
    """Decode one item, find its faces, cut the large ones.

    Args:
        item: What to look at.
        attributes: Detector and crop rule.
        clock: Is told how long it takes.
        keep: Is given what was found and the picture in full size, if there are faces in it. What
            is found does not depend on it.
        max_pixels: A file with more of them is not read.

    Returns:
        What was found, in pixels of the full picture; or why the file cannot be read.
    """
    if item.reason is not None:
        return Found(item, reason=item.reason)
    with ROOM.claims() as claim:

        def read(at_least: int | None = None) -> Picture:
            if item.frame is not None:
                return Picture(item.frame, item.frame.shape[:2])
            with clock.measure("decode"):
                return read_picture(item.file.path, at_least, max_pixels=max_pixels, claim=claim)

        try:
            found, picture = _look(item, attributes, clock, read)
            whole = read() if keep and found.faces and picture.scale > 1 else picture
        except (OSError, ValueError, MemoryError, cv2.error) as error:
            return Found(item, reason=reason_of(error, item.file))
        if keep:
            keep(found, whole)
        return found


def _look(
    item: Item, attributes: FaceAttributes, clock: Clock, read: Callable[..., Picture]
) -> tuple[Found, Picture]:
    picture = read(enough(attributes.detector))
    with clock.measure("detect"):
        near = attributes.find(picture.image)
    faces = tuple(face.scaled(picture.scale) for face in near)
    large = [attributes.is_large(face) for face in faces]
    sides = [seen.side for seen, is_large in zip(near, large, strict=True) if is_large]
    if picture.scale > 1 and min(sides, default=np.inf) < attributes.crop_rule.size:
        # A small face in a large picture: the reduced one would blur its crop.
        picture, near = read(), list(faces)
    with clock.measure("crop"):
        cuts = [seen for seen, is_large in zip(near, large, strict=True) if is_large]
        crops = tuple(attributes.cut(picture.image, seen) for seen in cuts)
    return Found(item, faces, crops), picture
