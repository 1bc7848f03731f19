"""Decode, detect and predict at once: threads for the first two, full batches for the third.

What is in flight is bounded, so memory does not grow with the number of pictures.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np

from faceattr.images.load import MAX_PIXELS
from faceattr.inference.looking import Clock, Found, Item, Keep, look
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.rows import Labelled

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


def describe_items(
    items: Iterable[Item],
    attributes: FaceAttributes,
    *,
    workers: int | None = None,
    clock: Clock | None = None,
    keep: Keep | None = None,
    keep_frames: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[tuple[Labelled, Item]]:
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

    def work(item: Item) -> Found:
        found = look(item, attributes, clock, keep=keep, max_pixels=max_pixels)
        return found if keep_frames else replace(found, item=replace(item, frame=None))

    with _one_opencv_thread_each(workers):
        for found in ahead(work, items, workers):
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
