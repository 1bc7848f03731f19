"""The audit in brief: what a training says of its faces before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from faceattr.auditing import checks, issues
from faceattr.auditing.label_permutation import find_swaps
from faceattr.data.dataset import Rows
from faceattr.tasks import Task
from faceattr.training.network import Network


def of_rows(tasks: Sequence[Task], rows: Mapping[str, Rows]) -> list[str]:
    """A note for each kind of finding among the faces of all splits, and where there is more."""
    found = checks.looked_at(tasks, joined(tuple(rows.values())))
    totals = issues.totals(one for one in found if one.kind not in issues.IN_WORDS)
    lines = [f"{kind}: {count:,} ({where})" for (kind, where), count in totals.items()]
    for kind in issues.IN_WORDS:
        if told := [f"{one.where} {one.words}" for one in found if one.kind == kind]:
            lines.append(f"{kind}: {', '.join(told)}")
    return [*lines, "`faceattr audit` with these sources names them"] if totals else lines


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of several splits in one; all are cut by the same rule into the same cache."""
    # Crops are only ever appended, so the longest view of the file holds those of the others.
    crops = max((part.crops for part in parts), key=len)
    targets = {
        name: np.concatenate([part.targets[name] for part in parts]) for name in parts[0].targets
    }
    examples = [example for part in parts for example in part.examples]
    return Rows(crops, np.concatenate([part.index for part in parts]), targets, examples)


def of_start(tasks: Sequence[Task], train: Rows, network: Network, cache: Path | None) -> list[str]:
    """A line for each task whose names the model that is started from would exchange."""
    if network.start is None:
        return []
    swaps = find_swaps(tasks, train.examples, network.start, cache)
    return [f"WARNING: {swap.task}: {swap}" for swap in swaps]
