"""Masked batches: augmented crops with targets, and beside them which task each row knows.

An unknown task is an all-zero target row and a 0 in the mask. The mask is taken from the
targets before anything smooths or mixes them, and reaches the loss as Keras' sample weight.

Every data set is augmented alike. FER2013 is grey, small and tight; other sets are in colour with
a margin: unless every row gets random grey, resolution, margin and shift, a shared backbone learns
which set it looks at.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import cv2
import keras
import numpy as np

from faceattr.data.dataset import Batch, LabeledDataset, class_prior, draw
from faceattr.images.distort import compressed, shrunk, turned_away
from faceattr.training.config import Augmentation, Settings, TaskSampling
from faceattr.training.devices import own_share, rows_of_share

if TYPE_CHECKING:
    from faceattr.training.feature_cache import Features

FEWEST_STEPS = 20  # of an epoch
BLACK = 20  # below it a pixel is black, also after lossy compression
LEAST_OUTSIDE, MOST_OUTSIDE = 0.03, 0.7  # share of a crop that a surrounding takes


def is_by_source(sampling: TaskSampling, tasks: Collection[str], sources: Collection[str]) -> bool:
    """Whether the shares of a task sampling are those of sources; ValueError where they are
    neither those of all sources nor those of all tasks."""
    if sampling.shares is None or set(sampling.shares) == set(tasks):
        return False
    if strangers := sorted(set(sampling.shares) - set(tasks) - set(sources)):
        raise ValueError(
            f"There is no task or source {', '.join(strangers)} to mix. The tasks are "
            f"{', '.join(tasks)}; the sources are {', '.join(sorted(sources))}."
        )
    if set(sampling.shares) != set(sources):
        raise ValueError(
            f"Shares of a batch are given for every task ({', '.join(tasks)}), for every "
            f"source ({', '.join(sorted(sources))}), or for none. "
            f"Received: {dict(sampling.shares)}"
        )
    return True


def wanted_shares(sampling: TaskSampling, names: Sequence[str], known: np.ndarray) -> np.ndarray:
    """The labelled rows that each task shall have, in proportion: ``(tasks,)``, sum 1.

    `known` tells which task each row knows, ``bool`` ``(n, tasks)``.
    """
    if sampling.shares is None:
        weights = known.sum(axis=0).astype(float) ** (1 / sampling.temperature)
    else:
        weights = np.array([float(sampling.shares[name]) for name in names])
    return weights / weights.sum()


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """As many batches as draw each row once on average; a tiny set gets more."""
    return max(FEWEST_STEPS, round(rows / batch_size))


def label_patterns(
    rows: LabeledDataset, names: Sequence[str], sampling: TaskSampling
) -> tuple[list[np.ndarray], np.ndarray]:
    """The rows of each pattern of known tasks, and how much of the batches each pattern gets.

    Where the shares are those of sources, the rows of a source take the place of a pattern.

    Returns:
        For each pattern its rows ``(n,)``, and the shares of the patterns ``(patterns,)``, sum 1.
    """
    sources = rows.sources
    if is_by_source(sampling, names, set(sources)):
        stated = dict(sampling.shares or {})
        shares = np.array([float(share) for share in stated.values()])
        return [np.flatnonzero(sources == name) for name in stated], shares / shares.sum()
    known = rows.known[:, rows.known.any(axis=0)]
    patterns, of_row, counts = np.unique(known, axis=0, return_inverse=True, return_counts=True)
    members = [np.flatnonzero(of_row == pattern) for pattern in range(len(patterns))]
    wanted = wanted_shares(sampling, names, known)
    return members, pattern_shares(patterns.astype(float), counts, wanted)


def pattern_shares(patterns: np.ndarray, counts: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How much of the batches each pattern gets so that the tasks get what is wanted.

    Rows are drawn for one task at a time, evenly among those that know it. How often each
    task draws is adjusted until the labelled rows are in the wanted proportion, as far as
    overlapping patterns allow it; no task draws less than half of its share, so that no
    pattern is lost to the balance. Disjoint patterns meet `wanted` exactly.

    Args:
        patterns: Which task each pattern knows, 0 or 1, ``(patterns, tasks)``.
        counts: How many rows there are of each pattern, ``(patterns,)``.
        wanted: Labelled rows per task, in proportion, sum 1, ``(tasks,)``.

    Returns:
        Probabilities of shape ``(patterns,)``.
    """
    of_task = patterns * counts[:, None] / (patterns * counts[:, None]).sum(axis=0)
    draws = wanted
    for _ in range(200):
        labelled = (of_task @ draws) @ patterns
        draws = np.maximum(draws * wanted * labelled.sum() / labelled, wanted / 2)
        draws = draws / draws.sum()
    return of_task @ draws


