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
