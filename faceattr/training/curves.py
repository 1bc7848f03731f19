"""Training curves, drawn from the log of a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def draw_curves(log: Path, path: Path) -> None:
    """Draw loss and accuracy by epoch.

    Args:
        log: The ``log.csv`` of a run.
        path: The PNG to write: losses on the left, accuracies (training dotted, validation
            whole) on the right, a grey line where a new phase or crop size begins.
    """
    from matplotlib.figure import Figure

    table = pd.read_csv(log)
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    colours: dict[str, str] = {}
    for column in table.columns:
        if column.endswith("loss"):
            losses.plot(table["epoch"], table[column], marker=".", label=column)
        elif column.endswith("accuracy"):
            name = column.removeprefix("val_").removesuffix("_accuracy")
            style = ".-" if column.startswith("val_") else ".:"
            colour = colours.setdefault(name, f"C{len(colours)}")
            accuracies.plot(table["epoch"], 100 * table[column], style, color=colour, label=column)
    stretch = table["phase"] + table["size"].astype(str)
    for axis, label in ((losses, "loss over labelled rows"), (accuracies, "accuracy, %")):
        for start in table["epoch"][stretch != stretch.shift()].iloc[1:]:
            axis.axvline(start - 0.5, color="0.8", zorder=0)
        axis.set(xlabel="epoch", ylabel=label)
        axis.legend(fontsize="small")
    figure.savefig(path, dpi=130)
