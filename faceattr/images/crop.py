"""The one function that crops a face out of an image, for training and for every use."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from faceattr.compatibility import renamed_arguments
from faceattr.images.load import validate_image

Box = tuple[float, float, float, float]
Landmarks = tuple[tuple[float, float], ...]
LARGEST = 50_000  # pixels; a longer box is a slip of the pen and would take gigabytes
LARGEST_CROP = 1024  # pixels a side: a batch of more would take gigabytes
# Where a model's description has no accuracy by size: pixels of a face's longer side.
MIN_FACE = 12.0
LEVEL_ENOUGH = 1.0  # degrees; landmarks are not more certain than that
LEANS_TOO_MUCH = 45.0  # degrees; more is a mistake, or a face on its side
EYES_APART = 0.15  # of the box's longer side; nearer they are a profile's, and tell no tilt
FINE = 4  # pixels for one of the crop, in each direction: no more are turned before averaging


@renamed_arguments(level="align")
@dataclass(frozen=True)
class CropRule:
    """How a face becomes a crop: a square around the box's centre, resized to `size`.

    Args:
        size: Side of the crop in pixels, 32 (VGG16 halves it five times) to 1024.
        margin: The square's side is the longer side of the box times ``1 + margin``.
            0 suits CenterFace's and YuNet's boxes: on FER2013 and UTKFace their longer side
            has a median of 1.00 and 1.09 times the side of those sets' own crops.
        align: Turn the square so that the eyes are level, where landmarks tell how. A
            description without this word comes from before it, and means yes.
    """

    size: int = 48
    margin: float = 0.0
    align: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or not 32 <= self.size <= LARGEST_CROP:
            raise ValueError(
                f"A crop needs a size of at least 32 pixels and at most {LARGEST_CROP}. "
                f"Received: {self.size!r}"
            )
        if not isinstance(self.margin, int | float) or not -0.5 < self.margin <= 2:
            raise ValueError(f"A margin lies above -0.5 and up to 2. Received: {self.margin!r}")
        if not isinstance(self.align, bool):
            raise ValueError(f"Align is true or false. Received: {self.align!r}")


def crop(
    image: np.ndarray,
    box: Box | None,
    rule: CropRule,
    landmarks: Landmarks | None = None,
    rotation: int = 0,
) -> np.ndarray:
    """Crop one face.

    Args:
        image: RGB ``uint8`` array of shape ``(height, width, 3)``.
        box: ``(x0, y0, x1, y1)`` in pixels of `image`, or None when the image is the
            face; then it is taken whole, without a margin.
        rule: Size and margin. What lies outside the image repeats its border.
        landmarks: Points ``(x, y)`` in pixels of `image`, the two eyes first. Where they are
            given and say how the face is tilted, the crop is levelled if `rule` wants that.
        rotation: Quarter turns counter-clockwise that set the face upright.

    Returns:
        RGB ``uint8`` array of shape ``(rule.size, rule.size, 3)``.

    Raises:
        ValueError: The box is empty, endless, or lies wholly outside the image, or that is no
            such array.
    """
    validate_image(image)
    left, top, side = _square(image, box, rule.margin)
    tilt = eye_tilt(landmarks, side, rotation) if rule.align else 0.0
    if abs(tilt) < LEVEL_ENOUGH:
        face = _resized(_window(image, left, top, side), rule.size)
    else:
        face = _levelled(image, left, top, side, tilt, rule.size)
    return np.rot90(face, rotation)


def eye_tilt(landmarks: Landmarks | None, side: float, rotation: int = 0) -> float:
    """Degrees clockwise by which the line of the eyes departs from level, from -45 to 45.

    0 where landmarks are missing or tell no tilt, as in a profile; `side` is the longer side of
    the face's box in pixels, `rotation` as for `crop`.
    """
    if landmarks is None:
        return 0.0
    (left_x, left_y), (right_x, right_y) = landmarks[:2]
    eyes = complex(right_x - left_x, right_y - left_y) * (-1j) ** rotation
    tilt = float(np.degrees(np.angle(eyes)))
    return tilt if abs(eyes) >= EYES_APART * side and abs(tilt) <= LEANS_TOO_MUCH else 0.0


def _square(image: np.ndarray, box: Box | None, margin: float) -> tuple[int, int, int]:
    """Left, top and side of the square that becomes the crop."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (0, 0, width, height) if box is None else box
    margin = 0.0 if box is None else margin
    longer = max(x1 - x0, y1 - y0)
    if x1 > x0 and y1 > y0 and longer <= LARGEST:
        side = max(1, round(longer * (1 + margin)))
        left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
        if -side < left < width and -side < top < height:
            return left, top, side
    raise ValueError(
        f"A box needs x0 < x1 and y0 < y1 and must touch the image of {width}x{height} "
        f"pixels. Received: {', '.join(f'{float(value):g}' for value in (x0, y0, x1, y1))}"
    )


def _resized(square: np.ndarray, size: int) -> np.ndarray:
    # INTER_AREA averages what it drops; when enlarging it would only repeat pixels.
    method = cv2.INTER_AREA if len(square) > size else cv2.INTER_CUBIC
    return cv2.resize(square, (size, size), interpolation=method)


def _levelled(
    image: np.ndarray, left: int, top: int, side: int, tilt: float, size: int
) -> np.ndarray:
    """The square turned about its centre by `tilt` degrees: sampled finely, then averaged."""
    # What of the image a turned square can touch, and the square's centre in it.
    x, y, reach = left + side / 2, top + side / 2, side * 0.75
    first_x, first_y = max(0, int(x - reach)), max(0, int(y - reach))
    window = image[first_y : int(y + reach) + 2, first_x : int(x + reach) + 2]
    centre = complex(x - first_x, y - first_y)
    whole = max(1, side // (size * FINE))
    if whole > 1:
        window, centre = _shrunk(window, whole), centre / whole
    fine = size * -(-side // (size * whole))
    along = side / whole / fine * np.exp(1j * np.radians(tilt))
    method = cv2.INTER_LINEAR if fine > size else cv2.INTER_CUBIC
    return _resized(_turned(window, centre, along, fine, method), size)


def _shrunk(window: np.ndarray, times: int) -> np.ndarray:
    height, width = (max(1, length // times) for length in window.shape[:2])
    whole = window[: height * times, : width * times]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)


def _turned(
    window: np.ndarray, centre: complex, along: complex, size: int, method: int
) -> np.ndarray:
    """`size` by `size` samples about `centre`; `along` is the step from one to its right."""
    # Here coordinates count from the corners of pixels, in OpenCV from their centres.
    first = centre - along * (1 + 1j) * (size - 1) / 2 - (0.5 + 0.5j)
    matrix = np.array([[along.real, -along.imag, first.real], [along.imag, along.real, first.imag]])
    how = method | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(window, matrix, (size, size), flags=how, borderMode=cv2.BORDER_REPLICATE)


def _window(image: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    inside = image[max(top, 0) : top + side, max(left, 0) : left + side]
    above, below = max(-top, 0), max(top + side - height, 0)
    before, after = max(-left, 0), max(left + side - width, 0)
    if not (above or below or before or after):
        return inside
    return cv2.copyMakeBorder(inside, above, below, before, after, cv2.BORDER_REPLICATE)
