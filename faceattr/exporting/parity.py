"""Whether an exported file answers like the network it was made from, and how fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Unpack

import cv2
import keras
import numpy as np

from faceattr.data.dataset import LabeledDataset, read_dataset
from faceattr.data.face_finder import FaceFinder
from faceattr.data.manifest import Example, Manifest
from faceattr.data.sources import (
    ReadingConfig,
    ReadingSettings,
    read_for_model,
    without_folders,
)
from faceattr.evaluation.metrics import (
    Interval,
    calibration_error,
    expected_ece,
    paired_accuracy_loss,
    predict,
    predictions_for,
)
from faceattr.images.load import as_paths
from faceattr.model.file import Description
from faceattr.model.runtime import ExportedModel
from faceattr.progress import SILENT, Progress
from faceattr.tasks import Task

MIN_CROPS = 100  # for int8: of fewer, one changed answer would be more than is allowed
CALIBRATION_CROPS = 300
SYNTHETIC_CROPS = 256


@dataclass(frozen=True)
class ParityData:
    """Crops for an export.

    Args:
        rows: What network and file are compared on, with whatever labels are known.
        about: What they are, in words.
        calibrating: Other real crops ``(n, size, size, 3)`` to measure int8's ranges on; None
            for float32.
    """

    rows: LabeledDataset
    about: str
    calibrating: np.ndarray | None = None


def choose_crops(
    description: Description,
    on: Sequence[str],
    rows: int,
    *,
    int8: bool = False,
    progress: Progress = SILENT,
    **reading: Unpack[ReadingSettings],
) -> ParityData:
    """Choose what an export is compared on.

    Args:
        description: The model's tasks and crop rule.
        on, rows: As for `faceattr.export`; a source without val rows gives a fifth of its rows, as
            in training. Without a source pictures are made.
        int8: Take crops of train rows for calibration as well.
        progress: Is told how many faces are cut.
        **reading: As for `faceattr.export`.

    Raises:
        ValueError: The sources have no task of the model, int8 has too few crops, or there are no
            sources and it is said how to read them.
    """
    if not isinstance(rows, Integral) or rows < 1:
        raise ValueError(f"A comparison takes 1 row or more of each task. Received: {rows}")
    config, on = ReadingConfig.of("export", reading), as_paths(on)
    if not on:
        return _synthetic(description, int8=int8, config=config)
    finder = config.finder(description.crop, on)
    known = {task.name: task for task in description.tasks}
    # Faces and copies decide what is set aside: without them, rows that taught would be val.
    manifest = read_for_model(on, known, config.label_map, finder, aside=True, progress=progress)
    names = [task.name for task in description.tasks if task in manifest.tasks]
    val = _rows(_chosen(manifest, "val", names, rows), manifest, finder, progress)
    about = f"{len(val):,} faces of {', '.join(map(without_folders, on))} (val)"
    if not int8:
        return ParityData(val, about)
    chosen = _chosen(manifest, "train", names, CALIBRATION_CROPS // len(names))
    train = _rows(chosen, manifest, finder, progress)
    if min(len(val), len(train)) < MIN_CROPS:
        raise ValueError(
            f"int8 needs at least {MIN_CROPS} faces to measure ranges on and {MIN_CROPS} others to "
            f"compare on. Received: {len(train)} of train and {len(val)} of val."
        )
    return ParityData(val, about, train.crops[train.index])


def _synthetic(description: Description, *, int8: bool, config: ReadingConfig) -> ParityData:
    if int8:
        raise ValueError(
            "int8 is measured and compared on real faces: give labelled ones, for example "
            f"--on {description.tasks[0].name}=FOLDER."
        )
    if config != ReadingConfig(cache=config.cache):
        raise ValueError(
            "How labels are spelt and faces are found is for labelled images: give some by --on."
        )
    rows = synthetic_crops(description.crop.size)
    return ParityData(rows, f"{len(rows)} made pictures, which are no faces")


def _chosen(manifest: Manifest, split: str, names: Iterable[str], most: int) -> list[Example]:
    """For each task up to `most` examples of a split that know it, none twice."""
    examples = manifest.only(split)
    chosen: set[int] = set()
    for name in names:
        knowing = [i for i, example in enumerate(examples) if example.labels.get(name)]
        chosen.update(np.random.default_rng(0).permutation(knowing)[:most].tolist())
    return [examples[i] for i in sorted(chosen)]


def _rows(
    examples: Sequence[Example], manifest: Manifest, finder: FaceFinder, progress: Progress
) -> LabeledDataset:
    found = finder.search(examples, progress)
    for line in found.lines():
        progress.show(line)
    rows, _ = read_dataset(found.examples, manifest.tasks, finder.rule, finder.cache, progress)
    if not len(rows):
        raise ValueError("None of the pictures given can be read, so nothing can be compared.")
    return rows


def synthetic_crops(side: int) -> LabeledDataset:
    """Coloured clouds of every coarseness, for a float file and nobody's pictures.

    They tell whether two programs compute the same function, and nothing about faces.
    """
    generator = np.random.default_rng(0)
    crops = np.empty((SYNTHETIC_CROPS, side, side, 3), "uint8")
    for number in range(SYNTHETIC_CROPS):
        grain = 2 + number % (side - 1)
        coarse = generator.integers(0, 256, (grain, grain, 3), dtype="uint8")
        crops[number] = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return LabeledDataset(crops, np.arange(SYNTHETIC_CROPS), {})


BATCH_SIZE = 64
BATCHES = (1, 32)
ROUNDS = 11


@dataclass(frozen=True)
class Limits:
    """What each head of an exported file must keep to.

    The share of same answers is no limit: where two classes are as probable as each other, either
    answer is as good, and accuracy tells whether it was.

    Args:
        mean_change: Largest mean over the crops of how far a probability changes.
        change_99: Largest 99th percentile of the same.
        accuracy_lost: Largest loss of accuracy on labelled crops, as a share of them, unless
            chance alone could give it.
        calibration_lost: Largest rise of the expected calibration error above what it was, or
            above what chance alone gives a perfect head.
    """

    mean_change: float
    change_99: float
    accuracy_lost: float = 0.003
    calibration_lost: float = 0.01


FLOAT = Limits(mean_change=1e-4, change_99=1e-3)
INT8 = Limits(mean_change=0.02, change_99=0.1)


@dataclass(frozen=True)
class LabeledAgreement:
    """How well network and file answer the `n` crops that know the task.

    Accuracy and the expected calibration error, 0-1, before (the network's) and after (the file's);
    `lost` is the 95 % interval of the loss of accuracy, of the same crops answered twice, and
    `expected_ece` what of the error a perfectly calibrated head would show.
    """

    n: int
    accuracy_before: float
    accuracy_after: float
    lost: Interval
    calibration_before: float
    calibration_after: float
    expected_ece: float

    def failures(self, limits: Limits) -> list[str]:
        """What is beyond the limits, in words."""
        lost = round(self.accuracy_before - self.accuracy_after, 9)  # 0.951 - 0.948 exceeds 0.003
        rise = self.calibration_after - max(self.calibration_before, self.expected_ece)
        found = []
        if self.lost[0] > 0 and not lost <= limits.accuracy_lost:
            low, high = (100 * bound for bound in self.lost)
            found.append(
                f"accuracy on {self.n:,} crops falls from {self.accuracy_before:.1%} to "
                f"{self.accuracy_after:.1%} (by {low:.1f} to {high:.1f} points; at most "
                f"{100 * limits.accuracy_lost:g})"
            )
        if not rise <= limits.calibration_lost:
            found.append(
                f"the calibration error on {self.n:,} crops rises from "
                f"{self.calibration_before:.1%} to {self.calibration_after:.1%} (by at most "
                f"{100 * limits.calibration_lost:g} point)"
            )
        return found


@dataclass(frozen=True)
class Agreement:
    """How one head of the file compares with the same head of the network.

    A crop's change is the largest difference of a probability among its classes.

    Args:
        crops: How many both were asked about.
        mean_change: Mean of their changes, 0-1.
        change_99: 99th percentile of them.
        difference: The largest of them.
        same_answer: Share of crops with the same most probable class, 0-1.
        labelled: What is known of crops with labels; None where there are none.
    """

    crops: int
    mean_change: float
    change_99: float
    difference: float
    same_answer: float
    labelled: LabeledAgreement | None = None

    def failures(self, limits: Limits) -> list[str]:
        """What is beyond the limits, in words."""
        figures = (
            ("changes by", self.mean_change, "on average", limits.mean_change),
            ("of one crop in a hundred changes by", self.change_99, "or more", limits.change_99),
        )
        found = [
            f"a probability {does} {change:.2g} {how} (at most {most:g})"
            for does, change, how, most in figures
            if not change <= most  # so that a NaN among the answers fails
        ]
        return found + (self.labelled.failures(limits) if self.labelled else [])


@dataclass(frozen=True)
class ParityReport:
    """The comparison of an exported file with its network.

    Args:
        crops: What was shown to both, in words.
        heads: By task.
        limits: What was asked of it.
        milliseconds: By batch size, the median time of a call of ``"network"`` and ``"file"``.
    """

    crops: str
    heads: Mapping[str, Agreement]
    limits: Limits
    milliseconds: Mapping[int, Mapping[str, float]]

    def failures(self) -> list[str]:
        """Why the file must not be kept; empty where it may."""
        return [
            f"{task}: {reason}"
            for task, agreement in self.heads.items()
            for reason in agreement.failures(self.limits)
        ]


def check_parity(
    network: keras.Model,
    file: ExportedModel,
    tasks: Sequence[Task],
    shown: ParityData,
    progress: Progress = SILENT,
    batches: Sequence[int] = BATCHES,
) -> ParityReport:
    """Ask both about the same crops and time them side by side, with `batches` of so many crops."""
    rows = shown.rows
    before, after = (
        predict(model, rows, BATCH_SIZE, progress, f"asking the {name}")
        for name, model in (("network", network), ("file", file))
    )
    limits = INT8 if file.precision == "int8" else FLOAT
    heads = {
        task.name: _agreement(task, rows, before[task.name], after[task.name]) for task in tasks
    }
    models, crop = {"network": network, "file": file}, rows.crops[rows.index[:1]]
    times = {
        size: milliseconds(models, np.repeat(crop, size, axis=0))
        for size in progress.track(batches, "timing both")
    }
    return ParityReport(shown.about, heads, limits, times)


def _agreement(
    task: Task, rows: LabeledDataset, before: np.ndarray, after: np.ndarray
) -> Agreement:
    changes = np.abs(before - after).max(axis=-1)
    return Agreement(
        crops=len(before),
        mean_change=float(changes.mean()),
        change_99=float(np.quantile(changes, 0.99)),
        difference=float(changes.max()),
        same_answer=float((before.argmax(-1) == after.argmax(-1)).mean()),
        labelled=_labelled(task, rows.targets.get(task.name), before, after),
    )


def _labelled(
    task: Task, target: np.ndarray | None, before: np.ndarray, after: np.ndarray
) -> LabeledAgreement | None:
    if target is None or not target.any():
        return None
    old, new = (predictions_for(task, target, probabilities) for probabilities in (before, after))
    with np.errstate(invalid="ignore"):  # a NaN is told by how far it changes
        errors = [calibration_error(a.correct, a.confidence) for a in (old, new)]
    return LabeledAgreement(
        n=len(old),
        accuracy_before=float(old.correct.mean()),
        accuracy_after=float(new.correct.mean()),
        lost=paired_accuracy_loss(old.correct, new.correct),
        calibration_before=errors[0],
        calibration_after=errors[1],
        expected_ece=expected_ece(old.confidence),
    )


def milliseconds(
    models: Mapping[str, keras.Model | ExportedModel], batch: np.ndarray, rounds: int = ROUNDS
) -> dict[str, float]:
    """By model the median time of a call, all in turn: whatever else the machine does hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model.predict_on_batch(batch)
            if number:  # the first call compiles
                seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(spent) for name, spent in seconds.items()}
