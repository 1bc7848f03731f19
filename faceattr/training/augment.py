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

    def __post_init__(self) -> None:
        chances = (self.flip, self.grey, self.blur, self.erase)
        amounts = (self.turn, self.shift, self.zoom, self.light)
        if not all(0 <= chance <= 1 for chance in chances) or self.smallest < 1:
            raise ValueError(
                "Chances (flip, grey, blur, erase) are from 0 to 1, and a crop is not shrunk below "
                f"one pixel. Received: {asdict(self)}"
            )
        if not all(0 <= amount < math.inf for amount in amounts) or self.zoom >= 1:
            raise ValueError(
                "Amounts (turn, shift, zoom, light) are numbers from 0 on, zoom below 1. "
                f"Received: {asdict(self)}"
            )


NO_AUGMENTATION = Augmentation(0, 0, 0, 0, 0, 0, 16, 0, 0)


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
        face = _moved(face, size, how, generator)
        if generator.random() < how.grey:
            face = np.repeat(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        if generator.random() < how.blur:
            face = _coarse(face, int(generator.integers(min(how.smallest, size), size + 1)))
        face = _lit(face, how.light, generator)
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
    return cv2.warpAffine(
        face, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _coarse(face: np.ndarray, side: int) -> np.ndarray:
    size = face.shape[0]
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)


def _lit(face: np.ndarray, most: float, generator: np.random.Generator) -> np.ndarray:
    """Contrast around the mean and brightness."""
    contrast = 1 + generator.uniform(-most, most)
    brightness = 255 * generator.uniform(-most, most) / 2
    offset = face.mean() * (1 - contrast) + brightness
    table = np.clip(np.arange(256) * contrast + offset, 0, 255).astype("uint8")
    return cv2.LUT(face, table)


def _erase(face: np.ndarray, generator: np.random.Generator) -> None:
    size = face.shape[0]
    height, width = generator.integers(size // 8, size // 2, 2)
    top, left = generator.integers(0, size - height + 1), generator.integers(0, size - width + 1)
    noise = generator.integers(0, 256, (height, width, 3), dtype="uint8")
    face[top : top + height, left : left + width] = noise
