"""Drawn moving pictures whose truth is known: people as textured squares of a colour of their
own, a detector that misses whoever is hidden, a model that knows people by their colour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from skimage import data

from faceattr.detection.base import Face
from faceattr.images.crop import CropRule
from faceattr.images.video import Frame
from faceattr.inference.predictor import FaceAttributes
from faceattr.model.file import Description
from faceattr.tasks import Task

PERSON = Task("person", ("red", "green", "blue"))
COLOURS = ((220, 60, 50), (60, 200, 70), (50, 80, 230))
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Person:
    """Walks along a path ``number of a frame -> (x, y) of the centre``, or None while away."""

    colour: int
    path: Callable[[int], tuple[float, float] | None]
    side: float = 40.0

    def box(self, number: int) -> Box | None:
        place = self.path(number)
        if place is None:
            return None
        x, y = place
        return (x - self.side / 2, y - self.side / 2, x + self.side / 2, y + self.side / 2)


def background(size: tuple[int, int] = (180, 320), seed: int = 0) -> np.ndarray:
    """Grey ground with something to see in it."""
    coarse = np.random.default_rng(seed).integers(60, 190, (size[0] // 20, size[1] // 20))
    grey = cv2.resize(coarse.astype(np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.repeat(grey[:, :, None], 3, axis=2)


class Scene:
    """A feed of people (the last one in front) and the detector that goes with it."""

    name = "scene"
    rate = 25.0
    is_live = False
    provenance = MappingProxyType({"name": "truth"})
    long_side = None

    def __init__(self, *people: Person, count: int = 60, cut_at: int | None = None) -> None:
        self.people = people
        self.count = count
        self.cut_at = cut_at
        self.searched: list[int] = []

    def image(self, number: int) -> np.ndarray:
        is_after = self.cut_at is not None and number >= self.cut_at
        image = background(seed=9 if is_after else 0)
        for person in self.people:
            if box := person.box(number):
                _paste(image, texture(person.colour, round(person.side)), box)
        # The detector reads in the corner which frame this is.
        image[0, 0] = (number // 256, number % 256, 7)
        return image

    def frames(self, wanted=lambda second: True) -> Iterator[Frame]:
        for number in range(self.count):
            if wanted(number / self.rate):
                yield Frame(self.image(number), number, number / self.rate)

    def __call__(self, image: np.ndarray) -> list[Face]:
        number = int(image[0, 0, 0]) * 256 + int(image[0, 0, 1])
        self.searched.append(number)
        boxes = [person.box(number) for person in self.people]
        return [
            Face(box, None, 0.9)
            for index, box in enumerate(boxes)
            if box and not any(other and hides(other, box) for other in boxes[index + 1 :])
        ]


def hides(front: Box, box: Box) -> bool:
    wide = min(front[2], box[2]) - max(front[0], box[0])
    high = min(front[3], box[3]) - max(front[1], box[1])
    return max(wide, 0) * max(high, 0) > 0.4 * (box[2] - box[0]) ** 2


def texture(colour: int, side: int) -> np.ndarray:
    """A square of one colour with a pattern that optical flow can hold on to."""
    noise = np.random.default_rng(colour).integers(-45, 46, (8, 8, 1)).astype(np.float32)
    pattern = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)[:, :, None]
    return np.clip(np.array(COLOURS[colour]) + pattern, 0, 255).astype(np.uint8)


def _paste(image: np.ndarray, patch: np.ndarray, box: Box) -> None:
    height, width = image.shape[:2]
    left, top, side = round(box[0]), round(box[1]), len(patch)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x1 > x0 and y1 > y0:
        image[y0:y1, x0:x1] = patch[y0 - top : y1 - top, x0 - left : x1 - left]


class ByColour:
    """Says which person a crop shows; now and then, if asked to, something else."""

    def __init__(self, wrong: float = 0.0, wait: Callable[[], None] = lambda: None) -> None:
        self.rows = 0
        self.sizes: list[int] = []
        self._wrong = wrong
        self._wait = wait
        self._random = np.random.default_rng(0)

    def predict_on_batch(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        self._wait()
        self.sizes.append(len(crops))
        answers = np.full((len(crops), 3), 0.15, np.float32)
        for row, crop in enumerate(crops):
            best = int(crop.reshape(-1, 3).mean(0).argmax())
            if self._random.random() < self._wrong:
                best = int(self._random.integers(3))
            answers[row, best] = 0.7
        return {"person": answers}


def attributes(scene: Scene, model=None, **how) -> FaceAttributes:
    """A scene's detector with a model that knows its people."""
    return FaceAttributes(
        model or ByColour(), Description((PERSON,), CropRule(32)), scene, min_face=8, **how
    )


def astronaut_video(count: int = 100, size: tuple[int, int] = (270, 480)) -> Iterator[np.ndarray]:
    """A real face that moves, grows, turns and is dimmed before a coloured ground; a round
    takes 100 frames."""
    height, width = size
    portrait = cv2.resize(data.astronaut()[0:240, 100:340], (height // 2, height // 2))
    side = len(portrait)
    for number in range(count):
        phase = 2 * np.pi * number / 100
        scale = 1 + 0.25 * np.sin(phase)
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), 12 * np.sin(phase), scale)
        turn[:, 2] += (width / 2 - side / 2 + width / 6 * np.sin(phase), height / 2 - side / 2)
        ground = np.empty((height, width, 3), np.uint8)
        ground[:] = (70, 110, 120)
        image = cv2.warpAffine(
            portrait, turn, (width, height), dst=ground, borderMode=cv2.BORDER_TRANSPARENT
        )
        yield np.clip(image * (0.8 + 0.2 * np.cos(phase)), 0, 255).astype(np.uint8)
