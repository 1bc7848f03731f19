"""Which of the faces in a new frame is which of those followed so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from faceattr.detection.base import Face
from faceattr.images.crop import Box, CropRule, crop

LOOKS_RULE = CropRule(32)
IMPOSSIBLE = 1e6


class Followed(Protocol):
    """A face that is followed: where it is by now, how it looks, when it was seen."""

    face: Face
    looks: np.ndarray
    seen: float


def looks_of(image: np.ndarray, box: Box) -> np.ndarray:
    """How a face looks, to tell it from others: roots of a colour histogram, ``(128,)``."""
    small = crop(image, box, LOOKS_RULE)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 4, 4], [0, 180, 0, 256, 0, 256])
    return np.sqrt(counts.ravel() / counts.sum())


def cheapest_pairs(
    tracks: Sequence[Followed], time: float, faces: Sequence[Face], looks: Sequence[np.ndarray]
) -> Iterator[tuple[int, int]]:
    """Which track continues with which face: the cheapest pairs in all."""
    if not tracks or not faces:
        return
    costs = np.array(
        [[_cost(t, time, f, look) for f, look in zip(faces, looks, strict=True)] for t in tracks]
    )
    for row, column in zip(*linear_sum_assignment(costs), strict=True):
        if costs[row, column] < IMPOSSIBLE:
            yield int(row), int(column)


def _cost(track: Followed, time: float, face: Face, looks: np.ndarray) -> float:
    """How badly a face fits a track: overlap, distance and looks; 0 is the same."""
    a, b = track.face.box, face.box
    side = (track.face.side + face.side) / 2
    ratio = track.face.side / face.side
    distance = float(np.linalg.norm(centre_of(a) - centre_of(b))) / side
    # The longer ago it was seen, the further it may have come, in widths of itself.
    reach = min(2.5, 0.8 + 4 * (time - track.seen))
    if distance > reach or not 0.5 < ratio < 2:
        return IMPOSSIBLE
    return (1 - overlap(a, b)) / 2 + distance / 2 + _unlike(track.looks, looks)


def _unlike(a: np.ndarray, b: np.ndarray) -> float:
    """Bhattacharyya's distance of two histograms' roots, 0-1."""
    likeness = float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b) + 1e-9)
    return float(np.sqrt(max(0.0, 1.0 - likeness)))


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0-1."""
    shared = _shared(a, b)
    return shared / (_area(a) + _area(b) - shared)


def covered(a: Box, b: Box) -> float:
    """The shared part of two boxes as a share of the smaller one."""
    return _shared(a, b) / min(_area(a), _area(b))


def _shared(a: Box, b: Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, wide) * max(0.0, high)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def centre_of(box: Box) -> np.ndarray:
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
