"""What a probability is worth: reliability, coverage, and temperature scaling (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import keras
import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from faceattr.data.dataset import LabeledDataset, is_known
from faceattr.data.near_duplicates import NEAR_DUPLICATE, NOT_IN_TRAIN
from faceattr.evaluation.metrics import (
    Interval,
    TaskPredictions,
    calibration_error,
    confidence_bin,
    expected_ece,
    predict,
    wilson,
)
from faceattr.model.priors import change_prior
from faceattr.progress import SILENT, Progress

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Bin:
    """`n` answers of about the same confidence, whose accuracy should be the same as its mean."""

    n: int
    confidence: float
    accuracy: float
    interval: Interval


def reliability(predictions: TaskPredictions) -> tuple[Bin, ...]:
    """Confidence against accuracy, over equal bins of confidence that hold any answer."""
    confidence = predictions.confidence.astype(float)
    table = pd.DataFrame({"confidence": confidence, "correct": predictions.correct})
    bins = table.groupby(confidence_bin(confidence)).agg(
        n=("correct", "size"), right=("correct", "sum"), confidence=("confidence", "mean")
    )
    return tuple(
        Bin(int(n), float(mean), float(right / n), wilson(right, n))
        for n, right, mean in bins.itertuples(index=False)
    )


@dataclass(frozen=True)
class OperatingPoint:
    """What `label --min-confidence` would give: the share of faces that are still answered
    (coverage), and the share of right ones among these `n` answers (NaN without any).
    """

    min_confidence: float
    n: int
    coverage: float
    accuracy: float
    interval: Interval


def operating_points(
    predictions: TaskPredictions, thresholds: tuple[float, ...] = THRESHOLDS
) -> tuple[OperatingPoint, ...]:
    """For some smallest confidences, how much is still answered and how well."""
    points = []
    for threshold in thresholds:
        hits = predictions.correct[predictions.confidence >= threshold]
        n, right = len(hits), int(hits.sum())
        figures = n / len(predictions), right / n if n else np.nan, wilson(right, n)
        points.append(OperatingPoint(threshold, n, *figures))
    return tuple(points)


def coverage_curve(predictions: TaskPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and accuracy, ``(n,)`` each, from the surest answer alone to all of them.

    Answers of the same confidence come together: no threshold could part them.
    """
    order = np.argsort(-predictions.confidence, kind="stable")
    confidence, hits = predictions.confidence[order], np.cumsum(predictions.correct[order])
    counts = np.flatnonzero(np.append(np.diff(confidence) != 0, True)) + 1
    return counts / len(order), hits[counts - 1] / counts


FEWEST = 20  # labelled rows; fewer say more about themselves than about the model
# Temperatures. A head that was hardly trained may know the answers and be sure of none of them.
COLDEST, HOTTEST = 1e-3, 10.0
PUT_TO_SOURCES = "answers put to the class shares of their sources"


def fit_temperature(
    target: np.ndarray,
    probabilities: np.ndarray,
    fewest: int = FEWEST,
    log_prior: np.ndarray | None = None,
) -> float:
    """The temperature that makes one head's answers most likely: above 1 for a head that is too
    sure of itself, below 1 for one that is not sure enough, 1 where few rows know the task.

    Targets and probabilities are ``(n, classes)``; all-zero targets do not count. Of votes the
    class that has most counts, as it does for the accuracy: a confidence is the chance to be right.
    ``n`` right answers without a mistake make no head surer than ``1 - 1 / (n + 2)`` on average
    (Platt 1999, "Probabilistic outputs for support vector machines").
    `log_prior` are logarithms of the class shares to which the answers are put, ``(n, classes)``.
    """
    known = is_known(target)
    if known.sum() < fewest:
        return 1.0
    truth = target[known].argmax(axis=-1)
    logits = np.log(np.clip(probabilities[known], 1e-12, 1).astype(float))
    offset = 0 if log_prior is None else log_prior[known]
    doubt = 1 / (len(truth) + 2)
    wanted = np.full(logits.shape, doubt / (logits.shape[1] - 1))
    np.put_along_axis(wanted, truth[:, None], 1 - doubt, axis=-1)

    def mean_loss(log_temperature: float) -> float:
        answers = log_softmax(logits / np.exp(log_temperature) + offset, axis=-1)
        return -float((wanted * answers).sum(axis=-1).mean())

    best = minimize_scalar(mean_loss, bounds=np.log([COLDEST, HOTTEST]), method="bounded")
    return float(np.exp(best.x))


def apply_temperature(
    probabilities: np.ndarray, temperature: float, log_prior: np.ndarray | float = 0.0
) -> np.ndarray:
    """The same answers at another temperature, ``(n, classes)``; the order stays.

    With `log_prior` they are put to these class shares, and the order may change.
    """
    sure = probabilities.astype(float)
    sure /= sure.max(axis=-1, keepdims=True)  # else a low temperature makes all of a row 0
    return change_prior(np.power(sure, 1 / temperature), log_prior)


