"""What the commands print: lines and tables on standard output, bars on standard error."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import singledispatch
from typing import TypeVar

from rich.console import Console

from faceattr.cli.options import handled
from faceattr.progress import Bar, Progress

T = TypeVar("T")

# Names of classes may look like markup, and lines are for reading, not for wrapping.
OUT = Console(highlight=False, markup=False, soft_wrap=True)
ERR = Console(stderr=True, highlight=False)


def on_stderr(quiet: bool) -> Console:
    """Standard error, for lines beside what a command gives; silent if that was asked for."""
    return Console(stderr=True, quiet=quiet, highlight=False, markup=False, soft_wrap=True)


@singledispatch
def show(record: object) -> None:
    """Print a record that a public function returns or tells; a text is printed as it is.

    Each command registers how its own records look: ``@show.register``.
    """
    OUT.print(record)


class Terminal(Progress):
    """The progress that the commands hand to the library: it prints."""

    def track(self, items: Sequence[T], what: str) -> Iterable[T]:
        with Bar(console=ERR) as bar:
            yield from bar.follow(items, what)

    def show(self, record: object) -> None:
        show(record)


class Aside(Progress):
    """Lines beside what a command prints, which may be somebody's table: on standard error."""

    def __init__(self, console: Console = ERR) -> None:
        self._console = console

    def show(self, record: object) -> None:
        self._console.print(record, markup=False, soft_wrap=True)


@contextmanager
def ctrl_c(on_first: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, or a request to end; a second one stops at once."""
    stopped = threading.Event()

    def interrupt(*_: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        on_first()

    with handled(signal.SIGINT, interrupt):
        yield stopped
