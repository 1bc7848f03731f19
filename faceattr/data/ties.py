"""What hangs together: sets of things that share a label, directly or through others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components


def ties(labels: Sequence[Any]) -> np.ndarray:
    """Pairs of places that tie each thing to the first with the same label.

    Args:
        labels: One for each thing; None and empty ones tie nothing.

    Returns:
        ``int`` of shape ``(m, 2)``.
    """
    first: dict[Any, int] = {}
    found = [
        (first[label], place)
        for place, label in enumerate(labels)
        if label not in (None, "") and first.setdefault(label, place) != place
    ]
    return np.array(found, int).reshape(-1, 2)


def connected(count: int, *pairs: np.ndarray) -> np.ndarray:
    """For each of `count` things the number of the set that pairs ``(m, 2)`` tie it to."""
    edges = np.concatenate([np.zeros((0, 2), int), *pairs])
    ones = np.ones(len(edges), bool)
    graph = sparse.coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]
