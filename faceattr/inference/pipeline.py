"""What makes a long job fast: threads that run a bounded distance ahead, and where the time goes.

What is in flight is bounded, so memory does not grow with the number of pictures.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import cv2

from faceattr.model.runtime import count_threads

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class StageTimes:
    """Seconds by stage, summed over threads."""

    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time of a ``with`` block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                spent = self.seconds.get(stage, 0.0) + time.perf_counter() - start
                self.seconds[stage] = spent


def count_workers(workers: int | None = None) -> int:
    """As `count_threads`, of those that decode and detect."""
    return count_threads(workers, "worker decodes and detects")


def prefetch_map(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results in order, computed by threads that run a bounded distance ahead."""
    window: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    try:
        for item in items:
            window.append(pool.submit(work, item))
            if len(window) >= 4 * workers:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _OpencvThreads:
    """A number of OpenCV's threads for a ``with`` block; None leaves it as it is.

    The number is the process' own: the first of several blocks at once sets it, and the last one
    that ends restores it.
    """

    def __init__(self) -> None:
        self._blocks = 0
        self._before = 0
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, count: int | None) -> Iterator[None]:
        if count is None:
            yield
            return
        with self._lock:
            if self._blocks == 0:
                self._before = cv2.getNumThreads()
                cv2.setNumThreads(count)
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if self._blocks == 0:
                    cv2.setNumThreads(self._before)


opencv_threads = _OpencvThreads()
