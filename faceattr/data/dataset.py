"""Labelled crops with targets and masks by task, and what rare classes weigh.

A rare class gets its weight here: in the loss by `LabeledDataset.masks`, in the batches by
`LabeledDataset.sampling_weights`, and in a balanced softmax by `log_priors_of`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from faceattr.data.crops import CachedCrops, cache_crops
from faceattr.data.manifest import Example, Manifest, targets
from faceattr.images.crop import CropRule
from faceattr.progress import SILENT, Progress
from faceattr.tasks import Task

BALANCES = ("none", "weights", "sampling")
Batch = tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]


def is_known(target: np.ndarray) -> np.ndarray:
    """Which target rows know their task, ``bool`` ``(n,)``: those that are not all-zero."""
    return target.sum(axis=-1) > 0


def mask(target: np.ndarray) -> np.ndarray:
    """1 for target rows that know their task and 0 for the others, ``float32`` ``(n,)``."""
    return is_known(target).astype("float32")


def class_weights(target: np.ndarray) -> np.ndarray:
    """By class, the weight that makes all classes of a task count the same, ``(classes,)``.

    Over the labelled rows the mean weight is 1. A class without a row has 0.
    """
    counts = target.sum(axis=0, dtype=float)
    shares = counts * np.count_nonzero(counts)
    return np.divide(counts.sum(), shares, out=np.zeros(len(counts)), where=counts > 0)


def row_weights(target: np.ndarray) -> np.ndarray:
    """The weights of rows in one task's loss, ``float32`` ``(n,)``: 0 where it is unknown."""
    return (target @ class_weights(target)).astype("float32")


def sampling_weights(targets: Mapping[str, np.ndarray]) -> np.ndarray:
    """How often each row is drawn, in proportion ``(n,)``, so that classes come equally often.

    A row that knows several tasks is drawn as if a task were chosen at random first; with one
    task the classes come out equal, with several as nearly as their overlap allows. One that knows
    none counts 1.
    """
    known = sum(target.any(axis=1).astype(int) for target in targets.values())
    drawn = sum(row_weights(target) for target in targets.values())
    return np.where(known, drawn / np.maximum(known, 1), 1.0)


def log_prior(target: np.ndarray) -> np.ndarray:
    """The logarithm of each class's share of the labelled rows, ``float32`` ``(classes,)``.

    Half a row is added to every class, so that one that does not occur has a share as well.
    """
    counts = target.sum(axis=0, dtype=float) + 0.5
    return np.log(counts / counts.sum()).astype("float32")


def class_prior(task: str) -> str:
    """What batches call the priors of a task's rows."""
    return f"{task}:prior"


@dataclass(frozen=True)
class LabeledDataset:
    """Labelled crops of one split.

    Args:
        crops: RGB ``uint8`` of shape ``(kept, size, size, 3)``, or features in their place.
        index: For each row its place in `crops`, shape ``(n,)``.
        targets: By task, floats of shape ``(n, classes)``, all zeros where unknown.
        examples: For each row what it was read from; empty where nobody will ask.
        balance: ``"weights"`` lets all classes of a task count the same in its loss,
            ``"sampling"`` shows them equally often, ``"none"`` takes rows as they are.
        soft: Tasks whose targets are in part another model's answers, and not balanced.
        source_weights: By source, what a row counts in the losses; 1 where not given.
        log_priors: By task ``float32`` of shape ``(n, classes)``, see `log_priors_of`. Batches hold
            them beside the targets, under `class_prior` their task.
    """

    crops: np.ndarray
    index: np.ndarray
    targets: Mapping[str, np.ndarray]
    examples: Sequence[Example] = ()
    balance: str = "none"
    soft: tuple[str, ...] = ()
    source_weights: Mapping[str, float] = field(default_factory=dict)
    log_priors: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count, crops = len(self.index), self.crops
        is_rgb = crops.ndim == 4 and crops.shape[3] == 3
        if crops.dtype == "uint8" and not is_rgb:
            raise ValueError(f"Crops are RGB (n, size, size, 3). Received: {crops.shape}")
        if self.index.ndim != 1 or not np.isin(self.index, np.arange(len(crops))).all():
            raise ValueError(f"A row's index is its place among {len(crops)} crops.")
        for name, target in {**self.targets, **self.log_priors}.items():
            if target.ndim != 2 or len(target) != count or target.dtype.kind != "f":
                raise ValueError(
                    f"{name}: targets and priors are floats of shape ({count}, classes). "
                    f"Received: {target.dtype} of shape {target.shape}"
                )
        if self.examples and len(self.examples) != count:
            raise ValueError(f"{count} rows have as many examples. Received: {len(self.examples)}")
        if self.balance not in BALANCES:
            raise ValueError(f"balance is one of {', '.join(BALANCES)}. Received: {self.balance!r}")

    def __len__(self) -> int:
        return len(self.index)

    @property
    def known(self) -> np.ndarray:
        """Which task each row knows, ``bool`` of shape ``(n, tasks)``."""
        return np.stack([is_known(target) for target in self.targets.values()], axis=1)

    @property
    def sources(self) -> np.ndarray:
        """The name of the source that each row came from, ``(n,)``."""
        return np.array([example.source for example in self.examples])

    @cached_property
    def masks(self) -> Mapping[str, np.ndarray]:
        """By task, what each row counts in its loss, ``(n,)``: 0 where the task is unknown."""
        balanced = self.targets.keys() - self.soft if self.balance == "weights" else ()
        weights = np.ones(len(self), "float32")
        if self.source_weights:
            weights = self.by_source(self.source_weights, 1.0)
        return {
            # The balance comes last: classes count the same whatever their sources weigh.
            name: row_weights(weights[:, None] * target)
            if name in balanced
            else weights * mask(target)
            for name, target in self.targets.items()
        }

    def by_source(self, values: Mapping[str, float], usual: float) -> np.ndarray:
        """For each row its source's value, `usual` where there is none, ``float32`` ``(n,)``."""
        found = [values.get(example.source, usual) for example in self.examples]
        return np.array(found, "float32")

    @property
    def sampling_weights(self) -> np.ndarray:
        """How often each row is drawn among those that know the same tasks, in proportion."""
        # To the balance, a soft task is as good as unknown.
        hard = {name: of * (name not in self.soft) for name, of in self.targets.items()}
        return sampling_weights(hard)

    def batch(self, rows: np.ndarray) -> Batch:
        """Crops, targets by task and masks by task of some rows."""
        chosen = {name: target[rows] for name, target in self.targets.items()}
        chosen |= {class_prior(name): prior[rows] for name, prior in self.log_priors.items()}
        masks = {name: known[rows] for name, known in self.masks.items()}
        return self.crops[self.index[rows]], chosen, masks

    def only(self, task: str) -> LabeledDataset:
        """The rows that know a task, with its targets alone."""
        known = self.take(np.flatnonzero(is_known(self.targets[task])))
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


