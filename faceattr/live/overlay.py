"""What the live demo shows: frames with boxes, answers and bars that stay where they are.

Pictures in a row have other needs than single ones (`faceattr.inference.overlay`): nothing may
jump from frame to frame, and a frame has a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from faceattr.inference.predictor import Prediction
from faceattr.live.tracking import LiveFace

Area = tuple[int, int, int, int]
Colour = tuple[int, int, int]
WHITE, DIM, DARK, GREY = (255, 255, 255), (186, 190, 198), (14, 16, 20), (170, 170, 170)
# Told apart by people with any colour vision, light enough for dark text.
COLOURS = (
    *((255, 196, 0), (86, 180, 233), (0, 200, 140), (240, 140, 200)),
    *((255, 140, 60), (200, 225, 80), (180, 160, 255), (120, 230, 230)),
)
PLATE_OPACITY = 0.68
WEIGHT = 500  # of the letters; 400 is regular, 700 bold
HELP = (
    ("b", "bars for every class"),
    ("p", "blur faces"),
    ("m", "mirror"),
    ("s", "save a snapshot"),
    ("space", "pause"),
    ("i", "figures"),
    ("h", "this help"),
    ("q, Esc", "quit"),
)


def colour_of(track: int) -> Colour:
    """The colour of a track, the same as long as it lasts."""
    return COLOURS[(track - 1) % len(COLOURS)]


def area_of(face: LiveFace) -> Area:
    x0, y0, x1, y1 = map(round, face.box)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def line_of(task: str, answer: Prediction) -> str:
    """One task's answer in words: ``happy 87 %``."""
    if answer.probability is None:
        return f"{task} …"
    if answer.label is None:
        return f"{task} unsure"
    return f"{answer.label} {round(100 * answer.probability)} %"