class MaskedBatches(keras.utils.PyDataset):
    """Endless training batches, each epoch's order fixed by seed and epoch number.

    Every batch holds the same number of rows of each pattern of known tasks, give or take one or
    two. An epoch draws as many rows as there are, but at least 20 batches, and repeats no row of a
    pattern before it has drawn them all. A batch depends on seed, epoch and step alone, so a
    resumed run sees what an unbroken one would have seen.

    Args:
        size: Side of the crops that come out, in pixels.
        settings: How rows are drawn, augmented and mixed.
        seed: Decides order and augmentation, in place of that of the settings.
        epoch: Number of the first epoch.
        features: What batches hold in place of augmented crops.
    """

    def __init__(
        self,
        rows: LabeledDataset,
        size: int,
        settings: Settings,
        *,
        seed: Sequence[int] = (),
        epoch: int = 0,
        steps: int | None = None,
        features: Features | None = None,
    ) -> None:
        super().__init__()
        self._rows, self._size, self._settings = rows, size, settings
        self._steps = steps or steps_per_epoch(len(rows), settings.batch_size)
        self._seed, self._epoch, self._features = seed or (settings.seed,), epoch, features
        names = [name for name, target in rows.targets.items() if target.any()]
        if not names:
            raise ValueError(
                f"Training rows know a task at least. Received: {len(rows):,} rows without a label "
                f"of {', '.join(rows.targets)}."
            )
        self._patterns, self._shares = label_patterns(rows, names, settings.task_sampling)
        self._chances, self._share = rows.sampling_weights, own_share()
        self._plan, self._began = self._planned(), False
        self._prepare()

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        return rows_of_share(self._whole(step), self._share)

    def _whole(self, step: int) -> Batch:
        """The batch of all machines."""
        rows = self._plan[step]
        crops, chosen, masks = self._rows.batch(rows)
        generator = np.random.default_rng([*self._seed, self._epoch, step])
        if self._features:
            drawn = self._features.draw(self._rows.index[rows], self._epoch, generator)
            return drawn, chosen, masks
        crops = augment(crops, self._size, self._settings.augmentation, generator)
        kinds = self._settings.mixup, self._settings.cutmix
        return mix_batch((crops, chosen, masks), *kinds, generator)

    def _prepare(self) -> None:
        if self._features:
            self._features.prepare(self._epoch)

    def on_epoch_begin(self) -> None:
        self._began = True
        self._prepare()

    def on_epoch_end(self) -> None:
        if not self._began:  # Keras' fit ends an epoch before the first one
            return
        self._epoch += 1
        self._plan = self._planned()

    def _planned(self) -> np.ndarray:
        """The rows of every batch of this epoch, shape ``(steps, batch_size)``."""
        generator = np.random.default_rng([*self._seed, self._epoch])
        drawn = np.empty(self._steps * self._settings.batch_size, int)
        slots = stratified_interleave(self._shares, len(drawn))
        for pattern, rows in enumerate(self._patterns):
            own = np.flatnonzero(slots == pattern)
            if self._rows.balance == "sampling":
                drawn[own] = draw(rows, self._chances[rows], len(own), generator)
                continue
            passes = [generator.permutation(rows) for _ in range(1 + len(own) // len(rows))]
            drawn[own] = np.concatenate(passes)[: len(own)]
        return drawn.reshape(self._steps, -1)


def stratified_interleave(shares: np.ndarray, slots: int) -> np.ndarray:
    """Which pattern each slot gets, ``(slots,)``: every pattern as evenly over the slots as can be;
    `shares` are the patterns' probabilities, ``(patterns,)``, sum 1."""
    counts = np.floor(shares * slots).astype(int)
    short = slots - counts.sum()
    counts[np.argsort(counts - shares * slots, kind="stable")[:short]] += 1
    patterns = np.repeat(np.arange(len(shares)), counts)
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count])
    return patterns[np.argsort(places, kind="stable")]


