"""Features below what learns: computed once per face and augmented copy, kept on disk.

The frozen part of a network gives the same answer to the same crop all through a phase, so it is
asked once. Rows are drawn from a few augmented copies instead of being augmented anew each
time; everything above the cut trains as ever.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from faceattr.data.dataset import LabeledDataset
from faceattr.data.store import FEATURES, FORMAT, delete_oldest, hold, open_store
from faceattr.model.vgg16 import convolutions
from faceattr.progress import SILENT, Progress
from faceattr.training.augment import augment
from faceattr.training.config import NO_AUGMENTATION, Phase, Settings
from faceattr.training.devices import batches_are_shared
from faceattr.training.optimizers import unfreeze


@dataclass(frozen=True)
class Cut:
    """A network cut in two; both parts share its layers.

    In `frozen`, from crops to the cut, nothing learns or is left to chance; `trainable` goes from
    the cut to the answers.
    """

    frozen: keras.Model
    trainable: keras.Model


def cut_network(network: keras.Model) -> Cut | None:
    """Cut a network as high as what learns in it allows.

    None where no single tensor has all that learns above it and a convolution below, as when the
    whole backbone learns or tasks part at the first layer.
    """
    for operation in reversed(network.operations):
        frozen = keras.Model(network.input, operation.output)
        if not convolutions(frozen):
            return None
        if not all(map(_is_frozen, frozen.operations)):
            continue
        try:
            return Cut(frozen, keras.Model(operation.output, network.output))
        except ValueError:  # some head reads a layer below: it is not connected to this tensor
            continue
    return None


def _is_frozen(operation: keras.Operation) -> bool:
    learns = getattr(operation, "trainable_variables", ())
    return not learns and getattr(operation, "seed_generator", None) is None


def trainable_in(network: keras.Model, phases: Sequence[Phase]) -> list[keras.Variable]:
    """The variables that may change in some of these phases, in the network's order."""
    frozen: set[int] | None = None
    for phase in phases:
        unfreeze(network, phase)
        cut = cut_network(network)
        own = {id(variable) for variable in cut.frozen.variables} if cut else set()
        frozen = own if frozen is None else frozen & own
    return [variable for variable in network.variables if id(variable) not in (frozen or ())]


def fingerprint(model: keras.Model) -> str:
    """A hash of what a model computes: its layers, how they are connected, and its weights."""
    text = re.sub('"trainable": (true|false)', "", model.to_json())
    text = text.replace(f'"{model.name}"', '"model"')
    for number, operation in enumerate(model.operations):
        # Keras numbers nameless operations through the whole process.
        text = text.replace(f'"{operation.name}"', f'"{number}"')
    return hash_of(model.variables, text)


def hash_of(variables: Iterable[keras.Variable], text: str = "") -> str:
    """The SHA-256 of a text and the values of variables."""
    digest = hashlib.sha256(text.encode())
    for variable in variables:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    return digest.hexdigest()


TOGETHER = 64  # crops in one pass through the backbone
DTYPE = "float32"
LIMIT = 4 * 1024**3  # bytes of features in the folder, of all runs together


class Features:
    """Features of crops of one size at one cut, in stores of a folder.

    Of training rows they are those of augmented copies; whenever a row is drawn, chance says of
    which. Each epoch brings one copy more, until there are enough: the first one begins at once,
    and a short phase computes no more than it needs.

    `also` are more tensors of the same network, cuts of later phases: one pass through the backbone
    brings them all.
    """

    def __init__(
        self, cache: FeatureCache, frozen: keras.Model, also: Sequence[keras.KerasTensor], size: int
    ) -> None:
        self._cache, self._size = cache, size
        parts = [frozen, *(keras.Model(frozen.input, tensor) for tensor in also)]
        ending = f"-{size}{FORMAT}{FEATURES}"
        self.paths = [cache.folder / f"{fingerprint(part)[:16]}{ending}" for part in parts]
        self._shapes = [shape_of(part, size) for part in parts]
        outputs = zip(self.paths, parts, strict=True)
        self._backbone = keras.Model(frozen.input, {at.name: part.output for at, part in outputs})
        self.array = np.zeros((0, *self._shapes[0]), DTYPE)
        self._index = np.unique(cache.train.index)
        self._copies = np.zeros((0, len(self._index)), int)  # the places of each

    def prepare(self, epoch: int) -> None:
        """Have the copies that an epoch draws from, its number counted over all phases."""
        while len(self._copies) < min(epoch + 1, self._cache.copies):
            change = f"copy {len(self._copies)}"
            places = self.places(self._cache.train.crops, self._index, change)
            self._copies = np.vstack([self._copies, places])

    def draw(self, index: np.ndarray, epoch: int, generator: np.random.Generator) -> np.ndarray:
        """Features of rows by their places among the crops ``(n,)``, each of a copy by chance."""
        which = generator.integers(min(epoch + 1, self._cache.copies), size=len(index))
        rows = np.searchsorted(self._index, index)
        return self.array[self._copies[which, rows]]

    def places(self, crops: np.ndarray, index: np.ndarray, change: str = "") -> np.ndarray:
        """Compute what is not yet known, and tell where in `array` they are, ``int64`` ``(n,)``.

        Args:
            crops: RGB ``uint8`` of shape ``(kept, side, side, 3)``, on the disk as a rule.
            index: The places of those that are meant, ``(n,)``.
            change: Names an augmented copy; empty for crops as they are.
        """
        settings, seed = self._cache.settings, (self._cache.settings.seed, *self._cache.seed_salt)
        how = f"{change} {seed} {settings.augmentation} {self._size}" if change else ""
        keys = [hashlib.sha256(crops[i].tobytes() + how.encode()).hexdigest() for i in index]
        with open_store(self._cache.folder) as store:
            stores = [
                store.rows(path.name, shape, DTYPE)
                for path, shape in zip(self.paths, self._shapes, strict=True)
            ]
            known = np.all([rows.places(keys) >= 0 for rows in stores], axis=0)
            missing = np.flatnonzero(~known).tolist()
            starts = range(0, len(missing), TOGETHER)
            for start in self._cache.progress.track(starts, "features"):
                rows = missing[start : start + TOGETHER]
                some = ((crops[index[row]], keys[row]) for row in rows)
                views = [self._augmented(crop, key) if how else crop for crop, key in some]
                found = self._compute(views)
                for kept, path in zip(stores, self.paths, strict=True):
                    # The last batch was filled up, so there may be more values than rows.
                    named = zip(rows, found[path.name], strict=False)
                    kept.put({keys[row]: values for row, values in named})
            self.array = stores[0].array()
            return stores[0].places(keys)

    def _augmented(self, crop: np.ndarray, key: str) -> np.ndarray:
        generator = np.random.default_rng(int(key[:16], 16))
        return augment(crop[None], self._size, self._cache.settings.augmentation, generator)[0]

    def _compute(self, views: list[np.ndarray]) -> dict[str, np.ndarray]:
        # A last, smaller batch would compile the backbone again: fill it up instead.
        full = np.resize(np.stack(views), (TOGETHER, *views[0].shape))
        with batches_are_shared(False):
            return self._backbone.predict_on_batch(full)