def log_priors_of(rows: LabeledDataset, task: str, train: LabeledDataset) -> np.ndarray:
    """For each row the logarithm of the class shares of its source, ``float32`` ``(n, classes)``.

    A head that is trained on its answers times these shares (balanced softmax, Ren et al. 2020;
    logit adjustment, Menon et al. 2021) does not learn how often a source shows each class, and
    answers as if all were equally frequent.

    Shares are counted in the training rows; a source without any there gets the shares of all.
    """
    target, taught, asked = train.targets[task], train.sources, rows.sources
    found = np.empty((len(asked), target.shape[1]), "float32")
    for name in np.unique(asked):
        own = taught == name
        found[asked == name] = log_prior(target[own] if own.any() else target)
    return found


def add_log_priors(train: LabeledDataset, tasks: Iterable[str]) -> LabeledDataset:
    """Training rows with the class shares of each row's source, for those tasks that lack them."""
    missing = [task for task in tasks if task not in train.log_priors]
    priors = {task: log_priors_of(train, task, train) for task in missing}
    return replace(train, log_priors={**priors, **train.log_priors})


def smooth_labels(
    rows: LabeledDataset, by_source: Mapping[str, float], usual: float = 0.0
) -> LabeledDataset:
    """Rows whose known targets are spread over the classes, by a share for each source.

    `usual` is the share of the sources that `by_source` does not name. Unknown rows stay zero.
    """
    shares = rows.by_source(by_source, usual)[:, None]
    targets = {
        name: (1 - shares) * target + shares / target.shape[1] * mask(target)[:, None]
        for name, target in rows.targets.items()
    }
    return replace(rows, targets=targets)


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


def read_dataset(
    examples: Sequence[Example],
    tasks: Sequence[Task],
    rule: CropRule,
    cache: str | Path | None = None,
    progress: Progress = SILENT,
) -> tuple[LabeledDataset, Mapping[str, int]]:
    """Crop all faces; also how many images could not be used, by reason."""
    cached = cache_crops(examples, rule, cache, progress)
    return build_dataset(tasks, examples, cached), cached.left_out(examples)


def read_splits(
    manifest: Manifest,
    splits: Iterable[str],
    tasks: Sequence[Task],
    rule: CropRule,
    cache: str | Path | None = None,
    progress: Progress = SILENT,
) -> tuple[dict[str, LabeledDataset], Counter[str]]:
    """The rows of some splits, and how many images are not among them, by reason."""
    rows, left_out = {}, Counter(manifest.left_out)
    for split in splits:
        some = manifest.only(split)
        rows[split], unusable = read_dataset(some, tasks, rule, cache, progress)
        left_out.update(unusable)
    return rows, left_out


@dataclass(frozen=True)
class DatasetSummary:
    """How many labelled faces there are: by split; by task and split those that know it; by task,
    split and class, where votes count as shares.
    """

    faces: Mapping[str, int]
    known: Mapping[str, Mapping[str, int]]
    classes: Mapping[str, Mapping[str, Mapping[str, float]]]


def summarize(parts: Mapping[str, LabeledDataset], tasks: Iterable[Task]) -> DatasetSummary:
    known: dict[str, dict[str, int]] = {}
    classes: dict[str, dict[str, dict[str, float]]] = {}
    for task, (split, part) in itertools.product(tasks, parts.items()):
        target = part.targets[task.name]
        counts = dict(zip(task.classes, target.sum(axis=0).tolist(), strict=True))
        known.setdefault(task.name, {})[split] = int(is_known(target).sum())
        classes.setdefault(task.name, {})[split] = counts
    return DatasetSummary({split: len(part) for split, part in parts.items()}, known, classes)