def augment(
    crops: np.ndarray, size: int, how: Augmentation, generator: np.random.Generator
) -> np.ndarray:
    """Change crops at random.

    Args:
        crops: RGB ``uint8`` of shape ``(n, side, side, 3)``.
        size: Side of the result in pixels.
        how: What may happen to a crop.
        generator: The source of chance; the same state gives the same result.

    Returns:
        RGB ``uint8`` of shape ``(n, size, size, 3)``.
    """
    result = np.empty((len(crops), size, size, 3), "uint8")
    for row, face in enumerate(crops):
        if how.fill and generator.random() < how.fill:
            face = _filled(face, crops[row - 1], generator)
        face = _moved(face, size, how, generator)
        if generator.random() < how.grey:
            face = np.repeat(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        if generator.random() < how.blur:
            face = shrunk(face, int(generator.integers(min(how.smallest, size), size + 1)))
        face = _lit(face, how.light, generator)
        if how.dark and generator.random() < how.dark:
            face = cv2.convertScaleAbs(face, alpha=generator.uniform(0.15, 0.7))
        if how.jpeg and generator.random() < how.jpeg:
            face = compressed(face, int(generator.integers(10, 71)))
        if generator.random() < how.erase:
            _erase(face, generator)
        result[row] = face
    return result


def _moved(
    face: np.ndarray, size: int, how: Augmentation, generator: np.random.Generator
) -> np.ndarray:
    """Flip, turn, zoom, shift and resize in one affine warp, so pixels are resampled once."""
    side = face.shape[0]
    mirror = -1.0 if generator.random() < how.flip else 1.0
    angle = np.deg2rad(generator.uniform(-how.turn, how.turn))
    scale = size / side * (1 + generator.uniform(-how.zoom, how.zoom))
    shift = size * generator.uniform(-how.shift, how.shift, 2)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[mirror * cos, -sin], [mirror * sin, cos]])
    # Pixel centres: the middle of a side of n pixels is (n - 1) / 2.
    offset = (size - 1) / 2 + shift - linear @ np.full(2, (side - 1) / 2)
    matrix = np.column_stack([linear, offset])
    warp = cv2.warpAffine
    if how.yaw:
        far, mirrored = generator.uniform(0, how.yaw), generator.random() < 0.5
        matrix = np.vstack([matrix, [0, 0, 1]]) @ turned_away(side, far, mirrored=mirrored)
        warp = cv2.warpPerspective
    return warp(face, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _filled(face: np.ndarray, other: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The face with something else in place of a black surrounding, if it has one."""
    dark = (face.max(axis=2) < BLACK).astype("uint8")
    _, areas = cv2.connectedComponents(dark)
    border = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
    outside = np.isin(areas, border[border > 0]) & (dark > 0)
    if not LEAST_OUTSIDE < outside.mean() < MOST_OUTSIDE:
        return face
    outside = cv2.dilate(outside.astype("uint8"), np.ones((3, 3), "uint8")) > 0
    if generator.random() < 0.5:  # smooth noise: a wall, a sky, somebody behind
        coarse = generator.integers(0, 256, (*generator.integers(1, 9, 2), 3), dtype="uint8")
        other = cv2.resize(coarse, face.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(outside[..., None], other, face)


def _lit(face: np.ndarray, most: float, generator: np.random.Generator) -> np.ndarray:
    """Contrast around the mean and brightness."""
    contrast = 1 + generator.uniform(-most, most)
    brightness = 255 * generator.uniform(-most, most) / 2
    offset = face.mean() * (1 - contrast) + brightness
    table = np.clip(np.rint(np.arange(256) * contrast + offset), 0, 255).astype("uint8")
    return cv2.LUT(face, table)


def _erase(face: np.ndarray, generator: np.random.Generator) -> None:
    size = face.shape[0]
    height, width = generator.integers(size // 8, size // 2, 2)
    top, left = generator.integers(0, size - height + 1), generator.integers(0, size - width + 1)
    noise = generator.integers(0, 256, (height, width, 3), dtype="uint8")
    face[top : top + height, left : left + width] = noise


def mix_batch(batch: Batch, mixup: float, cutmix: float, generator: np.random.Generator) -> Batch:
    """Mix each row with another that knows the same tasks, so that no label meets an unknown one.

    One share is drawn for the whole batch, from a Beta distribution with the same parameter twice.
    Where both are asked for, chance says which.

    Args:
        batch: Crops RGB ``uint8`` ``(n, side, side, 3)``, targets and masks by task.
        mixup: Parameter of mixup (Zhang et al. 2018): a weighted mean of two crops; 0: never.
        cutmix: Parameter of CutMix (Yun et al. 2019): a rectangle of one in the other; 0: never.
        generator: The source of chance.

    Returns:
        A batch of the same form. A row that knows no task is mixed with others that know none.
    """
    kinds = [kind for kind in ((_mean, mixup), (_patch, cutmix)) if kind[1]]
    if not kinds:
        return batch
    mix, parameter = kinds[int(generator.integers(len(kinds)))]
    share = float(generator.beta(parameter, parameter))
    crops, targets, masks = batch
    partner = _partners(masks, generator)
    crops, share = mix(crops, crops[partner], share, generator)

    def both(values: np.ndarray) -> np.ndarray:
        return (share * values + (1 - share) * values[partner]).astype(values.dtype)

    every = {}
    for name, mask in masks.items():
        # A row that weighs more has more of the mixed label: weights and labels mixed one by one
        # would give rare classes less than their balance.
        weights, total = mask[:, None], both(mask)[:, None]
        target = both(weights * targets[name])
        every[name] = np.divide(target, total, out=np.zeros_like(target), where=total > 0)
        if (prior := class_prior(name)) in targets:  # shares are mixed as labels are
            shares = np.exp(targets[prior])
            mixed = both(weights * shares)
            every[prior] = np.log(np.divide(mixed, total, out=both(shares), where=total > 0))
    return crops, every, {name: both(values) for name, values in masks.items()}


def _partners(masks: dict[str, np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """For each row another one that knows the same tasks, or itself where there is none."""
    known = np.stack([mask > 0 for mask in masks.values()], axis=1)
    _, pattern = np.unique(known, axis=0, return_inverse=True)
    partner = np.arange(len(known))
    for kind in np.unique(pattern):
        rows = np.flatnonzero(pattern == kind)
        partner[rows] = generator.permutation(rows)
    return partner


def _mean(crops, others, share, generator) -> tuple[np.ndarray, float]:
    mean = share * crops.astype("float32") + (1 - share) * others
    return np.rint(mean).astype("uint8"), share


def _patch(crops, others, share, generator) -> tuple[np.ndarray, float]:
    """A rectangle of `others` in `crops`, and the share of the crops that is left."""
    side = crops.shape[1]
    length = round(side * float(np.sqrt(1 - share)))
    top, left = generator.integers(0, side - length + 1, 2)
    crops = crops.copy()
    crops[:, top : top + length, left : left + length] = others[
        :, top : top + length, left : left + length
    ]
    return crops, 1 - (length / side) ** 2
