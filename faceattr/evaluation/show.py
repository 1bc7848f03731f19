"""Scores, groups and what confidence buys, as tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from rich.table import Column, Table
from rich.text import Text

from faceattr.data.console import OUT, print_notes
from faceattr.evaluation.calibration import FEWEST, Calibration, OperatingPoint, operating_points
from faceattr.evaluation.groups import Groups
from faceattr.evaluation.metrics import Score
from faceattr.evaluation.report import Evaluation


def print_calibration(calibration: Mapping[str, Calibration]) -> None:
    """Print by task the temperature and the calibration error on rows that did not fit it."""
    for name, found in calibration.items():
        if not found.fitted:
            OUT.print(f"{name}: not calibrated, which takes {FEWEST} val rows that know it")
            continue
        OUT.print(
            f"{name}: calibrated with temperature {found.temperature:.2f}, calibration error "
            f"{found.held_out_error:.1%} on rows that did not fit it "
            f"({found.expected_ece:.1%} by chance alone)"
        )


def print_half_precision(differences: Mapping[str, Mapping[str, float]]) -> None:
    """Print by task how far the stored file's answers on val are from those in float32."""
    for name, found in differences.items():
        OUT.print(
            f"{name}: stored in half precision; on val the same answer for "
            f"{found['same_answer']:.2%}, largest difference of a probability "
            f"{found['largest']:.4f}"
        )


def print_robustness(table: Mapping[str, Mapping[str, float]]) -> None:
    """Print the accuracy by task on faces that were made worse, a row for each change."""
    names = list(dict.fromkeys(name for found in table.values() for name in found))
    shown = Table("faces made worse", *names)
    for change, found in table.items():
        shown.add_row(change, *(f"{found[name]:.1%}" for name in names))
    OUT.print(shown)


def print_scores(scores: Mapping[str, Score]) -> None:
    """Print one row of figures per task, and the recall of every class."""
    table = Table("task", "n", "accuracy", "95 % interval", "balanced", "macro F1", "ECE")
    for score in scores.values():
        low, high = score.interval
        table.add_row(
            score.task,
            f"{score.n:,}",
            f"{score.accuracy:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{score.balanced_accuracy:.1%}",
            f"{score.macro_f1:.3f}",
            f"{score.calibration_error:.1%}",
        )
    OUT.print(table)
    for score in scores.values():
        recalls = ", ".join(
            f"{name} -" if np.isnan(value) else f"{name} {value:.0%}"
            for name, value in score.recall.items()
        )
        OUT.print(f"{score.task} recall: {recalls}")
        if score.within_one is not None:
            OUT.print(f"{score.task}: {score.within_one:.1%} right or one class beside it")


def print_operating_points(by_task: Mapping[str, Sequence[OperatingPoint]]) -> None:
    """Print, by task, which accuracy a smallest confidence buys for how many answers."""
    for task, found in by_task.items():
        table = Table("--min-confidence", "answered", "right of these", "95 % interval")
        for offer in found:
            low, high = offer.interval
            right = f"{offer.accuracy:.1%}" if offer.n else "-"
            interval = f"{low:.1%} to {high:.1%}" if offer.n else "-"
            table.add_row(f"{offer.min_confidence:g}", f"{offer.coverage:.1%}", right, interval)
        OUT.print(f"{task}: what label --min-confidence buys")
        OUT.print(table)


def print_groups(groups: Iterable[Groups]) -> None:
    """Print the accuracy of every group, the gap and the worst; small groups are marked."""
    for found in groups:
        table = Table(Column(Text(found.heading)), "n", "accuracy", "95 % interval", "balanced", "")
        for group in found.groups:
            low, high = group.interval
            mark = "few rows" if group.is_small else "worst" if group == found.worst else ""
            interval = f"{low:.1%} to {high:.1%}"
            cells = f"{group.n:,}", f"{group.accuracy:.1%}", interval, f"{group.balanced:.1%}", mark
            table.add_row(Text(group.name), *cells)
        OUT.print(f"{found.task} by {found.heading}: {found.summary}")
        OUT.print(table)


def print_findings(evaluation: Evaluation) -> None:
    """Print the scores, what they cannot tell, what confidence buys, and the groups."""
    print_scores(evaluation.scores)
    print_notes(evaluation.warnings())
    found = {one.task.name: operating_points(one) for one in evaluation.predictions}
    print_operating_points(found)
    print_groups(evaluation.groups)
