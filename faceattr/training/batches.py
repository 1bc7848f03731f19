"""Masked batches: augmented crops with targets, and beside them which task each row knows.

An unknown task is an all-zero target row and a 0 in the mask. The mask is taken from the
targets before anything smooths or mixes them, and reaches the loss as Keras' sample weight.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import keras
import numpy as np

from faceattr.data.dataset import Batch, LabeledDataset
from faceattr.training.augment import augment, mix_batch
from faceattr.training.config import Settings, TaskSampling
from faceattr.training.devices import own_share, rows_of_share
from faceattr.training.feature_cache import Features

FEWEST_STEPS = 20  # of an epoch


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


def _label_patterns(
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
        self._patterns, self._shares = _label_patterns(rows, names, settings.task_sampling)
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


def draw(
    rows: np.ndarray, shares: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw `count` of the rows ``(n,)`` in proportion to their shares ``(n,)``, each as often as
    that says, give or take one: systematic sampling (Madow and Madow 1944).
    """
    order = generator.permutation(len(rows))
    ends = np.cumsum(shares[order], dtype=float)
    places = (np.arange(count) + generator.random()) / max(count, 1) * ends[-1]
    chosen = np.minimum(np.searchsorted(ends, places, side="right"), len(rows) - 1)
    return generator.permutation(rows[order[chosen]])
