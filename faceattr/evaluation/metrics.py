"""What a model gets right: exact figures from one prediction per row, never from batch means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from scipy.stats import binomtest
from sklearn import metrics

from faceattr.data.dataset import LabeledDataset
from faceattr.images.crop import CropRule, crop
from faceattr.model.file import to_jsonable
from faceattr.tasks import ORDINAL_TASKS, Task

Interval = tuple[float, float]


@dataclass(frozen=True)
class TaskPredictions:
    """What a head answered for the rows that know its task.

    Args:
        task: The task.
        rows: Where these rows stand among all, ``(n,)``.
        truth: Number of the true class, ``(n,)``; of votes the strongest, of a tie the first.
        probabilities: What the head said, ``(n, classes)``.
    """

    task: Task
    rows: np.ndarray
    truth: np.ndarray
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def answer(self) -> np.ndarray:
        """Number of the answered class, ``(n,)``."""
        return self.probabilities.argmax(axis=-1)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the answer, ``(n,)``."""
        return self.probabilities.max(axis=-1)

    @property
    def right(self) -> np.ndarray:
        """Whether the answer is the truth, ``bool`` ``(n,)``."""
        return self.answer == self.truth


def predictions_for(task: Task, target: np.ndarray, probabilities: np.ndarray) -> TaskPredictions:
    """Put a head's answers beside its targets.

    Args:
        task: The task.
        target: Target rows ``(n, classes)``; all-zero rows are left out.
        probabilities: What the head answered, ``(n, classes)``.
    """
    known = np.flatnonzero(target.sum(axis=-1) > 0)
    return TaskPredictions(task, known, target[known].argmax(axis=-1), probabilities[known])


def predictions_by_task(
    tasks: Sequence[Task], rows: LabeledDataset, probabilities: Mapping[str, np.ndarray]
) -> tuple[TaskPredictions, ...]:
    """The answers to every task that model and rows share, as far as a row knows it."""
    shared = [t for t in tasks if t.name in probabilities and t.name in rows.targets]
    found = [predictions_for(t, rows.targets[t.name], probabilities[t.name]) for t in shared]
    return tuple(answers for answers in found if len(answers))


def wilson(right: int, n: int) -> Interval:
    """The 95 % interval of a share (Wilson 1927); from 0 to 1 where nothing was counted."""
    if not n:
        return 0.0, 1.0
    low, high = binomtest(int(right), int(n)).proportion_ci(method="wilson")
    return float(low), float(high)


def paired_accuracy_loss(before: np.ndarray, after: np.ndarray) -> Interval:
    """The 95 % interval of the accuracy that is lost between two models on the same rows.

    Only rows that one of them alone answers right tell a difference, so it is much narrower than
    two intervals side by side (Bonett and Price 2012, adjusted Wald).

    Args:
        before: Whether the first model's answers are right, ``bool`` ``(n,)``.
        after: The same of the second model.

    Returns:
        Lowest and highest loss as shares of the rows, below 0 where accuracy is gained.
    """
    n = len(before) + 2
    lost, won = (
        (np.sum(one & ~other) + 1) / n for one, other in ((before, after), (after, before))
    )
    half = 1.96 * np.sqrt((lost + won - (lost - won) ** 2) / n)
    return float(lost - won - half), float(lost - won + half)


