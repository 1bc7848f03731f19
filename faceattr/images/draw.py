"""Boxes, answers and contact sheets: everything that is drawn on images, videos and sheets.

OpenCV's own typeface has Latin, Greek, Cyrillic, Chinese, Japanese and Korean letters. It does not
join Arabic letters and sets Hebrew from left to right.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from faceattr.files import refuse_existing, validate_output_path
from faceattr.images.load import PathLike

Area = tuple[int, int, int, int]
Colour = tuple[int, int, int]
WHITE, DIM, DARK, GREY = (255, 255, 255), (186, 190, 198), (14, 16, 20), (170, 170, 170)
# Told apart by people with any colour vision, light enough for dark text.
COLOURS = (
    *((255, 196, 0), (86, 180, 233), (0, 200, 140), (240, 140, 200)),
    *((255, 140, 60), (200, 225, 80), (180, 160, 255), (120, 230, 230)),
)
PLATE_OPACITY = 0.68
REGULAR, SEMIBOLD, BOLD = 500, 600, 700  # weights of the letters


def draw_faces(image: np.ndarray, faces: Sequence[Any]) -> np.ndarray:
    """Draw each face's box and, beside it, one line a task, on a copy of an image.

    The image is RGB ``uint8`` ``(height, width, 3)``; faces are as `faceattr.FaceAttributes`
    describes them.
    """
    canvas = Canvas(image.copy())
    areas = [area_of(face.box) for face in faces]
    for face, area in zip(faces, areas, strict=True):
        canvas.box(area, GREY if face.too_small or face.rejected else COLOURS[0])
    taken = list(areas)
    for face, area in zip(faces, areas, strict=True):
        if lines := lines_of(face):
            taken.append(canvas.answers(lines, area, taken))
    return canvas.image


def lines_of(face: Any) -> list[str]:
    """What is written beside a face: ``["happy 87 %", "female 96 %"]``."""
    if face.too_small or face.rejected:
        return []
    return [line_of(task, answer) for task, answer in face.predictions.items()]


def line_of(task: str, answer: Any) -> str:
    """One task's answer in words: ``happy 87 %``."""
    if answer.probability is None:
        return f"{task} …"
    if answer.label is None:
        return f"{task} unsure"
    return f"{answer.label} {round(100 * answer.probability)} %"


