"""What a training crop may look like instead: the same changes for every data set.

FER2013 is grey, small and tight; other sets are in colour with a margin. Unless every row
gets random grey, resolution, margin and shift, a shared trunk learns which set it looks at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

import cv2
import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """How far a training crop is changed; every amount is drawn anew for every row.

    Args:
        flip: Probability of mirroring left and right.
        turn: Largest turn in degrees, either way.
        shift: Largest shift as a share of the side, either way.
        zoom: Largest change of scale, either way: 0.2 shows 0.8 to 1.2 times the side.
        grey: Probability of taking the colour away.
        blur: Probability of shrinking the crop to between `smallest` and its size, and back.
        smallest: Side in pixels to which `blur` may shrink.
        light: Largest change of contrast and of brightness as a share, either way.
        erase: Probability of covering a rectangle with noise (Zhong et al. 2017).
        fill: Probability of filling a black surrounding, as of faces that were cut out along their
            outline, with noise or with what surrounds another face.
        dark: Probability of taking 30 to 85 % of the light away.
        jpeg: Probability of saving the crop as a JPEG of quality 10 to 70.
        yaw: Largest narrowing of one side, as of a head that is turned away, as a share.
    """

    flip: float = 0.5
    turn: float = 12.0
    shift: float = 0.08
    zoom: float = 0.15
    grey: float = 0.5
    blur: float = 0.25
    smallest: int = 16
    light: float = 0.25
    erase: float = 0.25
    fill: float = 0.0
    dark: float = 0.0
    jpeg: float = 0.0
    yaw: float = 0.0

    def __post_init__(self) -> None:
        chances = (self.flip, self.grey, self.blur, self.erase, self.fill, self.dark, self.jpeg)
        amounts = (self.turn, self.shift, self.zoom, self.light, self.yaw)
        if not all(0 <= chance <= 1 for chance in chances) or self.smallest < 1:
            raise ValueError(
                "Chances (flip, grey, blur, erase, fill, dark, jpeg) are from 0 to 1, and a crop "
                f"is not shrunk below one pixel. Received: {asdict(self)}"
            )
        if not all(0 <= amount < math.inf for amount in amounts) or max(self.zoom, self.yaw) >= 1:
            raise ValueError(
                "Amounts (turn, shift, zoom, light, yaw) are numbers from 0 on, zoom and yaw below "
                "1. "
                f"Received: {asdict(self)}"
            )


NO_AUGMENTATION = Augmentation(0, 0, 0, 0, 0, 0, 16, 0, 0)
BLACK = 20  # below it a pixel is black, also after lossy compression
LEAST_OUTSIDE, MOST_OUTSIDE = 0.03, 0.7  # share of a crop that a surrounding takes


def changed(amounts: Mapping[str, float]) -> Augmentation:
    """The usual augmentation with other amounts of some changes.

    Raises:
        ValueError: There is no such change.
    """
    names = [field.name for field in fields(Augmentation)]
    if strangers := sorted(set(amounts) - set(names)):
        raise ValueError(
            f"There is no augmentation {', '.join(strangers)}; there are {', '.join(names)}."
        )
    return replace(Augmentation(), **amounts)  # type: ignore[arg-type]


def augment(
    crops: np.ndarray, size: int, how: Augmentation, generator: np.random.Generator
) -> np.ndarray:
    """Change crops at random.

    Args:
        crops: RGB ``uint8`` of shape ``(n, side, side, 3)``.
        size: Side of the result in pixels.
        how: What may happen to a crop.
        generator: The source of chance; the same state gives the same result.

    Returns:
        RGB ``uint8`` of shape ``(n, size, size, 3)``.
    """
    result = np.empty((len(crops), size, size, 3), "uint8")
    for row, face in enumerate(crops):
        if how.fill and generator.random() < how.fill:
            face = _filled(face, crops[row - 1], generator)
        face = _moved(face, size, how, generator)
        if generator.random() < how.grey:
            face = np.repeat(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        if generator.random() < how.blur:
            face = _coarse(face, int(generator.integers(min(how.smallest, size), size + 1)))
        face = _lit(face, how.light, generator)
        if how.dark and generator.random() < how.dark:
            face = cv2.convertScaleAbs(face, alpha=generator.uniform(0.15, 0.7))
        if how.jpeg and generator.random() < how.jpeg:
            face = _compressed(face, int(generator.integers(10, 71)))
        if generator.random() < how.erase:
            _erase(face, generator)
        result[row] = face
    return result


def _moved(
    face: np.ndarray, size: int, how: Augmentation, generator: np.random.Generator
) -> np.ndarray:
    """Flip, turn, zoom, shift and resize in one affine warp, so pixels are resampled once."""
    side = face.shape[0]
    mirror = -1.0 if generator.random() < how.flip else 1.0
    angle = np.deg2rad(generator.uniform(-how.turn, how.turn))
    scale = size / side * (1 + generator.uniform(-how.zoom, how.zoom))
    shift = size * generator.uniform(-how.shift, how.shift, 2)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[mirror * cos, -sin], [mirror * sin, cos]])
    # Pixel centres: the middle of a side of n pixels is (n - 1) / 2.
    offset = (size - 1) / 2 + shift - linear @ np.full(2, (side - 1) / 2)
    matrix = np.column_stack([linear, offset])
    warp = cv2.warpAffine
    if how.yaw:
        matrix = np.vstack([matrix, [0, 0, 1]]) @ _turned_away(side, how.yaw, generator)
        warp = cv2.warpPerspective
    return warp(face, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _turned_away(side: int, most: float, generator: np.random.Generator) -> np.ndarray:
    """The perspective of a crop whose left or right side is farther away, ``(3, 3)``."""
    far = generator.uniform(0, most)
    last, near = side - 1, far * (side - 1) / 2
    corners = np.array([[0, 0], [last, 0], [last, last], [0, last]], "float32")
    moved = corners + np.array([[near, near], [0, 0], [0, 0], [near, -near]], "float32")
    if generator.random() < 0.5:
        corners, moved = (last - points for points in (corners, moved))
    return cv2.getPerspectiveTransform(corners, moved.astype("float32"))


def _filled(face: np.ndarray, other: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The face with something else in place of a black surrounding, if it has one."""
    dark = (face.max(axis=2) < BLACK).astype("uint8")
    _, areas = cv2.connectedComponents(dark)
    border = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
    outside = np.isin(areas, border[border > 0]) & (dark > 0)
    if not LEAST_OUTSIDE < outside.mean() < MOST_OUTSIDE:
        return face
    outside = cv2.dilate(outside.astype("uint8"), np.ones((3, 3), "uint8")) > 0
    if generator.random() < 0.5:  # smooth noise: a wall, a sky, somebody behind
        coarse = generator.integers(0, 256, (*generator.integers(1, 9, 2), 3), dtype="uint8")
        other = cv2.resize(coarse, face.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(outside[..., None], other, face)


def _compressed(face: np.ndarray, quality: int) -> np.ndarray:
    _, code = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))


def _coarse(face: np.ndarray, side: int) -> np.ndarray:
    size = face.shape[0]
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)


def _lit(face: np.ndarray, most: float, generator: np.random.Generator) -> np.ndarray:
    """Contrast around the mean and brightness."""
    contrast = 1 + generator.uniform(-most, most)
    brightness = 255 * generator.uniform(-most, most) / 2
    offset = face.mean() * (1 - contrast) + brightness
    table = np.clip(np.rint(np.arange(256) * contrast + offset), 0, 255).astype("uint8")
    return cv2.LUT(face, table)


def _erase(face: np.ndarray, generator: np.random.Generator) -> None:
    size = face.shape[0]
    height, width = generator.integers(size // 8, size // 2, 2)
    top, left = generator.integers(0, size - height + 1), generator.integers(0, size - width + 1)
    noise = generator.integers(0, 256, (height, width, 3), dtype="uint8")
    face[top : top + height, left : left + width] = noise
