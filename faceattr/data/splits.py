"""Setting validation rows aside, once for all sources together."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from faceattr.data.manifest import Example, strongest

FEWEST = 5  # of which one can be set aside
STRATA = 250  # combinations of answers that keep their shares; rarer ones together are one more
Alike = Callable[[Sequence[Example]], Sequence[int] | np.ndarray]


def assign_splits(
    examples: Sequence[Example], alike: Alike | None = None, *, seed: int = 0
) -> tuple[Example, ...]:
    """Give every row a split, and every source validation rows.

    Rows without a split follow what they hang together with: their group, the other faces of
    their image, their near-duplicates, whichever source these came from. Where a source has val
    rows of its own the rest of it trains; else a fifth of all that is not test is set aside for
    val, stratified by source and answer, with what hangs together kept on one side.

    `alike` numbers faces so that near-duplicates share one, see
    `faceattr.data.face_finder.FaceFinder.near_duplicates`; it is asked only where val is set aside.
    """
    _refuse_groups_across_splits(examples)
    with_val = sources_with_val(examples)
    asked = np.array([example.source not in with_val for example in examples], bool)
    splits = _stated_splits(examples)
    if asked.any():
        _set_aside(examples, splits, asked, alike, seed)
    return tuple(replace(example, split=s) for example, s in zip(examples, splits, strict=True))


def sources_with_val(examples: Iterable[Example]) -> set[str]:
    """The sources that have val rows of their own, from which none are set aside."""
    return {example.source for example in examples if example.split == "val"}


def with_stated_splits(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Fill in the splits that need no choice: rows without one go with their group, and train where
    their source has val rows. The others stay without, for val is not set aside yet.
    """
    splits = _stated_splits(examples)
    return tuple(replace(example, split=s) for example, s in zip(examples, splits, strict=True))


def _stated_splits(examples: Sequence[Example]) -> list[str]:
    groups: dict[str, str] = {}
    for example in examples:
        if example.group and example.split:
            groups.setdefault(example.group, example.split)
    with_val = sources_with_val(examples)
    return [
        example.split
        or groups.get(example.group)
        or ("train" if example.source in with_val else "")
        for example in examples
    ]


def _refuse_groups_across_splits(examples: Sequence[Example]) -> None:
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


def _set_aside(
    examples: Sequence[Example],
    splits: list[str],
    asked: np.ndarray,
    alike: Alike | None,
    seed: int,
) -> None:
    """Fill in the splits of sources that have no val rows: a fifth of each goes to val."""
    groups = [example.group for example in examples]
    images = [os.path.abspath(example.name) for example in examples]  # old pandas want valid text
    sides = connected_sets([groups, images, *([alike(examples)] if alike else [])])
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
    is_grouped = len(set(sides)) < len(examples)
    if len(set(sides)) < FEWEST:
        remain = f", of which {len(set(sides))} remain where groups and copies count once,"
        raise ValueError(
            f"{len(examples)} images{remain * is_grouped} are too few to set a fifth aside for "
            f"validation: give at least {FEWEST}, or a column 'split' with train and val."
        )
    words = np.array([f"{example.source} {_labels(example)}" for example in examples], object)
    answers = pd.factorize(words, sort=True)[0]
    counts = np.bincount(answers)
    # A table of sets and answers is made of them: it must not grow with the number of tasks.
    rare = np.argsort(-counts, kind="stable")[STRATA if counts.max() >= FEWEST else 0 :]
    answers[np.isin(answers, rare)] = len(counts)
    kind = StratifiedGroupKFold if is_grouped else StratifiedKFold
    folds = kind(FEWEST, shuffle=True, random_state=seed)
    # Rare answers may miss from val; the summary before training shows the counts.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        _, val = next(folds.split(answers, answers, sides if is_grouped else None))
    return np.isin(np.arange(len(examples)), val)


def _labels(example: Example) -> str:
    known = ((task, label) for task, label in sorted(example.labels.items()) if label)
    return " ".join(f"{task}={strongest(label)}" for task, label in known)


def connected_sets(
    labels: Sequence[Sequence[Hashable] | np.ndarray], pairs: np.ndarray | None = None
) -> np.ndarray:
    """For each thing the number of its set, ``(things,)``: what hangs together is in one set.

    Two things hang together, also through others, where one of the lists `labels` has the same
    label for both (None and empty texts are no labels), or as one of `pairs`, ``int`` ``(m, 2)``.
    """
    count = nodes = len(labels[0])
    edges = [np.zeros((0, 2), int) if pairs is None else pairs]
    for column in labels:  # each label is a node that its things are connected with
        codes, values = pd.factorize(np.array([None if x == "" else x for x in column], object))
        known = np.flatnonzero(codes >= 0)
        edges.append(np.column_stack([known, nodes + codes[known]]))
        nodes += len(values)
    first, second = np.concatenate(edges).T
    graph = sparse.coo_array((np.ones(len(first), bool), (first, second)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1][:count]
