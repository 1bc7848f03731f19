"""What threads that go at different paces share: the newest of something, and a clock."""

from __future__ import annotations

import threading
import time
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """A place for one value that a thread replaces and others wait for."""

    def __init__(self) -> None:
        self.value: T | None = None
        self.moment = time.monotonic()
        self.is_ended = False
        self._count = 0
        self._error: Exception | None = None
        self._changed = threading.Condition()

    def put(self, value: T) -> None:
        with self._changed:
            self.value, self.moment = value, time.monotonic()
            self._count += 1
            self._changed.notify_all()

    def after(self, count: int, patience: float) -> tuple[int, T] | None:
        """A value newer than the `count`-th with its own count; None after `patience` seconds.

        Raises:
            StopIteration: There will be none.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._count > count or self.is_ended, patience)
            if self._count > count and self.value is not None:
                return self._count, self.value
            self.raise_error()
            if self.is_ended:
                raise StopIteration
            return None

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def end(self, error: Exception | None = None) -> None:
        with self._changed:
            self.is_ended = True
            self._error = self._error or error
            self._changed.notify_all()


class Clock:
    """Seconds since the first frame, standing still while paused."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._paused_at: float | None = None
        self._stopped = False
        self._changed = threading.Condition()

    @property
    def is_paused(self) -> bool:
        return self._paused_at is not None

    def now(self) -> float:
        if self._start is None:
            return 0.0
        return (self._paused_at or time.monotonic()) - self._start

    def pause(self) -> None:
        with self._changed:
            self._paused_at = self._paused_at or time.monotonic()

    def resume(self) -> None:
        with self._changed:
            if self._paused_at is not None and self._start is not None:
                self._start += time.monotonic() - self._paused_at
            self._paused_at = None
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait_until(self, second: float) -> None:
        with self._changed:
            if self._start is None:
                self._start = time.monotonic() - second
            while not self._stopped and (self.is_paused or self.now() < second):
                self._changed.wait(None if self.is_paused else second - self.now())
