"""Accuracy by group: for whom a model is less right than for others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency

from faceattr.data.dataset import LabeledDataset
from faceattr.data.manifest import Example, strongest
from faceattr.data.near_duplicates import NEAR_DUPLICATE
from faceattr.evaluation.metrics import Interval, TaskPredictions, predictions_by_task, wilson
from faceattr.tasks import Task

SURPRISE = 0.05
EXPECTED = 5  # answers of a group; fewer are too few for a chi-squared test
DRAWS = 9999
FEW = 30  # rows; a smaller group is marked and does not decide about the gap
MANY = 60  # groups; more tell nothing
NUMBERS = 12  # different ones; more are put into quarters
QUARTERS = 4
START = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?(?=$|[-+ ])")  # of a range of numbers


@dataclass(frozen=True)
class Group:
    """The `n` rows of one group that know a task.

    `interval` is the 95 % Wilson interval of the accuracy. `balanced` is the mean recall over the
    classes that occur: a group that shows more of an easy class does not raise it.
    """

    name: str
    n: int
    accuracy: float
    interval: Interval
    balanced: float

    @property
    def is_small(self) -> bool:
        return self.n < FEW


@dataclass(frozen=True)
class Groups:
    """One task's accuracy by group: of a column, or of the answers of a head, `predicted`, for want
    of one. Ranges of numbers stand by size, others by name; `unknown` counts rows of no group.
    """

    task: str
    by: str
    predicted: bool
    groups: tuple[Group, ...]
    unknown: int = 0

    @property
    def heading(self) -> str:
        """``"gender"``, or ``"gender (predicted)"``."""
        return f"{self.by} (predicted)" if self.predicted else self.by

    @property
    def large(self) -> list[Group]:
        """The groups with enough rows, from the worst to the best."""
        return sorted((g for g in self.groups if not g.is_small), key=lambda group: group.accuracy)

    @property
    def worst(self) -> Group | None:
        """The group with the lowest accuracy; None with fewer than two groups of enough rows."""
        return self.large[0] if len(self.large) > 1 else None

    @property
    def gap(self) -> float | None:
        """From the worst to the best group; None with fewer than two groups of enough rows."""
        return self.large[-1].accuracy - self.large[0].accuracy if self.worst else None

    @cached_property
    def p_value(self) -> float | None:
        """How often groups of these sizes differ as much by chance alone, see `chance_of`, over all
        that have enough rows; None where there is no gap. Of many groups the worst and the best
        lie far apart even where all are the same.
        """
        if self.worst is None:
            return None
        sizes = np.array([group.n for group in self.large])
        return chance_of(np.array([round(group.accuracy * group.n) for group in self.large]), sizes)

    @property
    def may_be_chance(self) -> bool:
        """Whether so large a difference is no surprise where all groups are the same."""
        return self.p_value is not None and self.p_value > SURPRISE

    @property
    def summary(self) -> str:
        """The gap in words, and how many faces are in no group."""
        unknown = f"; {self.unknown:,} of unknown group are not counted" if self.unknown else ""
        return self._gap_in_words + unknown

    @property
    def _gap_in_words(self) -> str:
        if self.worst is None or self.gap is None:
            return f"fewer than two groups have {FEW} rows, so there is no gap to tell"
        chance = f"; may be chance (p = {self.p_value:.2f})" if self.may_be_chance else ""
        is_any_small = any(group.is_small for group in self.groups)
        few = f"; groups under {FEW} rows do not count" if is_any_small else ""
        return (
            f"gap {100 * self.gap:.1f} points, worst {self.worst.name}, "
            f"best {self.large[-1].name}{chance}{few}"
        )


def chance_of(right: np.ndarray, sizes: np.ndarray) -> float:
    """How often groups of these `sizes` differ by chance as much as with so many `right` answers.

    A chi-squared test. Where it expects fewer than 5 right or wrong answers of a group it would
    find surprises too often: there the mistakes are dealt out to the groups at random instead.
    """
    wrong = sizes - right
    if not right.any() or not wrong.any():
        return 1.0
    test = chi2_contingency([right, wrong], correction=False)
    if test.expected_freq.min() >= EXPECTED:
        return float(test.pvalue)
    expected = wrong.sum() * sizes / sizes.sum()
    dealt = np.random.default_rng(0).multivariate_hypergeometric(
        sizes, wrong.sum(), DRAWS, method="marginals"
    )
    apart, found = (((one - expected) ** 2 / sizes).sum(axis=-1) for one in (dealt, wrong))
    as_far = apart >= found * (1 - 1e-9)  # sums of the same numbers in another order
    return float((1 + as_far.sum()) / (1 + DRAWS))


def check_columns(
    columns: Sequence[str], examples: Sequence[Example], tasks: Sequence[Task]
) -> None:
    """Raise ValueError where there is neither a column nor a head of a name."""
    known = {"split", NEAR_DUPLICATE} | {task.name for task in tasks}
    known |= {name for example in examples for name in (*example.metadata, *example.labels)}
    strangers = [part for name in columns for part in name.split("+") if part not in known]
    if strangers:
        raise ValueError(
            f"There is nothing to group by {', '.join(map(repr, strangers))}: no such column and "
            f"no such task. There are: {', '.join(sorted(known))}"
        )


def score_groups(
    tasks: Sequence[Task],
    rows: LabeledDataset,
    probabilities: Mapping[str, np.ndarray],
    columns: Sequence[str],
) -> tuple[Groups, ...]:
    """Every task's accuracy by every column.

    Columns are the manifest's, tasks among them. Where no row that knows a task has the column, the
    head of that name makes the groups; without such a head the task is left out.
    ``"gender+age_group"`` crosses two columns. Many different numbers are put into quarters.
    """
    answers = {
        task.name: np.array(task.classes)[probabilities[task.name].argmax(axis=-1)]
        for task in tasks
        if task.name in probabilities
    }
    found = []
    for predictions in predictions_by_task(tasks, rows, probabilities):
        for by in columns:
            parts = [
                _values(part, predictions.rows, rows.examples, answers) for part in by.split("+")
            ]
            columns_of_parts, asked = zip(*parts, strict=True)
            if all(columns_of_parts):
                crossed = zip(*columns_of_parts, strict=True)
                names = [" + ".join(cells) if all(cells) else "" for cells in crossed]
                found.append(score_named_groups(predictions, by, names, predicted=any(asked)))
    return tuple(found)


def near_duplicate_groups(
    tasks: Sequence[Task], rows: LabeledDataset, probabilities: Mapping[str, np.ndarray]
) -> tuple[Groups, ...]:
    """Accuracy with and without the faces that are in train too, of rows of `mark_near_duplicates`;
    a task with one of the two groups only is left out.
    """
    found = score_groups(tasks, rows, probabilities, [NEAR_DUPLICATE])
    return tuple(groups for groups in found if len(groups.groups) > 1)


def score_named_groups(
    predictions: TaskPredictions, by: str, names: Sequence[str], *, predicted: bool = False
) -> Groups:
    """One task's accuracy by groups that are known: a name for each answer, ``""`` is unknown."""
    table = pd.DataFrame(
        {"group": list(names), "truth": predictions.truth, "correct": predictions.correct}
    )
    groups = table[table["group"] != ""].groupby("group")["correct"]
    counts = groups.agg(["size", "sum"])
    recalls = table.groupby(["group", "truth"])["correct"].mean()
    if len(counts) > MANY:
        raise ValueError(
            f"Column {by!r} has {len(counts):,} different values, and groups are of use where many "
            f"faces share one. Expected at most {MANY}."
        )
    found = []
    for name in sorted(counts.index, key=lambda name: (_start(name), name)):
        n, right = map(int, counts.loc[name])
        balanced = float(recalls[name].mean())
        found.append(Group(name, n, right / n, wilson(right, n), balanced))
    unknown = int((table["group"] == "").sum())
    return Groups(predictions.task.name, by, predicted, tuple(found), unknown)


