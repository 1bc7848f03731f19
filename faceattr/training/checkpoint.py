"""What a run writes down after each epoch, so that another one can go on with it.

Variables are kept by their position: Keras' `get_state_tree` names two metrics of one network
alike, and numbers optimisers through the whole process. The network's variables that no phase so
far can have changed are left out: the resumed run builds the network in the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from faceattr.evaluation.report import SCORES
from faceattr.model.file import rename_keys, to_jsonable
from faceattr.training.config import FROZEN, OLD_NAMES, Phase, Settings
from faceattr.training.feature_cache import trainable_in

EVERY = 4  # steps between two updates: the same average for a quarter of the work


def read_back(model: keras.Model) -> None:
    """Give variables their values within an epoch: JAX keeps them in its compiled step."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


class WeightAverage(keras.callbacks.Callback):
    """Averages weights exponentially while they learn (Polyak and Juditsky 1992).

    Unlike Keras' `SwapEMAWeights` it averages the statistics of batch normalisation too, works
    with several optimisers, and leaves the weights that learn as they are at the end of `fit`.

    Args:
        weights: What is averaged; the average starts at their values.
        decay: Share of the average that a step leaves. The first steps leave less, so that the
            start is soon forgotten.
    """

    def __init__(self, weights: Sequence[keras.Variable], decay: float) -> None:
        super().__init__()
        self._weights, self._decay = list(weights), decay
        self._averages = [
            keras.Variable(ops.convert_to_numpy(weight), dtype=weight.dtype, trainable=False)
            for weight in self._weights
        ]
        self._steps = keras.Variable(0, dtype="int32", trainable=False)

    @property
    def state(self) -> list[keras.Variable]:
        """What a checkpoint needs."""
        return [*self._averages, self._steps]

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self._steps.assign_add(1)
        steps = int(self._steps)
        if steps % EVERY:
            return
        read_back(self.model)
        kept = min(self._decay, (1 + steps) / (10 + steps)) ** EVERY
        for average, weight in zip(self._averages, self._weights, strict=True):
            # In this form what does not learn stays as it is to the last bit.
            average.assign(average + (1 - kept) * (weight - average))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The weights are the average meanwhile, and what they were afterwards."""
        learnt = [ops.convert_to_numpy(weight).copy() for weight in self._weights]
        for weight, average in zip(self._weights, self._averages, strict=True):
            weight.assign(average)
        try:
            yield
        finally:
            for weight, values in zip(self._weights, learnt, strict=True):
                weight.assign(values)


CHECKPOINT = "checkpoint.npz"
LOG = "log.csv"
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Position:
    """How far a run has come.

    Args:
        phase: Number of the phase it is in, from 0.
        epochs: How many of this phase are done.
        best: The highest mean accuracy so far, minus infinity before the first epoch.
        number: That epoch's number over all phases, from 1; 0 before the first.
        waited: Epochs of this phase since then.
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

    def is_behind(self, phase: Phase) -> bool:
        """Whether the phase is done."""
        return self.epochs == phase.epochs or self.has_waited(phase)


class Checkpoints:
    """The checkpoint of a run and the weights of its best epoch, in one folder.

    Args:
        own: Variables of the combined loss that learn along with the network.
    """

    def __init__(
        self,
        folder: Path,
        network: keras.Model,
        phases: Sequence[Phase],
        own: Sequence[keras.Variable] = (),
    ) -> None:
        self.folder, self._network, self._phases, self._own = folder, network, phases, own
        ids = set(map(id, network.weights))
        self.weights = [v for v in trainable_in(network, phases) if id(v) in ids]

    def begin(self, identity: Mapping[str, Any], resume: bool) -> Position:
        """Where to start: at the beginning, or to `resume` where the checkpoint was written.

        Args:
            identity: What a resumed run must have in common with the one that it goes on with.

        Raises:
            ValueError: The checkpoint is of a run with another identity, or damaged.
        """
        path, text = self.folder / SETTINGS, json.dumps(to_jsonable(identity), indent=1)
        if not (resume and (self.folder / CHECKPOINT).is_file()):
            for name in (LOG, SCORES):
                (self.folder / name).unlink(missing_ok=True)
            remove(self.folder)
            path.write_text(text)
            return Position()
        self._check_same_run(path.read_text(), text)
        phase, *others = _read(self.folder / CHECKPOINT, "position").tolist()
        position = Position(int(phase), int(others[0]), others[1], *map(int, others[2:]))
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

    def save(
        self,
        position: Position,
        changed: Sequence[keras.Variable],
        state: Sequence[keras.Variable],
    ) -> None:
        """Write a checkpoint; the one before, and its best epoch, stay until this one is whole.

        Args:
            changed: What the phases so far may have changed, of `changed`.
            state: What the phase needs besides: of optimisers and averages.
        """
        at = {"position": np.array(astuple(position), "float64")}
        arrays = at | _named("network", changed) | _named("optimizer", state)
        _write(self.folder / CHECKPOINT, arrays)
        for path in self.folder.glob("best-*.npz"):
            if path != self._best_path(position):
                path.unlink()

    def restore_state(self, state: Sequence[keras.Variable]) -> None:
        """Give optimisers and averages the values of the checkpoint."""
        _restore(self.folder / CHECKPOINT, "optimizer", state)

    def save_best(self, position: Position) -> None:
        """Write the weights of the best epoch so far."""
        _write(self._best_path(position), _named("weight", self.weights))

    def restore_best(self, position: Position) -> None:
        """Give the network the weights of the best epoch so far, if there is one."""
        if position.number:
            _restore(self._best_path(position), "weight", self.weights)

    def _best_path(self, position: Position) -> Path:
        return self.folder / f"best-{position.number}.npz"


def _identity(text: str) -> dict[str, Any] | None:
    """An identity with today's names, and defaults for settings that its writer did not know."""
    try:
        written = rename_keys(json.loads(text), OLD_NAMES)
        defaults = to_jsonable(asdict(Settings(phases=(FROZEN,))))
        return {**written, "settings": _completed(written["settings"], defaults)}
    except (ValueError, KeyError, TypeError):
        return None


def _completed(written: Any, default: Any) -> Any:
    if not isinstance(written, Mapping) or not isinstance(default, Mapping):
        return written
    return {**default, **{name: _completed(of, default.get(name)) for name, of in written.items()}}


def remove(folder: Path) -> None:
    """Remove what a finished run, or a new one, has no use for."""
    for path in (folder / CHECKPOINT, *folder.glob("best-*.npz")):
        path.unlink(missing_ok=True)


def sha256_of(variables: Sequence[keras.Variable]) -> str:
    """A hash of the values of variables."""
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    return digest.hexdigest()


def _restore(path: Path, prefix: str, variables: Sequence[keras.Variable]) -> None:
    for number, variable in enumerate(variables):
        variable.assign(_read(path, f"{prefix}{number}"))


def _named(prefix: str, variables: Sequence[keras.Variable]) -> dict[str, np.ndarray]:
    numbered = enumerate(map(keras.ops.convert_to_numpy, variables))
    return {f"{prefix}{number}": values for number, values in numbered}


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    part = path.with_name(f"part-{path.name}")
    np.savez(part, allow_pickle=False, **arrays)
    os.replace(part, path)


def _read(path: Path, name: str) -> np.ndarray:
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            return arrays[name]
    except (zipfile.BadZipFile, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Start the run anew with --overwrite."
        ) from None
