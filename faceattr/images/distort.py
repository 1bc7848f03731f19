"""Changes that make a face harder to read, for training on them and for measuring with them.

Images are RGB ``uint8`` of shape ``(side, side, 3)``.
"""

from __future__ import annotations

import cv2
import numpy as np


def compressed(face: np.ndarray, quality: int) -> np.ndarray:
    """The face after it was saved as a JPEG of this quality."""
    # OpenCV writes BGR: with the wrong order, JPEG would take the blue for the red.
    _, code = cv2.imencode(".jpg", face[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR_RGB))


def shrunk(face: np.ndarray, side: int) -> np.ndarray:
    """The face after it was shrunk to `side` pixels and enlarged again."""
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, face.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def turned_away(side: int, far: float, *, mirrored: bool = False) -> np.ndarray:
    """The perspective of a head that is turned away, ``(3, 3)``, in a crop of `side` pixels: left,
    or right if mirrored, shrinks by the share `far` and comes nearer by half of that.
    """
    last, near = side - 1, far * (side - 1) / 2
    corners = np.array([[0, 0], [last, 0], [last, last], [0, last]], "float32")
    moved = corners + np.array([[near, near], [0, 0], [0, 0], [near, -near]], "float32")
    if mirrored:
        corners, moved = (last - points for points in (corners, moved))
    return cv2.getPerspectiveTransform(corners, moved.astype("float32"))
