"""How accurate a model stays where pictures are worse than its validation rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import cv2
import keras
import numpy as np

from faceattr.data.dataset import LabeledDataset
from faceattr.evaluation.metrics import evaluate
from faceattr.images.distort import compressed, shrunk, turned_away
from faceattr.tasks import Task

ROWS = 2000

Change = Callable[[np.ndarray], np.ndarray]


def _blurred(face: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(face, (0, 0), len(face) / 24)


def _dark(face: np.ndarray) -> np.ndarray:
    return cv2.convertScaleAbs(face, alpha=0.25)


def _quarter_profile(face: np.ndarray) -> np.ndarray:
    """One side at 60 % of its height and nearer, as of a head turned by some 30 degrees."""
    matrix = turned_away(len(face), 0.4)
    return cv2.warpPerspective(face, matrix, face.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def _covered(left: float, top: float, right: float, bottom: float, colour) -> Change:
    """An ellipse of one colour over a part of the crop, in shares of its side."""

    def change(face: np.ndarray) -> np.ndarray:
        side = len(face)
        middle = round(side * (left + right) / 2), round(side * (top + bottom) / 2)
        axes = round(side * (right - left) / 2), round(side * (bottom - top) / 2)
        return cv2.ellipse(face.copy(), middle, axes, 0, 0, 360, colour, -1)

    return change


def _sunglasses(face: np.ndarray) -> np.ndarray:
    for left in (0.12, 0.53):
        face = _covered(left, 0.24, left + 0.35, 0.46, (15, 15, 20))(face)
    return face


CHANGES: Mapping[str, Change] = {
    "as it is": lambda face: face,
    "blur": _blurred,
    "JPEG 20": lambda face: compressed(face, 20),
    "a quarter of the light": _dark,
    "20 pixels": lambda face: shrunk(face, 20),
    "quarter profile": _quarter_profile,
    "sunglasses": _sunglasses,
    "mask": _covered(0.12, 0.55, 0.88, 1.05, (200, 215, 225)),
    "hand": _covered(-0.1, 0.5, 0.45, 1.1, (190, 140, 115)),
}


def robustness(
    model: keras.Model,
    tasks: Sequence[Task],
    rows: LabeledDataset,
    watch: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> dict[str, dict[str, float]]:
    """The accuracy on rows whose crops were made worse.

    Args:
        model: The model.
        tasks: Its tasks.
        rows: Labelled crops; 2,000 of them, evenly spread, are used.
        watch: Is given the names of the changes and gives them back, for a progress bar.

    Returns:
        By change, in the order of `CHANGES`, the accuracy by task; nothing without a row.
    """
    if not len(rows):
        return {}
    places = np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int)
    few = rows.take(np.unique(places))
    crops = few.crops[few.index]
    table = {}
    for name in watch(list(CHANGES)):
        worse = np.stack([CHANGES[name](np.ascontiguousarray(face)) for face in crops])
        scores = evaluate(model, tasks, LabeledDataset(worse, np.arange(len(worse)), few.targets))
        table[name] = {task: score.accuracy for task, score in scores.items() if score.n}
    return table
