"""Where boxes go from one frame to the next, and whether it is still the same scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from faceattr.images.crop import Box

LONG_SIDE = 320
GRID = np.stack(np.meshgrid(np.linspace(0.15, 0.85, 6), np.linspace(0.15, 0.85, 6)), -1)
FEWEST_POINTS = 8
FLOW: dict[str, Any] = {"winSize": (15, 15), "maxLevel": 3, "criteria": (3, 12, 0.03)}
THUMB = (32, 18)


@dataclass(frozen=True)
class Sketch:
    """What is kept of a frame to compare it with a later one.

    Args:
        grey: ``uint8``, ``(h, w)``, the longer side 320 at most.
        share: Its size as a share of the frame's.
    """

    grey: np.ndarray
    share: float


def sketch(image: np.ndarray) -> Sketch:
    """The sketch of an RGB ``uint8`` image ``(h, w, 3)``."""
    height, width = image.shape[:2]
    share = min(1.0, LONG_SIDE / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return Sketch(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), share)


def is_cut(
    before: Sketch, after: Sketch, boxes: Sequence[Box] = (), moved: Sequence[Box | None] = ()
) -> bool:
    """Whether two frames show different scenes.

    Light that changes is no cut, nor is anything through which a face goes on.

    Args:
        before, after: The frames.
        boxes: Faces in the earlier one, in pixels of the whole frame.
        moved: Where `carried` brought them.
    """
    if before.grey.shape != after.grey.shape:
        return True
    a, b = (
        cv2.resize(s.grey, THUMB, interpolation=cv2.INTER_AREA).astype(float)
        for s in (before, after)
    )
    if np.abs(a - b).mean() < 12 or _likeness(a, b) > 0.4:
        return False
    return not any(
        box is not None and _is_same(before, after, old, box)
        for old, box in zip(boxes, moved, strict=True)
    )


def _is_same(before: Sketch, after: Sketch, old: Box, new: Box) -> bool:
    a, b = _patch(before, old), _patch(after, new)
    return a is not None and b is not None and _likeness(a, b) > 0.7


def _patch(sketch: Sketch, box: Box) -> np.ndarray | None:
    x0, y0, x1, y1 = (max(0, round(value * sketch.share)) for value in box)
    part = sketch.grey[y0:y1, x0:x1]
    return cv2.resize(part, (16, 16)).astype(float) if min(part.shape) >= 4 else None


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of two pictures of one size, at most 1."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-9))


def carried(before: Sketch, after: Sketch, boxes: Sequence[Box]) -> list[Box | None]:
    """Move boxes along with what they show (sparse optical flow).

    Args:
        before: Of the frame that the boxes belong to.
        after: Of the frame to bring them to.
        boxes: In pixels of the whole frame.

    Returns:
        The boxes in the later frame; None where the picture does not tell.
    """
    if not boxes or before.grey.shape != after.grey.shape:
        return [None] * len(boxes)
    points = np.concatenate([_points(box, before.share) for box in boxes])
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before.grey, after.grey, points, None, **FLOW)  # type: ignore[call-overload]
    by_box = zip(
        boxes,
        np.split(points, len(boxes)),
        np.split(moved, len(boxes)),
        np.split(found.ravel() == 1, len(boxes)),
        strict=True,
    )
    return [_moved(box, old[ok], new[ok], after.share) for box, old, new, ok in by_box]


def _points(box: Box, share: float) -> np.ndarray:
    x0, y0, x1, y1 = box
    grid = GRID.reshape(-1, 2) * (x1 - x0, y1 - y0) + (x0, y0)
    return (grid * share).astype(np.float32)


def _moved(box: Box, old: np.ndarray, new: np.ndarray, share: float) -> Box | None:
    if len(old) < FEWEST_POINTS:
        return None
    change, fits = cv2.estimateAffinePartial2D(old, new, ransacReprojThreshold=1.5)
    if change is None or fits.sum() < FEWEST_POINTS:
        return None
    scale = float(np.hypot(change[0, 0], change[1, 0]))
    if not 0.7 < scale < 1.4:
        return None
    x0, y0, x1, y1 = box
    centre = np.array([x0 + x1, y0 + y1]) / 2 * share
    x, y = (change[:, :2] @ centre + change[:, 2]) / share
    half_width, half_height = scale * (x1 - x0) / 2, scale * (y1 - y0) / 2
    return (
        float(x - half_width),
        float(y - half_height),
        float(x + half_width),
        float(y + half_height),
    )
