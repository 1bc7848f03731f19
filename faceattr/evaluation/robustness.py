"""How accurate a model stays on worse images and on smaller faces than its validation rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import keras
import numpy as np

from faceattr.data.dataset import LabeledDataset
from faceattr.evaluation.metrics import score_model
from faceattr.images.crop import CropRule, crop
from faceattr.images.distort import compressed, shrunk, turned_away
from faceattr.progress import SILENT, Progress
from faceattr.tasks import Task

ROWS, ROWS_BY_SIZE = 2000, 1000
SIDES = (12, 16, 24, 32, 48, 64, 96)  # of faces, in pixels
KEPT = 0.9  # of the accuracy at full size

Change = Callable[[np.ndarray], np.ndarray]


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
    "blur": lambda face: cv2.GaussianBlur(face, (0, 0), len(face) / 24),
    "JPEG 20": lambda face: compressed(face, 20),
    "a quarter of the light": lambda face: cv2.convertScaleAbs(face, alpha=0.25),
    "20 pixels": lambda face: shrunk(face, 20),
    "quarter profile": _quarter_profile,
    "sunglasses": _sunglasses,
    "mask": _covered(0.12, 0.55, 0.88, 1.05, (200, 215, 225)),
    "hand": _covered(-0.1, 0.5, 0.45, 1.1, (190, 140, 115)),
}


@dataclass(frozen=True)
class Robustness:
    """The accuracy by task on faces that were made worse, by change, in the order of `CHANGES`."""

    accuracy: Mapping[str, Mapping[str, float]]


def robustness(
    model: keras.Model, tasks: Sequence[Task], rows: LabeledDataset, progress: Progress = SILENT
) -> Robustness:
    """The accuracy on 2,000 of the rows, evenly spread, after their crops were made worse."""
    if not len(rows):
        return Robustness({})
    places = np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int)
    few = rows.take(np.unique(places))
    crops = few.crops[few.index]
    table = {}
    for name in progress.track(list(CHANGES), "making faces worse"):
        worse = np.stack([CHANGES[name](np.ascontiguousarray(face)) for face in crops])
        table[name] = _accuracy(model, tasks, worse, few.targets)
    return Robustness(table)


def accuracy_by_size(
    model: keras.Model, tasks: Sequence[Task], rows: LabeledDataset, rule: CropRule
) -> dict[int, dict[str, float]]:
    """The accuracy by task, by the face's side in pixels, from 12 to the model's own size.

    The first 1,000 crops are shrunk and then cropped by the model's rule, as a small face would be.
    """
    few = rows.take(np.arange(min(len(rows), ROWS_BY_SIZE)))
    crops = few.crops[few.index]
    table = {}
    for side in [size for size in SIDES if size < rule.size] + [rule.size]:
        small = [cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA) for face in crops]
        again = np.stack([crop(face, None, rule) for face in small])
        table[side] = _accuracy(model, tasks, again, few.targets)
    return table


def _accuracy(
    model: keras.Model, tasks: Sequence[Task], crops: np.ndarray, targets: Mapping[str, np.ndarray]
) -> dict[str, float]:
    scores = score_model(model, tasks, LabeledDataset(crops, np.arange(len(crops)), targets))
    return {task: score.accuracy for task, score in scores.items() if score.n}


def by_size_of(scores: Mapping[str, Any], heads: Mapping[str, str]) -> dict[int, dict[str, float]]:
    """A file's accuracies by side of a face, of some heads under their new names."""
    return {
        int(side): {new: of[old] for old, new in heads.items() if old in of}
        for side, of in scores.get("by_size", {}).items()
    }


def smallest_face(table: Mapping[int, Mapping[str, float]]) -> int:
    """The smallest side at which, and above which, every task keeps nine tenths of its accuracy."""
    full = table[max(table)].items()

    def is_kept(side: int) -> bool:
        return all(table[side][name] >= KEPT * most for name, most in full)

    return list(itertools.takewhile(is_kept, sorted(table, reverse=True)))[-1]
