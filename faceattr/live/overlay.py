"""What the live demo shows: frames with boxes, answers or bars, figures and the keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from faceattr.images import draw
from faceattr.images.draw import Area, Canvas, area_of
from faceattr.live.tracking import LiveFace

EMPTY_BAR = (70, 74, 82)
HELP = {
    **{"b": "bars for every class", "p": "blur faces", "m": "mirror", "s": "save a snapshot"},
    **{"space": "pause", "i": "figures", "h": "this help", "q, Esc": "quit"},
}


@dataclass(frozen=True)
class View:
    """What is drawn: a panel with the probability of every class beside each face, faces that
    nobody recognises, a mirror image, the line of figures in the corner, the keys.
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
    """Draw one frame of the live demo, RGB ``uint8`` ``(height, width, 3)``, on a copy of it.

    `figures` is the line in the corner; `lost` faces were there a moment ago and are blurred, too.
    """
    drawn = image.copy()
    if view.blur:
        for face in (*faces, *lost):
            draw.pixelate(drawn, face.box)
    if view.mirror:
        drawn, width = np.ascontiguousarray(drawn[:, ::-1]), image.shape[1]
        boxes = ((width - x1, y0, width - x0, y1) for x0, y0, x1, y1 in (f.box for f in faces))
        faces = [face.at(box) for face, box in zip(faces, boxes, strict=True)]
    canvas = Canvas(drawn)
    _draw_faces(canvas, faces, view)
    if view.figures and figures:
        canvas.plate([figures], (canvas.gap, canvas.gap), canvas.small)
    if view.help:
        _draw_help(canvas)
    return canvas.image


def _draw_faces(canvas: Canvas, faces: Sequence[LiveFace], view: View) -> None:
    taken = [area_of(face.box) for face in faces]
    for face, area in zip(faces, list(taken), strict=True):
        canvas.box(area, draw.GREY if face.too_small else colour_of(face.track))
    for face, area in zip(faces, list(taken), strict=True):
        if face.too_small:
            continue
        if view.bars:
            taken.append(_draw_bars(canvas, face, area, taken))
        else:
            name, colour = str(face.track), colour_of(face.track)
            taken.append(canvas.answers(draw.lines_of(face), area, taken, name, colour))


def colour_of(track: int) -> draw.Colour:
    """The colour of a track, the same as long as it lasts."""
    return draw.COLOURS[(track - 1) % len(draw.COLOURS)]


def _draw_bars(canvas: Canvas, face: LiveFace, box: Area, taken: Sequence[Area]) -> Area:
    """A panel with a bar for every class; returns where."""
    size = max(11, round(0.72 * canvas.text_size(box)))
    pad, step, bar = round(0.6 * size), round(1.35 * size), 5 * size
    blocks = [answer.probabilities for answer in face.predictions.values() if answer.probabilities]
    widths = [canvas.width_of(name, size) for block in blocks for name in block]
    names = max(widths, default=4 * size)
    height = 2 * pad + step * (len(widths) + 1) + pad * max(0, len(blocks) - 1)
    width = 3 * pad + names + bar + round(3.2 * size)
    left, top = canvas.place((width, height), box, taken, sideways=True)
    canvas.darken((left, top, left + width, top + height))
    colour, y = colour_of(face.track), top + pad + size
    canvas.text(str(face.track), (left + pad, y), size, colour, draw.BOLD)
    for answer in face.predictions.values():
        for name, p in answer.probabilities.items():
            y += step
            is_shown = answer.label == name
            canvas.text(name, (left + pad, y), size, draw.WHITE if is_shown else draw.DIM)
            x = left + 2 * pad + names
            filled = colour if is_shown else draw.GREY
            for length, shade in ((bar, EMPTY_BAR), (round(bar * p), filled)):
                corners = (x, y - round(0.62 * size)), (x + length, y)
                cv2.rectangle(canvas.image, *corners, shade, cv2.FILLED)
            text = f"{round(100 * p)} %"
            end = left + width - pad - canvas.width_of(text, size)
            canvas.text(text, (end, y), size, draw.DIM)
        y += pad if answer.probabilities else 0
    return left, top, left + width, top + height


def _draw_help(canvas: Canvas) -> None:
    size = max(13, round(26 * canvas.unit))
    keys = max(canvas.width_of(key, size) for key in HELP)
    texts = max(canvas.width_of(text, size) for text in HELP.values())
    pad, step = size, round(1.5 * size)
    width, height = keys + texts + 3 * pad, step * len(HELP) + 2 * pad - step // 3
    left, top = max(0, (canvas.width - width) // 2), max(0, (canvas.height - height) // 2)
    canvas.darken((left, top, left + width, top + height), 0.82)
    for row, (key, text) in enumerate(HELP.items()):
        y = top + pad + size + row * step
        canvas.text(key, (left + pad, y), size, draw.COLOURS[0], draw.SEMIBOLD)
        canvas.text(text, (left + 2 * pad + keys, y), size, draw.WHITE)