def cross_calibrated(
    target: np.ndarray, probabilities: np.ndarray, log_prior: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Of the labelled rows, each half calibrated with the temperature of the other half, whether
    each answer was right, ``bool``, and its confidence, ``(labelled rows,)`` both.
    """
    known = is_known(target)
    target, probabilities = target[known], probabilities[known]
    priors = np.zeros(target.shape) if log_prior is None else log_prior[known]
    answers = np.empty_like(probabilities, "float32")
    # Where all rows are enough to calibrate a head, its halves are: else this would judge a head
    # that was not calibrated.
    fewest = FEWEST // 2 if len(target) >= FEWEST else FEWEST
    halves = slice(0, None, 2), slice(1, None, 2)
    for half, other in (halves, halves[::-1]):
        fitted = fit_temperature(target[other], probabilities[other], fewest, priors[other])
        answers[half] = apply_temperature(probabilities[half], fitted, priors[half])
    return target.argmax(axis=-1) == answers.argmax(axis=-1), answers.max(axis=-1)


@dataclass(frozen=True)
class Calibration:
    """How one head was calibrated.

    Args:
        temperature: By which its weights were divided; 1 where that was not done. Above the fitted
            one where half precision could not store larger weights.
        fitted: Whether there were rows enough to calibrate it.
        held_out_error: Expected calibration error on rows that did not fit the temperature: each
            half of val with the temperature of the other half, both halves together.
        expected_ece: The error that a perfectly calibrated head would show on so many rows.
        put_to_sources: Whether that was measured on answers put to the class shares of each row's
            source, because the head answers as if all classes were equally frequent.
    """

    temperature: float
    fitted: bool
    held_out_error: float
    expected_ece: float
    put_to_sources: bool = False

    def __str__(self) -> str:
        if not self.fitted:
            return f"not calibrated, which takes {FEWEST} val rows that know it"
        if self.temperature > 0.99 * HOTTEST:
            return "calibrated to nearly even answers: on val it is hardly better than chance"
        if self.temperature < 1.01 * COLDEST:
            return (
                f"calibrated with the lowest temperature, {COLDEST:g}, and still less sure than "
                "it is right: its scores hardly differ, so it should learn longer or faster"
            )
        return (
            f"calibrated with temperature {self.temperature:.3g}, calibration error "
            f"{self.held_out_error:.1%} on rows that did not fit it "
            f"({self.expected_ece:.1%} by chance alone)"
            + (f", {PUT_TO_SOURCES}" if self.put_to_sources else "")
        )


def calibrate(
    model: keras.Model,
    val: LabeledDataset,
    heads: Collection[str] | None = None,
    log_priors: Mapping[str, np.ndarray] | None = None,
    progress: Progress = SILENT,
) -> Mapping[str, Calibration]:
    """Fit a temperature per head and divide its weights by it, in place.

    Whoever opens the model gets calibrated probabilities, and no answer changes. `log_priors` are
    the logarithms of the class shares of each row's source, ``(n, classes)``, by task, for heads
    that answer as if all classes were equally frequent.
    """
    found = {}
    for name, answers in predict(model, val, progress=progress).items():
        if heads is not None and name not in heads:
            continue
        target, prior = val.targets[name], (log_priors or {}).get(name)
        right, confidence = cross_calibrated(target, answers, prior)
        head = model.get_layer(name)
        kernel, bias = head.get_weights()
        temperature = max(fit_temperature(target, answers, log_prior=prior), _coldest(kernel, bias))
        errors = calibration_error(right, confidence), expected_ece(confidence)
        is_fitted = len(right) >= FEWEST
        found[name] = Calibration(temperature, is_fitted, *errors, prior is not None)
        head.set_weights([kernel / temperature, bias / temperature])
    return found


def _coldest(kernel: np.ndarray, bias: np.ndarray) -> float:
    """The lowest temperature whose weights half precision can store, with room for a prior; 1 for
    weights that are too large for it as they are."""
    largest = max(np.abs(kernel).max(), np.abs(bias).max())
    return min(1.0, float(largest) / (0.5 * float(np.finfo("float16").max)))


def unseen(rows: LabeledDataset) -> LabeledDataset:
    """The rows of `mark_near_duplicates` not in train; all of a task that has few others.

    Rows whose face is in train too measure what was learnt by heart: they shall neither choose an
    epoch nor say how sure a model may be.
    """
    where = [example.metadata[NEAR_DUPLICATE] for example in rows.examples]
    is_new = np.array(where, object) == NOT_IN_TRAIN
    targets = {
        name: target * is_new[:, None] if is_known(target[is_new]).sum() >= FEWEST else target
        for name, target in rows.targets.items()
    }
    kept = np.any([is_known(target) for target in targets.values()], axis=0)
    return replace(rows, targets=targets).take(np.flatnonzero(kept))
