"""JPEG pixels by libjpeg-turbo without Pillow's detour: the same, in half the time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import ExifTags, ImageFile

# By EXIF orientation, what sets an array upright.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, 3),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


def decode_jpeg(opened: ImageFile.ImageFile) -> np.ndarray | None:
    """The upright pixels of a JPEG that Pillow has opened and not loaded.

    Args:
        opened: May have been given a scale of JPEG's own by its `draft`.

    Returns:
        RGB ``uint8`` ``(height, width, 3)``; None where Pillow has to read it: another format, four
        inks, and whatever libjpeg-turbo remarks on, for Pillow knows what can still be read.
    """
    file = opened.fp
    if file is None or opened.format not in ("JPEG", "MPO") or opened.mode not in ("RGB", "L"):
        return None
    import simplejpeg

    width, height = opened.size
    pixels = np.empty((height, width, 3), np.uint8)
    try:
        file.seek(0)
        decoded = simplejpeg.decode_jpeg(
            file.read(),
            "RGB",
            min_height=height,
            min_width=width,
            buffer=pixels,  # so that it takes no more memory than Pillow's size promises
        )
    except ValueError:
        return None
    if decoded.shape != pixels.shape:
        return None
    turn = UPRIGHT.get(opened.getexif().get(ExifTags.Base.Orientation, 1))
    return np.ascontiguousarray(turn(pixels)) if turn else pixels
