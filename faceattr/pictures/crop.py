"""The one function that cuts a face out of a picture, for training and for every use."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

Box = tuple[float, float, float, float]
LARGEST = 50_000  # pixels; a longer box is a slip of the pen and would take gigabytes


@dataclass(frozen=True)
class CropRule:
    """How a face becomes a crop: a square around the box's centre, resized to `size`.

    Args:
        size: Side of the crop in pixels, at least 32 (VGG16 halves it five times).
        margin: The square's side is the longer side of the box times ``1 + margin``.
            0 suits CenterFace's and YuNet's boxes: on FER2013 and UTKFace their longer side
            has a median of 1.00 and 1.09 times the side of those sets' own crops.
    """

    size: int = 48
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ValueError(f"A crop needs a size of at least 32 pixels. Received: {self.size}")
        if not -0.5 < self.margin <= 2:
            raise ValueError(f"A margin lies above -0.5 and up to 2. Received: {self.margin}")


def crop(image: np.ndarray, box: Box | None, rule: CropRule) -> np.ndarray:
    """Cut one face out of an image.

    Args:
        image: RGB ``uint8`` array of shape ``(height, width, 3)``.
        box: ``(x0, y0, x1, y1)`` in pixels of `image`, or None when the picture is the
            face; then the picture is taken whole, without a margin.
        rule: Size and margin. What lies outside the image repeats its border.

    Returns:
        RGB ``uint8`` array of shape ``(rule.size, rule.size, 3)``.

    Raises:
        ValueError: The box is empty, endless, or lies wholly outside the image.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (0, 0, width, height) if box is None else box
    margin = 0.0 if box is None else rule.margin
    longer = max(x1 - x0, y1 - y0)
    if not (x1 > x0 and y1 > y0 and longer <= LARGEST):
        raise ValueError(_refusal(image, (x0, y0, x1, y1)))
    side = max(1, round(longer * (1 + margin)))
    left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
    if left >= width or top >= height or left + side <= 0 or top + side <= 0:
        raise ValueError(_refusal(image, (x0, y0, x1, y1)))
    square = _window(image, left, top, side)
    # INTER_AREA averages what it drops; when enlarging it would only repeat pixels.
    method = cv2.INTER_AREA if side > rule.size else cv2.INTER_CUBIC
    return cv2.resize(square, (rule.size, rule.size), interpolation=method)


def _refusal(image: np.ndarray, box: Box) -> str:
    height, width = image.shape[:2]
    return (
        f"A box needs x0 < x1 and y0 < y1 and must touch the image of {width}x{height} "
        f"pixels. Received: {', '.join(f'{float(value):g}' for value in box)}"
    )


def _window(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    inside = image[max(top, 0) : top + side, max(left, 0) : left + side]
    before_y, before_x = max(-top, 0), max(-left, 0)
    after_y = max(top + side - height, 0)
    after_x = max(left + side - width, 0)
    if not (before_y or before_x or after_y or after_x):
        return inside
    return cv2.copyMakeBorder(inside, before_y, after_y, before_x, after_x, cv2.BORDER_REPLICATE)
