"""What a run writes down after each epoch, so that another one can go on with it.

The network's variables that no phase so far can have changed are left out: the resumed run
builds the network in the same way.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import keras
import numpy as np
from keras import ops

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


@dataclass(frozen=True)
class Position:
    """How far a run has come.

    Args:
        phase: Position of the phase it is in.
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


def save(
    folder: Path,
    position: Position,
    network: Sequence[keras.Variable],
    optimizer: Sequence[keras.Variable],
) -> None:
    """Write a checkpoint; the one before, and its best epoch, stay until this one is whole."""
    both = (("network", network), ("optimizer", optimizer))
    arrays = {"position": np.array(astuple(position), "float64")}
    for prefix, variables in both:
        arrays |= _named(prefix, variables)
    _write(folder / CHECKPOINT, arrays)
    for path in folder.glob("best-*.npz"):
        if path != best_path(folder, position):
            path.unlink()


def best_path(folder: Path, position: Position) -> Path:
    """Where the weights of the best epoch lie."""
    return folder / f"best-{position.number}.npz"


def remove(folder: Path) -> None:
    """Remove what a finished run, or a new one, has no use for."""
    for path in (folder / CHECKPOINT, *folder.glob("best-*.npz")):
        path.unlink(missing_ok=True)


def save_best(folder: Path, position: Position, weights: Sequence[keras.Variable]) -> None:
    """Write the weights of the best epoch so far."""
    _write(best_path(folder, position), _named("weight", weights))


def read_position(folder: Path) -> Position:
    """Where the checkpoint was written."""
    phase, epochs, best, number, waited = _read(folder / CHECKPOINT, "position").tolist()
    return Position(int(phase), int(epochs), best, int(number), int(waited))


def restore(path: Path, prefix: str, variables: Sequence[keras.Variable]) -> None:
    """Give variables their values of a file."""
    for number, variable in enumerate(variables):
        variable.assign(_read(path, f"{prefix}{number}"))


def sha256_of(variables: Sequence[keras.Variable]) -> str:
    """A hash of the values of variables."""
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    return digest.hexdigest()


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
