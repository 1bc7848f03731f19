"""The training loop: Keras' `fit` phase by phase, a checkpoint and an exact score per epoch."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from faceattr.model import open_from
from faceattr.model_file import plain
from faceattr.tasks import Task
from faceattr.training.augment import Augmentation
from faceattr.training.dataset import MaskedBatches, Mix, Rows
from faceattr.training.evaluate import Score, evaluate, mean_accuracy
from faceattr.training.objective import compile_masked
from faceattr.training.phases import Phase

CHECKPOINT = "checkpoint.npz"
LOG = "log.csv"
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training run apart from its rows and its network.

    Args:
        phases: One after the other.
        batch_size: Rows in a batch.
        mix: How much of a batch each task gets.
        augmentation: What happens to training crops.
        label_smoothing: Share of each known target that is spread over the classes.
        loss_weights: By task, the weight of its loss; 1 where not given.
        seed: Decides order, augmentation, dropout and the start of the network.
    """

    phases: tuple[Phase, ...]
    batch_size: int = 64
    mix: Mix = field(default_factory=Mix)
    augmentation: Augmentation = field(default_factory=Augmentation)
    label_smoothing: float = 0.0
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


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


def fit(
    model: keras.Model,
    tasks: Sequence[Task],
    train: Rows,
    val: Rows,
    settings: Settings,
    folder: Path,
    *,
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
        resume: Go on from the checkpoint in `folder`, if there is one.
        after_epoch: Called after every epoch, with the model in the state of that epoch.
        callbacks: More Keras callbacks, for example a progress bar.

    Raises:
        ValueError: `resume` finds a checkpoint of a run with other settings.
    """
    for phase in settings.phases:
        open_from(model, phase.first)  # a wrong name shall not wait for its phase
    folder.mkdir(parents=True, exist_ok=True)
    keeper = _Keeper(model, tasks, train, val, settings, folder, after_epoch)
    start_phase, start_epoch = keeper.begin(resume)
    for position in range(start_phase, len(settings.phases)):
        phase = settings.phases[position]
        first_epoch = start_epoch if position == start_phase else 0
        epochs_before = sum(earlier.epochs for earlier in settings.phases[:position])

        def batches(epoch: int, size: int, epochs_before: int = epochs_before) -> MaskedBatches:
            return MaskedBatches(
                train,
                size,
                batch_size=settings.batch_size,
                mix=settings.mix,
                augmentation=settings.augmentation,
                seed=settings.seed,
                epoch=epochs_before + epoch,
            )

        open_from(model, phase.first, norm_learns=phase.norm_learns)
        compile_masked(
            model,
            phase.make_optimizer(len(batches(0, train.crops.shape[1]))),
            label_smoothing=settings.label_smoothing,
            weights=settings.loss_weights,
        )
        model.optimizer.build(model.trainable_variables)
        keeper.enter(position, restore=first_epoch > 0)
        for start, end, size in phase.stretches(train.crops.shape[1], first_epoch):
            keeper.size = size
            model.fit(
                batches(start, size),
                initial_epoch=start,
                epochs=end,
                shuffle=False,
                verbose=0,
                callbacks=[keeper, *callbacks],
            )


class _Keeper(keras.callbacks.Callback):
    """Scores, logs and checkpoints each epoch."""

    def __init__(self, model, tasks, train, val, settings, folder, after_epoch) -> None:
        super().__init__()
        self._network, self._tasks, self._val = model, tasks, val
        self._settings, self._folder, self._after_epoch = settings, folder, after_epoch
        self._identity = json.dumps(
            plain({"train": train.sha256(), "val": val.sha256(), **asdict(settings)}), indent=1
        )
        self._best = -np.inf
        self.size = 0

    def begin(self, resume: bool) -> tuple[int, int]:
        """Where to start: phase and epoch within it; (0, 0) unless a checkpoint is resumed."""
        settings_path = self._folder / SETTINGS
        checkpoint = self._folder / CHECKPOINT
        if not (resume and checkpoint.is_file()):
            settings_path.write_text(self._identity)
            (self._folder / LOG).unlink(missing_ok=True)
            checkpoint.unlink(missing_ok=True)
            return 0, 0
        if settings_path.read_text() != self._identity:
            raise ValueError(
                f"The run in {self._folder} was started with other settings or other data (see "
                f"{SETTINGS} there). Resume it with the same ones, or start anew."
            )
        with np.load(checkpoint) as state:
            phase, epochs_done, self._best = state["position"].tolist()
        self._restore_network(checkpoint)
        phase, epochs_done = int(phase), int(epochs_done)
        if epochs_done == self._settings.phases[phase].epochs:
            return phase + 1, 0
        return phase, epochs_done

    def enter(self, position: int, *, restore: bool) -> None:
        """Enter a phase, with the optimiser's state of the checkpoint if it is resumed."""
        self._position = position
        if restore:
            with np.load(self._folder / CHECKPOINT) as state:
                for number, variable in enumerate(self._network.optimizer.variables):
                    variable.assign(state[f"optimizer{number}"])

    def _restore_network(self, checkpoint: Path) -> None:
        with np.load(checkpoint) as state:
            for number, variable in enumerate(self._network.variables):
                variable.assign(state[f"network{number}"])

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs=None) -> None:
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
        for prefix, owner in (("network", self._network), ("optimizer", self._network.optimizer)):
            for number, variable in enumerate(owner.variables):
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
        pd.concat([old, pd.DataFrame([row])]).to_csv(path, index=False)
