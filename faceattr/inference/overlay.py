"""Boxes and answers drawn onto a picture, readable on light and dark, large and small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

from faceattr.images.draw import typeface
from faceattr.inference.predictor import DescribedFace, Prediction

Area = tuple[float, float, float, float]
LINE, CASING, GREY = (255, 196, 0), (0, 0, 0), (190, 190, 190)
TEXT, PLATE = (255, 255, 255), (0, 0, 0, 176)


def draw_faces(image: np.ndarray, faces: Sequence[DescribedFace]) -> np.ndarray:
    """Draw each face's box and, beside it, one line a task.

    Args:
        image: RGB ``uint8``, ``(height, width, 3)``; it is left as it is.
        faces: With boxes in pixels of `image`.

    Returns:
        A copy of the image, same shape and dtype.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas, "RGBA")
    boxes = [face.box for face in faces]
    plates: list[Area] = []
    for face in faces:
        _frame(pen, face, canvas.size)
    for face in faces:
        lines = lines_of(face)
        if lines:
            others = [box for box in boxes if box != face.box]
            plates.append(_answers(pen, lines, face, canvas.size, [*others, *plates]))
    return np.asarray(canvas)


def lines_of(face: DescribedFace) -> list[str]:
    """What is written beside a face: ``["happy 87 %", "female 96 %"]``."""
    if face.too_small or face.rejected:
        return []
    return [_line(task, answer) for task, answer in face.predictions.items()]


def _line(task: str, answer: Prediction) -> str:
    if answer.label is None:
        return f"{task} unsure"
    return f"{answer.label} {answer.probability:.0%}".replace("%", " %")


def _frame(pen: ImageDraw.ImageDraw, face: DescribedFace, size: tuple[int, int]) -> None:
    width = max(2, round(min(size) / 320))
    colour = GREY if face.too_small or face.rejected else LINE
    x0, y0, x1, y1 = map(round, face.box)
    # A dark casing on both sides keeps the line visible on any ground.
    casing = max(1, width // 2)
    for grow, line in ((casing, CASING), (-width, CASING)):
        pen.rectangle(_grown((x0, y0, x1, y1), grow), outline=line, width=casing)
    pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=colour, width=width)


def _grown(area: Area, by: float) -> Area:
    x0, y0, x1, y1 = area
    return x0 - by, y0 - by, max(x0 - by, x1 + by), max(y0 - by, y1 + by)


def _answers(
    pen: ImageDraw.ImageDraw,
    lines: list[str],
    face: DescribedFace,
    size: tuple[int, int],
    taken: Sequence[Area],
) -> Area:
    """Write the lines on a dark plate where they cover least; returns where that is."""
    font = typeface(_text_size(face, size))
    text = "\n".join(lines)
    left, top, right, bottom = pen.multiline_textbbox((0, 0), text, font=font, spacing=2)
    pad = round(font.size * 0.25)
    plate = (right - left + 2 * pad, bottom - top + 2 * pad)
    area = _best_place(plate, face.box, size, taken)
    pen.rectangle(area, fill=PLATE)
    pen.multiline_text(
        (area[0] + pad - left, area[1] + pad - top), text, TEXT, font=font, spacing=2
    )
    return area


def _text_size(face: DescribedFace, size: tuple[int, int]) -> int:
    """In step with the face, but never too small to read in the whole picture."""
    smallest = max(11, round(min(size) / 45))
    return int(np.clip(face.face.side / 7, smallest, 3 * smallest))


def _best_place(
    plate: tuple[float, float], box: Area, size: tuple[int, int], taken: Sequence[Area]
) -> Area:
    return min(_places(plate, box, size), key=lambda area: sum(_shared(area, t) for t in taken))


def _places(plate: tuple[float, float], box: Area, size: tuple[int, int]) -> Iterator[Area]:
    """Below, above, right, left of the box and inside it, each moved into the picture."""
    (width, height), (x0, y0, x1, y1) = plate, box
    gap = max(3, round(min(size) / 200))
    corners = [
        (x0, y1 + gap),
        (x0, y0 - height - gap),
        (x1 + gap, y0),
        (x0 - width - gap, y0),
        (x0, y1 - height),
    ]
    outside = []
    for x, y in corners:
        inner_x = min(max(x, 0), max(0, size[0] - width))
        inner_y = min(max(y, 0), max(0, size[1] - height))
        area = (inner_x, inner_y, inner_x + width, inner_y + height)
        if inner_y == y and _shared(area, box) == 0:
            yield area
        else:
            outside.append(area)
    yield from outside[-1:]


def _shared(a: Area, b: Area) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, wide) * max(0.0, high)
