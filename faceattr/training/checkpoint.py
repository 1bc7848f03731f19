"""What a run writes down after each epoch, so that another one can go on with it.

The network's variables that no phase so far can have changed are left out: the resumed run
builds the network in the same way.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import keras
import numpy as np

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
