"""Setting validation rows aside where a data set has not done so itself."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from faceattr.training.manifest import Manifest


def split_off_val(manifest: Manifest, *, seed: int = 0) -> Manifest:
    """Give rows without a split one: a fifth goes to val, stratified, groups kept whole.

    A manifest that has val rows of its own keeps them; then rows without a split train.
    """
    loose = [i for i, example in enumerate(manifest.examples) if not example.split]
    if not loose:
        return manifest
    has_val = any(example.split == "val" for example in manifest.examples)
    chosen = set() if has_val else _stratified_fifth(manifest, loose, seed)
    examples = list(manifest.examples)
    for i in loose:
        examples[i] = replace(examples[i], split="val" if i in chosen else "train")
    return replace(manifest, examples=tuple(examples))


def _stratified_fifth(manifest: Manifest, rows: Sequence[int], seed: int) -> set[int]:
    examples = [manifest.examples[i] for i in rows]
    answers = [str(sorted(example.labels.items(), key=str)) for example in examples]
    groups = [example.group or str(i) for i, example in enumerate(examples)]
    if len(set(groups)) < 5:
        raise ValueError(
            f"{len(set(groups))} pictures (or groups) are too few to set a fifth aside for "
            "validation: give at least 5, or a column 'split' with train and val."
        )
    # Rare answers may miss from val; the summary before training shows the counts.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        common = answers if max(map(answers.count, set(answers))) >= 5 else ["any"] * len(rows)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        _, val = next(folds.split(np.zeros(len(rows)), common, groups))
    return {rows[i] for i in val}
