"""What training and evaluation print: tables, a line per epoch, progress with time to go."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import track as rich_track
from rich.table import Column, Table
from rich.text import Text

from faceattr.tasks import Task
from faceattr.training.calibrate import Calibration
from faceattr.training.confidence import Offer
from faceattr.training.dataset import Rows, steps_per_epoch
from faceattr.training.evaluate import Score
from faceattr.training.fit import Epoch
from faceattr.training.groups import Groups
from faceattr.training.settings import Settings

T = TypeVar("T")
# Names of classes may look like markup, and lines are for reading, not for wrapping.
OUT = Console(highlight=False, markup=False, soft_wrap=True)
ERR = Console(stderr=True, highlight=False)


def track(items: Sequence[T], what: str) -> Iterable[T]:
    """The items with a progress bar on standard error that vanishes at the end."""
    return rich_track(items, what, console=ERR, transient=True, disable=not ERR.is_terminal)


def print_rows(rows: Mapping[str, Rows], tasks: Sequence[Task]) -> None:
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


def print_calibration(calibration: Mapping[str, Calibration]) -> None:
    """Print by task the temperature and the calibration error on rows that did not fit it."""
    for name, found in calibration.items():
        OUT.print(
            f"{name}: calibrated with temperature {found.temperature:.2f}, calibration error "
            f"{found.held_out_error:.1%} on the half of val that did not fit it"
        )


def print_half_precision(differences: Mapping[str, Mapping[str, float]]) -> None:
    """Print by task how far the stored file's answers on val are from those in float32."""
    for name, found in differences.items():
        OUT.print(
            f"{name}: stored in half precision; on val the same answer for "
            f"{found['same_answer']:.2%}, largest difference of a probability "
            f"{found['largest']:.4f}"
        )


def print_left_out(left_out: Mapping[str, int]) -> None:
    """Print a line for every reason for which something was left out."""
    for reason, count in left_out.items():
        OUT.print(f"left out: {count:,} ({reason})")


def print_notes(notes: Iterable[str]) -> None:
    """Print a line for everything that was changed in reading."""
    for note in notes:
        OUT.print(f"note: {note}")


def print_scores(scores: Mapping[str, Score]) -> None:
    """Print one row of figures per task, and the recall of every class."""
    table = Table("task", "n", "accuracy", "95 % interval", "balanced", "macro F1", "ECE")
    for score in scores.values():
        low, high = score.interval
        table.add_row(
            score.task,
            f"{score.n:,}",
            f"{score.accuracy:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{score.balanced_accuracy:.1%}",
            f"{score.macro_f1:.3f}",
            f"{score.calibration_error:.1%}",
        )
    OUT.print(table)
    for score in scores.values():
        recalls = ", ".join(f"{name} {value:.0%}" for name, value in score.recall.items())
        OUT.print(f"{score.task} recall: {recalls}")


def print_warnings(sentences: Iterable[str]) -> None:
    """Print what the figures cannot tell, a line each."""
    for sentence in sentences:
        OUT.print(f"note: {sentence}")


def print_offers(by_task: Mapping[str, Sequence[Offer]]) -> None:
    """Print, by task, which accuracy a smallest confidence buys for how many answers."""
    for task, found in by_task.items():
        table = Table("--min-confidence", "answered", "right of these", "95 % interval")
        for offer in found:
            low, high = offer.interval
            right = f"{offer.accuracy:.1%}" if offer.n else "-"
            interval = f"{low:.1%} to {high:.1%}" if offer.n else "-"
            table.add_row(f"{offer.min_confidence:g}", f"{offer.coverage:.1%}", right, interval)
        OUT.print(f"{task}: what label --min-confidence buys")
        OUT.print(table)


def print_groups(groups: Iterable[Groups]) -> None:
    """Print the accuracy of every group, the gap and the worst; small groups are marked."""
    for found in groups:
        table = Table(Column(Text(found.heading)), "n", "accuracy", "95 % interval", "balanced", "")
        for group in found.groups:
            low, high = group.interval
            mark = "few rows" if group.is_small else "worst" if group == found.worst else ""
            interval = f"{low:.1%} to {high:.1%}"
            cells = f"{group.n:,}", f"{group.accuracy:.1%}", interval, f"{group.balanced:.1%}", mark
            table.add_row(Text(group.name), *cells)
        OUT.print(f"{found.task} by {found.heading}: {found.summary}")
        OUT.print(table)


class TrainingProgress(keras.callbacks.Callback):
    """A bar over all steps of a run, with the time to go, and a line per finished epoch."""

    def __init__(self, tasks: Sequence[Task], settings: Settings, rows: int) -> None:
        super().__init__()
        self._names = [task.name for task in tasks]
        self._epochs = sum(phase.epochs for phase in settings.phases)
        self._steps = steps_per_epoch(rows, settings.batch_size)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            console=ERR,
            transient=True,
            disable=not ERR.is_terminal,
        )

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        self._line = self._bar.add_task("steps", total=self._epochs * self._steps)
        self._began, self._first = time.monotonic(), 0
        heads = "".join(f" | {name:>12}: loss   acc    val" for name in self._names)
        OUT.print(f"epoch phase    size{heads} | minutes  to go")
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def track(self, items: Sequence[int], what: str) -> Iterable[int]:
        """The items, with a bar of their own while they last."""
        line = self._bar.add_task(what, total=len(items), visible=len(items) > 0)
        yield from self._bar.track(items, task_id=line)
        self._bar.remove_task(line)

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self._bar.advance(self._line)

    def show(self, epoch: Epoch) -> None:
        """Print what an epoch brought."""
        self._first = self._first or epoch.number
        self._bar.update(self._line, completed=epoch.number * self._steps)
        cells = "".join(_cell(name, epoch) for name in self._names)
        done = epoch.number - self._first + 1
        left = (time.monotonic() - self._began) / done * (self._epochs - epoch.number)
        OUT.print(
            f"{epoch.number:>5} {epoch.phase:<9}{epoch.size:>4}{cells} | {epoch.seconds / 60:>7.1f}"
            f" {datetime.timedelta(seconds=round(left))!s:>7}{' best' if epoch.is_best else ''}"
        )


def _cell(name: str, epoch: Epoch) -> str:
    # Keras names a figure after its head only where there are several.
    unnamed = {what: epoch.logs.get(what, float("nan")) for what in ("loss", "accuracy")}
    loss = epoch.logs.get(f"{name}_loss", unnamed["loss"])
    accuracy = epoch.logs.get(f"{name}_accuracy", unnamed["accuracy"])
    score = epoch.scores.get(name)
    val = f"{score.accuracy:6.1%}" if score and score.n else "     -"
    return f" | {'':>12} {loss:6.3f} {accuracy:6.1%} {val}"
