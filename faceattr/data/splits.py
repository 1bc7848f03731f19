"""Setting validation rows aside, once for all sources together."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from faceattr.data.manifest import Example


def bipartite_components(labels: Sequence[Any]) -> np.ndarray:
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


def component_labels(count: int, *pairs: np.ndarray) -> np.ndarray:
    """For each of `count` things the number of the set that pairs ``(m, 2)`` tie it to."""
    edges = np.concatenate([np.zeros((0, 2), int), *pairs])
    ones = np.ones(len(edges), bool)
    graph = sparse.coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


FEWEST = 5  # of which one can be set aside
Alike = Callable[[Sequence[Example]], Sequence[int] | np.ndarray]


def assign_splits(
    examples: Sequence[Example], alike: Alike | None = None, *, seed: int = 0
) -> tuple[Example, ...]:
    """Give every row a split, and every source validation rows.

    Rows without a split follow what they hang together with: their group, the other faces of
    their picture, their twins, whichever source these came from. Where a source has val rows of
    its own the rest of it trains; else a fifth of all that is not test is set aside for val,
    stratified by source and answer, with what hangs together kept on one side.

    Args:
        examples: The labelled faces of all sources.
        alike: Numbers faces so that twins share one, as `faceattr.data.near_duplicates.photographs`
            does; it is asked only where val is set aside. None: nobody looks at the pictures.
        seed: Decides which rows.

    Raises:
        ValueError: A group is stated in two splits, or there are too few rows.
    """
    groups = _splits_of_groups(examples)
    splits = [example.split or groups.get(example.group, "") for example in examples]
    with_val = {example.source for example in examples if example.split == "val"}
    asked = np.array([e.source not in with_val for e in examples], bool)
    splits = [split if own else split or "train" for split, own in zip(splits, asked, strict=True)]
    if asked.any():
        _set_aside(examples, splits, asked, alike, seed)
    found = zip(examples, splits, strict=True)
    return tuple(replace(example, split=split) for example, split in found)


def _splits_of_groups(examples: Sequence[Example]) -> dict[str, str]:
    first: dict[str, Example] = {}
    for example in examples:
        if example.group and example.split:
            other = first.setdefault(example.group, example)
            if other.split != example.split:
                raise ValueError(
                    f"{example.origin}: group {example.group!r} is in {other.split} and in "
                    f"{example.split} ({other.origin}); one identity must not sit in two splits. "
                    "Where two sources only number their groups alike, rename those of one."
                )
    return {group: example.split for group, example in first.items()}


def _set_aside(
    examples: Sequence[Example],
    splits: list[str],
    asked: np.ndarray,
    alike: Alike | None,
    seed: int,
) -> None:
    """Fill in the splits of sources that have no val rows: a fifth of each goes to val."""
    sides = _one_side(examples, alike)
    # A stated train is a choice against test, not against val: it may still be set aside.
    fixed = {
        side: split
        for side, split, own in zip(sides, splits, asked, strict=True)
        if split and (split != "train" or not own)
    }
    for place, side in enumerate(sides):
        if asked[place] and side in fixed:
            splits[place] = splits[place] or fixed[side]
    open_rows = [i for i, side in enumerate(sides) if asked[i] and side not in fixed]
    if len(set(sides[open_rows])) < FEWEST and "val" in splits:
        chosen = np.zeros(len(open_rows), bool)  # a few rows beside a val that is there already
    else:
        chosen = _stratified_fifth([examples[i] for i in open_rows], sides[open_rows], seed)
    for place, is_val in zip(open_rows, chosen, strict=True):
        splits[place] = "val" if is_val else "train"


def _stratified_fifth(examples: Sequence[Example], sides: np.ndarray, seed: int) -> np.ndarray:
    """Which rows are a fifth of all, ``bool`` ``(n,)``; rows of one side stay together."""
    if len(set(sides)) < FEWEST:
        few = f"{len(examples)} pictures"
        if len(set(sides)) < len(examples):
            few += f", of which {len(set(sides))} remain where groups and copies count once,"
        raise ValueError(
            f"{few} are too few to set a fifth aside for validation: give at least {FEWEST}, "
            "or a column 'split' with train and val."
        )
    answers = np.array([f"{example.source} {_answer(example)}" for example in examples])
    _, counts = np.unique(answers, return_counts=True)
    if counts.max() < FEWEST:
        answers[:] = "any"
    grouped = len(set(sides)) < len(examples)
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    folds = kind(FEWEST, shuffle=True, random_state=seed)
    # Rare answers may miss from val; the summary before training shows the counts.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        _, val = next(folds.split(np.zeros(len(examples)), answers, sides if grouped else None))
    return np.isin(np.arange(len(examples)), val)


def _one_side(examples: Sequence[Example], alike: Alike | None) -> np.ndarray:
    """Numbers of the sets that must not be divided: groups, pictures, twins."""
    stated = [example.group for example in examples]
    pictures = [os.path.abspath(example.path) for example in examples]
    seen = list(alike(examples)) if alike else []
    return component_labels(
        len(examples),
        bipartite_components(stated),
        bipartite_components(pictures),
        bipartite_components(seen),
    )


def _answer(example: Example) -> str:
    """All that is known of an example in one word; of votes the strongest."""
    return " ".join(
        f"{task}={label if isinstance(label, str) else max(label, key=lambda k: label[k])}"
        for task, label in sorted(example.labels.items())
        if label
    )
