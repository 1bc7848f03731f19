"""What a training prints: a line per epoch, progress with time to go."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Sequence

import keras
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from faceattr.data.console import ERR, OUT
from faceattr.progress import Bar
from faceattr.tasks import Task
from faceattr.training.batches import steps_per_epoch
from faceattr.training.config import Settings
from faceattr.training.trainer import Epoch


class TrainingProgress(keras.callbacks.Callback):
    """A bar over all steps of a run, with the time to go, and a line per finished epoch."""

    def __init__(self, tasks: Sequence[Task], settings: Settings, rows: int) -> None:
        super().__init__()
        self._names = [task.name for task in tasks]
        self._epochs = sum(phase.epochs for phase in settings.phases)
        self._steps = steps_per_epoch(rows, settings.batch_size)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            console=ERR,
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
        return self._bar.follow(items, what)

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
