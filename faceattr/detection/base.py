"""Finding faces: one small contract, ``image -> list of Face``, and the detectors that keep it.

A detector is added in two steps. A file here gets a subclass of `NetworkDetector`, whose ``detect``
gives a row of 15 numbers a face; `choose.py` gets its name. A detector of one's own that is not
chosen by name only has to keep `Detector`'s contract.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol

import cv2
import numpy as np

from faceattr.images.crop import Box, Landmarks

# Pictures of 4000 pixels, decoded at no less than 1.5 times what the detector looks at: the same
# 67 faces as in the whole picture with both detectors, boxes at a mean IoU of 0.99; at 1.0 times
# 0.97 with CenterFace. A tenth of the time of decoding the whole.
SPARE = 1.5


@dataclass(frozen=True)
class Face:
    """Where a face is.

    Args:
        box: ``(x0, y0, x1, y1)`` in pixels of the upright image.
        landmarks: Eyes, nose, mouth corners as five ``(x, y)``, the one on the left of the
            picture first, or None.
        score: The detector's certainty, 0-1.
        rotation: Quarter turns counter-clockwise that set this face upright; 0 unless the
            picture lies on its side.
    """

    box: Box
    landmarks: Landmarks | None
    score: float
    rotation: int = 0

    @property
    def size(self) -> tuple[float, float]:
        """``(height, width)`` of the box in pixels."""
        x0, y0, x1, y1 = self.box
        return y1 - y0, x1 - x0

    @property
    def side(self) -> float:
        """The longer side of the box in pixels."""
        return max(self.size)

    def scaled(self, factor: float) -> Face:
        """The same face in a picture that is `factor` times as large."""
        return self.moved(lambda x, y: (x * factor, y * factor))

    def moved(self, to: Callable[[float, float], tuple[float, float]]) -> Face:
        """The same face, each of its points ``x, y`` where `to` takes it."""
        (ax, ay), (bx, by) = to(*self.box[:2]), to(*self.box[2:])
        box = (min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))
        points = self.landmarks and tuple(to(x, y) for x, y in self.landmarks)
        return replace(self, box=box, landmarks=points)


class Detector(Protocol):
    """What finds faces. It may be called from several threads at once.

    `provenance` says how it finds them, for the record: at least its ``"name"``. `long_side` is
    the size in pixels to which it reduces a larger image before it looks, or None where it
    takes every pixel. `upright_score` is a score that a face on its side or head does not reach.
    """

    provenance: Mapping[str, Any]
    long_side: int | None
    upright_score: float

    def __call__(self, image: np.ndarray) -> list[Face]:
        """Find the faces of an RGB ``uint8`` image ``(h, w, 3)``, from left to right."""


class WholePicture:
    """For pictures that are faces already: the picture is the face."""

    provenance: Mapping[str, Any] = MappingProxyType({"name": "none"})
    long_side: int | None = None
    upright_score = 0.9

    def __call__(self, image: np.ndarray) -> list[Face]:
        height, width = image.shape[:2]
        return [Face((0.0, 0.0, float(width), float(height)), None, 1.0)]


class NetworkDetector(ABC):
    """A detector that other people trained: it looks at a reduced image and gives rows of numbers.

    Args:
        name: What it is called.
        source: The package or file that it comes from.
        long_side: Larger images are reduced to this before it looks.
        threshold: Lowest score of a face, 0-1.
        **more: What else its `provenance` says.
    """

    # Of 57 photographs in each of the three wrong turns, 1 in 140 has a face above it (YuNet),
    # none with CenterFace.
    upright_score = 0.9

    def __init__(
        self, name: str, source: str, *, long_side: int, threshold: float, **more: str
    ) -> None:
        self.long_side: int | None = long_side
        self.threshold = threshold
        limits = {"long_side": long_side, "threshold": threshold}
        self.provenance: Mapping[str, Any] = {"name": name, "from": source, **more, **limits}

    @abstractmethod
    def detect(self, image: np.ndarray) -> np.ndarray:
        """Find faces in a reduced RGB ``uint8`` image.

        Returns:
            ``(n, 15)``: the box ``x0, y0, x1, y1``, five landmarks ``x, y`` in the order of
            `Face.landmarks`, the score; in pixels of `image`.
        """

    def __call__(self, image: np.ndarray) -> list[Face]:
        small, share = reduced(image, self.provenance["long_side"])
        faces = [_face(row, small.shape) for row in self.detect(small)]
        # Cut at the border, some have less than a pixel left.
        whole = [face.scaled(1 / share) for face in faces if min(face.size) >= 1]
        return sorted(whole, key=lambda face: (face.box[0], face.box[1]))


def _face(row: np.ndarray, shape: tuple[int, ...]) -> Face:
    """A face with its box inside an image of `shape` (h, w, 3)."""
    x0, y0 = np.clip(row[:2], 0, (shape[1], shape[0])).tolist()
    x1, y1 = np.clip(row[2:4], 0, (shape[1], shape[0])).tolist()
    landmarks = tuple((float(x), float(y)) for x, y in np.reshape(row[4:14], (5, 2)))
    return Face((x0, y0, x1, y1), landmarks, float(row[14]))


def min_decode_size(detector: Detector) -> int | None:
    """The longer side at which a JPEG may be decoded without another face being found."""
    return detector.long_side and round(detector.long_side * SPARE)


def reduced(image: np.ndarray, long_side: int) -> tuple[np.ndarray, float]:
    """The image with its longer side at most `long_side`, and its share of the original."""
    height, width = image.shape[:2]
    share = min(1.0, long_side / max(height, width))
    if share == 1.0:
        return np.ascontiguousarray(image), share
    size = max(1, round(width * share)), max(1, round(height * share))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), share


def find_rotated_faces(detector: Detector, image: np.ndarray) -> list[Face]:
    """Find faces in an RGB ``uint8`` picture ``(h, w, 3)`` that may lie on its side or head.

    Unless a face is surely upright as the image is, the image is looked at in all four rotations,
    and the one with the most certainty in upright faces counts. Landmarks tell which faces
    are upright: CenterFace also finds lying ones, YuNet finds them with lower scores. Boxes are in
    pixels of the image as it was given; `Face.rotation` says how they lie.
    """
    best: list[Face] = []
    most = -1.0
    for rotation in (0, 1, 3, 2):
        faces = detector(np.ascontiguousarray(np.rot90(image, rotation)))
        scores = [face.score for face in faces if _is_upright(face)]
        if faces and sum(scores) > most:
            best = [_rotated_back(face, rotation, image.shape[:2]) for face in faces]
            most = sum(scores)
        if rotation == 0 and max(scores, default=0.0) > detector.upright_score:
            break
    return best


def _is_upright(face: Face) -> bool:
    """Whether the mouth lies below the eyes, as far as landmarks tell."""
    if face.landmarks is None:
        return True
    points = np.array(face.landmarks)
    right, down = points[3:].mean(0) - points[:2].mean(0)
    return bool(down > abs(right))


def _rotated_back(face: Face, rotation: int, size: tuple[int, int]) -> Face:
    """A face found in ``rot90(image, rotation)``, in pixels of the image of `size` (h, w)."""
    height, width = size

    def back(x: float, y: float) -> tuple[float, float]:
        return ((x, y), (width - y, x), (width - x, height - y), (y, height - x))[rotation]

    return replace(face.moved(back), rotation=rotation)
