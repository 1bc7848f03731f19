"""The training loop: Keras' `fit` phase by phase, a checkpoint and an exact score per epoch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from faceattr.data.dataset import LabeledDataset, add_log_priors
from faceattr.data.manifest import Example
from faceattr.evaluation.metrics import Score, evaluate, mean_accuracy
from faceattr.model.learning import check_branches, head_names
from faceattr.progress import SILENT, Progress
from faceattr.tasks import Task
from faceattr.training.batches import is_by_source, steps_per_epoch
from faceattr.training.checkpoint import LOG, Checkpoints, Position, WeightAverage, sha256_of
from faceattr.training.config import NATURAL, UNIFORM, Network, Settings
from faceattr.training.feature_cache import FeatureCache
from faceattr.training.losses import combination_for, with_auxiliary
from faceattr.training.network import seed_salt
from faceattr.training.optimizers import unfreeze
from faceattr.training.schedules import PhaseInputs, task_schedule

CHECKED_EVERY = 10  # steps between two looks at whether the loss is still a number


@dataclass(frozen=True)
class TrainingStarted:
    """What a run is going to do; shown before its first epoch.

    Args:
        tasks: Names of the tasks.
        epochs: Of all phases.
        steps: Of an epoch.
    """

    tasks: tuple[str, ...]
    epochs: int
    steps: int


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


def check(model: keras.Model, settings: Settings, examples: Sequence[Example] = ()) -> None:
    """Refuse settings that do not fit network and sources, before anything slow begins."""
    trainee = with_auxiliary(model, settings.auxiliary)
    for phase in settings.phases:
        check_branches(trainee, phase.branch_rates)
        unfreeze(trainee, phase)
    heads = head_names(model)
    for what, by_task in (("weigh", settings.loss_weights), ("give a prior", settings.priors)):
        if strangers := sorted(set(by_task) - set(heads)):
            raise ValueError(
                f"There is no task {', '.join(strangers)} to {what}. "
                f"The tasks are {', '.join(heads)}."
            )
    sources = {example.source for example in examples if example.split == "train"}
    sampling = settings.task_sampling
    if is_by_source(sampling, heads, sources) and settings.schedule == "alternating":
        raise ValueError(
            "--schedule alternating gives every step to one task, so its --mix is by task. "
            f"Received shares of sources: {dict(sampling.shares or {})}"
        )
    priors = set(settings.priors.values())
    if strangers := sorted(priors - {UNIFORM, NATURAL} - sources):
        raise ValueError(
            f"A prior is {UNIFORM}, {NATURAL} or the name of a source: "
            f"{', '.join(sorted(sources))}. Received: {', '.join(strangers)}"
        )


def fit(
    model: keras.Model,
    tasks: Sequence[Task],
    train: LabeledDataset,
    val: LabeledDataset,
    settings: Settings,
    folder: Path,
    *,
    network: Network | None = None,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    features: Path | None = None,
    progress: Progress = SILENT,
) -> None:
    """Train a model in place; it ends with the weights of its best epoch.

    Each phase begins with the best epoch of those before. After each epoch `folder` holds a
    checkpoint (network, optimiser, dropout's state, best score), the best weights and the log
    so far. A resumed run goes on behind the last whole epoch with the same state and the same
    batches as an unbroken one.

    Args:
        model: A model of `faceattr.model.build`.
        tasks: The model's tasks.
        train: Training rows.
        val: Validation rows; they choose the best epoch.
        settings: How to train.
        folder: Where checkpoint, log and settings go.
        network: How the model was built: a resumed run must have it in common, and the model
            file that it starts from decides, beside the seed, which rows come when and how they
            are changed.
        resume: Go on from the checkpoint in `folder`, if there is one.
        callbacks: More Keras callbacks.
        features: Folder for features of what does not learn (`faceattr.training.feature_cache`);
            without one every crop is computed anew.
        progress: Is told of every `Epoch`, before its checkpoint is written.

    Raises:
        ValueError: `resume` finds a checkpoint of a run with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train = replace(add_log_priors(train, settings.priors), balance=settings.balance)
    model = with_auxiliary(model, settings.auxiliary)
    names, salt = [task.name for task in tasks], seed_salt(network) if network else ()
    combine = combination_for(settings, names) if settings.schedule == "joint" else None
    own = combine.variables if combine else ()
    checkpoints = Checkpoints(folder, model, settings.phases, own)
    position = checkpoints.begin(_identity(model, tasks, train, val, settings, network), resume)
    cache = None
    if features is not None and settings.augment_repeats:
        cache = FeatureCache(features, settings, train, val, salt, progress)
    steps = _Steps(progress, names, settings, steps_per_epoch(len(train), settings.batch_size))
    for number, phase in enumerate(settings.phases):
        if number < position.phase or (number == position.phase and position.is_behind(phase)):
            continue
        if number > position.phase or not position.epochs:
            position = replace(position, phase=number, epochs=0, waited=0)
            checkpoints.restore_best(position)
        cached = cache.enter(model, number) if cache else None
        before = sum(earlier.epochs for earlier in settings.phases[:number])
        inputs = PhaseInputs(model, phase, settings, train, before, cached, salt)
        schedule = task_schedule(inputs, combine)
        # The rows' features and what learns above them give the whole network's answers.
        score = partial(evaluate, inputs.trainable, tasks, cached.val if cached else val)
        epoch_end = EpochCheckpoint(inputs, schedule.state, score, position, checkpoints, progress)
        for start, end, size in phase.size_stages(train.crops.shape[1], position.epochs):
            if not epoch_end.position.has_waited(phase):
                watching = [*epoch_end.averages, epoch_end, steps, *callbacks]
                schedule.run(start, end, size, watching)
        position = epoch_end.position
    checkpoints.restore_best(position)


def _identity(model, tasks, train, val, settings, network) -> dict[str, Any]:
    """What a resumed run must have in common with the one that it goes on with."""
    return {
        "tasks": [asdict(task) for task in tasks],
        "network": asdict(network) if network else None,
        "start": sha256_of(model.variables),
        "train": train.sha256(),
        "val": val.sha256(),
        "settings": asdict(settings),
    }


class _Steps(keras.callbacks.Callback):
    """Tells how many steps of a run are done."""

    def __init__(
        self, progress: Progress, tasks: Sequence[str], settings: Settings, steps: int
    ) -> None:
        super().__init__()
        epochs = sum(phase.epochs for phase in settings.phases)
        progress.show(TrainingStarted(tuple(tasks), epochs, steps))
        self._left = iter(progress.track(range(epochs * steps), "steps"))

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        next(self._left, None)


class EpochCheckpoint(keras.callbacks.Callback):
    """Scores, logs and checkpoints each epoch of a phase, and ends one that brings no more.

    Args:
        inputs: Of the phase.
        state: What a checkpoint of the phase needs besides the network.
        score: Gives the exact scores on the validation rows.
        position: In the phase; behind its beginning, the state is read from the checkpoint.
        checkpoints: Of the run.
        progress: Is shown every `Epoch`.
    """

    def __init__(
        self,
        inputs: PhaseInputs,
        state: Sequence[keras.Variable],
        score: Callable[[], Mapping[str, Score]],
        position: Position,
        checkpoints: Checkpoints,
        progress: Progress,
    ) -> None:
        super().__init__()
        self.position = position
        self._inputs, self._score = inputs, score
        self._checkpoints, self._progress = checkpoints, progress
        decay = inputs.settings.ema
        self.averages = [WeightAverage(checkpoints.weights, decay)] if decay else []
        self._changed = checkpoints.changed(position)
        self._state = [*state, *(v for average in self.averages for v in average.state)]
        if position.epochs:
            checkpoints.restore_state(self._state)

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        self._started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        if batch % CHECKED_EVERY == 0:
            _check_finite(logs)

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        _check_finite(logs)
        with self.averages[0].in_place() if self.averages else nullcontext():
            result = self._result(epoch, logs or {})
        self._progress.show(result)
        _write_log(result, self._checkpoints.folder / LOG)
        self._checkpoints.save(self.position, self._changed, self._state)
        self.model.stop_training = self.position.has_waited(self._inputs.phase)

    def _result(self, epoch: int, logs: Mapping[str, float]) -> Epoch:
        """Score an epoch, and keep its weights if none was better."""
        phase, settings = self._inputs.phase, self._inputs.settings
        scores = self._score()
        number = 1 + epoch + self._inputs.epochs_before
        balanced = settings.balance != "none" or bool(settings.priors)
        self.position = self.position.after(number, mean_accuracy(scores, balanced=balanced))
        is_best = self.position.number == number
        result = Epoch(
            number=number,
            phase=phase.name,
            size=phase.size_of(epoch, self._inputs.train.crops.shape[1]),
            seconds=time.monotonic() - self._started,
            logs=dict(logs),
            scores=scores,
            is_best=is_best,
        )
        # The best weights are written before the checkpoint: a kill between the two repeats
        # the epoch, and never skips it.
        if is_best:
            self._checkpoints.save_best(self.position)
        return result


def _check_finite(logs: Mapping[str, Any] | None) -> None:
    if not all(np.isfinite(value) for value in (logs or {}).values()):
        raise ValueError(
            "The loss is not a number any more: the rate is too high. Start anew with a lower "
            "--learning-rate."
        )


def _write_log(epoch: Epoch, path: Path) -> None:
    """Add an epoch to the log."""
    row = {
        "epoch": epoch.number,
        "phase": epoch.phase,
        "size": epoch.size,
        "seconds": round(epoch.seconds, 1),
        **{name: round(float(value), 5) for name, value in epoch.logs.items()},
        **{f"val_{k}_accuracy": round(v.accuracy, 5) for k, v in epoch.scores.items()},
    }
    old = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    # A killed run may have logged an epoch whose checkpoint it did not finish.
    old = old[old["epoch"] < epoch.number] if len(old) else old
    part = path.with_name(f"part-{path.name}")
    pd.concat([old, pd.DataFrame([row])]).to_csv(part, index=False)
    os.replace(part, path)
