"""The training loop: Keras' `fit` phase by phase, a checkpoint and an exact score per epoch."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from faceattr.data.dataset import LabeledDataset, add_log_priors
from faceattr.data.manifest import Example
from faceattr.evaluation.metrics import Score, mean_accuracy, score_model
from faceattr.evaluation.report import SCORES
from faceattr.model.file import to_jsonable
from faceattr.model.learning import head_names
from faceattr.tasks import Task
from faceattr.training import checkpoint
from faceattr.training.checkpoint import CHECKPOINT, Position, WeightAverage
from faceattr.training.config import NATURAL, UNIFORM, Phase, Settings, check_branches
from faceattr.training.feature_cache import FeatureCache, Frozen, Track, changing
from faceattr.training.losses import combination_for, with_auxiliary
from faceattr.training.schedules import task_schedule

LOG = "log.csv"
SETTINGS = "settings.json"
CHECKED_EVERY = 10  # steps between two looks at whether the loss is still a number


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
        check_branches(trainee, phase.rates)
        phase.open(trainee)
    heads = head_names(model)
    for what, by_task in (("weigh", settings.loss_weights), ("give a prior", settings.priors)):
        if strangers := sorted(set(by_task) - set(heads)):
            raise ValueError(
                f"There is no task {', '.join(strangers)} to {what}. "
                f"The tasks are {', '.join(heads)}."
            )
    sources = {example.source for example in examples if example.split == "train"}
    if settings.mix.by_source(heads, sources) and settings.schedule == "alternating":
        raise ValueError(
            "--schedule alternating gives every step to one task, so its --mix is by task. "
            f"Received shares of sources: {dict(settings.mix.shares or {})}"
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
    identity: Mapping[str, Any] | None = None,
    draws: Sequence[int] = (),
    resume: bool = False,
    after_epoch: Callable[[Epoch], None] = lambda epoch: None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    features: Path | None = None,
    track: Track = lambda items, what: items,
    tell: Callable[[str], None] = print,
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
        identity: What else a resumed run must have in common, for example how the network is
            built.
        draws: Numbers that decide, beside the seed, which rows come when and how they are changed.
        resume: Go on from the checkpoint in `folder`, if there is one.
        after_epoch: Called after every epoch, with the model in the state of that epoch.
        callbacks: More Keras callbacks, for example a progress bar.
        features: Folder for features of what does not learn (`faceattr.training.feature_cache`);
            without one every crop is computed anew.
        track: Shows how far the computing of features is.
        tell: Takes a sentence for the user.

    Raises:
        ValueError: `resume` finds a checkpoint of a run with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train = replace(add_log_priors(train, settings.priors), balance=settings.balance)
    model = with_auxiliary(model, settings.auxiliary)
    combine = combination_for(settings, [task.name for task in tasks])
    keeper = _Keeper(model, tasks, val, settings, folder, after_epoch, combine)
    keeper.identify(
        tasks=[asdict(task) for task in tasks],
        network=identity,
        start=checkpoint.sha256_of(model.variables),
        train=train.sha256(),
        val=val.sha256(),
        settings=asdict(settings),
    )
    cache = None
    if features is not None and settings.copies:
        cache = FeatureCache(features, settings, train, val, track, tell, draws)
    start_phase, start_epoch = keeper.begin(resume)
    for position in range(start_phase, len(settings.phases)):
        phase = settings.phases[position]
        first_epoch = start_epoch if position == start_phase else 0
        epochs_before = sum(earlier.epochs for earlier in settings.phases[:position])
        keeper.enter(position, resumed=first_epoch > 0)
        frozen = cache.enter(model, position) if cache else None
        course = task_schedule(model, phase, settings, train, epochs_before, frozen, draws, combine)
        keeper.follow(course.state, frozen)
        for start, end, size in phase.stretches(train.crops.shape[1], first_epoch):
            if not keeper.gave_up:
                keeper.size = size
                course.run(start, end, size, [*keeper.before, keeper, *callbacks])
    keeper.restore_best()


class _Keeper(keras.callbacks.Callback):
    """Scores, logs and checkpoints each epoch, and ends a phase that brings nothing more."""

    def __init__(self, model, tasks, val, settings, folder, after_epoch, combine) -> None:
        super().__init__()
        self._combine = combine
        self._network, self._tasks, self._val = model, tasks, val
        self._settings, self._folder, self._after_epoch = settings, folder, after_epoch
        self._at = Position()
        self.size = 0

    def identify(self, **facts: Any) -> None:
        """Say what a resumed run must have in common with the one that it goes on with."""
        self._identity = json.dumps(to_jsonable(facts), indent=1)

    def begin(self, resume: bool) -> tuple[int, int]:
        """Where to start: phase and epoch within it; (0, 0) unless a checkpoint is resumed."""
        settings_path = self._folder / SETTINGS
        weights = set(map(id, self._network.weights))
        changed = changing(self._network, self._settings.phases)
        self._weights = [variable for variable in changed if id(variable) in weights]
        if not (resume and (self._folder / CHECKPOINT).is_file()):
            for name in (LOG, SCORES):
                (self._folder / name).unlink(missing_ok=True)
            checkpoint.remove(self._folder)
            settings_path.write_text(self._identity)
            return 0, 0
        if settings_path.read_text() != self._identity:
            raise ValueError(
                f"The run in {self._folder} has other settings, another network or other data (see "
                f"{SETTINGS} there). Resume it with the same ones, or start anew."
            )
        self._at = checkpoint.read_position(self._folder)
        checkpoint.restore(self._folder / CHECKPOINT, "network", self._changed(self._at.phase))
        done = self.gave_up or self._at.epochs == self._phase.epochs
        return (self._at.phase + 1, 0) if done else (self._at.phase, self._at.epochs)

    @property
    def _phase(self) -> Phase:
        return self._settings.phases[self._at.phase]

    @property
    def gave_up(self) -> bool:
        """Whether the phase has waited for a new best as long as it may."""
        return self._phase.patience is not None and self._at.waited >= self._phase.patience

    def _changed(self, position: int) -> list[keras.Variable]:
        own = self._combine.variables if self._combine else []
        return [*changing(self._network, self._settings.phases[: position + 1]), *own]

    def enter(self, position: int, *, resumed: bool) -> None:
        """Enter a phase: from the best epoch so far, or where its checkpoint was written."""
        self._resumed = resumed
        if not resumed:
            self._at = replace(self._at, phase=position, epochs=0, waited=0)
            self.restore_best()
        self._variables = self._changed(position)
        decay = self._settings.ema
        self._average = WeightAverage(self._weights, decay) if decay else None

    @property
    def before(self) -> list[keras.callbacks.Callback]:
        """Callbacks that must have seen an epoch before it is judged."""
        return [self._average] if self._average else []

    def follow(self, state: list[keras.Variable], frozen: Frozen | None) -> None:
        """Say what a checkpoint needs besides the network, and how epochs are judged."""
        self._state = [*state, *(self._average.state if self._average else ())]
        if self._resumed:
            checkpoint.restore(self._folder / CHECKPOINT, "optimizer", self._state)
        # The rows' features and what learns above them give the whole network's answers.
        self._judged = (frozen.learning, frozen.val) if frozen else (self._network, self._val)

    def restore_best(self) -> None:
        """Give the network the weights of the best epoch so far, if there is one."""
        if self._at.number:
            path = checkpoint.best_path(self._folder, self._at)
            checkpoint.restore(path, "weight", self._weights)

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        self._started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        if batch % CHECKED_EVERY == 0:
            self._check(logs)

    def _check(self, logs: Mapping[str, Any] | None) -> None:
        if not all(np.isfinite(value) for value in (logs or {}).values()):
            raise ValueError(
                "The loss is not a number any more: the rate is too high. Start anew with a lower "
                "--rate."
            )

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        self._check(logs)
        with self._average.in_place() if self._average else nullcontext():
            result = self._judge(epoch, logs or {})
        self._after_epoch(result)
        self._log(result)
        checkpoint.save(self._folder, self._at, self._variables, self._state)
        self.model.stop_training = self.gave_up

    def _judge(self, epoch: int, logs: Mapping[str, float]) -> Epoch:
        """Score an epoch, and keep its weights if none was better."""
        network, rows = self._judged
        scores = score_model(network, self._tasks, rows)
        number = 1 + epoch + sum(p.epochs for p in self._settings.phases[: self._at.phase])
        balanced = self._settings.balance != "none" or bool(self._settings.priors)
        mean = mean_accuracy(scores, balanced=balanced)
        is_best = self._move_on(epoch + 1, number, mean)
        result = Epoch(
            number=number,
            phase=self._phase.name,
            size=self.size,
            seconds=time.monotonic() - self._started,
            logs=dict(logs),
            scores=scores,
            is_best=is_best,
        )
        # The best weights are written before the checkpoint: a kill between the two repeats
        # the epoch, and never skips it.
        if is_best:
            checkpoint.save_best(self._folder, self._at, self._weights)
        return result

    def _move_on(self, epochs_done: int, number: int, mean: float) -> bool:
        """Note an epoch; whether it is the best so far."""
        is_best = mean > self._at.best or not np.isfinite(self._at.best)
        if is_best:
            self._at = replace(self._at, epochs=epochs_done, best=mean, number=number, waited=0)
        else:
            self._at = replace(self._at, epochs=epochs_done, waited=self._at.waited + 1)
        return is_best

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
