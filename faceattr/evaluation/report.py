"""What was measured of one model on one set of rows, and the report that shows it.

``report.html`` has everything in one file, ``card.md`` the same beside figures.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from faceattr.data.dataset import LabeledDataset
from faceattr.evaluation import plots
from faceattr.evaluation.calibration import operating_points, reliability
from faceattr.evaluation.groups import Groups
from faceattr.evaluation.metrics import (
    Score,
    TaskPredictions,
    predictions_by_task,
    scores_of,
)
from faceattr.files import to_jsonable, write_errors, write_json
from faceattr.images.draw import Tile, contact_sheet, data_url
from faceattr.model.file import Description
from faceattr.pages import template
from faceattr.tasks import Task

SCORES = "scores.json"  # its absence tells that a run is not finished
PAGES = ("card.md", "report.html")
REPORT = (*PAGES, SCORES)  # what no report may replace unless asked to
SHOWN = 24  # mistakes of a task
SIDE = 96  # of a face on the page, in pixels
BOX = ("x0", "y0", "x1", "y1")
COLUMNS = ("path", *BOX, "task", "true", "answered", "probability", "true_probability")


@dataclass(frozen=True)
class Mistake:
    """One wrong answer to the face of a row: the labelled class and the answered one, and the
    probabilities of the answer and of the labelled class, 0-1.
    """

    task: str
    row: int
    truth: str
    answer: str
    probability: float
    true_probability: float


def _mistakes_of(predictions: TaskPredictions) -> list[Mistake]:
    """All wrong answers to one task, the surest first."""
    wrong = np.flatnonzero(~predictions.correct)
    order = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]
    task, predicted, mistakes = predictions.task, predictions.predicted, []
    for i in order:
        truth, answer, shares = predictions.truth[i], predicted[i], predictions.probabilities[i]
        about = task.name, int(predictions.rows[i]), task.classes[truth], task.classes[answer]
        mistakes.append(Mistake(*about, float(shares[answer]), float(shares[truth])))
    return mistakes


@dataclass(frozen=True)
class Evaluation:
    """What a model answered for labelled rows, and what follows from it.

    Args:
        model: The model file's name.
        split: Which rows were asked about.
        sources: Where they come from, without folders.
        rows: With the examples they were read from.
        probabilities: By task what the model said of every row, ``(n, classes)``.
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
        return tuple(predictions.task for predictions in self.predictions)

    @cached_property
    def predictions(self) -> tuple[TaskPredictions, ...]:
        """For every task that some row knows, answers beside truth."""
        return predictions_by_task(self.description.tasks, self.rows, self.probabilities)

    @cached_property
    def scores(self) -> dict[str, Score]:
        return scores_of(self.probabilities, self.description.tasks, self.rows)

    @cached_property
    def mistakes(self) -> dict[str, list[Mistake]]:
        """By task all wrong answers, the surest first."""
        return {found.task.name: _mistakes_of(found) for found in self.predictions}

    def warnings(self) -> Iterator[str]:
        """What the figures cannot tell, in sentences: `remarks`, and classes of few rows."""
        yield from self.remarks
        for task in self.tasks:
            yield from _few_rows(self.scores[task.name])

    def path_of(self, row: int) -> str:
        """Where a row's image lies; its number where nobody kept that."""
        return self.rows.examples[row].name if self.rows.examples else f"row {row}"


def _few_rows(score: Score) -> Iterator[str]:
    if unknown := [found.name for found in score.classes if not found.n]:
        it = "it" if len(unknown) == 1 else "them"
        yield (
            f"{score.task}: there is no row of {', '.join(unknown)}, so nothing is known of {it}; "
            "balanced accuracy and macro F1 are over the other classes."
        )
    for found in score.classes:
        low, high = found.interval
        if found.n and found.has_few:
            yield (
                f"{score.task}: {found.name} has only {found.n} "
                f"row{'s' * (found.n > 1)}; its recall of {found.recall:.0%} may in truth be "
                f"anything from {low:.0%} to {high:.0%}."
            )


