"""One picture at a time: what is looked at, what is found in it, and the time it takes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np

from faceattr.labelling.describe import FaceAttributes
from faceattr.pictures.capture import BrokenOff, frames
from faceattr.pictures.detect import Face, enough
from faceattr.pictures.inputs import InputFile
from faceattr.pictures.reading import Picture, read_picture


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
        times_at.setdefault(os.path.abspath(name), set()).update(times)
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
            yield Item(file, error.second, reason=_reason(error, file))
    except (OSError, ValueError) as error:
        yield Item(file, reason=_reason(error, file))


def _reason(error: Exception, file: InputFile) -> str:
    text = getattr(error, "strerror", None) or str(error).removeprefix(f"{file.path}: ")
    return " ".join(text.split()) or type(error).__name__


def look(
    item: Item, attributes: FaceAttributes, clock: Clock, *, whole: bool = False
) -> tuple[Found, Picture | None]:
    """Decode one item, find its faces, cut the large ones.

    Args:
        item: What to look at.
        attributes: Detector and crop rule.
        clock: Is told how long it takes.
        whole: Give a picture with faces back in full size. What is found does not depend on it.

    Returns:
        What was found, in pixels of the full picture, and the picture; a file that cannot be
        read gives its reason and no picture.
    """
    if item.reason is not None:
        return Found(item, reason=item.reason), None
    try:
        return _look(item, attributes, clock, whole)
    except (OSError, ValueError, MemoryError, cv2.error) as error:
        return Found(item, reason=_reason(error, item.file)), None


def _look(
    item: Item, attributes: FaceAttributes, clock: Clock, whole: bool
) -> tuple[Found, Picture]:
    with clock.measure("decode"):
        picture = _picture(item, enough(attributes.detector))
    with clock.measure("detect"):
        near = attributes.find(picture.image)
    faces = tuple(face.scaled(picture.scale) for face in near)
    large = [attributes.is_large(face) for face in faces]
    sides = [seen.side for seen, is_large in zip(near, large, strict=True) if is_large]
    if picture.scale > 1 and min(sides, default=np.inf) < attributes.crop_rule.size:
        # A small face in a large picture: the reduced one would blur its crop.
        with clock.measure("decode"):
            picture, near = _picture(item), list(faces)
    with clock.measure("crop"):
        cuts = [seen for seen, is_large in zip(near, large, strict=True) if is_large]
        crops = tuple(attributes.cut(picture.image, seen) for seen in cuts)
    if whole and faces and picture.scale > 1:
        with clock.measure("decode"):
            picture = _picture(item)
    return Found(item, faces, crops), picture


def _picture(item: Item, at_least: int | None = None) -> Picture:
    if item.frame is not None:
        return Picture(item.frame, item.frame.shape[:2])
    return read_picture(item.file.path, at_least)
