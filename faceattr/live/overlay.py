"""What the live demo shows: frames with boxes, answers and bars that stay where they are.

Pictures in a row have other needs than single ones (`faceattr.inference.overlay`): nothing may
jump from frame to frame, and a frame has a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from faceattr.live.pen import Pen, area_of
from faceattr.live.tracking import LiveFace


@dataclass(frozen=True)
class View:
    """What is drawn.

    Args:
        bars: A panel with the probability of every class beside each face.
        blur: Make faces unrecognisable.
        mirror: Turn left and right round, as one knows oneself.
        figures: The line of figures in the corner.
        help: The keys.
    """

    bars: bool = False
    blur: bool = False
    mirror: bool = False
    figures: bool = True
    help: bool = False


def draw_live(
    image: np.ndarray,
    faces: Sequence[LiveFace],
    view: View,
    figures: str = "",
    lost: Sequence[LiveFace] = (),
) -> np.ndarray:
    """Draw one frame of the live demo.

    Args:
        image: RGB ``uint8``, ``(height, width, 3)``; it is left as it is.
        faces: With boxes in pixels of `image`.
        view: What is drawn.
        figures: The line in the corner.
        lost: Faces that were there a moment ago; they are blurred, too.

    Returns:
        A new image, same shape and dtype.
    """
    canvas = image.copy()
    if view.blur:
        for face in (*faces, *lost):
            _blur(canvas, face)
    if view.mirror:
        canvas = np.ascontiguousarray(canvas[:, ::-1])
        faces = [_mirrored(face, image.shape[1]) for face in faces]
    pen = Pen(canvas)
    for face in faces:
        pen.frame(face)
    taken = [area_of(face) for face in faces]
    for face in faces:
        if not face.too_small:
            taken.append(pen.bars(face, taken) if view.bars else pen.answers(face, taken))
    if view.figures and figures:
        pen.plate([figures], (pen.gap, pen.gap), pen.small)
    if view.help:
        pen.help()
    return canvas


def _blur(canvas: np.ndarray, face: LiveFace) -> None:
    """Replace a face and its surroundings by a few coarse squares."""
    x0, y0, x1, y1 = face.box
    grow = 0.2 * face.face.side
    left, top = max(0, round(x0 - grow)), max(0, round(y0 - 1.5 * grow))
    area = canvas[top : max(0, round(y1 + grow)), left : max(0, round(x1 + grow))]
    if area.size:
        few = cv2.resize(area, (7, 8), interpolation=cv2.INTER_AREA)
        area[:] = cv2.resize(few, area.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def _mirrored(face: LiveFace, width: int) -> LiveFace:
    x0, y0, x1, y1 = face.box
    return face.at((width - x1, y0, width - x0, y1))
