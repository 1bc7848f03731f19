"""The figures of a report, of matplotlib: confusions, reliability, coverage, curves."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn import metrics

from faceattr.evaluation.calibration import coverage_curve, operating_points, reliability
from faceattr.evaluation.metrics import Score, TaskPredictions
from faceattr.tasks import Task

Draw = Callable[[], Figure]
INK = "#010203"  # of SVG text and axes, to be found again and made the page's own colour
MARKED = (0.5, 0.7, 0.9)  # smallest confidences that the coverage curve points out
# Names of classes are users' text and no formulas; a missing glyph is no reason for a message.
PLAIN: dict[str, Any] = {"text.parse_math": False}
PAGE: dict[str, Any] = {
    **PLAIN,
    **{"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11},
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    **{"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False},
}


@contextmanager
def _drawing(style: Any) -> Iterator[None]:
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def save_png(draw: Draw, path: Path) -> None:
    with _drawing(PLAIN):
        draw().savefig(path, dpi=130)


def svg_of(draw: Draw) -> str:
    """Draw a figure as SVG for a page: transparent, with text in the page's own colour."""
    text = io.StringIO()
    with _drawing(PAGE):
        draw().savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :].replace(INK, "currentColor")
    # The page decides how wide a figure is.
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)


def confusions(scores: Mapping[str, Score], tasks: Sequence[Task]) -> Figure:
    """One confusion matrix per task side by side: shares of the true class, in per cent."""
    drawn = [task for task in tasks if task.name in scores and scores[task.name].n]
    widths = [1.6 + 0.55 * len(task.classes) for task in drawn]
    figure = Figure(figsize=(sum(widths) + 0.5, max(widths) + 0.5), layout="constrained")
    axes = figure.subplots(1, len(drawn), width_ratios=widths, squeeze=False)[0]
    for axis, task in zip(axes, drawn, strict=True):
        found, names = scores[task.name], list(task.classes)
        display = metrics.ConfusionMatrixDisplay(100 * found.shares, display_labels=names)
        display.plot(ax=axis, cmap="Blues", values_format=".0f", colorbar=False)
        display.im_.set_clim(0, 100)
        for text, share in zip(display.text_.flat, found.shares.flat, strict=True):
            text.set_color("white" if share > 0.5 else "black")
        axis.tick_params(axis="x", rotation=60)
        title = f"{task.name}: {found.accuracy:.1%} of {found.n}"
        axis.set(title=title, xlabel="answered", ylabel="true")
    return figure


def calibration(predictions: Sequence[TaskPredictions]) -> Figure:
    """A row per task: reliability on the left, accuracy over coverage on the right."""
    figure = Figure(figsize=(9, 3.4 * len(predictions)), layout="constrained")
    axes = figure.subplots(len(predictions), 2, squeeze=False)
    for row, found in zip(axes, predictions, strict=True):
        for axis, draw in zip(row, (draw_reliability, draw_coverage), strict=True):
            draw(axis, found)
            axis.set_title(found.task.name)
    return figure


def alone(draw: Callable[[Axes, TaskPredictions], None], predictions: TaskPredictions) -> Figure:
    """One of the drawings below as a figure of its own."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    draw(figure.subplots(), predictions)
    return figure


def draw_reliability(axis: Axes, predictions: TaskPredictions) -> None:
    """Accuracy, with its interval, over confidence; what is calibrated lies on the diagonal."""
    bins = reliability(predictions)
    rows = [(b.confidence, b.accuracy, *b.interval, b.n / len(predictions)) for b in bins]
    confidence, accuracy, low, high, shares = 100 * np.array(rows).T
    errors = np.abs([low - accuracy, high - accuracy])
    axis.plot([0, 100], [0, 100], color="0.6", linestyle=":", zorder=0)
    axis.errorbar(confidence, accuracy, yerr=errors, marker="o", color="C0", capsize=3)
    axis.bar(confidence, shares, width=4, color="C0", alpha=0.2)
    axis.set(xlim=(0, 102), ylim=(0, 102))
    axis.set(xlabel="confidence, %", ylabel="right, %  (bars: share of faces)")


def draw_coverage(axis: Axes, predictions: TaskPredictions) -> None:
    """Accuracy of the surest answers over how many they are, with some smallest confidences."""
    coverage, accuracy = coverage_curve(predictions)
    # A handful of answers has an accuracy of chance alone, which would set the scale.
    shown = coverage * len(predictions) >= min(20, 0.1 * len(predictions))
    axis.plot(100 * coverage[shown], 100 * accuracy[shown], color="C0")
    points = [point for point in operating_points(predictions, MARKED) if point.n]
    # Where several confidences let the same answers through, the highest says most.
    for point in {round(point.coverage, 2): point for point in points}.values():
        place = (100 * point.coverage, 100 * point.accuracy)
        axis.plot(*place, marker="o", color="C1")
        axis.annotate(f"≥ {point.min_confidence:g}", place, (4, 5), textcoords="offset points")
    low, high = axis.get_ylim()
    axis.set(xlim=(0, 112), ylim=(min(low, 96), min(high, 101)), xticks=range(0, 101, 20))
    axis.set(xlabel="answered, %", ylabel="right of these, %")


def curves(log: Path) -> Figure:
    """Losses (left) and accuracies (training dotted, validation whole) by epoch, out of the
    ``log.csv`` of a run: one colour a task, a grey line where a new phase or crop size begins.
    """
    table = pd.read_csv(log)
    figure = Figure(figsize=(10, 5), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    colours: dict[str, str] = {}
    for column in table.columns:
        kind = column.rpartition("_")[2]
        if kind not in ("loss", "accuracy"):
            continue
        name = column.removeprefix("val_").removesuffix(f"_{kind}")
        colour = colours.setdefault(name, f"C{len(colours)}")
        if kind == "loss":
            losses.plot(table["epoch"], table[column], ".-", color=colour, label=column)
        else:
            style = ".-" if column.startswith("val_") else ".:"
            accuracies.plot(table["epoch"], 100 * table[column], style, color=colour, label=column)
    stretch = table["phase"] + table["size"].astype(str)
    for axis, label in ((losses, "loss over labelled rows"), (accuracies, "accuracy, %")):
        for start in table["epoch"][stretch != stretch.shift()].iloc[1:]:
            axis.axvline(start - 0.5, color="0.8", zorder=0)
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        # Below the axes: with several tasks no corner of them is empty.
        axis.legend(fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure
