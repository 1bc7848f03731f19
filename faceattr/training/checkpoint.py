"""What a run writes down after each epoch, so that another one can go on with it.

Variables are kept by their position: Keras' `get_state_tree` names two metrics of one network
alike, and numbers optimisers through the whole process. The network's variables that no phase so
far can have changed are left out: the resumed run builds the network in the same way.
"""

from __future__ import annotations

import errno
import json
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from faceattr.evaluation.metrics import Score, mean_accuracy
from faceattr.evaluation.report import SCORES
from faceattr.files import atomic_write, to_jsonable, write_json
from faceattr.progress import Progress
from faceattr.training.config import FROZEN, OLD_NAMES, Phase, Settings
from faceattr.training.feature_cache import trainable_in
from faceattr.training.optimizers import WeightAverage

Variables = Sequence[keras.Variable]
DAMAGES = (EOFError, KeyError, MemoryError, OSError, RuntimeError, ValueError, zipfile.BadZipFile)
CHECKED_EVERY = 10  # steps between two looks at whether the loss is still a number
CHECKPOINT = "checkpoint.npz"
LOG = "log.csv"
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Position:
    """How far a run has come: the number of its phase, from 0, and the epochs of it that are done.

    `best` is the highest mean accuracy so far, of epoch `number` over all phases (from 1; 0: none
    yet), and `waited` says how many epochs of this phase have passed since.
    """

    phase: int = 0
    epochs: int = 0
    best: float = -np.inf
    number: int = 0
    waited: int = 0

    def after(self, number: int, mean: float) -> Position:
        """The position after epoch `number` over all phases, and its mean accuracy."""
        if mean > self.best or not np.isfinite(self.best):
            return replace(self, epochs=self.epochs + 1, best=mean, number=number, waited=0)
        return replace(self, epochs=self.epochs + 1, waited=self.waited + 1)

    def has_waited(self, phase: Phase) -> bool:
        """Whether the phase has waited for a new best as long as it may."""
        return phase.patience is not None and self.waited >= phase.patience

    def is_phase_done(self, phase: Phase) -> bool:
        """Whether all epochs of the phase are done, or it has waited long enough."""
        return self.epochs == phase.epochs or self.has_waited(phase)


class Checkpoints:
    """The checkpoint of a run and the weights of its best epoch, in one folder.

    `own` are the variables of the combined loss that learn along with the network.
    """

    def __init__(
        self, folder: Path, network: keras.Model, phases: Sequence[Phase], own: Variables = ()
    ) -> None:
        self.folder, self._network, self._phases, self._own = folder, network, phases, own
        ids = set(map(id, network.weights))
        self.weights = [v for v in trainable_in(network, phases) if id(v) in ids]

    def begin(self, identity: Mapping[str, Any], resume: bool) -> Position:
        """Where to start: at the beginning, or to `resume` where the checkpoint was written."""
        path = self.folder / SETTINGS
        if not (resume and (self.folder / CHECKPOINT).is_file()):
            for name in (LOG, SCORES):
                (self.folder / name).unlink(missing_ok=True)
            remove(self.folder)
            write_json(identity, path, resumable=True)
            return Position()
        self._check_same_run(path.read_text("utf-8"), json.dumps(to_jsonable(identity)))
        if (self.folder / LOG).is_file():
            _read_log(self.folder / LOG)  # it is told now, not after an epoch
        phase, epochs, best, *others = _read(self.folder / CHECKPOINT, "position").tolist()
        position = Position(int(phase), int(epochs), best, *map(int, others))
        _restore(self.folder / CHECKPOINT, "network", self.changed(position))
        return position

    def _check_same_run(self, before: str, now: str) -> None:
        """Refuse a checkpoint of another run, or one that this version would read wrongly."""
        had, has = _identity(before), _identity(now)
        if had is None or had != has:
            raise ValueError(
                f"The run in {self.folder} has other settings, another network or other data (see "
                f"{SETTINGS} there). Resume it with the same ones, or start anew."
            )
        if self._own and '"ema"' not in before:
            raise ValueError(
                f"The run in {self.folder} was begun by a faceattr that learnt the weights of "
                "--combine in another way. Start anew with --overwrite."
            )

    def changed(self, position: Position) -> list[keras.Variable]:
        """The variables that the phases up to this one may change."""
        phases = self._phases[: position.phase + 1]
        return [*trainable_in(self._network, phases), *self._own]

    def save(self, position: Position, changed: Variables, state: Variables) -> None:
        """Write a checkpoint; the one before, and its best epoch, stay until this one is whole.

        `changed` are the variables that phases may have changed so far, `state` those of optimisers
        and averages.
        """
        at = np.array(astuple(position), "float64")
        _write(self.folder / CHECKPOINT, position=at, network=changed, optimizer=state)
        for path in self.folder.glob("best-*.npz"):
            if path != self._best_path(position):
                path.unlink()

    def restore_state(self, state: Variables) -> None:
        """Give optimisers and averages the values of the checkpoint."""
        _restore(self.folder / CHECKPOINT, "optimizer", state)

    def save_best(self, position: Position) -> None:
        """Write the weights of the best epoch so far."""
        _write(self._best_path(position), weight=self.weights)

    def restore_best(self, position: Position) -> None:
        """Give the network the weights of the best epoch so far, if there is one."""
        if position.number:
            _restore(self._best_path(position), "weight", self.weights)

    def _best_path(self, position: Position) -> Path:
        return self.folder / f"best-{position.number}.npz"


