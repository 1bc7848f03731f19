"""Features at the boundary of a phase: computed once per face and augmented copy, kept on disk.

What lies below the part that learns gives the same answer to the same crop all through a
phase, so it is asked once. Rows are drawn from a few augmented copies instead of being
augmented anew each time; everything above the boundary trains as ever.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from faceattr.data.dataset import LabeledDataset
from faceattr.data.store import FEATURES, FORMAT, delete_oldest, hold, open_store
from faceattr.model.vgg16 import convolutions
from faceattr.training.augment import NO_AUGMENTATION, augment
from faceattr.training.config import Phase, Settings


@dataclass(frozen=True)
class Cut:
    """A network cut in two; both parts share its layers.

    Args:
        settled: From crops to the boundary: nothing in it learns or is left to chance.
        learning: From the boundary to the answers.
    """

    settled: keras.Model
    learning: keras.Model

    @property
    def boundary(self) -> keras.KerasTensor:
        return self.settled.output


def cut_network(network: keras.Model) -> Cut | None:
    """Cut a network as high as what learns in it allows.

    Returns:
        None where no single tensor has all that learns above it and a convolution below, as
        when the whole trunk learns or tasks part at the first layer.
    """
    for operation in reversed(network.operations):
        settled = keras.Model(network.input, operation.output)
        if not convolutions(settled):
            return None
        if not all(map(_is_settled, settled.operations)):
            continue
        try:
            return Cut(settled, keras.Model(operation.output, network.output))
        except ValueError:  # some head is tapped below: it is not connected to this tensor
            continue
    return None


def _is_settled(operation: keras.Operation) -> bool:
    learns = getattr(operation, "trainable_variables", ())
    return not learns and getattr(operation, "seed_generator", None) is None


def changing(network: keras.Model, phases: Sequence[Phase]) -> list[keras.Variable]:
    """The variables that may change in some of these phases, in the network's order."""
    settled: set[int] | None = None
    for phase in phases:
        phase.open(network)
        cut = cut_network(network)
        own = {id(variable) for variable in cut.settled.variables} if cut else set()
        settled = own if settled is None else settled & own
    return [variable for variable in network.variables if id(variable) not in (settled or ())]


def fingerprint(model: keras.Model) -> str:
    """A hash of what a model computes: its layers, how they are connected, and its weights."""
    text = re.sub('"trainable": (true|false)', "", model.to_json())
    text = text.replace(f'"{model.name}"', '"model"')
    for number, operation in enumerate(model.operations):
        # Keras numbers nameless operations through the whole process.
        text = text.replace(f'"{operation.name}"', f'"{number}"')
    digest = hashlib.sha256(text.encode())
    for variable in model.variables:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    return digest.hexdigest()


TOGETHER = 64  # crops in one pass through the trunk
DTYPE = "float32"

Track = Callable[[Sequence[int], str], Iterable[int]]


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
        self.paths = [
            folder / f"{fingerprint(part)[:16]}-{size}{FORMAT}{FEATURES}" for part in parts
        ]
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
        with open_store(self._folder) as store:
            stores = [
                store.rows(path.name, shape, DTYPE)
                for path, shape in zip(self.paths, self._shapes, strict=True)
            ]
            known = np.all([rows.places(keys) >= 0 for rows in stores], axis=0)
            missing = np.flatnonzero(~known).tolist()
            for start in self._track(range(0, len(missing), TOGETHER), "features"):
                rows = missing[start : start + TOGETHER]
                looks = [self._look(crops[row], keys[row], how, settings) for row in rows]
                found = self._compute(looks)
                for kept, path in zip(stores, self.paths, strict=True):
                    # The last batch was filled up, so there may be more values than rows.
                    named = zip(rows, found[path.name], strict=False)
                    kept.put({keys[row]: values for row, values in named})
            self.array = stores[0].array()
            return stores[0].places(keys)

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


class CachedAugmentations:
    """Augmented copies of training rows; whenever a row is drawn, chance says which.

    Each epoch brings one more, until there are enough: the first one begins at once, and a
    short phase computes no more than it needs.
    """

    def __init__(self, features: Features, train: LabeledDataset, settings: Settings) -> None:
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
    copies: Mapping[int, CachedAugmentations]
    val: LabeledDataset


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
        train: LabeledDataset,
        val: LabeledDataset,
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
        copies = {
            size: CachedAugmentations(of, self._train, self._settings)
            for size, of in features.items()
        }
        return Frozen(cuts[0].learning, copies, self._seen(features[own_size]))

    def _cuts(self, network: keras.Model, position: int) -> list[Cut | None]:
        """Where this phase and the later ones cut the network; this one's state is left."""
        cuts: list[Cut | None] = []
        for phase in reversed(self._settings.phases[position:]):
            phase.open(network)
            cuts.insert(0, cut_network(network))
        return cuts

    def _seen(self, features: Features) -> LabeledDataset:
        """The validation rows with features in place of crops."""
        used, index = np.unique(self._val.index, return_inverse=True)
        places = features.places(self._val.crops[used], "", self._settings)
        return LabeledDataset(features.array, places[index], self._val.targets)

    def _bytes(self, settled: keras.Model, size: int) -> int:
        copies = copies_wanted(self._settings) * len(np.unique(self._train.index))
        row = int(np.prod(shape_of(settled, size))) * np.dtype(DTYPE).itemsize
        return row * (copies + len(self._val))

    def _free(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._folder).free

    def _take_room(self, needed: int, own: Collection[Path]) -> None:
        """Hold the own stores, and delete others until there is room, but none that a run uses."""
        for path in own:
            hold(path)
        others = [path for path in self._folder.glob(f"*{FEATURES}") if path not in own]
        delete_oldest(others, LIMIT - needed)