class Pen:
    """Draws on one RGB ``uint8`` image; all sizes follow the image's own."""

    def __init__(self, canvas: np.ndarray) -> None:
        self.canvas = canvas
        self.height, self.width = canvas.shape[:2]
        self.unit = min(self.height, self.width) / 720
        self.small = max(12, round(20 * self.unit))
        self.gap = max(4, round(9 * self.unit))
        self._font = cv2.FontFace("sans")

    def frame(self, face: LiveFace) -> None:
        """A thin box with strong corners, dark beneath so that it shows on any ground."""
        colour = GREY if face.too_small else colour_of(face.track)
        x0, y0, x1, y1 = area_of(face)
        thin = max(1, round(2 * self.unit))
        strong = max(thin + 1, min(3 * thin, (x1 - x0) // 20))
        arm = max(4, (x1 - x0) // 5)
        corners = [
            np.array([[x + across, y], [x, y], [x, y + down]], np.int32)
            for x, across in ((x0, arm), (x1, -arm))
            for y, down in ((y0, arm), (y1, -arm))
        ]
        for shade, casing in ((DARK, 2), (colour, 0)):
            cv2.rectangle(self.canvas, (x0, y0), (x1, y1), shade, thin + casing, cv2.LINE_AA)
            cv2.polylines(self.canvas, corners, False, shade, strong + casing, cv2.LINE_AA)

    def answers(self, face: LiveFace, taken: Sequence[Area]) -> Area:
        """The face's number and answers on a plate; returns where."""
        size = self._size_for(face)
        lines = [line_of(task, answer) for task, answer in face.predictions.items()]
        width, height = self._plate_size([f"{face.track}  {lines[0]}", *lines[1:]], size)
        place = self._place((width, height), area_of(face), taken)
        return self.plate(lines, place, size, face.track)

    def plate(
        self, lines: Sequence[str], place: tuple[int, int], size: int, track: int | None = None
    ) -> Area:
        """Lines of text on a dark plate, a track's number before the first; returns where."""
        number = "" if track is None else f"{track}  "
        width, height = self._plate_size([number + lines[0], *lines[1:]], size)
        left, top = place
        area = (left, top, left + width, top + height)
        self._darken(area)
        pad, step = round(0.4 * size), round(1.3 * size)
        for row, line in enumerate(lines):
            y = top + pad + round(0.92 * size) + row * step
            x = left + pad
            if number and row == 0:
                self._text(str(track), (x, y), size, colour_of(track or 1), 700)
                x += self._width(number, size)
            self._text(line, (x, y), size, WHITE if row == 0 else DIM)
        return area

    def bars(self, face: LiveFace, taken: Sequence[Area]) -> Area:
        """A panel with a bar for every class; returns where."""
        size = max(11, round(0.72 * self._size_for(face)))
        rows = [
            (task, name, p)
            for task, answer in face.predictions.items()
            for name, p in answer.probabilities.items()
        ]
        names = max((self._width(name, size) for _, name, _ in rows), default=4 * size)
        pad, step, bar = round(0.6 * size), round(1.35 * size), 5 * size
        blocks = len({task for task, _, _ in rows})
        height = 2 * pad + step * len(rows) + pad * max(0, blocks - 1) + step
        width = 2 * pad + names + pad + bar + round(3.2 * size)
        left, top = self._beside((width, height), area_of(face), taken)
        area = (left, top, left + width, top + height)
        self._darken(area)
        y = top + pad + size
        self._text(f"{face.track}", (left + pad, y), size, colour_of(face.track), 700)
        before = None
        for task, name, p in rows:
            y += step + (pad if before not in (None, task) else 0)
            before = task
            is_shown = face.predictions[task].label == name
            self._text(name, (left + pad, y), size, WHITE if is_shown else DIM)
            x = left + 2 * pad + names
            colour = colour_of(face.track) if is_shown else GREY
            full, low = round(bar * p), y - round(0.62 * size)
            cv2.rectangle(self.canvas, (x, low), (x + bar, y), (70, 74, 82), -1)
            cv2.rectangle(self.canvas, (x, low), (x + full, y), colour, -1)
            text = f"{round(100 * p)} %"
            self._text(text, (left + width - pad - self._width(text, size), y), size, DIM)
        return area

    def help(self) -> None:
        """The keys, in the middle."""
        size = max(13, round(26 * self.unit))
        keys = max(self._width(key, size) for key, _ in HELP)
        texts = max(self._width(text, size) for _, text in HELP)
        pad, step = size, round(1.5 * size)
        width, height = keys + texts + 3 * pad, step * len(HELP) + 2 * pad - step // 3
        left, top = max(0, (self.width - width) // 2), max(0, (self.height - height) // 2)
        self._darken((left, top, left + width, top + height), 0.82)
        for row, (key, text) in enumerate(HELP):
            y = top + pad + size + row * step
            self._text(key, (left + pad, y), size, COLOURS[0], 600)
            self._text(text, (left + 2 * pad + keys, y), size, WHITE)

    def _size_for(self, face: LiveFace) -> int:
        """Letters in step with the face, never too small to read. Steps keep them still."""
        wished = face.face.side / 8
        smallest = max(12.0, 20 * self.unit)
        size = smallest
        while size * 1.25 <= min(wished, 2.2 * smallest):
            size *= 1.25
        return round(size)

    def _place(self, plate: tuple[int, int], box: Area, taken: Sequence[Area]) -> tuple[int, int]:
        """Below the box; where another face is there or the picture ends, above it or inside."""
        (width, height), (x0, y0, _, y1) = plate, box
        left = min(max(0, x0), max(0, self.width - width))
        tops = [y1 + self.gap, y0 - self.gap - height, y1 - height]
        inside = [top for top in tops if 0 <= top <= self.height - height]
        if not inside:
            return left, max(0, self.height - height)
        covered = [_covered((left, t, left + width, t + height), taken) for t in inside]
        return left, inside[covered.index(min(covered))]

    def _beside(self, panel: tuple[int, int], box: Area, taken: Sequence[Area]) -> tuple[int, int]:
        """To the right of the box, to the left, below, above: where least is covered."""
        (width, height), (x0, y0, x1, y1) = panel, box
        top = min(max(0, y0), max(0, self.height - height))
        left = min(max(0, x0), max(0, self.width - width))
        places = [(x1 + self.gap, top), (x0 - self.gap - width, top)]
        places += [(left, y1 + self.gap), (left, y0 - self.gap - height)]
        inside = [
            (x, y)
            for x, y in places
            if 0 <= x <= self.width - width and 0 <= y <= self.height - height
        ]
        if not inside:
            return left, max(0, self.height - height)
        covered = [_covered((x, y, x + width, y + height), taken) for x, y in inside]
        return inside[covered.index(min(covered))]

    def _darken(self, area: Area, opacity: float = PLATE_OPACITY) -> None:
        x0, y0, x1, y1 = area
        part = self.canvas[max(y0, 0) : y1, max(x0, 0) : x1]
        if part.size:
            cv2.convertScaleAbs(part, part, 1 - opacity, DARK[0] * opacity)

    def _plate_size(self, lines: Sequence[str], size: int) -> tuple[int, int]:
        pad, step = round(0.4 * size), round(1.3 * size)
        width = max(self._width(line, size) for line in lines)
        return width + 2 * pad, step * len(lines) + 2 * pad - round(0.2 * size)

    def _width(self, text: str, size: int, weight: int = WEIGHT) -> int:
        _, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), self._font, size, weight)
        return int(width)

    def _text(
        self, text: str, place: tuple[int, int], size: int, colour: Colour, weight: int = WEIGHT
    ) -> None:
        cv2.putText(self.canvas, text, place, colour, self._font, size, weight)


def _covered(area: Area, others: Sequence[Area]) -> int:
    """Pixels that an area shares with others."""
    return sum(
        max(0, min(area[2], other[2]) - max(area[0], other[0]))
        * max(0, min(area[3], other[3]) - max(area[1], other[1]))
        for other in others
    )


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