BINS = 15  # of the calibration error too: it can be worked out from what the curve shows
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence.

    Args:
        n: How many there are.
        confidence: Their mean confidence.
        accuracy: The share of right ones, which should be the same.
        interval: 95 % Wilson interval of the accuracy.
    """

    n: int
    confidence: float
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class OperatingPoint:
    """What `label --min-confidence` would give.

    Args:
        min_confidence: Answers below it are withheld.
        n: How many are not.
        coverage: Their share.
        accuracy: The share of right ones among them; NaN where none is left.
        interval: 95 % Wilson interval of the accuracy.
    """

    min_confidence: float
    n: int
    coverage: float
    accuracy: float
    interval: Interval


def reliability(answers: TaskPredictions, bins: int = BINS) -> tuple[Bin, ...]:
    """Confidence against accuracy, over equal bins of confidence that hold any answer."""
    confidence, right = answers.confidence.astype(float), answers.right
    place = confidence_bin(confidence, bins)
    found = []
    for number in np.unique(place):
        inside = place == number
        n, hits = int(inside.sum()), int(right[inside].sum())
        found.append(Bin(n, float(confidence[inside].mean()), hits / n, wilson(hits, n)))
    return tuple(found)


def confidence_bin(confidence: np.ndarray, bins: int) -> np.ndarray:
    """In which of so many equal bins each confidence lies, counted from 0."""
    return np.clip((confidence * bins).astype(int), 0, bins - 1)


def operating_points(
    answers: TaskPredictions, thresholds: tuple[float, ...] = THRESHOLDS
) -> tuple[OperatingPoint, ...]:
    """For some smallest confidences, how much is still answered and how well."""
    return tuple(_offer(answers, threshold) for threshold in thresholds)


def _offer(answers: TaskPredictions, threshold: float) -> OperatingPoint:
    given = answers.confidence >= threshold
    n, hits = int(given.sum()), int(answers.right[given].sum())
    accuracy = hits / n if n else float("nan")
    return OperatingPoint(threshold, n, n / len(answers), accuracy, wilson(hits, n))


def coverage_curve(answers: TaskPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of the surest answers, for every number of them.

    Returns:
        Coverage and accuracy, ``(n,)`` each, from the surest answer alone to all of them.
        Answers of the same confidence come together: no threshold could part them.
    """
    order = np.argsort(-answers.confidence, kind="stable")
    confidence, hits = answers.confidence[order], np.cumsum(answers.right[order])
    last_of_its_confidence = np.flatnonzero(np.append(np.diff(confidence) != 0, True))
    counts = last_of_its_confidence + 1
    return counts / len(order), hits[last_of_its_confidence] / counts


FEW_OF_A_CLASS = 20  # rows
SIDES = (12, 16, 24, 32, 48, 64, 96)
ROWS_BY_SIZE = 1000
KEPT = 0.9


@dataclass(frozen=True)
class Score:
    """How well one head answers its task over the rows that know it.

    Args:
        task: The task.
        n: Rows that know it. With none, every figure is NaN.
        accuracy: Share of right answers (a tie of votes counts its first class).
        interval: 95 % Wilson interval of the accuracy.
        balanced_accuracy: Mean recall over the classes that occur.
        macro_f1: Mean F1 over the classes that occur.
        recall: By class; NaN for a class without a row.
        confusion: Counts, true class by row and answered class by column, ``(classes, classes)``.
        calibration_error: Expected calibration error over 15 equal bins of confidence
            (Guo et al. 2017).
        expected_ece: What of it a perfectly calibrated head would show over these rows.
    """

    task: str
    n: int
    accuracy: float
    interval: Interval
    balanced_accuracy: float
    macro_f1: float
    recall: Mapping[str, float]
    confusion: tuple[tuple[int, ...], ...]
    calibration_error: float
    expected_ece: float

    @property
    def shares(self) -> np.ndarray:
        """The confusion as shares of the true class, 0-1; zeros for a class without a row."""
        counts = np.array(self.confusion, float)
        return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    @property
    def within_one(self) -> float | None:
        """Share of answers that are right or one class beside it, for tasks of ordered classes."""
        if self.task not in ORDINAL_TASKS or not self.n:
            return None
        counts = np.array(self.confusion)
        return float(sum(np.trace(counts, offset) for offset in (-1, 0, 1)) / self.n)

    @property
    def classes(self) -> tuple[ClassScore, ...]:
        """What the confusion says of every class."""
        counts = np.array(self.confusion)
        totals, answered = counts.sum(axis=1), counts.sum(axis=0)
        return tuple(
            _class_score(name, int(n), int(hits), int(said))
            for name, n, hits, said in zip(
                self.recall, totals, counts.diagonal(), answered, strict=True
            )
        )


