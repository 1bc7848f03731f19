"""Setting validation rows aside where a data set has not done so itself."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from faceattr.training.manifest import Example, Source

FEWEST = 5  # of which one can be set aside


def set_val_aside(source: Source, *, seed: int = 0) -> Source:
    """Give every row a split, and the source validation rows.

    Rows without a split follow their group's. Where the source has val rows of its own the
    rest of them trains; else a fifth of all that is not test is set aside for val, stratified
    by answer and with groups kept whole.

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
        chosen = _stratified_fifth(examples, usable, seed)
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


def _stratified_fifth(examples: Sequence[Example], rows: Sequence[int], seed: int) -> set[int]:
    groups = [(examples[i].group and f"group {examples[i].group}") or f"row {i}" for i in rows]
    if len(set(groups)) < FEWEST:
        raise ValueError(
            f"{len(set(groups))} pictures (or groups) are too few to set a fifth aside for "
            f"validation: give at least {FEWEST}, or a column 'split' with train and val."
        )
    answers = np.array([_answer(examples[i]) for i in rows])
    _, counts = np.unique(answers, return_counts=True)
    if counts.max() < FEWEST:
        answers[:] = "any"
    grouped = len(set(groups)) < len(rows)
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    folds = kind(FEWEST, shuffle=True, random_state=seed)
    # Rare answers may miss from val; the summary before training shows the counts.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        _, val = next(folds.split(np.zeros(len(rows)), answers, groups if grouped else None))
    return {rows[i] for i in val}


def _answer(example: Example) -> str:
    """All that is known of an example in one word; of votes the strongest."""
    return " ".join(
        f"{task}={label if isinstance(label, str) else max(label, key=lambda k: label[k])}"
        for task, label in sorted(example.labels.items())
        if label
    )