def area_of(box: Sequence[float]) -> Area:
    """A box in whole pixels, at least one a side."""
    x0, y0, x1, y1 = map(round, box)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def data_url(image: Image.Image, side: int) -> str:
    """An image, at most `side` pixels wide and high, as a JPEG inside an address for web pages."""
    jpeg = io.BytesIO()
    image.thumbnail((side, side))
    image.save(jpeg, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()


def pixelate(image: np.ndarray, box: Sequence[float]) -> None:
    """Replace a face and its surroundings by a few coarse squares, in place."""
    x0, y0, x1, y1 = box
    grow = 0.2 * max(x1 - x0, y1 - y0)
    left, top = max(0, round(x0 - grow)), max(0, round(y0 - 1.5 * grow))
    area = image[top : max(0, round(y1 + grow)), left : max(0, round(x1 + grow))]
    if area.size:
        few = cv2.resize(area, (7, 8), interpolation=cv2.INTER_AREA)
        area[:] = cv2.resize(few, area.shape[1::-1], interpolation=cv2.INTER_NEAREST)


class Canvas:
    """Draws on one RGB ``uint8`` image, in place; sizes follow the image's own.

    Nothing depends on what was drawn before, so that in a video nothing jumps.
    """

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.height, self.width = image.shape[:2]
        self.unit = min(self.height, self.width) / 720
        self.small = max(12, round(20 * self.unit))
        self.gap = max(4, round(9 * self.unit))
        self._font = cv2.FontFace("sans")

    def box(self, area: Area, colour: Colour) -> None:
        """A thin box with strong corners, dark beneath so that it shows on any ground."""
        x0, y0, x1, y1 = area
        thin = max(1, round(2 * self.unit))
        strong = max(thin + 1, min(3 * thin, (x1 - x0) // 20))
        arm = max(4, (x1 - x0) // 5)
        corners = [
            np.array([[x + across, y], [x, y], [x, y + down]], np.int32)
            for x, across in ((x0, arm), (x1, -arm))
            for y, down in ((y0, arm), (y1, -arm))
        ]
        for shade, casing in ((DARK, max(2, thin)), (colour, 0)):
            cv2.rectangle(self.image, (x0, y0), (x1, y1), shade, thin + casing, cv2.LINE_AA)
            cv2.polylines(self.image, corners, False, shade, strong + casing, cv2.LINE_AA)

    def answers(
        self,
        lines: Sequence[str],
        box: Area,
        taken: Sequence[Area],
        number: str = "",
        colour: Colour = WHITE,
    ) -> Area:
        """A face's answers on a plate beside its box; returns where."""
        size = self.text_size(box)
        place = self.place(self._plate_size(lines, size, number), box, taken)
        return self.plate(lines, place, size, number, colour)

    def plate(
        self,
        lines: Sequence[str],
        place: tuple[int, int],
        size: int,
        number: str = "",
        colour: Colour = WHITE,
    ) -> Area:
        """Lines of text on a dark plate, a number in colour before the first; returns where."""
        (width, height), (left, top) = self._plate_size(lines, size, number), place
        area = (left, top, left + width, top + height)
        self.darken(area)
        x, y = left + round(0.4 * size), top + round(1.32 * size)
        self.text(number, (x, y), size, colour, BOLD)
        indent = self.width_of(f"{number}  ", size) if number else 0
        for row, line in enumerate(lines):
            at = (x + (0 if row else indent), y + row * round(1.3 * size))
            self.text(line, at, size, DIM if row else WHITE)
        return area

    def place(
        self, plate: tuple[int, int], box: Area, taken: Sequence[Area], *, sideways: bool = False
    ) -> tuple[int, int]:
        """Where a plate (width, height) beside a face's box covers least of other boxes and plates,
        left and top; inside the box where all else fails. `sideways` prefers right and left.
        """
        (width, height), (x0, y0, x1, y1), gap = plate, box, self.gap
        beside = [(x0, y1 + gap), (x0, y0 - height - gap), (x1 + gap, y0), (x0 - width - gap, y0)]
        beside = beside[2:] + beside[:2] if sideways else beside

        def inside(x: int, y: int) -> tuple[int, int]:
            most_x, most_y = max(0, self.width - width), max(0, self.height - height)
            return min(max(x, 0), most_x), min(max(y, 0), most_y)

        def covers(spot: tuple[int, int], others: Iterable[Area]) -> float:
            return shared((*spot, spot[0] + width, spot[1] + height), others)

        spots = [spot for place in beside if not covers(spot := inside(*place), [box])]
        spots = spots or [inside(x0, y1 - height)]
        return min(spots, key=lambda spot: covers(spot, taken))

    def text_size(self, box: Area) -> int:
        """Letters in step with the face, never too small to read. Steps keep them still."""
        wished = max(box[2] - box[0], box[3] - box[1]) / 8
        size = smallest = max(12.0, 20 * self.unit)
        while size * 1.25 <= min(wished, 2.2 * smallest):
            size *= 1.25
        return round(size)

    def darken(self, area: Area, opacity: float = PLATE_OPACITY) -> None:
        x0, y0, x1, y1 = area
        part = self.image[max(y0, 0) : y1, max(x0, 0) : x1]
        if part.size:
            cv2.convertScaleAbs(part, part, 1 - opacity, DARK[0] * opacity)

    def _plate_size(self, lines: Sequence[str], size: int, number: str) -> tuple[int, int]:
        pad, step = round(0.4 * size), round(1.3 * size)
        first = f"{number}  {lines[0]}" if number else lines[0]
        width = max(self.width_of(line, size) for line in (first, *lines[1:]))
        return width + 2 * pad, step * len(lines) + 2 * pad - round(0.2 * size)

    def width_of(self, text: str, size: int, weight: int = REGULAR) -> int:
        _, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), self._font, size, weight)
        return int(width)

    def text(
        self, text: str, place: tuple[int, int], size: int, colour: Colour, weight: int = REGULAR
    ) -> None:
        """Write a line of `size` pixels; `place` is the left end of its base line."""
        cv2.putText(self.image, text, place, colour, self._font, size, weight)


def shared(box: Sequence[float], others: Iterable[Sequence[float]]) -> float:
    """Pixels that a box shares with others."""
    return sum(
        max(0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in others
    )


# A contact sheet: small images in a grid with a few words under each.

GAP, TITLE_SIZE = 10, 20
INK, SOFT = (27, 29, 34), (95, 97, 110)


@dataclass(frozen=True)
class Tile:
    """One image of a sheet, RGB ``uint8`` ``(height, width, 3)``, drawn as a square, and the lines
    under it, the first in dark ink; too long ones are shortened.
    """

    image: np.ndarray
    lines: tuple[str, ...] = ()


def validate_sheet_path(path: PathLike, most: int = 1, *, overwrite: bool = False) -> None:
    """Raise ValueError or OSError, before any work, where a sheet of so many faces cannot be."""
    path = Path(path)
    if most < 1:
        raise ValueError(f"A sheet has room for at least 1 face. Received: {most}")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"A sheet's name ends in .png or .jpg. Received: {path}")
    validate_output_path(path)
    refuse_existing(path, overwrite=overwrite)


def contact_sheet(
    tiles: Sequence[Tile], *, columns: int = 8, side: int = 112, title: str = ""
) -> Image.Image:
    """Draw images row by row, each `side` pixels wide; the title stands alone without one."""
    size = max(13, side // 8)
    line = round(1.25 * size)
    below = 4 + line * max((len(tile.lines) for tile in tiles), default=0)
    above = GAP + (round(TITLE_SIZE * 1.7) if title else 0)
    ruler = Canvas(np.zeros((1, 1, 3), np.uint8))
    width = max(columns * (side + GAP), ruler.width_of(title, TITLE_SIZE) + GAP) + GAP
    rows = -(-len(tiles) // columns)
    canvas = Canvas(np.full((above + rows * (side + below + GAP), width, 3), 255, np.uint8))
    canvas.text(title, (GAP, GAP + TITLE_SIZE), TITLE_SIZE, INK)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left, top = GAP + column * (side + GAP), above + row * (side + below + GAP)
        image = Image.fromarray(tile.image).resize((side, side), Image.Resampling.BICUBIC)
        canvas.image[top : top + side, left : left + side] = np.asarray(image)
        for place, words in enumerate(tile.lines):
            at = (left, top + side + 4 + size + place * line)
            shown = words
            while words and canvas.width_of(shown, size) > side:
                words = words[:-1]
                shown = f"{words}…"
            canvas.text(shown, at, size, SOFT if place else INK)
    return Image.fromarray(canvas.image)
