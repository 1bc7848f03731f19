"""The answers that were surest and wrong: mistakes of the model, or of the labels."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faceattr.data.dataset import Rows
from faceattr.evaluation.answers import Answers
from faceattr.images.draw import Tile, contact_sheet

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


def mistakes_of(answers: Answers) -> list[Mistake]:
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


def path_of(rows: Rows, row: int) -> str:
    """Where a row's picture lies; its number where nobody kept that."""
    return str(rows.examples[row].path) if rows.examples else f"row {row}"


def write_mistakes(mistakes: Iterable[Mistake], rows: Rows, path: Path) -> None:
    """Write the wrong answers as a CSV file: which picture, true and answered class."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS + SURE)
        for wrong in mistakes:
            box = (rows.examples[wrong.row].box if rows.examples else None) or ("",) * 4
            sure = f"{wrong.probability:.4f}", f"{wrong.true_probability:.4f}"
            said = wrong.task, wrong.truth, wrong.answer, *sure
            writer.writerow([path_of(rows, wrong.row), *box, *said])


def draw_mistakes(mistakes: Sequence[Mistake], rows: Rows, path: Path) -> None:
    """Draw the surest of one list of mistakes as a contact sheet."""
    tiles = [
        Tile(
            rows.crops[rows.index[wrong.row]],
            (f"{wrong.answer} {wrong.probability:.0%}", f"label: {wrong.truth}"),
        )
        for wrong in mistakes
    ]
    contact_sheet(tiles, title="Surest wrong answers").save(path)
