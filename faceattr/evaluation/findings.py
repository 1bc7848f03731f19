"""All that was measured of one model on one set of rows, the stuff that reports are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from faceattr.data.dataset import Rows
from faceattr.evaluation.answers import Answers, all_answers
from faceattr.evaluation.groups import Groups
from faceattr.evaluation.metrics import Score, scores_of
from faceattr.evaluation.mistakes import Mistake, mistakes_of
from faceattr.model.file import Description
from faceattr.tasks import Task


@dataclass(frozen=True)
class Findings:
    """What a model answered for labelled rows, and what follows from it.

    Args:
        model: The model file's name.
        description: What the file says about itself.
        split: Which rows were asked about.
        sources: Where they come from, without folders.
        rows: The rows, with the examples they were read from.
        probabilities: By task what the model said of every row, ``(n, classes)``.
        groups: Accuracy by group.
        remarks: Sentences that a reader should have in mind.
        log: The ``log.csv`` of the training run, if this is its report.
    """

    model: str
    description: Description
    split: str
    sources: tuple[str, ...]
    rows: Rows
    probabilities: Mapping[str, np.ndarray]
    groups: tuple[Groups, ...] = ()
    remarks: tuple[str, ...] = ()
    log: Path | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that were scored."""
        return tuple(answers.task for answers in self.answers)

    @cached_property
    def answers(self) -> tuple[Answers, ...]:
        """For every task that some row knows, answers beside truth."""
        return all_answers(self.description.tasks, self.rows, self.probabilities)

    @cached_property
    def scores(self) -> dict[str, Score]:
        """By task, how good the answers are."""
        return scores_of(self.probabilities, self.description.tasks, self.rows)

    @cached_property
    def mistakes(self) -> dict[str, list[Mistake]]:
        """By task all wrong answers, the surest first."""
        return {answers.task.name: mistakes_of(answers) for answers in self.answers}

    def warnings(self) -> Iterator[str]:
        """What the figures cannot tell, in sentences: `remarks`, and classes of few rows."""
        yield from self.remarks
        for task in self.tasks:
            yield from _few_rows(self.scores[task.name])


def _few_rows(score: Score) -> Iterator[str]:
    for found in score.classes:
        low, high = found.interval
        if not found.n:
            yield (
                f"{score.task}: there is no row of {found.name}, so nothing is known of it; "
                "balanced accuracy and macro F1 are over the other classes."
            )
        elif found.has_few:
            yield (
                f"{score.task}: {found.name} has only {found.n} "
                f"row{'s' * (found.n > 1)}; its recall of {found.recall:.0%} may in truth be "
                f"anything from {low:.0%} to {high:.0%}."
            )
