"""Features at the boundary of a phase: computed once per face and augmented copy, kept on disk.

What lies below the part that learns gives the same answer to the same crop all through a
phase, so it is asked once. Rows are drawn from a few augmented copies instead of being
augmented anew each time; everything above the boundary trains as ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import keras
import numpy as np
import platformdirs

from faceattr.data.crop_cache import CROPS, default_folder
from faceattr.data.dataset import Rows
from faceattr.data.store import FORMAT, Store, alone
from faceattr.training.augment import NO_AUGMENTATION, augment
from faceattr.training.boundary import fingerprint
from faceattr.training.config import Settings

TOGETHER = 64  # crops in one pass through the trunk
ENDING = ".features"
LOCK = "features.lock"
DTYPE = "float32"

Track = Callable[[Sequence[int], str], Iterable[int]]


def folder_in(cache: str | Path | None) -> Path:
    """Where features are kept: beside the crops, by default in the user's cache folder."""
    return Path(cache or platformdirs.user_cache_dir("faceattr"), "features")


def stores_in(cache: str | Path | None) -> list[Path]:
    """The files of crops and of features that lie in a cache folder, or in the user's own."""
    crops = Path(cache) if cache else default_folder()
    return sorted([*crops.glob(f"*{CROPS}"), *folder_in(cache).glob(f"*{ENDING}")])


class Features:
    """Features of crops of one size at one boundary.

    Args:
        settled: From crops to the boundary.
        also: More tensors of the same network: boundaries of later phases. One pass through
            the trunk brings them all.
        size: Side of the crops in pixels.
        folder: Where the stores lie.
        track: Shows how far a list has been worked through.
        draws: Numbers that decide, beside the seed, how copies are changed.
    """

    def __init__(
        self,
        settled: keras.Model,
        also: Sequence[keras.KerasTensor],
        size: int,
        folder: Path,
        track: Track,
        draws: Sequence[int] = (),
    ) -> None:
        parts = [settled, *(keras.Model(settled.input, tensor) for tensor in also)]
        self._size, self._folder, self._track = size, folder, track
        self._draws = tuple(draws)
        self.paths = [folder / f"{fingerprint(part)[:16]}-{size}{FORMAT}{ENDING}" for part in parts]
        self._shapes = [shape_of(part, size) for part in parts]
        outputs = zip(self.paths, parts, strict=True)
        self._trunk = keras.Model(settled.input, {path.name: part.output for path, part in outputs})
        self.array = np.zeros((0, *self._shapes[0]), DTYPE)

    def places(self, crops: np.ndarray, change: str, settings: Settings) -> np.ndarray:
        """Compute what is not yet known, and tell where in `array` each crop's features are.

        Args:
            crops: RGB ``uint8`` of shape ``(n, side, side, 3)``.
            change: Names an augmented copy; empty for crops as they are.
            settings: Say how copies are augmented.
        """
        drawn = (settings.seed, *self._draws)
        how = f"{change} {drawn} {settings.augmentation} {self._size}" if change else ""
        keys = [hashlib.sha256(crop.tobytes() + how.encode()).hexdigest() for crop in crops]
        with alone(self._folder / LOCK), ExitStack() as opened:
            stores = [
                opened.enter_context(Store(path, shape, DTYPE))
                for path, shape in zip(self.paths, self._shapes, strict=True)
            ]
            missing = [
                row
                for row, key in enumerate(keys)
                if any(store.place_of(key) is None for store in stores)
            ]
            for start in self._track(range(0, len(missing), TOGETHER), "features"):
                rows = missing[start : start + TOGETHER]
                looks = [self._look(crops[row], keys[row], how, settings) for row in rows]
                found = self._compute(looks)
                for store, path in zip(stores, self.paths, strict=True):
                    # The last batch was filled up, so there may be more values than rows.
                    named = zip(rows, found[path.name], strict=False)
                    store.append([(keys[row], values) for row, values in named])
            self.array = stores[0].array()
            return np.array([stores[0].place_of(key) for key in keys], dtype=np.int64)

    def _look(self, crop: np.ndarray, key: str, how: str, settings: Settings) -> np.ndarray:
        if not how:
            return crop
        generator = np.random.default_rng(int(key[:16], 16))
        return augment(crop[None], self._size, settings.augmentation, generator)[0]

    def _compute(self, looks: list[np.ndarray]) -> dict[str, np.ndarray]:
        # A last, smaller batch would compile the trunk again: fill it up instead.
        full = np.resize(np.stack(looks), (TOGETHER, *looks[0].shape))
        return self._trunk.predict_on_batch(full)


def shape_of(settled: keras.Model, size: int) -> tuple[int, ...]:
    """The shape of one crop's features."""
    return tuple(settled.compute_output_shape((1, size, size, 3))[1:])


class Copies:
    """Augmented copies of training rows; whenever a row is drawn, chance says which.

    Each epoch brings one more, until there are enough: the first one begins at once, and a
    short phase computes no more than it needs.
    """

    def __init__(self, features: Features, train: Rows, settings: Settings) -> None:
        self._features, self._crops, self._settings = features, train.crops, settings
        self._index = np.unique(train.index)
        self._places: list[np.ndarray] = []
        self.count = copies_wanted(settings)

    def prepare(self, epoch: int) -> None:
        """Have the copies that an epoch draws from, its number counted over all phases."""
        while len(self._places) < min(epoch + 1, self.count):
            number = f"copy {len(self._places)}"
            crops = self._crops[self._index]
            self._places.append(self._features.places(crops, number, self._settings))

    def draw(self, index: np.ndarray, epoch: int, generator: np.random.Generator) -> np.ndarray:
        """Features of some rows, each of a copy by chance.

        Args:
            index: The rows' places among the crops, ``(n,)``.
            epoch: Its number over all phases.
            generator: The source of chance.
        """
        which = generator.integers(min(epoch + 1, self.count), size=len(index))
        rows = np.searchsorted(self._index, index)
        return self._features.array[np.stack(self._places)[which, rows]]


def copies_wanted(settings: Settings) -> int:
    """How many copies differ at all."""
    return 1 if settings.augmentation == NO_AUGMENTATION else settings.copies