@dataclass(frozen=True)
class Epoch:
    """What an epoch brought; numbers count from 1 over all phases.

    Args:
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


class EpochCheckpoint(keras.callbacks.Callback):
    """Scores, logs and checkpoints each epoch of a phase, and ends one that brings no more.

    `state` is what a checkpoint needs besides the network. Where `position` is behind the
    beginning of the phase, it is read from the checkpoint.
    """

    def __init__(
        self,
        settings: Settings,
        side: int,
        state: Variables,
        score: Callable[[], Mapping[str, Score]],
        position: Position,
        checkpoints: Checkpoints,
        progress: Progress,
    ) -> None:
        super().__init__()
        self.position = position
        self._settings, self._side, self._score = settings, side, score
        self._checkpoints, self._progress = checkpoints, progress
        self._phase = settings.phases[position.phase]
        decay = settings.ema
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
        self.model.stop_training = self.position.has_waited(self._phase)

    def _result(self, epoch: int, logs: Mapping[str, float]) -> Epoch:
        """Score an epoch, and keep its weights if none was better."""
        phase, settings, scores = self._phase, self._settings, self._score()
        number = 1 + epoch + settings.epochs_before(self.position.phase)
        found = mean_accuracy(scores, balanced=settings.chosen_by_balanced)
        self.position = self.position.after(number, found)
        is_best = self.position.number == number
        size, seconds = phase.size_of(epoch, self._side), time.monotonic() - self._started
        result = Epoch(number, phase.name, size, seconds, dict(logs), scores, is_best)
        # The best weights are written before the checkpoint: a kill between the two repeats
        # the epoch, and never skips it.
        if is_best:
            self._checkpoints.save_best(self.position)
        return result


def _check_finite(logs: Mapping[str, Any] | None) -> None:
    if not all(np.isfinite(value) for value in (logs or {}).values()):
        raise ValueError(
            "The loss is NaN or infinite: the learning rate is too high. Start anew with a lower "
            "--learning-rate."
        )


def _write_log(epoch: Epoch, path: Path) -> None:
    """Add an epoch to the log."""
    row: dict[str, Any] = {"epoch": epoch.number, "phase": epoch.phase, "size": epoch.size}
    row |= {"seconds": round(epoch.seconds, 1)}
    row |= {name: round(float(value), 5) for name, value in epoch.logs.items()}
    row |= {f"val_{name}_accuracy": round(of.accuracy, 5) for name, of in epoch.scores.items()}
    balanced = {name: of.balanced_accuracy for name, of in epoch.scores.items()}
    row |= {f"val_{name}_balanced": round(of, 5) for name, of in balanced.items()}
    table = pd.DataFrame([row])
    if path.is_file():
        old = _read_log(path)
        # A killed run may have logged an epoch whose checkpoint it did not finish.
        table = pd.concat([old[old["epoch"] < epoch.number], table])
    with atomic_write(path, resumable=True) as part:
        table.to_csv(part, index=False)


def _read_log(path: Path) -> pd.DataFrame:
    """The epochs before; ValueError where the file was changed since."""
    try:
        log = pd.read_csv(path)
        log.drop(columns="phase").astype(float)["epoch"].astype(int)
        return log
    except (KeyError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"{path} is damaged ({reason}). Delete it: the run goes on and begins a new log."
        ) from None


def _identity(text: str) -> dict[str, Any] | None:
    """An identity with today's names, and defaults for settings that its writer did not know."""
    try:
        written = _in_todays_words(json.loads(text))
        defaults = to_jsonable(asdict(Settings(phases=(FROZEN,))))
        return {**written, "settings": _completed(written["settings"], defaults)}
    except (ValueError, KeyError, TypeError):
        return None


def _in_todays_words(value: Any) -> Any:
    """The same nested JSON value with today's keys; texts of one word are renamed as well."""
    if isinstance(value, dict):
        return {OLD_NAMES.get(key, key): _in_todays_words(of) for key, of in value.items()}
    if isinstance(value, list):
        return [_in_todays_words(item) for item in value]
    return OLD_NAMES.get(value, value) if isinstance(value, str) else value


def _completed(written: Any, default: Any) -> Any:
    if not isinstance(written, Mapping) or not isinstance(default, Mapping):
        return written
    return {**default, **{name: _completed(of, default.get(name)) for name, of in written.items()}}


def remove(folder: Path) -> None:
    """Remove what a finished run, or a new one, has no use for."""
    for path in (folder / CHECKPOINT, *folder.glob("best-*.npz")):
        path.unlink(missing_ok=True)


def _restore(path: Path, prefix: str, variables: Variables) -> None:
    for number, variable in enumerate(variables):
        variable.assign(_read(path, f"{prefix}{number}"))


def _write(path: Path, **values: np.ndarray | Variables) -> None:
    """Write arrays by their names, and variables by a name and their numbers."""
    arrays = {}
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            arrays[name] = value
        else:
            numbered = enumerate(map(keras.ops.convert_to_numpy, value))
            arrays |= {f"{name}{number}": array for number, array in numbered}
    with atomic_write(path, resumable=True) as part:
        np.savez(part, allow_pickle=False, **arrays)


def _read(path: Path, name: str) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):  # numpy would say how to unpickle it
                raise ValueError("it is no archive of arrays")
            file.seek(0)
            return np.load(file)[name]
    except DAMAGES as error:
        # A right that is missing, or a share that is gone, costs nobody the run.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL, errno.ENOENT):
            raise OSError(f"{path} cannot be read: {error.strerror}.") from None
        raise ValueError(
            f"{path} is damaged ({error}). Start the run anew with --overwrite."
        ) from None