@dataclass(frozen=True)
class ClassScore:
    """How well a head tells one class.

    Args:
        name: The class.
        n: Rows of it.
        recall: The share of them that is found; NaN without a row.
        interval: 95 % Wilson interval of the recall.
        precision: The share of right ones among the answers of this class; NaN without one.
        f1: Harmonic mean of both; NaN without a row.
    """

    name: str
    n: int
    recall: float
    interval: Interval
    precision: float
    f1: float

    @property
    def has_few(self) -> bool:
        """Whether it has so few rows that its figures say little."""
        return self.n < FEW_OF_A_CLASS


def _class_score(name: str, n: int, hits: int, said: int) -> ClassScore:
    recall, precision = hits / n if n else np.nan, hits / said if said else np.nan
    f1 = 2 * hits / (n + said) if n else np.nan
    return ClassScore(name, n, recall, wilson(hits, n), precision, f1)


def predict(
    model: keras.Model,
    rows: LabeledDataset,
    batch_size: int = 128,
    watch: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> dict[str, np.ndarray]:
    """Ask a model about every row.

    Args:
        model: The model.
        rows: The rows.
        batch_size: How many go through the model at once.
        watch: Is given the first row of every batch and gives them back, for a progress bar.

    Returns:
        By task, the probabilities of every row: ``float32`` of shape ``(n, classes)``.
    """
    if not len(rows):
        return {name: np.zeros_like(target) for name, target in rows.targets.items()}
    parts = []
    for start in watch(range(0, len(rows), batch_size)):
        index = rows.index[start : start + batch_size]
        # A last, smaller batch would compile the network again: fill it up instead.
        full = np.resize(index, batch_size) if len(index) < batch_size < len(rows) else index
        answers = model.predict_on_batch(rows.crops[full])
        parts.append({name: answer[: len(index)] for name, answer in answers.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def score(task: Task, target: np.ndarray, probabilities: np.ndarray) -> Score:
    """Score one head.

    Args:
        task: The task.
        target: Target rows ``(n, classes)``; all-zero rows do not count.
        probabilities: What the head answered, ``(n, classes)``.
    """
    answers = predictions_for(task, target, probabilities)
    truth, answer, n = answers.truth, answers.answer, len(answers)
    if not n:
        return _nothing_scored(task)
    right = int(answers.right.sum())
    confusion = metrics.confusion_matrix(truth, answer, labels=range(len(task.classes)))
    occurring = np.flatnonzero(confusion.sum(axis=1))
    with np.errstate(invalid="ignore"):
        recall = confusion.diagonal() / confusion.sum(axis=1)
    return Score(
        task=task.name,
        n=n,
        accuracy=right / n,
        interval=wilson(right, n),
        balanced_accuracy=float(recall[occurring].mean()),
        macro_f1=float(
            metrics.f1_score(truth, answer, labels=occurring, average="macro", zero_division=0)
        ),
        recall=dict(zip(task.classes, recall.tolist(), strict=True)),
        confusion=tuple(map(tuple, confusion.tolist())),
        calibration_error=calibration_error(answers.right, answers.confidence),
        expected_ece=expected_ece(answers.confidence),
    )


def _nothing_scored(task: Task) -> Score:
    classes = len(task.classes)
    return Score(
        task=task.name,
        n=0,
        accuracy=np.nan,
        interval=(np.nan, np.nan),
        balanced_accuracy=np.nan,
        macro_f1=np.nan,
        recall=dict.fromkeys(task.classes, np.nan),
        confusion=((0,) * classes,) * classes,
        calibration_error=np.nan,
        expected_ece=np.nan,
    )


def calibration_error(right: np.ndarray, confidence: np.ndarray, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy over equal bins of confidence.

    Args:
        right: Whether each answer was right, ``bool`` ``(n,)``.
        confidence: Its probability, ``(n,)``.

    Returns:
        0 to 1; NaN without an answer.
    """
    gaps = np.bincount(confidence_bin(confidence, bins), right - confidence.astype(float), bins)
    return float(np.abs(gaps).sum() / len(right)) if len(right) else np.nan


def expected_ece(confidence: np.ndarray, bins: int = BINS) -> float:
    """The calibration error to expect of answers that are right exactly as often as they say.

    Chance alone takes every bin's accuracy off its confidence, the more the fewer rows it has, and
    the calibration error counts that as a distance (Vaicenavicius et al. 2019): an error is only
    worth mending as far as it lies above this one.

    Args:
        confidence: The probability of each answer, ``(n,)``.

    Returns:
        The mean over many draws of right and wrong, each bin's sum taken as normal.
    """
    chances = confidence.astype(float)
    variances = np.bincount(confidence_bin(confidence, bins), chances * (1 - chances), bins)
    return float(np.sqrt(variances * 2 / np.pi).sum() / len(chances)) if len(chances) else np.nan


def evaluate(
    model: keras.Model, tasks: Iterable[Task], rows: LabeledDataset, batch_size: int = 128
) -> dict[str, Score]:
    """Score every task that the model and the rows share."""
    return scores_of(predict(model, rows, batch_size), tasks, rows)


def scores_of(
    answers: Mapping[str, np.ndarray], tasks: Iterable[Task], rows: LabeledDataset
) -> dict[str, Score]:
    """Score what `predict` answered for the rows, for every task that both have."""
    return {
        task.name: score(task, rows.targets[task.name], answers[task.name])
        for task in tasks
        if task.name in answers and task.name in rows.targets
    }


def difference(
    one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """How far two networks' answers are apart, by task.

    Returns:
        The largest difference of a probability, and the share of rows with the same answer.
    """
    return {
        name: {
            "largest": float(np.abs(answers - other[name]).max()),
            "same_answer": float((answers.argmax(-1) == other[name].argmax(-1)).mean()),
        }
        for name, answers in one.items()
    }


def accuracy_by_size(
    model: keras.Model, tasks: Sequence[Task], rows: LabeledDataset, rule: CropRule
) -> dict[int, dict[str, float]]:
    """How accurate the model is on faces of fewer pixels.

    Args:
        model: The model.
        tasks: Its tasks.
        rows: Labelled crops; the first 1,000 are used.
        rule: The model's crop rule. Crops are shrunk and then cut as a small face would be.

    Returns:
        By the face's side in pixels, from 12 to the model's own size, the accuracy by task.
    """
    few = np.arange(min(len(rows), ROWS_BY_SIZE))
    crops = rows.crops[rows.index[few]]
    targets = {name: target[few] for name, target in rows.targets.items()}
    table = {}
    for side in [size for size in SIDES if size < rule.size] + [rule.size]:
        small = [cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA) for face in crops]
        again = np.stack([crop(face, None, rule) for face in small])
        scores = evaluate(model, tasks, LabeledDataset(again, few, targets))
        table[side] = {name: score.accuracy for name, score in scores.items() if score.n}
    return table


def smallest_face(table: Mapping[int, Mapping[str, float]]) -> int:
    """The smallest side at which every task keeps nine tenths of its full accuracy."""
    full = table[max(table)]
    kept = [
        side
        for side, found in table.items()
        if all(found[name] >= KEPT * accuracy for name, accuracy in full.items())
    ]
    return min(kept)


def mean_accuracy(scores: Mapping[str, Score], *, balanced: bool = False) -> float:
    """What chooses the best epoch: the mean (balanced) accuracy of the tasks that have rows."""
    known = [score for score in scores.values() if score.n]
    found = [score.balanced_accuracy if balanced else score.accuracy for score in known]
    return float(np.mean(found)) if found else float("nan")


def write_json(scores: Mapping[str, Any], path: Path) -> None:
    """Write scores; a figure without a row behind it becomes null."""
    path.write_text(json.dumps(to_jsonable(dict(scores)), indent=1))
