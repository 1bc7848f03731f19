"""Picture files in, upright RGB arrays out: everything odd about a file ends here."""

from __future__ import annotations

import contextlib
import math
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

PathLike = str | os.PathLike[str]
# EXIF orientations that exchange width and height.
LYING = (5, 6, 7, 8)
# Pixels of the largest picture that is read: those of the largest telephones' cameras.
MAX_PIXELS = 200_000_000
BYTES_A_PIXEL = 12  # while a picture is read, whatever its file; measured
BYTES_AT_ONCE = 2 << 30  # of all pictures that a process has under way
STRIP = 1 << 20  # pixels that are converted at once
_beyond_pillows_limit = threading.Lock()


class MemoryBudget:
    """Bytes that pictures may take at once, over all threads.

    Args:
        size: How many. A picture that takes more waits until it is alone.
    """

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reservation(self) -> Iterator[Callable[[int], None]]:
        """A function that waits for so many bytes, in place of those that it had before."""
        held = 0

        def reserve(size: int) -> None:
            nonlocal held
            with self._changed:
                # Given back first: whoever waits must hold nothing that others wait for.
                self._free += held
                held = min(size, self._size)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._free >= held)
                self._free -= held

        try:
            yield reserve
        finally:
            reserve(0)


DECODE_MEMORY = MemoryBudget(BYTES_AT_ONCE)


@dataclass(frozen=True)
class Picture:
    """A decoded picture, possibly smaller than its file.

    Args:
        image: RGB ``uint8`` array of shape ``(height, width, 3)``, upright.
        full_size: ``(height, width)`` of the upright picture in its file; boxes are given in
            these pixels.
    """

    image: np.ndarray
    full_size: tuple[int, int]

    @property
    def scale(self) -> float:
        """Pixels of the file per pixel of `image`; 1 where nothing was reduced."""
        return max(self.full_size) / max(self.image.shape[:2])


def read_image(path: PathLike, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a picture file.

    Args:
        path: Any format that Pillow reads. EXIF rotation is applied, transparency is blended
            over white, 16 bits are scaled to 8, of an animation the first frame is taken.
        max_pixels: A file with more of them is not read: a few bytes can claim gigabytes.

    Returns:
        RGB ``uint8`` array of shape ``(height, width, 3)``.

    Raises:
        OSError: There is no such file or it may not be read.
        ValueError: The file is empty, truncated, no picture or far too large; the message
            says which.
    """
    return read_picture(path, max_pixels=max_pixels).image


def checked_limit(max_pixels: int) -> int:
    """Raises ValueError where no picture is small enough."""
    if max_pixels < 1:
        raise ValueError(f"A limit of pixels is 1 or more. Received: {max_pixels}")
    return max_pixels


def reason_of(error: Exception, path: PathLike) -> str:
    """Why a file cannot be read, in one line without its name."""
    text = getattr(error, "strerror", None) or str(error).removeprefix(f"{os.fspath(path)}: ")
    return " ".join(text.split()) or type(error).__name__


def as_paths(paths: PathLike | Sequence[PathLike]) -> list[str]:
    """One path or several, as a list of texts."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    return [os.fspath(path) for path in given]


def validate_image(image: object) -> None:
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


def read_picture(
    path: PathLike,
    at_least: int | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    reserve: Callable[[int], None] = lambda size: None,
) -> Picture:
    """Read a picture file, a JPEG at reduced scale where that is enough.

    Args:
        path: As for `read_image`.
        at_least: The longer side that must remain, in pixels. A JPEG is then decoded at a
            half, quarter or eighth, which costs a fraction of the time. None reads it whole.
        max_pixels: As for `read_image`.
        reserve: Is called before a picture is decoded with the bytes that may take at once.

    Raises:
        OSError, ValueError: As for `read_image`.
    """
    path = Path(path)
    with _reasons(path):
        _must_have_content(path)
        with _opened(path, max_pixels) as opened:
            full_size = opened.size[::-1]
            if at_least:
                # Of the scales that JPEG offers, Pillow takes the smallest not below this.
                share = min(1.0, at_least / max(opened.size))
                width, height = (max(1, round(side * share)) for side in opened.size)
                opened.draft(None, (width, height))
            reserve(math.prod(opened.size) * BYTES_A_PIXEL)
            opened.load()  # which turns a TIFF by itself
            if opened.getexif().get(ExifTags.Base.Orientation, 1) in LYING:
                full_size = full_size[::-1]
            ImageOps.exif_transpose(opened, in_place=True)
            image = _to_rgb(opened)
    return Picture(image, full_size)


def _opened(path: Path, max_pixels: int) -> Image.Image:
    """An opened file, not yet decoded."""
    try:
        opened = Image.open(path)
    except Image.DecompressionBombError:
        # Pillow's own limit holds for the whole process; ours is checked below.
        with _beyond_pillows_limit:
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                opened = Image.open(path)
            finally:
                Image.MAX_IMAGE_PIXELS = before
    width, height = opened.size
    if width * height > max_pixels:
        opened.close()
        raise ValueError(
            f"too large: {width}x{height} are {width * height / 1e6:,.4g} million pixels, and at "
            f"most {max_pixels / 1e6:,g} million are read (--max-pixels)"
        )
    return opened


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
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a format that Pillow reads"
    if isinstance(error, MemoryError):
        return "too large for the memory at hand"
    # Decoders raise what their parsers met: OSError, SyntaxError, struct.error, EOFError ...
    return f"damaged or truncated ({error or type(error).__name__})"


def _to_rgb(image: Image.Image) -> np.ndarray:
    """RGB ``uint8``; in strips, so that what stands between costs no memory."""
    width, height = image.size
    rows = max(1, STRIP // width)
    strips = [(0, top, width, min(height, top + rows)) for top in range(0, height, rows)]
    white = _white_of(image, strips)
    pixels = np.empty((height, width, 3), np.uint8)
    for box in strips:
        pixels[box[1] : box[3]] = np.asarray(_strip_to_rgb(image.crop(box), white))
    return pixels


def _strip_to_rgb(image: Image.Image, white: float | None) -> Image.Image:
    if white is not None:
        # Pillow's own conversion of deep grey values clips them.
        scaled = np.clip(_values(image) / np.float32(white), 0, 1) * np.float32(255)
        return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _white_of(image: Image.Image, strips: Sequence[tuple[int, int, int, int]]) -> float | None:
    """The value that is white in a picture of deep grey values; None for any other picture."""
    if image.mode.startswith("I;16"):
        return 65535
    if image.mode not in ("I", "F"):
        return None
    # 32 bits say nothing about their range: the next customary white is meant.
    brightest = max(float(_values(image.crop(box)).max(initial=0)) for box in strips)
    return next((white for white in (1, 255, 65535) if brightest <= white), brightest)


def _values(image: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image, dtype=np.float32))
