"""All that was measured of one model on one set of rows, the stuff that reports are made of."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from faceattr.data.dataset import LabeledDataset
from faceattr.evaluation.groups import Groups
from faceattr.evaluation.metrics import Score, TaskPredictions, predictions_by_task, scores_of
from faceattr.images.draw import Tile, contact_sheet
from faceattr.model.file import Description
from faceattr.tasks import Task

SHOWN = 24  # of a task
COLUMNS = ("path", *("x0", "y0", "x1", "y1"), "task", "true", "answered")
SURE = ("probability", "true_probability")


@dataclass(frozen=True)
class Mistake:
    """One wrong answer.

    Args:
        task: The task.
        row: Its row.
        truth: The class that the label says.
        answer: The class that the head says.
        probability: How sure it is of that, 0-1.
        true_probability: What it leaves for the labelled class, 0-1.
    """

    task: str
    row: int
    truth: str
    answer: str
    probability: float
    true_probability: float


def mistakes_of(answers: TaskPredictions) -> list[Mistake]:
    """All wrong answers to one task, the surest first."""
    wrong = np.flatnonzero(~answers.right)
    order = wrong[np.argsort(-answers.confidence[wrong], kind="stable")]
    classes, said = answers.task.classes, answers.probabilities
    return [
        Mistake(
            answers.task.name,
            int(answers.rows[i]),
            classes[answers.truth[i]],
            classes[answers.answer[i]],
            float(said[i].max()),
            float(said[i, answers.truth[i]]),
        )
        for i in order
    ]


def path_of(rows: LabeledDataset, row: int) -> str:
    """Where a row's picture lies; its number where nobody kept that."""
    return str(rows.examples[row].path) if rows.examples else f"row {row}"


def write_mistakes(mistakes: Iterable[Mistake], rows: LabeledDataset, path: Path) -> None:
    """Write the wrong answers as a CSV file: which picture, true and answered class."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS + SURE)
        for wrong in mistakes:
            box = (rows.examples[wrong.row].box if rows.examples else None) or ("",) * 4
            sure = f"{wrong.probability:.4f}", f"{wrong.true_probability:.4f}"
            said = wrong.task, wrong.truth, wrong.answer, *sure
            writer.writerow([path_of(rows, wrong.row), *box, *said])


def draw_mistakes(mistakes: Sequence[Mistake], rows: LabeledDataset, path: Path) -> None:
    """Draw the surest of one list of mistakes as a contact sheet."""
    tiles = [
        Tile(
            rows.crops[rows.index[wrong.row]],
            (f"{wrong.answer} {wrong.probability:.0%}", f"label: {wrong.truth}"),
        )
        for wrong in mistakes
    ]
    contact_sheet(tiles, title="Surest wrong answers").save(path)


@dataclass(frozen=True)
class Evaluation:
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
    rows: LabeledDataset
    probabilities: Mapping[str, np.ndarray]
    groups: tuple[Groups, ...] = ()
    remarks: tuple[str, ...] = ()
    log: Path | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that were scored."""
        return tuple(answers.task for answers in self.answers)

    @cached_property
    def answers(self) -> tuple[TaskPredictions, ...]:
        """For every task that some row knows, answers beside truth."""
        return predictions_by_task(self.description.tasks, self.rows, self.probabilities)

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
