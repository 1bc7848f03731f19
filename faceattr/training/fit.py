"""The training loop: Keras' `fit` phase by phase, a checkpoint and an exact score per epoch."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from faceattr.model import head_names, open_from
from faceattr.model_file import plain
from faceattr.tasks import Task
from faceattr.training.course import course_of
from faceattr.training.dataset import Rows
from faceattr.training.evaluate import Score, evaluate, mean_accuracy
from faceattr.training.settings import Settings

CHECKPOINT = "checkpoint.npz"
LOG = "log.csv"
SETTINGS = "settings.json"
SCORES = "scores.json"  # its absence tells that a run is not finished


@dataclass(frozen=True)
class Epoch:
    """What an epoch brought.

    Args:
        number: Counted from 1 over all phases.
        phase: Name of its phase.
        size: Side of its training crops in pixels.
        seconds: How long it took, validation included.
        logs: Keras' logs: loss and accuracy by task over labelled training rows.
        scores: Exact scores on the validation rows.
        is_best: Whether it has the highest mean accuracy so far.
    """

    number: int
    phase: str
    size: int
    seconds: float
    logs: Mapping[str, float]
    scores: Mapping[str, Score]
    is_best: bool


def check(model: keras.Model, settings: Settings) -> None:
    """Refuse settings that do not fit the network, before anything slow begins."""
    for phase in settings.phases:
        open_from(model, phase.first, heads=phase.heads)
    heads = head_names(model)
    for what, by_task in (
        ("weigh", settings.loss_weights),
        ("mix", settings.mix.shares or dict.fromkeys(heads)),
    ):
        if strangers := sorted(set(by_task) - set(heads)):
            raise ValueError(
                f"There is no task {', '.join(strangers)} to {what}. "
                f"The tasks are {', '.join(heads)}."
            )


def fit(
    model: keras.Model,
    tasks: Sequence[Task],
    train: Rows,
    val: Rows,
    settings: Settings,
    folder: Path,
    *,
    identity: Mapping[str, Any] | None = None,
    resume: bool = False,
    after_epoch: Callable[[Epoch], None] = lambda epoch: None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train a model in place.

    After each epoch `folder` holds a checkpoint (network, optimiser, dropout's state, best
    score) and the log so far. A resumed run goes on behind the last whole epoch with the same
    state and the same batches as an unbroken one.

    Args:
        model: A model of `faceattr.model.build`.
        tasks: The model's tasks.
        train: Training rows.
        val: Validation rows; they choose the best epoch.
        settings: How to train.
        folder: Where checkpoint, log and settings go.
        identity: What else a resumed run must have in common, for example how the network is
            built.
        resume: Go on from the checkpoint in `folder`, if there is one.
        after_epoch: Called after every epoch, with the model in the state of that epoch.
        callbacks: More Keras callbacks, for example a progress bar.

    Raises:
        ValueError: `resume` finds a checkpoint of a run with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keeper = _Keeper(model, tasks, val, settings, folder, after_epoch)
    keeper.identify(
        tasks=[asdict(task) for task in tasks],
        network=identity,
        train=train.sha256(),
        val=val.sha256(),
        settings=asdict(settings),
    )
    start_phase, start_epoch = keeper.begin(resume)
    for position in range(start_phase, len(settings.phases)):
        phase = settings.phases[position]
        first_epoch = start_epoch if position == start_phase else 0
        epochs_before = sum(earlier.epochs for earlier in settings.phases[:position])
        course = course_of(model, phase, settings, train, epochs_before)
        keeper.enter(position, course.state, restore=first_epoch > 0)
        for start, end, size in phase.stretches(train.crops.shape[1], first_epoch):
            keeper.size = size
            course.run(start, end, size, [keeper, *callbacks])


class _Keeper(keras.callbacks.Callback):
    """Scores, logs and checkpoints each epoch."""

    def __init__(self, model, tasks, val, settings, folder, after_epoch) -> None:
        super().__init__()
        self._network, self._tasks, self._val = model, tasks, val
        self._settings, self._folder, self._after_epoch = settings, folder, after_epoch
        self._best = -np.inf
        self.size = 0

    def identify(self, **facts: Any) -> None:
        """Say what a resumed run must have in common with the one that it goes on with."""
        self._identity = json.dumps(plain(facts), indent=1)

    def begin(self, resume: bool) -> tuple[int, int]:
        """Where to start: phase and epoch within it; (0, 0) unless a checkpoint is resumed."""
        settings_path = self._folder / SETTINGS
        checkpoint = self._folder / CHECKPOINT
        if not (resume and checkpoint.is_file()):
            for name in (LOG, SCORES, CHECKPOINT):
                (self._folder / name).unlink(missing_ok=True)
            settings_path.write_text(self._identity)
            return 0, 0
        if settings_path.read_text() != self._identity:
            raise ValueError(
                f"The run in {self._folder} has other settings, another network or other data (see "
                f"{SETTINGS} there). Resume it with the same ones, or start anew."
            )
        phase, epochs_done, self._best = self._read("position").tolist()
        self._restore("network", self._network.variables)
        phase, epochs_done = int(phase), int(epochs_done)
        if epochs_done == self._settings.phases[phase].epochs:
            return phase + 1, 0
        return phase, epochs_done

    def enter(self, position: int, state: list[keras.Variable], *, restore: bool) -> None:
        """Enter a phase, with the optimiser's state of the checkpoint if it is resumed."""
        self._position, self._state = position, state
        if restore:
            self._restore("optimizer", state)

    def _restore(self, prefix: str, variables: list[keras.Variable]) -> None:
        for number, variable in enumerate(variables):
            variable.assign(self._read(f"{prefix}{number}"))

    def _read(self, name: str) -> np.ndarray:
        """One array of the checkpoint."""
        path = self._folder / CHECKPOINT
        try:
            with open(path, "rb") as file, np.load(file) as checkpoint:
                return checkpoint[name]
        except (zipfile.BadZipFile, EOFError, ValueError, KeyError) as error:
            raise ValueError(
                f"{path} is damaged ({error}). Start the run anew with --overwrite."
            ) from None

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        if not all(np.isfinite(value) for value in (logs or {}).values()):
            raise ValueError(
                f"The loss of epoch {epoch + 1} is not a number: the rate is too high. Start "
                "anew with a lower --rate."
            )
        scores = evaluate(self._network, self._tasks, self._val)
        mean = mean_accuracy(scores)
        is_best = mean > self._best or not np.isfinite(self._best)
        self._best = mean if is_best else self._best
        phases = self._settings.phases
        result = Epoch(
            number=1 + epoch + sum(phase.epochs for phase in phases[: self._position]),
            phase=phases[self._position].name,
            size=self.size,
            seconds=time.monotonic() - self._started,
            logs=dict(logs or {}),
            scores=scores,
            is_best=is_best,
        )
        # The best model is written before the checkpoint: a kill between the two repeats
        # the epoch, and never skips it.
        self._after_epoch(result)
        self._log(result)
        self._save(epoch + 1)

    def _save(self, epochs_done: int) -> None:
        state = {"position": np.array([self._position, epochs_done, self._best], "float64")}
        both = (("network", self._network.variables), ("optimizer", self._state))
        for prefix, variables in both:
            for number, variable in enumerate(variables):
                state[f"{prefix}{number}"] = keras.ops.convert_to_numpy(variable)
        part = self._folder / f"part-{CHECKPOINT}"
        np.savez(part, allow_pickle=False, **state)
        os.replace(part, self._folder / CHECKPOINT)

    def _log(self, epoch: Epoch) -> None:
        row = {
            "epoch": epoch.number,
            "phase": epoch.phase,
            "size": epoch.size,
            "seconds": round(epoch.seconds, 1),
            **{name: round(float(value), 5) for name, value in epoch.logs.items()},
            **{f"val_{k}_accuracy": round(v.accuracy, 5) for k, v in epoch.scores.items()},
        }
        path = self._folder / LOG
        old = pd.read_csv(path) if path.is_file() else pd.DataFrame()
        # A killed run may have logged an epoch whose checkpoint it did not finish.
        old = old[old["epoch"] < epoch.number] if len(old) else old
        part = self._folder / f"part-{LOG}"
        pd.concat([old, pd.DataFrame([row])]).to_csv(part, index=False)
        os.replace(part, path)
