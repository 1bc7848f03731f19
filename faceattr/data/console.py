"""What is printed about rows, and the progress bar of whatever goes through them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from faceattr.data.dataset import LabeledDataset
from faceattr.progress import Bar, Progress
from faceattr.tasks import Task

T = TypeVar("T")

# Names of classes may look like markup, and lines are for reading, not for wrapping.
OUT = Console(highlight=False, markup=False, soft_wrap=True)
ERR = Console(stderr=True, highlight=False)


def track(items: Sequence[T], what: str) -> Iterable[T]:
    """The items, with their progress on standard error."""
    with Bar(console=ERR) as bar:
        yield from bar.follow(items, what)


class Printing(Progress):
    """A progress that prints, for what does not take one from the command line yet."""

    def track(self, items: Sequence[T], what: str) -> Iterable[T]:
        return track(items, what)

    def show(self, record: object) -> None:
        OUT.print(record)


PRINTING = Printing()


def print_rows(rows: Mapping[str, LabeledDataset], tasks: Sequence[Task]) -> None:
    """Print the faces that can be used, by split, task and class (votes count as shares)."""
    total = sum(map(len, rows.values()))
    counts = ", ".join(f"{len(part):,} {split}" for split, part in rows.items())
    OUT.print(f"{total:,} faces: {counts}")
    table = Table("task", "class", *(Column(split, justify="right") for split in rows))
    for task in tasks:
        targets = [part.targets[task.name] for part in rows.values()]
        known = [f"{int(target.any(axis=1).sum()):,}" for target in targets]
        table.add_row(task.name, "(all)", *known)
        for position, name in enumerate(task.classes):
            shares = [f"{target[:, position].sum():,.0f}" for target in targets]
            table.add_row("", Text(name), *shares)
    OUT.print(table)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines as they are."""
    for line in lines:
        OUT.print(line)


def print_left_out(left_out: Mapping[str, int]) -> None:
    """Print a line for every reason for which something was left out."""
    for reason, count in left_out.items():
        OUT.print(f"left out: {count:,} ({reason})")


def print_notes(notes: Iterable[str]) -> None:
    """Print a line for everything that somebody should have in mind."""
    for note in notes:
        OUT.print(f"note: {note}")
