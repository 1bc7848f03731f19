"""What old heads lose while new ones are learnt: before and after, on the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
from rich.table import Table

from faceattr.data.console import OUT
from faceattr.data.dataset import Rows, mask
from faceattr.evaluation.answers import Interval, wilson
from faceattr.evaluation.metrics import predict
from faceattr.model.file import plain
from faceattr.tasks import Task

FORGETTING = "forgetting.json"


@dataclass(frozen=True)
class Change:
    """How one old head answers before and after.

    Args:
        task: The head.
        seen: Pictures that both models answered.
        same: Share of them with the same answer.
        largest: The largest difference of a probability.
        n: Those with a label. With none, what follows is NaN or 0.
        before: Accuracy of the old model.
        before_interval: Its 95 % Wilson interval.
        after: Accuracy of the new model.
        after_interval: Its 95 % Wilson interval.
        lost: Rows that only the old model answers right.
        won: Rows that only the new model answers right.
    """

    task: str
    seen: int
    same: float
    largest: float
    n: int
    before: float
    before_interval: Interval
    after: float
    after_interval: Interval
    lost: int
    won: int

    def __str__(self) -> str:
        if not self.largest:
            return f"{self.task} answers as before, to the last bit ({self.seen:,} pictures)."
        if not self.n:
            return (
                f"{self.task}: nobody gave labels to judge it by (--judge); the answer is as "
                f"before for {self.same:.1%} of {self.seen:,} pictures."
            )
        return (
            f"{self.task}: accuracy {self.before:.1%} before and {self.after:.1%} after on "
            f"{self.n:,} rows; {self.lost:,} right answers were lost and {self.won:,} won."
        )


def changes(
    old: keras.Model, new: keras.Model, tasks: Sequence[Task], parts: Sequence[Rows]
) -> list[Change]:
    """Compare two models on the same rows.

    Args:
        old: The model before.
        new: The model after, with the same heads and more.
        tasks: The old model's tasks.
        parts: Rows, labelled for some of the tasks or for none.
    """
    before = [predict(old, rows) for rows in parts]
    after = [predict(new, rows) for rows in parts]
    found = []
    for task in tasks:
        empty = np.zeros((0, len(task.classes)), "float32")
        truth = [rows.targets.get(task.name, _unknown(task, rows)) for rows in parts]
        one = [answers[task.name] for answers in before]
        other = [answers[task.name] for answers in after]
        found.append(_change(task, *(np.concatenate([empty, *x]) for x in (truth, one, other))))
    return found


def _unknown(task: Task, rows: Rows) -> np.ndarray:
    return np.zeros((len(rows), len(task.classes)), "float32")


def _change(task: Task, target: np.ndarray, old: np.ndarray, new: np.ndarray) -> Change:
    known, truth = mask(target) > 0, target.argmax(axis=1)
    was, is_now = ((answers.argmax(axis=1) == truth)[known] for answers in (old, new))
    n = int(known.sum())
    return Change(
        task=task.name,
        seen=len(target),
        same=float((old.argmax(axis=1) == new.argmax(axis=1)).mean()) if len(target) else np.nan,
        largest=float(np.abs(old - new).max(initial=0)),
        n=n,
        before=float(was.mean()) if n else np.nan,
        before_interval=wilson(int(was.sum()), n),
        after=float(is_now.mean()) if n else np.nan,
        after_interval=wilson(int(is_now.sum()), n),
        lost=int((was & ~is_now).sum()),
        won=int((is_now & ~was).sum()),
    )


def print_changes(found: Sequence[Change]) -> None:
    """Print the forgetting table: every old head before and after."""
    if not found:
        return
    table = Table("old head", "n", "before", "after", "change", "lost", "won", "same answer")
    for change in found:
        cells = ["-"] * 5
        if change.n:
            (low, high), (new_low, new_high) = change.before_interval, change.after_interval
            cells = [
                f"{change.before:.1%} ({low:.1%} to {high:.1%})",
                f"{change.after:.1%} ({new_low:.1%} to {new_high:.1%})",
                f"{100 * (change.after - change.before):+.1f} points",
                f"{change.lost:,}",
                f"{change.won:,}",
            ]
        same = f"{change.same:.2%} of {change.seen:,}" if change.largest else "to the last bit"
        table.add_row(change.task, f"{change.n:,}", *cells, same)
    OUT.print(table)


def write_changes(found: Sequence[Change], path: Path) -> None:
    """Write the forgetting table as JSON, by old head."""
    by_task: Mapping[str, dict] = {change.task: asdict(change) for change in found}
    path.write_text(json.dumps(plain(by_task), indent=1))
