"""How records look in a terminal; importing this teaches `faceattr.cli.console.show` them.

It imports what the records need, so commands do so when they run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from rich.table import Column, Table
from rich.text import Text

from faceattr.auditing import checks
from faceattr.auditing.checks import Audit, Finding
from faceattr.cli.console import OUT, show
from faceattr.data.dataset import DatasetSummary
from faceattr.evaluation.calibration import operating_points
from faceattr.evaluation.groups import Groups
from faceattr.evaluation.metrics import Interval, Score, TaskPredictions
from faceattr.evaluation.report import Evaluation
from faceattr.evaluation.robustness import Robustness


@show.register
def _(summary: DatasetSummary) -> None:
    counts = ", ".join(f"{count:,} {split}" for split, count in summary.faces.items())
    OUT.print(f"{sum(summary.faces.values()):,} faces: {counts}")
    splits = list(summary.faces)
    table = Table("task", "class", *(Column(split, justify="right") for split in splits))
    for task, known in summary.known.items():
        table.add_row(task, "(all)", *(f"{known[split]:,}" for split in splits))
        by_split = summary.classes[task]
        for name in by_split[splits[0]] if splits else ():
            table.add_row("", Text(name), *(f"{by_split[split][name]:,.0f}" for split in splits))
    OUT.print(table)


@show.register
def _(audit: Audit) -> None:
    print_left_out(audit.left_out)
    show(audit.summary)
    if not audit.findings:
        OUT.print("nothing found")
        return
    table = Table("finding", "where", Column("n", justify="right"), "for example")
    for (kind, where), count in audit.totals.items():
        first = next(f for f in audit.findings if (f.kind, f.where) == (kind, where))
        table.add_row(kind, Text(where), f"{count:,}", Text(_in_short(first)))
    OUT.print(table)
    for finding in audit.findings:
        if finding.kind == checks.SWAPPED:
            OUT.print(f"{finding.where}: {finding.words}")


def _in_short(finding: Finding) -> str:
    ends = ["/".join(Path(end.name).parts[-2:]) for end in (finding.example, finding.other) if end]
    said = "" if finding.kind == checks.SWAPPED else finding.words
    return " = ".join(ends) + (f" ({said})" if said and ends else said)


@show.register
def _(evaluation: Evaluation) -> None:
    _show_scores(evaluation.scores.values())
    for warning in evaluation.warnings():
        OUT.print(f"note: {warning}")
    for predictions in evaluation.predictions:
        _show_operating_points(predictions)
    for groups in evaluation.groups:
        _show_groups(groups)


def _show_scores(scores: Iterable[Score]) -> None:
    """One row of figures per task, and the recall of every class."""
    table = Table("task", "n", "accuracy", "95 % interval", "balanced", "macro F1", "ECE")
    for score in scores:
        table.add_row(
            score.task,
            f"{score.n:,}",
            f"{score.accuracy:.1%}",
            _interval(score.interval),
            f"{score.balanced_accuracy:.1%}",
            f"{score.macro_f1:.3f}",
            f"{score.calibration_error:.1%}",
        )
    OUT.print(table)
    for score in scores:
        recalls = ", ".join(
            f"{name} -" if np.isnan(value) else f"{name} {value:.0%}"
            for name, value in score.recall.items()
        )
        OUT.print(f"{score.task} recall: {recalls}")
        if score.within_one is not None:
            OUT.print(f"{score.task}: {score.within_one:.1%} right or one class beside it")


def _show_operating_points(predictions: TaskPredictions) -> None:
    """Which accuracy a smallest confidence buys for how many answers."""
    table = Table("--min-confidence", "answered", "right of these", "95 % interval")
    for point in operating_points(predictions):
        right, interval = "-", "-"
        if point.n:
            right, interval = f"{point.accuracy:.1%}", _interval(point.interval)
        table.add_row(f"{point.min_confidence:g}", f"{point.coverage:.1%}", right, interval)
    OUT.print(f"{predictions.task.name}: what label --min-confidence buys")
    OUT.print(table)


def _show_groups(groups: Groups) -> None:
    """The accuracy of every group, the gap and the worst; small groups are marked."""
    table = Table(Column(Text(groups.heading)), "n", "accuracy", "95 % interval", "balanced", "")
    for group in groups.groups:
        mark = "few rows" if group.is_small else "worst" if group == groups.worst else ""
        table.add_row(
            Text(group.name),
            f"{group.n:,}",
            f"{group.accuracy:.1%}",
            _interval(group.interval),
            f"{group.balanced:.1%}",
            mark,
        )
    OUT.print(f"{groups.task} by {groups.heading}: {groups.summary}")
    OUT.print(table)


def _interval(interval: Interval) -> str:
    low, high = interval
    return f"{low:.1%} to {high:.1%}"


@show.register
def _(worse: Robustness) -> None:
    names = list(dict.fromkeys(name for found in worse.accuracy.values() for name in found))
    table = Table("faces made worse", *names)
    for change, found in worse.accuracy.items():
        table.add_row(change, *(f"{found[name]:.1%}" for name in names))
    OUT.print(table)


def print_left_out(left_out: Mapping[str, int]) -> None:
    """A line for every reason for which something was left out."""
    for reason, count in left_out.items():
        OUT.print(f"left out: {count:,} ({reason})")
