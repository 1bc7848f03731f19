"""Setting validation rows aside where a data set has not done so itself."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from faceattr.data.manifest import Example, Source
from faceattr.data.ties import connected, ties

FEWEST = 5  # of which one can be set aside
Alike = Callable[[Sequence[Example]], Sequence[int] | np.ndarray]


def set_val_aside(source: Source, alike: Alike | None = None, *, seed: int = 0) -> Source:
    """Give every row a split, and the source validation rows.

    Rows without a split follow their group's. Where the source has val rows of its own the
    rest of them trains; else a fifth of all that is not test is set aside for val, stratified
    by answer, with groups, faces of one picture and twins kept on one side.

    Args:
        source: Labelled faces.
        alike: Numbers faces so that twins share one, as `faceattr.data.twins.photographs`
            does; it is asked only where val is set aside. None: nobody looks at the pictures.
        seed: Decides which rows.

    Raises:
        ValueError: A group is stated in two splits, or there are too few rows.
    """
    splits = _splits_of_groups(source.examples)
    examples = [
        replace(example, split=example.split or splits.get(example.group, ""))
        for example in source.examples
    ]
    if any(example.split == "val" for example in examples):
        chosen: set[int] = set()
    else:
        usable = [i for i, example in enumerate(examples) if example.split != "test"]
        chosen = _stratified_fifth([examples[i] for i in usable], usable, alike, seed)
    for i, example in enumerate(examples):
        split = "val" if i in chosen else example.split or "train"
        examples[i] = replace(example, split=split)
    return replace(source, examples=tuple(examples))


def _splits_of_groups(examples: Sequence[Example]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for example in examples:
        if example.group and example.split:
            first = splits.setdefault(example.group, example.split)
            if first != example.split:
                raise ValueError(
                    f"{example.origin}: group {example.group!r} is in {first} and in "
                    f"{example.split}; one identity must not sit in two splits."
                )
    return splits


def _stratified_fifth(
    examples: Sequence[Example], places: Sequence[int], alike: Alike | None, seed: int
) -> set[int]:
    sides = _one_side(examples, alike)
    if len(set(sides)) < FEWEST:
        few = f"{len(examples)} pictures"
        if len(set(sides)) < len(examples):
            few += f", of which {len(set(sides))} remain where groups and copies count once,"
        raise ValueError(
            f"{few} are too few to set a fifth aside for validation: give at least {FEWEST}, "
            "or a column 'split' with train and val."
        )
    answers = np.array([_answer(example) for example in examples])
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
    return {places[i] for i in val}


def _one_side(examples: Sequence[Example], alike: Alike | None) -> np.ndarray:
    """Numbers of the sets that must not be divided: groups, pictures, twins."""
    stated = [example.group for example in examples]
    pictures = [os.path.abspath(example.path) for example in examples]
    seen = list(alike(examples)) if alike else []
    return connected(len(examples), ties(stated), ties(pictures), ties(seen))


def _answer(example: Example) -> str:
    """All that is known of an example in one word; of votes the strongest."""
    return " ".join(
        f"{task}={label if isinstance(label, str) else max(label, key=lambda k: label[k])}"
        for task, label in sorted(example.labels.items())
        if label
    )
