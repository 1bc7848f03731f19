"""Labelled crops of one split, with targets and masks by task."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from faceattr.data.manifest import Example, targets
from faceattr.data.store import CachedCrops
from faceattr.tasks import Task

BALANCES = ("none", "weights", "sampling")


def class_weights(target: np.ndarray) -> np.ndarray:
    """By class, the weight that makes all classes of a task count the same.

    Args:
        target: Target rows ``(n, classes)``; all-zero rows do not count.

    Returns:
        ``(classes,)``; over the labelled rows the mean weight is 1. A class without a row has 0.
    """
    counts = target.sum(axis=0, dtype=float)
    occurring = counts > 0
    weights = np.zeros(len(counts))
    weights[occurring] = counts.sum() / (occurring.sum() * counts[occurring])
    return weights


def row_weights(target: np.ndarray) -> np.ndarray:
    """The weights of rows in one task's loss, ``float32`` ``(n,)``: 0 where it is unknown."""
    return (target @ class_weights(target)).astype("float32")


def log_prior(target: np.ndarray) -> np.ndarray:
    """The logarithm of each class's share of the labelled rows, ``float32`` ``(classes,)``.

    Half a row is added to every class, so that one that does not occur has a share as well.
    """
    counts = target.sum(axis=0, dtype=float) + 0.5
    return np.log(counts / counts.sum()).astype("float32")


def log_priors(target: np.ndarray, sources: np.ndarray, of: np.ndarray) -> np.ndarray:
    """For each row the logarithm of the class shares of its source, ``float32`` ``(m, classes)``.

    A head that is trained on its answers times these shares (balanced softmax, Ren et al. 2020;
    logit adjustment, Menon et al. 2021) does not learn how often a source shows each class, and
    answers as if all were equally frequent.

    Args:
        target: Target rows of the training rows, ``(n, classes)``; all-zero rows do not count.
        sources: The name of each one's source, ``(n,)``.
        of: The names of the sources of the rows that are asked for, ``(m,)``. A source that has
            no training row gets the shares of all.
    """
    found = np.empty((len(of), target.shape[1]), "float32")
    for name in np.unique(of):
        own = sources == name
        found[of == name] = log_prior(target[own] if own.any() else target)
    return found


def sampling_weights(targets: Mapping[str, np.ndarray]) -> np.ndarray:
    """How often each row is drawn, in proportion ``(n,)``, so that classes come equally often.

    A row that knows several tasks is drawn as if a task were chosen at random first; with one
    task the classes come out equal, with several as nearly as their overlap allows. One that knows
    none counts 1.
    """
    known = sum(target.any(axis=1).astype(int) for target in targets.values())
    drawn = sum(row_weights(target) for target in targets.values())
    return np.where(known, drawn / np.maximum(known, 1), 1.0)


