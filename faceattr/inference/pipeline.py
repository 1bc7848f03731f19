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

from faceattr.detection.base import Face, min_decode_size
from faceattr.images.inputs import InputFile
from faceattr.images.load import MAX_PIXELS, ROOM, Picture, read_picture
from faceattr.images.video import BrokenOff, frames
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.schema import ImageResult


@dataclass(frozen=True)
class Sample:
    """One picture to look at: a file, or a frame that was taken out of a video."""

    file: InputFile
    time: float | None = None
    frame: np.ndarray | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Detections:
    """What a worker hands over: the faces of an item and the crops of the large ones."""

    item: Sample
    faces: tuple[Face, ...] = ()
    crops: tuple[np.ndarray, ...] = ()
    reason: str | None = None


Keep = Callable[[Detections, Picture], None]


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


def samples_of(
    files: Iterable[InputFile], every: float, done: Mapping[str, set] | None = None
) -> Iterator[Sample]:
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
            yield Sample(file)


def _frames_of(file: InputFile, every: float, finished: set) -> Iterator[Sample]:
    try:
        for second, frame in frames(file.path, every, start=max(finished, default=0.0)):
            if second not in finished:
                yield Sample(file, second, frame)
    except BrokenOff as error:
        if error.second not in finished:
            yield Sample(file, error.second, reason=reason_of(error, file))
    except (OSError, ValueError) as error:
        yield Sample(file, reason=reason_of(error, file))


def reason_of(error: Exception, file: InputFile) -> str:
    """Why a file cannot be read, in one line without its name."""
    text = getattr(error, "strerror", None) or str(error).removeprefix(f"{file.path}: ")
    return " ".join(text.split()) or type(error).__name__


def look(
    item: Sample,
    attributes: FaceAttributes,
    clock: Clock,
    *,
    keep: Keep | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Detections:
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
        return Detections(item, reason=item.reason)
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
            return Detections(item, reason=reason_of(error, item.file))
        if keep:
            keep(found, whole)
        return found


def _look(
    item: Sample, attributes: FaceAttributes, clock: Clock, read: Callable[..., Picture]
) -> tuple[Detections, Picture]:
    picture = read(min_decode_size(attributes.detector))
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
    return Detections(item, faces, crops), picture


# Rows are held back for a full batch, but not for longer than this, nor for more inputs.
PATIENCE_SECONDS = 10.0
MOST_WAITING = 256
T = TypeVar("T")
R = TypeVar("R")


def default_workers() -> int:
    """As many threads as this process may use processors."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def as_many(workers: int | None) -> int:
    """As many threads as were asked for, else as many as suit the machine.

    Raises:
        ValueError: Fewer than one was asked for.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"At least 1 worker decodes and detects. Received: {workers}")
    return workers or default_workers()


def must_be_limit(max_pixels: int) -> None:
    """Raises ValueError where no picture is small enough."""
    if max_pixels < 1:
        raise ValueError(f"A limit of pixels is 1 or more. Received: {max_pixels}")


def describe_samples(
    items: Iterable[Sample],
    attributes: FaceAttributes,
    *,
    workers: int | None = None,
    clock: Clock | None = None,
    keep: Keep | None = None,
    keep_frames: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[tuple[ImageResult, Sample]]:
    """Find and describe the faces of many pictures.

    Args:
        items: What to look at; taken a few at a time.
        attributes: Detector and model.
        workers: Threads that decode and detect; by default one a processor.
        clock: Is told where the time goes.
        keep: Called in the worker with what was found and the whole picture.
        keep_frames: Give a video's frames back with their records; fewer of them wait then.
        max_pixels: A file with more of them is not read.

    Yields:
        One record an item, in the order of the items.
    """
    clock = clock or Clock()
    workers = as_many(workers)
    must_be_limit(max_pixels)
    batches = _Batches(attributes, clock, attributes.batch_size if keep_frames else MOST_WAITING)

    def work(item: Sample) -> Detections:
        found = look(item, attributes, clock, keep=keep, max_pixels=max_pixels)
        return found if keep_frames else replace(found, item=replace(item, frame=None))

    with _one_opencv_thread_each(workers):
        for found in prefetch_map(work, items, workers):
            batches.add(found)
            yield from batches.ready(at_once=batches.is_late)
        yield from batches.ready(at_once=True)


class _OneOpencvThreadEach:
    """Many pictures at once use the processors better than many threads on one picture.

    The number of OpenCV's threads is the process' own: the first of several jobs sets it, and the
    last one that ends restores it.
    """

    def __init__(self) -> None:
        self._jobs = 0
        self._before = 0
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, workers: int) -> Iterator[None]:
        if workers == 1:
            yield
            return
        with self._lock:
            if self._jobs == 0:
                self._before = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self._jobs += 1
        try:
            yield
        finally:
            with self._lock:
                self._jobs -= 1
                if self._jobs == 0:
                    cv2.setNumThreads(self._before)


_one_opencv_thread_each = _OneOpencvThreadEach()


def prefetch_map(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
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


class _Batches:
    """Collects crops over pictures until a batch is full; gives records back in order."""

    def __init__(self, attributes: FaceAttributes, clock: Clock, most_waiting: int) -> None:
        self._attributes = attributes
        self._clock = clock
        self._most_waiting = most_waiting
        self._waiting: deque[Detections] = deque()
        self._crops: list[np.ndarray] = []
        self._answers: deque[dict[str, np.ndarray]] = deque()
        self._since = time.monotonic()

    @property
    def is_late(self) -> bool:
        waited = time.monotonic() - self._since
        return len(self._waiting) >= self._most_waiting or waited > PATIENCE_SECONDS

    def add(self, found: Detections) -> None:
        self._waiting.append(found)
        self._crops += found.crops

    def ready(self, at_once: bool = False) -> Iterator[tuple[ImageResult, Sample]]:
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
            yield ImageResult(item.file, item.time, faces, found.reason), item
