"""One head's answers beside the truth, the form in which every figure of a report is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from faceattr.data.dataset import Rows
from faceattr.tasks import Task

Interval = tuple[float, float]


@dataclass(frozen=True)
class Answers:
    """What a head answered for the rows that know its task.

    Args:
        task: The task.
        rows: Where these rows stand among all, ``(n,)``.
        truth: Number of the true class, ``(n,)``; of votes the strongest, of a tie the first.
        probabilities: What the head said, ``(n, classes)``.
    """

    task: Task
    rows: np.ndarray
    truth: np.ndarray
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def answer(self) -> np.ndarray:
        """Number of the answered class, ``(n,)``."""
        return self.probabilities.argmax(axis=-1)

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the answer, ``(n,)``."""
        return self.probabilities.max(axis=-1)

    @property
    def right(self) -> np.ndarray:
        """Whether the answer is the truth, ``bool`` ``(n,)``."""
        return self.answer == self.truth


def answers_to(task: Task, target: np.ndarray, probabilities: np.ndarray) -> Answers:
    """Put a head's answers beside its targets.

    Args:
        task: The task.
        target: Target rows ``(n, classes)``; all-zero rows are left out.
        probabilities: What the head answered, ``(n, classes)``.
    """
    known = np.flatnonzero(target.sum(axis=-1) > 0)
    return Answers(task, known, target[known].argmax(axis=-1), probabilities[known])


def all_answers(
    tasks: Sequence[Task], rows: Rows, probabilities: Mapping[str, np.ndarray]
) -> tuple[Answers, ...]:
    """The answers to every task that model and rows share, as far as a row knows it."""
    shared = [t for t in tasks if t.name in probabilities and t.name in rows.targets]
    found = [answers_to(t, rows.targets[t.name], probabilities[t.name]) for t in shared]
    return tuple(answers for answers in found if len(answers))


def wilson(right: int, n: int) -> Interval:
    """The 95 % interval of a share (Wilson 1927); from 0 to 1 where nothing was counted."""
    if not n:
        return 0.0, 1.0
    low, high = binomtest(int(right), int(n)).proportion_ci(method="wilson")
    return float(low), float(high)


def paired_loss(before: np.ndarray, after: np.ndarray) -> Interval:
    """The 95 % interval of the accuracy that is lost between two models on the same rows.

    Only rows that one of them alone answers right tell a difference, so it is much narrower than
    two intervals side by side (Bonett and Price 2012, adjusted Wald).

    Args:
        before: Whether the first model's answers are right, ``bool`` ``(n,)``.
        after: The same of the second model.

    Returns:
        Lowest and highest loss as shares of the rows, below 0 where accuracy is gained.
    """
    n = len(before) + 2
    lost, won = (
        (np.sum(one & ~other) + 1) / n for one, other in ((before, after), (after, before))
    )
    half = 1.96 * np.sqrt((lost + won - (lost - won) ** 2) / n)
    return float(lost - won - half), float(lost - won + half)
