"""What rare classes weigh: more in the loss, or more rows in the batches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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


def chances(targets: Mapping[str, np.ndarray]) -> np.ndarray:
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