def write_report(evaluation: Evaluation, folder: Path) -> None:
    """Write ``report.html``, ``card.md``, ``mistakes.csv`` with every wrong answer into a folder,
    ``mistakes.png`` with the surest, ``confusions.png``, ``calibration.png``, of a training run
    ``curves.png``, and, at last, ``scores.json``.
    """
    with write_errors(folder):
        _write_report(evaluation, folder)


def _write_report(evaluation: Evaluation, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tasks, predictions = evaluation.tasks, evaluation.predictions
    plots.save_png(partial(plots.confusions, evaluation.scores, tasks), folder / "confusions.png")
    plots.save_png(partial(plots.calibration, predictions), folder / "calibration.png")
    (folder / "curves.png").unlink(missing_ok=True)  # of a report that was there
    if evaluation.log is not None:
        plots.save_png(partial(plots.curves, evaluation.log), folder / "curves.png")
    _write_mistakes(evaluation, folder / "mistakes.csv")
    _draw_mistakes(evaluation, folder / "mistakes.png")
    for page in PAGES:
        (folder / page).write_text(_page(evaluation, page), encoding="utf-8")
    write_json(_as_json(evaluation), folder / SCORES)


def _write_mistakes(evaluation: Evaluation, path: Path) -> None:
    """The wrong answers as a CSV file: which image, true and answered class."""
    examples = evaluation.rows.examples
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for wrong in (one for some in evaluation.mistakes.values() for one in some):
            box = (examples[wrong.row].box if examples else None) or ("",) * len(BOX)
            shares = f"{wrong.probability:.4f}", f"{wrong.true_probability:.4f}"
            names = wrong.task, wrong.truth, wrong.answer
            writer.writerow([evaluation.path_of(wrong.row), *box, *names, *shares])


def _draw_mistakes(evaluation: Evaluation, path: Path) -> None:
    rows, tiles = evaluation.rows, []
    for wrong in (one for some in evaluation.mistakes.values() for one in some[:SHOWN]):
        lines = f"{wrong.answer} {wrong.probability:.0%}", f"label: {wrong.truth}"
        tiles.append(Tile(rows.crops[rows.index[wrong.row]], lines))
    contact_sheet(tiles, title="Surest wrong answers").save(path)


def _as_json(evaluation: Evaluation) -> dict[str, dict]:
    """By task its score, and what else was counted."""
    found = {name: asdict(score) for name, score in evaluation.scores.items()}
    for predictions in evaluation.predictions:
        name = predictions.task.name
        score, groups = evaluation.scores[name], evaluation.groups
        found[name] |= {
            "within_one": score.within_one,
            "classes": [asdict(one) for one in score.classes],
            "reliability": [asdict(one) for one in reliability(predictions)],
            "min_confidence": [asdict(one) for one in operating_points(predictions)],
            "groups": [asdict(one) for one in groups if one.task == name],
        }
    return found


def _page(evaluation: Evaluation, page: str) -> str:
    """The report as one HTML file that loads nothing, or the card in Markdown; what is no text of
    ours is escaped.
    """
    by_task = {found.task.name: found for found in evaluation.predictions}
    shown: dict[str, Any] = {
        "evaluation": evaluation,
        "description": evaluation.description,
        "points": {name: operating_points(found) for name, found in by_task.items()},
        "surest": {name: wrong[:SHOWN] for name, wrong in evaluation.mistakes.items()},
    }
    if page.endswith(".html"):
        drawings = plots.draw_reliability, plots.draw_coverage
        shown["figures"] = {
            name: [_inline(partial(plots.alone, draw, found)) for draw in drawings]
            for name, found in by_task.items()
        }
        shown["curves"] = evaluation.log and _inline(partial(plots.curves, evaluation.log))
    rows = evaluation.rows
    report = template(
        f"evaluation/page/{page}",
        json=lambda value: json.dumps(to_jsonable(value), indent=1),
        face=lambda wrong: data_url(Image.fromarray(rows.crops[rows.index[wrong.row]]), SIDE),
        path=lambda wrong: evaluation.path_of(wrong.row),
    )
    return report.render(shown)


def _inline(draw: plots.Draw) -> Markup:
    """A figure as part of the page; matplotlib has escaped the texts in it."""
    return Markup(plots.svg_of(draw))
