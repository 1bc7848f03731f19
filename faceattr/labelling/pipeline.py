"""Decode, detect and predict at once: threads for the first two, full batches for the third.

What is in flight is bounded, so memory does not grow with the number of pictures.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import cv2
import numpy as np

from faceattr.labelling.describe import FaceAttributes
from faceattr.labelling.rows import Labelled
from faceattr.pictures.capture import frames
from faceattr.pictures.detect import Detector, Face
from faceattr.pictures.inputs import InputFile
from faceattr.pictures.reading import Picture, read_picture

# Rows are held back for a full batch, but not for longer than this, nor for more inputs.
PATIENCE_SECONDS = 10.0
MOST_WAITING = 256
# Pictures of 4000 pixels, decoded at no less than 1.5 times what the detector looks at: the same
# 67 faces as in the whole picture with both detectors, boxes at a mean IoU of 0.99; at 1.0 times
# 0.97 with CenterFace. A tenth of the time of decoding the whole.
SPARE = 1.5
T = TypeVar("T")
R = TypeVar("R")


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


def default_workers() -> int:
    """As many threads as this process may use processors."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def items_of(
    files: Iterable[InputFile], every: float, done: Mapping[str, set] | None = None
) -> Iterator[Item]:
    """The pictures, and the frames of the videos `every` so many seconds.

    Args:
        files: Files.
        every: Seconds between two frames.
        done: Inputs to leave out: by name the times that are done (None for a picture).
    """
    done = done or {}
    for file in files:
        finished = done.get(file.name, set())
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
    except (OSError, ValueError) as error:
        yield Item(file, reason=_reason(error, file))


def _reason(error: Exception, file: InputFile) -> str:
    text = getattr(error, "strerror", None) or str(error).removeprefix(f"{file.path}: ")
    return " ".join(text.split()) or type(error).__name__


def describe_items(
    items: Iterable[Item],
    attributes: FaceAttributes,
    *,
    workers: int | None = None,
    clock: Clock | None = None,
    keep: Callable[[Found, Picture], None] | None = None,
    keep_frames: bool = False,
) -> Iterator[tuple[Labelled, Item]]:
    """Find and describe the faces of many pictures.

    Args:
        items: What to look at; taken a few at a time.
        attributes: Detector and model.
        workers: Threads that decode and detect; by default one a processor.
        clock: Is told where the time goes.
        keep: Called in the worker with what was found and the whole picture.
        keep_frames: Give a video's frames back with their records; fewer of them wait then.

    Yields:
        One record an item, in the order of the items.
    """
    clock = clock or Clock()
    workers = workers or default_workers()
    batches = _Batches(attributes, clock, attributes.batch_size if keep_frames else MOST_WAITING)

    def look(item: Item) -> Found:
        found = _look(item, attributes, clock, keep)
        return found if keep_frames else replace(found, item=replace(item, frame=None))

    with _one_opencv_thread_each(workers):
        for found in ahead(look, items, workers):
            batches.add(found)
            yield from batches.ready(at_once=batches.is_late)
        yield from batches.ready(at_once=True)


@contextmanager
def _one_opencv_thread_each(workers: int) -> Iterator[None]:
    """Many pictures at once use the processors better than many threads on one picture."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1 if workers > 1 else before)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def ahead(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results in order, computed by threads that run a bounded distance ahead."""
    window: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="look")
    try:
        for item in items:
            window.append(pool.submit(work, item))
            if len(window) >= 4 * workers:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _look(
    item: Item,
    attributes: FaceAttributes,
    clock: Clock,
    keep: Callable[[Found, Picture], None] | None,
) -> Found:
    """Decode, detect and crop one item."""
    if item.reason is not None:
        return Found(item, reason=item.reason)
    try:
        with clock.measure("decode"):
            picture = _picture(item, None if keep else _enough(attributes.detector))
        with clock.measure("detect"):
            near = attributes.find(picture.image)
        faces = tuple(face.scaled(picture.scale) for face in near)
        if picture.scale > 1 and any(
            attributes.is_large(face) and seen.side < attributes.crop_rule.size
            for face, seen in zip(faces, near, strict=True)
        ):
            # A small face in a large picture: the reduced one would blur its crop.
            with clock.measure("decode"):
                picture, near = _picture(item), list(faces)
    except (OSError, ValueError, MemoryError, cv2.error) as error:
        return Found(item, reason=_reason(error, item.file))
    with clock.measure("crop"):
        crops = tuple(
            attributes.cut(picture.image, seen)
            for face, seen in zip(faces, near, strict=True)
            if attributes.is_large(face)
        )
    found = Found(item, faces, crops)
    if keep:
        keep(found, picture)
    return found


def _enough(detector: Detector) -> int | None:
    """The longer side at which a JPEG may be decoded without another face being found."""
    return detector.long_side and round(detector.long_side * SPARE)


def _picture(item: Item, at_least: int | None = None) -> Picture:
    if item.frame is not None:
        return Picture(item.frame, item.frame.shape[:2])
    return read_picture(item.file.path, at_least)


class _Batches:
    """Collects crops over pictures until a batch is full; gives records back in order."""

    def __init__(self, attributes: FaceAttributes, clock: Clock, most_waiting: int) -> None:
        self._attributes = attributes
        self._clock = clock
        self._most_waiting = most_waiting
        self._waiting: deque[Found] = deque()
        self._crops: list[np.ndarray] = []
        self._answers: deque[dict[str, np.ndarray]] = deque()
        self._since = time.monotonic()

    @property
    def is_late(self) -> bool:
        waited = time.monotonic() - self._since
        return len(self._waiting) >= self._most_waiting or waited > PATIENCE_SECONDS

    def add(self, found: Found) -> None:
        self._waiting.append(found)
        self._crops += found.crops

    def ready(self, at_once: bool = False) -> Iterator[tuple[Labelled, Item]]:
        """What is known by now; everything, with a last small batch, if it must be at once."""
        size = self._attributes.batch_size
        while len(self._crops) >= size or (at_once and self._crops):
            batch, self._crops = self._crops[:size], self._crops[size:]
            with self._clock.measure("predict"):
                self._answers += self._attributes.predict(batch, full_batches=True)
        while self._waiting and len(self._waiting[0].crops) <= len(self._answers):
            self._since = time.monotonic()
            found = self._waiting.popleft()
            answers = [self._answers.popleft() for _ in found.crops]
            faces = tuple(self._attributes.described(found.faces, answers))
            item = found.item
            yield Labelled(item.file, item.time, faces, found.reason), item
