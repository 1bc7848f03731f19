"""What a model gets right: exact figures from one prediction per row, never from batch means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
from scipy.stats import binomtest

from faceattr.data.dataset import LabeledDataset, is_known
from faceattr.progress import SILENT, Progress
from faceattr.tasks import ORDINAL_TASKS, Task

Interval = tuple[float, float]
BINS = 15  # of confidence, for the calibration error and the reliability curve
FEW_OF_A_CLASS = 20  # rows


@dataclass(frozen=True)
class TaskPredictions:
    """What a head answered for the rows that know its task.

    Args:
        rows: Where these rows stand among all, ``(n,)``.
        truth: Number of the true class, ``(n,)``; of votes the strongest, of a tie the first.
        probabilities: What the head answered, ``(n, classes)``.
    """

    task: Task
    rows: np.ndarray
    truth: np.ndarray
    probabilities: np.ndarray

    def __post_init__(self) -> None:
        expected = (len(self.rows), len(self.task.classes))
        if self.probabilities.shape != expected or len(self.truth) != len(self.rows):
            raise ValueError(
                f"Predictions of {self.task.name} have the shape {expected}. "
                f"Received: {self.probabilities.shape}, and {len(self.truth)} true classes"
            )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def predicted(self) -> np.ndarray:
        """Number of the answered class, ``(n,)``."""
        return self.probabilities.argmax(axis=-1)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the answer, ``(n,)``."""
        return self.probabilities.max(axis=-1)

    @property
    def correct(self) -> np.ndarray:
        """Whether the answer is the truth, ``bool`` ``(n,)``."""
        return self.predicted == self.truth


def predictions_for(task: Task, target: np.ndarray, probabilities: np.ndarray) -> TaskPredictions:
    """Put a head's answers ``(n, classes)`` beside its target rows; all-zero ones are left out."""
    known = np.flatnonzero(is_known(target))
    return TaskPredictions(task, known, target[known].argmax(axis=-1), probabilities[known])


def predictions_by_task(
    tasks: Iterable[Task], rows: LabeledDataset, probabilities: Mapping[str, np.ndarray]
) -> tuple[TaskPredictions, ...]:
    """The answers to every task that model and rows share, as far as a row knows it."""
    shared = [t for t in tasks if t.name in probabilities and t.name in rows.targets]
    found = (predictions_for(t, rows.targets[t.name], probabilities[t.name]) for t in shared)
    return tuple(predictions for predictions in found if len(predictions))


def wilson(right: int, n: int) -> Interval:
    """The 95 % interval of a share (Wilson 1927); from 0 to 1 where nothing was counted."""
    if not n:
        return 0.0, 1.0
    low, high = binomtest(int(right), int(n)).proportion_ci(method="wilson")
    return float(low), float(high)


def paired_accuracy_loss(before: np.ndarray, after: np.ndarray) -> Interval:
    """The 95 % interval of the accuracy that is lost between two models on the same rows.

    Only rows that one of them alone answers right tell a difference, so it is much narrower than
    two intervals side by side (Bonett and Price 2012, adjusted Wald). Both arguments are ``bool``
    ``(n,)``: whether an answer was right. A loss below 0 is a gain.
    """
    n = len(before) + 2
    lost, won = (np.sum(before & ~after) + 1) / n, (np.sum(after & ~before) + 1) / n
    half = 1.96 * np.sqrt((lost + won - (lost - won) ** 2) / n)
    return float(lost - won - half), float(lost - won + half)


def confidence_bin(confidence: np.ndarray) -> np.ndarray:
    """In which of `BINS` equal bins each confidence lies, counted from 0."""
    return np.clip((confidence * BINS).astype(int), 0, BINS - 1)


def calibration_error(correct: np.ndarray, confidence: np.ndarray) -> float:
    """Mean distance between confidence and accuracy over equal bins (ECE, Guo et al. 2017), 0-1.

    `correct`, ``bool``, says of each answer whether it was right, `confidence` is its probability,
    both ``(n,)``; NaN without answers.
    """
    distances = correct - confidence.astype(float)
    gaps = np.bincount(confidence_bin(confidence), distances, BINS)
    return float(np.abs(gaps).sum() / len(correct)) if len(correct) else np.nan


def expected_ece(confidence: np.ndarray) -> float:
    """The calibration error to expect of answers that are right exactly as often as they say.

    Chance alone takes every bin's accuracy off its confidence, the more the fewer rows it has, and
    the calibration error counts that as a distance (Vaicenavicius et al. 2019): an error is only
    worth mending as far as it lies above this one. It is the mean over many draws of right and
    wrong, each bin's sum taken as normal.
    """
    share = confidence.astype(float)
    variances = np.bincount(confidence_bin(confidence), share * (1 - share), BINS)
    return float(np.sqrt(variances * 2 / np.pi).sum() / len(share)) if len(share) else np.nan


