"""What several people saw in one face, beside its label: how votes are read and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from faceattr.data.manifest import Example, Source, TasksByName, Votes
from faceattr.tasks import EXPRESSION, Task

# FER+ (Barsoum et al. 2016): ten people a face. Its file names them so, behind fer2013.csv's order.
FERPLUS_FILE = "fer2013new.csv"
NO_FACE = "nf"
NO_CLASS = ("unknown", NO_FACE)
FERPLUS = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *NO_CLASS,
)


def vote_columns(columns: Iterable[str], task: str) -> dict[str, str]:
    """Columns that hold votes on a task, with the class each is for.

    They are called ``task:class``; FER+'s votes on expression may also be called as FER+ calls
    them, with ``votes_`` in front: ``votes_happiness``.
    """
    columns = list(columns)
    found = {name: name.split(":", 1)[1].strip() for name in columns if name.startswith(f"{task}:")}
    if task == EXPRESSION.name:
        names = {f"votes_{name}": name for name in FERPLUS}
        found |= {name: names[name.lower()] for name in columns if name.lower() in names}
    return found


def read_votes(path: Path, table: pd.DataFrame, columns: Mapping[str, str]) -> list[Votes]:
    """Votes by class, row by row.

    Args:
        path: The file, for messages.
        table: Its cells as text.
        columns: Those that hold votes, with the class each is for.

    Raises:
        ValueError: A cell is neither empty nor a number from 0 on; the message names the line.
    """
    cells = table[list(columns)].replace(r"^\s*$", "0", regex=True)
    numbers = cells.apply(pd.to_numeric, errors="coerce")
    wrong = ~(np.isfinite(numbers) & (numbers >= 0)).all(axis=1)
    if wrong.any():
        line = wrong.idxmax()
        raise ValueError(
            f"{path.name} line {line + 2}: votes are numbers from 0 on or empty. "
            f"Received: {', '.join(table.loc[line, list(columns)])}"
        )
    names = columns.values()
    return [
        {name: count for name, count in zip(names, row, strict=True) if count > 0}
        for row in numbers.to_numpy().tolist()
    ]


def count_votes(source: Source, shares: Mapping[str, float], known: TasksByName) -> Source:
    """Let votes count beside labels.

    Args:
        source: Its examples may have votes.
        shares: By task, how much the votes count: 1 alone, 0.5 as much as the label.
        known: Tasks whose classes are fixed; votes for anything else do not count.

    Returns:
        The source with votes as labels. Faces that half of the people or more took for none are
        left out; those without a countable vote keep their label.
    """
    examples, left_out = [], Counter(source.left_out)
    for example in source.examples:
        if any(_is_no_face(example.votes.get(task, {})) for task in shares):
            left_out["no face, by its votes"] += 1
            continue
        labels = {task: _mixed(example, task, share, known) for task, share in shares.items()}
        told = {task: label for task, label in labels.items() if label}
        examples.append(replace(example, labels={**example.labels, **told}))
    return replace(source, examples=tuple(examples), left_out=left_out)


def _is_no_face(votes: Votes) -> bool:
    return bool(votes) and 2 * votes.get(NO_FACE, 0) >= sum(votes.values())


def _mixed(example: Example, task: str, share: float, known: TasksByName) -> Votes:
    """Shares of the label's class and of the votes', which sum to 1; empty without votes."""
    votes = _countable(example.votes.get(task, {}), known.get(task))
    label = example.labels.get(task)
    if not votes or not isinstance(label, str | None):
        return {}
    if not label:
        return votes
    whole = sum(votes.values())
    mixed = {name: share * count / whole for name, count in votes.items()}
    for name in _countable({label: 1.0}, known.get(task)):
        mixed[name] = mixed.get(name, 0) + 1 - share
    return {name: part for name, part in mixed.items() if part}


def _countable(votes: Votes, task: Task | None) -> Votes:
    """The votes that are for a class, by the class's own name."""
    if task is None:
        return {name: count for name, count in votes.items() if name not in NO_CLASS}
    counted: dict[str, float] = {}
    for name in filter(task.__contains__, votes):
        own = task.class_of(name)
        counted[own] = counted.get(own, 0) + votes[name]
    return counted
