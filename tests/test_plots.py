"""Pictures that can be read: one colour a task, and nothing hidden behind a legend."""

import numpy as np
import pandas as pd
import pytest

from faceattr.evaluation.plots import curves


@pytest.fixture
def figure(tmp_path):
    """The curves of a run with three tasks."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"epoch": [1, 2, 3], "phase": "whole", "size": [32, 48, 48]})
    for task in ("age_group", "expression", "gender"):
        table[f"{task}_loss"] = rng.random(3)
        for of in (task, f"val_{task}"):
            table[f"{of}_accuracy"] = rng.random(3)
    table["loss"] = rng.random(3)
    table.to_csv(tmp_path / "log.csv", index=False)
    drawn = curves(tmp_path / "log.csv")
    drawn.draw_without_rendering()
    return drawn


def test_a_task_has_one_colour_in_both_panels(figure):
    colours = {
        line.get_label(): line.get_color() for axis in figure.axes for line in axis.get_lines()
    }
    tasks = ("age_group", "expression", "gender")
    for task in tasks:
        of_task = {colours[f"{task}_loss"], colours[f"{task}_accuracy"]}
        assert of_task == {colours[f"val_{task}_accuracy"]}
    assert len({colours[f"{task}_loss"] for task in tasks} | {colours["loss"]}) == 4


def test_legends_cover_no_curve(figure):
    for axis in figure.axes:
        legend = axis.get_legend().get_window_extent()
        assert not legend.overlaps(axis.get_window_extent())
        assert figure.bbox.y0 <= legend.y0  # nor does it leave the figure


def test_a_line_marks_where_the_crop_size_changes(figure):
    for axis in figure.axes:
        [mark] = [line for line in axis.get_lines() if line.get_label().startswith("_")]
        assert list(mark.get_xdata()) == [1.5, 1.5]