def draw(
    rows: np.ndarray, shares: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw rows in proportion to their shares, each as often as that says, give or take one.

    Args:
        rows: Numbers of rows, ``(n,)``.
        shares: How often each is drawn, in proportion, ``(n,)``.
        count: How many to draw.
        generator: Decides which, and their order.

    Returns:
        Numbers of rows, ``(count,)``.

    Source: systematic sampling (Madow and Madow 1944).
    """
    order = generator.permutation(len(rows))
    ends = np.cumsum(shares[order], dtype=float)
    places = (np.arange(count) + generator.random()) / max(count, 1) * ends[-1]
    chosen = np.minimum(np.searchsorted(ends, places, side="right"), len(rows) - 1)
    return generator.permutation(rows[order[chosen]])


Batch = tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class LabeledDataset:
    """Labelled crops of one split.

    Args:
        crops: RGB ``uint8`` of shape ``(kept, size, size, 3)``.
        index: For each row its place in `crops`, shape ``(n,)``.
        targets: By task ``float32`` of shape ``(n, classes)``, all zeros where unknown.
        examples: For each row what it was read from; empty where nobody will ask.
        balance: ``"weights"`` lets all classes of a task count the same in its loss,
            ``"sampling"`` shows them equally often, ``"none"`` takes rows as they are.
        soft: Tasks whose targets are in part another model's answers; their classes are not
            balanced.
        log_priors: By task ``float32`` of shape ``(n, classes)``: the logarithm of the class
            shares of each row's source, see `faceattr.data.dataset.log_priors`. Batches hold
            them beside the targets, under `class_prior` their task.
    """

    crops: np.ndarray
    index: np.ndarray
    targets: Mapping[str, np.ndarray]
    examples: Sequence[Example] = ()
    balance: str = "none"
    soft: tuple[str, ...] = ()
    log_priors: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def known(self) -> np.ndarray:
        """Which task each row knows, ``bool`` of shape ``(n, tasks)``."""
        return np.stack([mask(target) > 0 for target in self.targets.values()], axis=1)

    @property
    def sources(self) -> np.ndarray:
        """The name of the source that each row came from, ``(n,)``."""
        return np.array([example.source for example in self.examples])

    @cached_property
    def masks(self) -> Mapping[str, np.ndarray]:
        """By task, what each row counts in its loss, ``(n,)``: 0 where the task is unknown."""
        return {
            name: row_weights(target)
            if self.balance == "weights" and name not in self.soft
            else mask(target)
            for name, target in self.targets.items()
        }

    @property
    def sampling_weights(self) -> np.ndarray:
        """How often each row is drawn among those that know the same tasks, in proportion."""
        # To the balance, a soft task is as good as unknown.
        return sampling_weights(
            {name: t * (name not in self.soft) for name, t in self.targets.items()}
        )

    def batch(self, rows: np.ndarray) -> Batch:
        """Crops, targets by task and masks by task of some rows."""
        chosen = {name: target[rows] for name, target in self.targets.items()}
        chosen |= {class_prior(name): prior[rows] for name, prior in self.log_priors.items()}
        masks = {name: known[rows] for name, known in self.masks.items()}
        return self.crops[self.index[rows]], chosen, masks

    def only(self, task: str) -> LabeledDataset:
        """The rows that know a task, with its targets alone."""
        known = self.take(np.flatnonzero(mask(self.targets[task])))
        priors = {name: of for name, of in known.log_priors.items() if name == task}
        return replace(known, targets={task: known.targets[task]}, log_priors=priors)

    def take(self, places: np.ndarray) -> LabeledDataset:
        """Some of the rows, by their places ``(m,)``."""
        return replace(
            self,
            index=self.index[places],
            targets={name: target[places] for name, target in self.targets.items()},
            examples=[self.examples[int(i)] for i in places] if self.examples else (),
            log_priors={name: prior[places] for name, prior in self.log_priors.items()},
        )

    def sha256(self) -> str:
        """A hash of all crops and targets, independent of where the files lie."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 4096):
            digest.update(self.crops[self.index[start : start + 4096]].tobytes())
        for name in sorted(self.targets):
            digest.update(self.targets[name].tobytes())
        return digest.hexdigest()


def class_prior(task: str) -> str:
    """What batches call the priors of a task's rows."""
    return f"{task}:prior"


def add_log_priors(train: LabeledDataset, tasks: Iterable[str]) -> LabeledDataset:
    """Training rows with the class shares of each row's source, for those tasks that lack them."""
    missing = [task for task in tasks if task not in train.log_priors]
    priors = {task: log_priors_of(train, task, train) for task in missing}
    return replace(train, log_priors={**priors, **train.log_priors})


def log_priors_of(rows: LabeledDataset, task: str, train: LabeledDataset) -> np.ndarray:
    """The logarithm of the class shares of each row's source in train, ``(n, classes)``."""
    return log_priors(train.targets[task], train.sources, rows.sources)


def mask(target: np.ndarray) -> np.ndarray:
    """1 for target rows that know their task and 0 for all-zero ones, ``float32`` ``(n,)``."""
    return (target.sum(axis=-1) > 0).astype("float32")


def build_dataset(
    tasks: Sequence[Task], examples: Sequence[Example], cached: CachedCrops
) -> LabeledDataset:
    """The examples that have a crop, shuffled once, always in the same way.

    Files come sorted by class, and whatever averages over batches would go wrong on them.
    """
    usable = np.flatnonzero(cached.rows >= 0)
    order = np.random.default_rng(0).permutation(usable)
    kept = [examples[i] for i in order]
    return LabeledDataset(cached.array, cached.rows[order], targets(tasks, kept), kept)
