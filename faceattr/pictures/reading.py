"""Picture files in, upright RGB arrays out: everything odd about a file ends here."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

PathLike = str | os.PathLike[str]
# EXIF orientations that exchange width and height.
LYING = (5, 6, 7, 8)


@dataclass(frozen=True)
class Picture:
    """A decoded picture, possibly smaller than its file.

    Args:
        image: RGB ``uint8`` array of shape ``(height, width, 3)``, upright.
        full_size: ``(height, width)`` of the upright picture in its file; boxes are told in
            these pixels.
    """

    image: np.ndarray
    full_size: tuple[int, int]

    @property
    def scale(self) -> float:
        """Pixels of the file per pixel of `image`; 1 where nothing was reduced."""
        return max(self.full_size) / max(self.image.shape[:2])


def read_image(path: PathLike) -> np.ndarray:
    """Read a picture file.

    Args:
        path: Any format that Pillow reads. EXIF rotation is applied, transparency is blended
            over white, 16 bits are scaled to 8, of an animation the first frame is taken.

    Returns:
        RGB ``uint8`` array of shape ``(height, width, 3)``.

    Raises:
        OSError: There is no such file or it may not be read.
        ValueError: The file is empty, truncated, no picture or far too large; the message
            says which.
    """
    return read_picture(path).image


def several(paths: PathLike | Sequence[PathLike]) -> list[str]:
    """One path or several, as a list of texts."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    return [os.fspath(path) for path in given]


def must_be_rgb(image: object) -> None:
    """Refuse what is not as `read_image` gives it; other numbers would be answered all the same.

    Raises:
        ValueError: It is not an RGB ``uint8`` array of shape ``(height, width, 3)``.
    """
    if isinstance(image, np.ndarray):
        is_rgb = image.ndim == 3 and image.shape[2] == 3 and image.size > 0
        if is_rgb and image.dtype == np.uint8:
            return
        received = f"{image.dtype} {image.shape}"
    else:
        received = type(image).__name__
    raise ValueError(
        "An image is an RGB uint8 array of shape (height, width, 3), as faceattr.read_image gives "
        f"it. Received: {received}"
    )


def read_picture(path: PathLike, at_least: int | None = None) -> Picture:
    """Read a picture file, a JPEG at reduced scale where that is enough.

    Args:
        path: As for `read_image`.
        at_least: The longer side that must remain, in pixels. A JPEG is then decoded at a
            half, quarter or eighth, which costs a fraction of the time. None reads it whole.

    Raises:
        OSError, ValueError: As for `read_image`.
    """
    path = Path(path)
    with _reasons(path):
        _must_have_content(path)
        with Image.open(path) as opened:
            full_size = opened.size[::-1]
            if at_least:
                # Of the scales that JPEG offers, Pillow takes the smallest not below this.
                share = min(1.0, at_least / max(opened.size))
                width, height = (max(1, round(side * share)) for side in opened.size)
                opened.draft(None, (width, height))
            upright = ImageOps.exif_transpose(opened)
            image = np.asarray(_to_rgb(upright))
            if opened.getexif().get(ExifTags.Base.Orientation, 1) in LYING:
                full_size = full_size[::-1]
    return Picture(image, full_size)


def _must_have_content(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a file but a folder or a device")
    if status.st_size == 0:
        raise ValueError("empty file")


@contextlib.contextmanager
def _reasons(path: Path) -> Iterator[None]:
    """Turn whatever is raised for a bad file into one ValueError: path and reason."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise ValueError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError) and type(error) is ValueError:
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"too large to be decoded safely ({error})"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a format that Pillow reads"
    if isinstance(error, MemoryError):
        return "too large for the memory at hand"
    # Decoders raise what their parsers met: OSError, SyntaxError, struct.error, EOFError ...
    return f"damaged or truncated ({error or type(error).__name__})"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale deep grey values to 0-255; Pillow's own conversion clips them."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    brightest = values.max(initial=0)
    if image.mode.startswith("I;16"):
        top = 65535
    else:
        # 32 bits say nothing about their range: the next customary white is meant.
        top = next((white for white in (1, 255, 65535) if brightest <= white), brightest)
    return Image.fromarray((np.clip(values / top, 0, 1) * 255).round().astype(np.uint8))
