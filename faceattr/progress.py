"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import datetime
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import rich.progress
from rich.console import Console
from rich.progress import ProgressColumn, TaskID

T = TypeVar("T")

EVERY = 120.0  # seconds between two lines of a log


class Progress:
    """What long work tells while it lasts. This one is silent; the command line's prints.

    Every public function that takes long has an argument ``progress``, by default `SILENT`.
    """

    def track(self, items: Sequence[T], what: str) -> Iterable[T]:
        """The items, one after the other, while somebody may watch how many are done."""
        return items

    def show(self, record: object) -> None:
        """A record worth looking at before the work is done, or one line of text."""


SILENT = Progress()


class Bar(rich.progress.Progress):
    """A bar of `rich` that vanishes at the end; where no terminal listens (``nohup``, a log, a
    cluster), plain lines in its place.

    Args:
        *columns: What the bar shows, `rich`'s own where none are given.
        console: Where it is shown.
        speed_over: Over how many seconds the speed is measured that tells the time to go.
    """

    def __init__(
        self, *columns: str | ProgressColumn, console: Console, speed_over: float = EVERY
    ) -> None:
        on_terminal = console.is_terminal
        super().__init__(
            *columns,
            console=console,
            transient=True,
            disable=not on_terminal,
            auto_refresh=on_terminal,
            speed_estimate_period=speed_over,
        )
        self._last_line = time.monotonic()

    def follow(self, items: Sequence[T], what: str) -> Iterable[T]:
        """The items, with a line of their own while they last."""
        line = self.add_task(what, total=len(items), visible=len(items) > 0)
        yield from self.track(items, task_id=line)
        self.remove_task(line)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._log(task_id)

    def update(self, task_id: TaskID, **changes) -> None:  # type: ignore[override]
        super().update(task_id, **changes)
        self._log(task_id)

    def _log(self, task_id: TaskID) -> None:
        if not self.disable or time.monotonic() - self._last_line < EVERY:
            return
        self._last_line = time.monotonic()
        task = next(task for task in self.tasks if task.id == task_id)
        if not task.total:
            return
        left = task.time_remaining
        to_go = "" if left is None else f", {datetime.timedelta(seconds=round(left))} to go"
        self.console.print(
            f"{task.description}: {task.completed:,.0f} of {task.total:,.0f}{to_go}",
            markup=False,
            soft_wrap=True,
        )


class _Stderr:
    """The process' own standard error, which goes nowhere while at least one thread wants that."""

    def __init__(self) -> None:
        self._lock, self._wanted, self._before = threading.Lock(), 0, -1

    def close(self) -> None:
        with self._lock, suppress(OSError):  # a process may have none
            self._wanted += 1
            if self._wanted == 1:
                self._before = os.dup(2)
                with open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), 2)

    def open(self) -> None:
        with self._lock:
            self._wanted -= 1
            if self._wanted == 0 and self._before >= 0:
                os.dup2(self._before, 2)
                os.close(self._before)
                self._before = -1


_STDERR = _Stderr()


@contextmanager
def suppress_stderr() -> Iterator[None]:
    """TensorFlow and LiteRT greet on standard error past Python, which cannot intercept it."""
    with suppress(AttributeError, ValueError):  # none, or a closed one, behind pythonw
        sys.stderr.flush()
    _STDERR.close()
    try:
        yield
    finally:
        _STDERR.open()