def shape_of(frozen: keras.Model, size: int) -> tuple[int, ...]:
    """The shape of one crop's features."""
    return tuple(frozen.compute_output_shape((1, size, size, 3))[1:])


@dataclass(frozen=True)
class CachedPhase:
    """A phase whose frozen part was computed beforehand.

    `trainable` goes from features to answers. Batches are drawn from `repeats`, by crop size; `val`
    has features in place of crops.
    """

    trainable: keras.Model
    repeats: Mapping[int, Features]
    val: LabeledDataset


@dataclass(frozen=True)
class FeatureCache:
    """The features of a run's training and validation rows, kept in a folder, phase by phase.

    `seed_salt` decides beside the settings' seed how copies are augmented.
    """

    folder: Path
    settings: Settings
    train: LabeledDataset
    val: LabeledDataset
    seed_salt: Sequence[int] = ()
    progress: Progress = SILENT

    @property
    def copies(self) -> int:
        """Of each face; without augmentation all would be alike."""
        is_plain = self.settings.augmentation == NO_AUGMENTATION
        return 1 if is_plain else self.settings.augment_repeats

    def prepare_phase(self, network: keras.Model, number: int) -> CachedPhase | None:
        """Prepare phase `number`, from 0; None where it has to be trained on crops."""
        cut, *later = self._cuts(network, number)
        if cut is None:
            return None
        phase, own_size = self.settings.phases[number], self.train.crops.shape[1]
        sizes = {own_size, *(size for *_, size in phase.size_stages(own_size))}
        needed = sum(self._bytes(cut.frozen, size) for size in sizes)
        if needed > self._room():
            self.progress.show(
                f"{phase.name}: features of {len(self.train):,} faces would take "
                f"{needed / 1e9:.1f} GB, so every crop is computed anew, as with "
                "--augment-repeats 0"
            )
            return None
        also, needed = self._with_later(cut, later, needed, own_size)
        features = {size: Features(self, cut.frozen, also, size) for size in sizes}
        self._make_room(needed, [path for of in features.values() for path in of.paths])
        return CachedPhase(cut.trainable, features, self._val_on(features[own_size]))

    def _cuts(self, network: keras.Model, number: int) -> list[Cut | None]:
        """Where this phase and the later ones cut the network; this one's state is left."""
        cuts: list[Cut | None] = []
        for phase in reversed(self.settings.phases[number:]):
            unfreeze(network, phase)
            cuts.insert(0, cut_network(network))
        return cuts

    def _with_later(
        self, cut: Cut, later: Iterable[Cut | None], needed: int, size: int
    ) -> tuple[list[keras.KerasTensor], int]:
        """The tensors of later cuts that there is room for, and the bytes needed with them."""
        also: list[keras.KerasTensor] = []
        for other in filter(None, later):
            tensor, more = other.frozen.output, self._bytes(other.frozen, size)
            is_new = not any(tensor is one for one in (cut.frozen.output, *also))
            if is_new and needed + more <= self._room():
                also, needed = [*also, tensor], needed + more
        return also, needed

    def _bytes(self, frozen: keras.Model, size: int) -> int:
        rows = self.copies * len(np.unique(self.train.index)) + len(self.val)
        return rows * int(np.prod(shape_of(frozen, size))) * np.dtype(DTYPE).itemsize

    def _room(self) -> int:
        """Bytes that may be kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return min(LIMIT, shutil.disk_usage(self.folder).free)

    def _make_room(self, needed: int, own: Collection[Path]) -> None:
        """Hold the own stores, and delete others until there is room, but none that a run uses."""
        for path in own:
            hold(path)
        others = [path for path in self.folder.glob(f"*{FEATURES}") if path not in own]
        delete_oldest(others, LIMIT - needed)

    def _val_on(self, features: Features) -> LabeledDataset:
        """The validation rows with features in place of crops."""
        used, index = np.unique(self.val.index, return_inverse=True)
        places = features.places(self.val.crops, used)
        return LabeledDataset(features.array, places[index], self.val.targets)
