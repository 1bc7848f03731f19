"""Names of classes that look exchanged: what labels call happy, a model calls sad."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest

from faceattr.data.dataset import read_dataset
from faceattr.data.manifest import Example, targets
from faceattr.data.splits import connected_sets
from faceattr.evaluation.metrics import confusion_of, predict
from faceattr.model import file as model_file
from faceattr.tasks import Task

PER_CLASS = 60  # faces that are asked about
FEWEST = 10  # of a class
TIMES, MORE = 2.0, 0.1  # as many right answers, and a share of the rows, or it is no swap
CHANCE = 0.01  # of finding a swap where there is none, over all that could be found


@dataclass(frozen=True)
class LabelPermutation:
    """Names that look exchanged: what the labels call a class, and what a model calls it.

    `as_labelled` is the share of the faces of these classes that the model calls as the labels do,
    `exchanged` the same after the names are exchanged.
    """

    task: str
    names: Mapping[str, str]
    as_labelled: float
    exchanged: float
    faces: int

    def __str__(self) -> str:
        pairs = ", ".join(f"{one} looks like {other}" for one, other in self.names.items())
        return (
            f"{pairs}: the model agrees with {self.as_labelled:.0%} of {self.faces} labels as they "
            f"are, with {self.exchanged:.0%} after exchanging the names"
        )


def find_permutation(
    task: str, names: Sequence[str], confusion: np.ndarray
) -> LabelPermutation | None:
    """The exchanges of names that explain a confusion much better than the names themselves.

    `confusion` counts labels by row and answers of a model by column. None where the names are
    right, as far as the model can tell: classes under 10 faces do not count, and an exchange must
    double the right answers, have more of them in each class, and be no chance (a sign test over
    the faces that one of the two namings gets right, corrected for the number of exchanges).
    """
    enough = np.flatnonzero(confusion.sum(axis=1) >= FEWEST)
    counts = confusion[np.ix_(enough, enough)]
    shares = counts / confusion[enough].sum(axis=1, keepdims=True)
    answers = np.arange(len(names))
    answers[enough] = enough[linear_sum_assignment(shares, maximize=True)[1]]
    # Each exchange must hold alone: a real one neither falls with a doubtful one nor carries it.
    cycles = [c for c in _cycles(answers) if _is_exchanged(confusion, c, answers[c], len(enough))]
    moved = sorted(place for cycle in cycles for place in cycle)
    if not moved:
        return None
    faces = int(confusion[moved].sum())
    kept, exchanged = confusion[moved, moved].sum(), confusion[moved, answers[moved]].sum()
    words = {names[i]: names[answers[i]] for i in moved}
    return LabelPermutation(task, words, kept / faces, exchanged / faces, faces)


def _cycles(answers: np.ndarray) -> list[list[int]]:
    """The classes that a permutation moves, apart by which of them it exchanges for each other."""
    numbers = np.arange(len(answers))
    sets = connected_sets([numbers], np.column_stack([numbers, answers]))
    cycles = (np.flatnonzero(sets == number).tolist() for number in np.unique(sets))
    return [cycle for cycle in cycles if len(cycle) > 1]


def _is_exchanged(
    confusion: np.ndarray, cycle: list[int], answers: np.ndarray, classes: int
) -> bool:
    """Whether `answers` are much better names for a cycle than its own; one of `classes`."""
    faces = confusion[cycle].sum()
    kept, exchanged = confusion[cycle, cycle], confusion[cycle, answers]
    before, after = kept.sum() / faces, exchanged.sum() / faces
    if after < max(TIMES * before, before + MORE) or not (exchanged > kept).all():
        return False
    tried = math.comb(classes, len(cycle)) * math.factorial(len(cycle) - 1)
    votes = round(exchanged.sum()), round(exchanged.sum() + kept.sum())
    return bool(tried * binomtest(*votes, alternative="greater").pvalue <= CHANCE)


def find_label_permutations(
    tasks: Sequence[Task], examples: Sequence[Example], model: Path, cache: Path | None = None
) -> list[LabelPermutation]:
    """Ask a model about some faces of every class, for each task whose classes a head knows.

    A task is compared with the head that has its classes, whatever either is called.
    """
    description = model_file.describe(model)
    known = {
        task: head
        for task in tasks
        for head in reversed(description.tasks)  # of several heads, the first one
        if set(task.classes) <= set(head.classes)
    }
    if not known:
        return []
    network, found = model_file.load(model)[0], []
    for task, head in known.items():
        some = _sample_per_class(examples, task)
        rows, _ = read_dataset(some, [replace(head, name=task.name)], description.crop, cache)
        answers = predict(network, rows)[head.name].argmax(axis=1)
        labels = rows.targets[task.name].argmax(axis=1)
        confusion = confusion_of(labels, answers, len(head.classes))
        found.append(find_permutation(task.name, head.classes, confusion))
    return [swap for swap in found if swap is not None]


def _sample_per_class(examples: Sequence[Example], task: Task) -> list[Example]:
    """Up to 60 faces of every class, always the same ones."""
    answers = targets([task], examples)[task.name]
    chosen: list[Example] = []
    for place in range(len(task.classes)):
        own = np.flatnonzero(answers.any(axis=1) & (answers.argmax(axis=1) == place))
        order = np.random.default_rng(0).permutation(own)[:PER_CLASS]
        chosen += [examples[row] for row in order]
    return chosen