def _start(name: str) -> float:
    """Where a range of numbers begins, so that "6-12" comes before "13-19"; else 0."""
    number = START.match(name)
    return float(number[0]) if number else 0.0


def _values(
    name: str, rows: np.ndarray, examples: Sequence[Example], answers: Mapping[str, np.ndarray]
) -> tuple[list[str], bool]:
    """For each row the name of its group, none if nobody knows any; whether a head named it."""
    stated = [_stated(examples[row], name) for row in rows] if examples else []
    if any(stated):
        return _in_quarters(stated), False
    return (answers[name][rows].tolist(), True) if name in answers else ([], False)


def _stated(example: Example, name: str) -> str:
    if name == "split":
        return example.split
    label = example.labels.get(name)
    return strongest(label) if label else example.metadata.get(name, "")


def _in_quarters(values: list[str]) -> list[str]:
    """Many different numbers as four ranges; anything else as it is."""
    numbers = pd.to_numeric(pd.Series(values).replace("", None), errors="coerce")
    filled = sum(map(bool, values))
    if numbers.notna().sum() < filled or numbers.nunique() <= NUMBERS:
        return values
    quarter = pd.qcut(numbers, QUARTERS, labels=False, duplicates="drop")
    ends = numbers.groupby(quarter).agg(["min", "max"])
    names = {q: f"{_written(low)} to {_written(high)}" for q, low, high in ends.itertuples()}
    return [names.get(q, "") for q in quarter]


def _written(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else f"{number:.15g}"
