"""Phases that train on features: which of them can, and what they need for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from faceattr.data.dataset import Rows
from faceattr.data.store import alone, delete_oldest, hold
from faceattr.training.boundary import Split, split
from faceattr.training.config import Settings
from faceattr.training.feature_cache import (
    DTYPE,
    ENDING,
    LOCK,
    Copies,
    Features,
    Track,
    copies_wanted,
    shape_of,
)

LIMIT = 4 * 1024**3  # bytes of features in the folder, of all runs together


@dataclass(frozen=True)
class Frozen:
    """A phase whose lower part was computed beforehand.

    Args:
        learning: From features to answers; its layers are the network's own.
        copies: By crop size, what training batches are drawn from.
        val: The validation rows, with features in place of crops.
    """

    learning: keras.Model
    copies: Mapping[int, Copies]
    val: Rows


class FeatureCache:
    """The features of a run's rows, phase by phase.

    Args:
        folder: Where they are kept.
        settings: Of the run.
        train: Training rows.
        val: Validation rows.
        track: Shows how far a list has been worked through.
        tell: Takes a sentence for the user.
        draws: As for `faceattr.training.trainer.fit`.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        train: Rows,
        val: Rows,
        track: Track,
        tell: Callable[[str], None],
        draws: Sequence[int] = (),
    ) -> None:
        self._folder, self._settings, self._draws = folder, settings, draws
        self._train, self._val, self._track, self._tell = train, val, track, tell

    def enter(self, network: keras.Model, position: int) -> Frozen | None:
        """Prepare the phase at `position`; None where it has to be trained on crops."""
        cuts = self._cuts(network, position)
        if cuts[0] is None:
            return None
        phase, own_size = self._settings.phases[position], self._train.crops.shape[1]
        sizes = {own_size, *(size for *_, size in phase.stretches(own_size))}
        needed = sum(self._bytes(cuts[0].settled, size) for size in sizes)
        if needed > min(LIMIT, self._free()):
            self._tell(
                f"{phase.name}: features of {len(self._train):,} faces would take "
                f"{needed / 1e9:.1f} GB, so every crop is computed anew (--copies 0 says so)"
            )
            return None
        also: list[keras.KerasTensor] = []
        for cut in filter(None, cuts[1:]):
            if any(cut.boundary is tensor for tensor in (cuts[0].boundary, *also)):
                continue
            more = self._bytes(cut.settled, own_size)
            if needed + more <= min(LIMIT, self._free()):
                also, needed = [*also, cut.boundary], needed + more
        features = {
            size: Features(cuts[0].settled, also, size, self._folder, self._track, self._draws)
            for size in sizes
        }
        self._take_room(needed, [path for of in features.values() for path in of.paths])
        copies = {size: Copies(of, self._train, self._settings) for size, of in features.items()}
        return Frozen(cuts[0].learning, copies, self._seen(features[own_size]))

    def _cuts(self, network: keras.Model, position: int) -> list[Split | None]:
        """Where this phase and the later ones cut the network; this one's state is left."""
        cuts: list[Split | None] = []
        for phase in reversed(self._settings.phases[position:]):
            phase.open(network)
            cuts.insert(0, split(network))
        return cuts

    def _seen(self, features: Features) -> Rows:
        """The validation rows with features in place of crops."""
        used, index = np.unique(self._val.index, return_inverse=True)
        places = features.places(self._val.crops[used], "", self._settings)
        return Rows(features.array, places[index], self._val.targets)

    def _bytes(self, settled: keras.Model, size: int) -> int:
        copies = copies_wanted(self._settings) * len(np.unique(self._train.index))
        row = int(np.prod(shape_of(settled, size))) * np.dtype(DTYPE).itemsize
        return row * (copies + len(self._val))

    def _free(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._folder).free

    def _take_room(self, needed: int, own: Collection[Path]) -> None:
        """Hold the own stores, and delete others until there is room, but none that a run uses."""
        with alone(self._folder / LOCK):
            for path in own:
                hold(path)
            others = [path for path in self._folder.glob(f"*{ENDING}") if path not in own]
            delete_oldest(others, LIMIT - needed)