@dataclass(frozen=True)
class ClassScore:
    """How well a head tells one class of `n` rows, with the 95 % Wilson interval of the recall; NaN
    where nothing can be said.
    """

    name: str
    n: int
    recall: float
    interval: Interval
    precision: float
    f1: float

    @property
    def has_few(self) -> bool:
        return self.n < FEW_OF_A_CLASS


@dataclass(frozen=True)
class Score:
    """How well one head answers its task over the rows that know it.

    Args:
        n: Rows that know it. With none, every figure is NaN.
        accuracy: Share of right answers (a tie of votes counts its first class).
        interval: 95 % Wilson interval of the accuracy.
        balanced_accuracy: Mean recall over the classes that occur.
        macro_f1: Mean F1 over the classes that occur.
        recall: By class; NaN for a class without a row.
        confusion: Counts, true class by row and answered class by column, ``(classes, classes)``.
        calibration_error: Expected calibration error over 15 equal bins of confidence.
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
        counts = np.array(self.confusion)
        hits, totals = counts.diagonal().tolist(), counts.sum(axis=1).tolist()
        recall, precision, f1 = (figure.tolist() for figure in _class_figures(counts))
        intervals = map(wilson, hits, totals)
        columns = (self.recall, totals, recall, intervals, precision, f1)
        return tuple(ClassScore(*row) for row in zip(*columns, strict=True))


def _class_figures(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recall, precision and F1 of every class; NaN where there is nothing to divide by."""
    hits, totals, answered = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        f1 = np.where(totals, 2 * hits / (totals + answered), np.nan)
        return hits / totals, hits / answered, f1


def confusion_of(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts, true class by row and answered class by column, ``(classes, classes)``."""
    cells = np.bincount(truth * classes + predicted, minlength=classes**2)
    return cells.reshape(classes, classes)


def score(task: Task, target: np.ndarray, probabilities: np.ndarray) -> Score:
    """Score one head's answers ``(n, classes)``; all-zero target rows do not count."""
    found = predictions_for(task, target, probabilities)
    n, right = len(found), int(found.correct.sum())
    confusion = confusion_of(found.truth, found.predicted, len(task.classes))
    recall, _, f1 = _class_figures(confusion)
    return Score(
        task=task.name,
        n=n,
        accuracy=right / n if n else np.nan,
        interval=wilson(right, n) if n else (np.nan, np.nan),
        balanced_accuracy=float(np.nanmean(recall)) if n else np.nan,
        macro_f1=float(np.nanmean(f1)) if n else np.nan,
        recall=dict(zip(task.classes, recall.tolist(), strict=True)),
        confusion=tuple(map(tuple, confusion.tolist())),
        calibration_error=calibration_error(found.correct, found.confidence),
        expected_ece=expected_ece(found.confidence),
    )


def predict(
    model: keras.Model,
    rows: LabeledDataset,
    batch_size: int = 128,
    progress: Progress = SILENT,
    what: str = "asking the model",
) -> dict[str, np.ndarray]:
    """Ask a model about every row: by task, the probabilities, ``float32`` ``(n, classes)``."""
    if not len(rows):
        return {name: np.zeros_like(target) for name, target in rows.targets.items()}
    parts = []
    for start in progress.track(range(0, len(rows), batch_size), what):
        index = rows.index[start : start + batch_size]
        # A last, smaller batch would compile the network again: fill it up instead.
        full = np.resize(index, batch_size) if len(index) < batch_size < len(rows) else index
        answers = model.predict_on_batch(rows.crops[full])
        parts.append({name: answer[: len(index)] for name, answer in answers.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def score_model(
    model: keras.Model, tasks: Iterable[Task], rows: LabeledDataset
) -> dict[str, Score]:
    """Score every task that the model and the rows share."""
    return scores_of(predict(model, rows), tasks, rows)


def scores_of(
    answers: Mapping[str, np.ndarray], tasks: Iterable[Task], rows: LabeledDataset
) -> dict[str, Score]:
    """Score what `predict` answered for the rows, for every task that both have."""
    shared = [task for task in tasks if task.name in answers and task.name in rows.targets]
    return {t.name: score(t, rows.targets[t.name], answers[t.name]) for t in shared}


def difference(
    one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """By task, the largest difference of a probability and the share of rows with one answer."""
    found = {}
    for name, answers in one.items():
        same = (answers.argmax(-1) == other[name].argmax(-1)).mean()
        largest = np.abs(answers - other[name]).max()
        found[name] = {"largest": float(largest), "same_answer": float(same)}
    return found


def mean_accuracy(scores: Mapping[str, Score], *, balanced: bool = False) -> float:
    """What chooses the best epoch: the mean (balanced) accuracy of the tasks that have rows."""
    known = [score for score in scores.values() if score.n]
    found = [score.balanced_accuracy if balanced else score.accuracy for score in known]
    return float(np.mean(found)) if found else float("nan")
