"""What a probability is worth: reliability, and which accuracy a smallest confidence buys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faceattr.evaluation.answers import Answers, Interval, wilson

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
class Offer:
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


def reliability(answers: Answers, bins: int = BINS) -> tuple[Bin, ...]:
    """Confidence against accuracy, over equal bins of confidence that hold any answer."""
    confidence, right = answers.confidence.astype(float), answers.right
    place = bin_of(confidence, bins)
    found = []
    for number in np.unique(place):
        inside = place == number
        n, hits = int(inside.sum()), int(right[inside].sum())
        found.append(Bin(n, float(confidence[inside].mean()), hits / n, wilson(hits, n)))
    return tuple(found)


def bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """In which of so many equal bins each confidence lies, counted from 0."""
    return np.clip((confidence * bins).astype(int), 0, bins - 1)


def offers(answers: Answers, thresholds: tuple[float, ...] = THRESHOLDS) -> tuple[Offer, ...]:
    """For some smallest confidences, how much is still answered and how well."""
    return tuple(_offer(answers, threshold) for threshold in thresholds)


def _offer(answers: Answers, threshold: float) -> Offer:
    given = answers.confidence >= threshold
    n, hits = int(given.sum()), int(answers.right[given].sum())
    accuracy = hits / n if n else float("nan")
    return Offer(threshold, n, n / len(answers), accuracy, wilson(hits, n))


def coverage_curve(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
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
