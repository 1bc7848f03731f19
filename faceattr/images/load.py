"""Images of any kind in, upright RGB arrays out: everything odd about one ends here."""

from __future__ import annotations

import contextlib
import io
import math
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from faceattr.images.fetch import fetch, is_url
from faceattr.images.jpeg import decode_jpeg

PathLike = str | os.PathLike[str]
ImageSource = PathLike | bytes | BinaryIO | Image.Image | np.ndarray
NO_PICTURE = "not a picture in a format that Pillow reads, or a broken one"
NAMELESS = "the file given"  # what the bytes of a file are called where a path has its name
# EXIF orientations that exchange width and height.
LYING = (5, 6, 7, 8)
# Pixels of the largest picture that is read: those of the largest telephones' cameras.
MAX_PIXELS = 200_000_000
BYTES_A_PIXEL = 12  # while a picture is read, whatever its file; measured
BYTES_AT_ONCE = 2 << 30  # of all pictures that a process has under way
# How far floats may lie beyond 0 and 1: resizing photographs by cubic splines overshoots a little.
OVERSHOOT = 0.05
STRIP = 1 << 16  # pixels that are converted at once; they fit a processor's cache
_beyond_pillows_limit = threading.Lock()


class MemoryBudget:
    """Bytes that pictures may take at once, over all threads; a larger one waits to be alone."""

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


def load_image(
    source: ImageSource,
    *,
    bgr: bool = False,
    allow_urls: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """An image from wherever it is.

    Args:
        source: A path, the `bytes` of a file, an open binary file, an ``http(s)://`` address, an
            image of Pillow, or an array: RGB ``(h, w, 3)``, grey ``(h, w)`` or RGBA ``(h, w, 4)``,
            ``uint8`` or floats from 0 to 1 (what lies up to 0.05 beyond is clipped). Of files any
            format that Pillow reads; EXIF rotation is applied, transparency is blended over white,
            16 bits are scaled to 8, colour profiles are passed over, of an animation the first
            frame is taken.
        bgr: The array's channels are BGR or BGRA, as OpenCV gives them.
        allow_urls: Fetch addresses, of up to 67 million bytes in up to 20 seconds. Never allow
            it for texts that strangers send: they could name addresses inside your own network.
        max_pixels: A file with more of them is not read: a few bytes can claim gigabytes.

    Returns:
        RGB ``uint8`` array of shape ``(height, width, 3)``.

    Raises:
        OSError: There is no such file or it may not be read.
        ValueError: It is empty, truncated, no image or far too large; the message says which.
    """
    if isinstance(source, np.ndarray):
        return _image_of_array(source, bgr=bgr)
    if bgr:
        raise ValueError("bgr=True is for arrays; files and Pillow know the order of their colours")
    if isinstance(source, Image.Image):
        with _reasons("the image"):
            _must_be_small(source, max_pixels)
            return _to_rgb(ImageOps.exif_transpose(source))
    return read_picture(content_of(source, allow_urls=allow_urls), max_pixels=max_pixels).image


read_image = load_image  # what it was called


def content_of(source: object, *, allow_urls: bool = False) -> PathLike | bytes:
    """A path as it is; the content of bytes, open files and addresses, where these are allowed.

    ValueError: It is none of them. OSError: It cannot be read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if is_url(source):
        if not allow_urls:
            raise ValueError(
                f"{source} is an address, which is fetched with allow_urls=True alone "
                "(--allow-urls)"
            )
        return fetch(str(source))
    if source == "":
        raise ValueError("The path of the image is empty: an image is a file, not ''")
    if isinstance(source, str | os.PathLike):
        return source
    if callable(read := getattr(source, "read", None)):
        if isinstance(content := read(), bytes):
            return content
        raise ValueError(f"An open file gives bytes: open it with 'rb'. Received: {source!r:.100}")
    raise ValueError(
        "An image is a path, bytes, an open file, an address, an image of Pillow or an array. "
        f"Received: {type(source).__name__}"
    )


def _image_of_array(pixels: np.ndarray, *, bgr: bool = False) -> np.ndarray:
    """RGB ``uint8`` ``(h, w, 3)`` of an array of another kind, see `load_image`."""
    if pixels.size == 0:
        raise ValueError(f"An image has pixels. Received: an empty array of shape {pixels.shape}")
    levels = _levels(pixels)
    if levels.ndim == 2:
        levels = levels[..., None]
    channels = levels.shape[-1] if levels.ndim == 3 else 0
    if channels not in (1, 3, 4):
        hint = ", which has its channels first: np.moveaxis(image, 0, -1) moves them"
        is_first = pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4)
        raise ValueError(
            "An array is an image of shape (height, width), (height, width, 3) or (height, width, "
            f"4). Received: {pixels.shape}{hint if is_first else ''}"
        )
    if channels == 1:
        return np.repeat(levels, 3, axis=-1)
    if channels == 4:
        levels = _over_white(levels)
    return np.ascontiguousarray(levels[..., ::-1] if bgr else levels)


def _levels(pixels: np.ndarray) -> np.ndarray:
    """The same array in ``uint8``."""
    if pixels.dtype == np.uint8:
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(
            "The levels of an array are uint8 from 0 to 255 or floats from 0 to 1. Received: "
            f"{pixels.dtype}"
        )
    low, high = pixels.min(), pixels.max()
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):  # so that NaN is refused
        raise ValueError(
            "The levels of floats lie between 0 and 1 (np.clip cuts off what a resize overshot). "
            f"Received: {low:.8g} to {high:.8g}"
        )
    return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _over_white(levels: np.ndarray) -> np.ndarray:
    alpha = levels[..., 3:].astype(np.float32) / 255
    return np.round(levels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def checked_limit(max_pixels: int) -> int:
    """Raises ValueError where no picture is small enough."""
    if max_pixels < 1:
        raise ValueError(f"A limit of pixels is 1 or more. Received: {max_pixels}")
    return max_pixels


def reason_of(error: Exception, path: PathLike = NAMELESS) -> str:
    """Why a file cannot be read, in one line without its name."""
    text = getattr(error, "strerror", None) or str(error).removeprefix(f"{os.fspath(path)}: ")
    text = text.removeprefix(f"{NAMELESS}: ")
    return " ".join(text.split()) or type(error).__name__


def as_paths(paths: PathLike | Sequence[PathLike]) -> list[str]:
    """One path or several, as a list of texts."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    return [os.fspath(path) for path in given]


def validate_image(image: object) -> None:
    """Refuse (ValueError) what is no RGB ``uint8`` ``(h, w, 3)``, as `load_image` gives it.

    Other numbers would be answered all the same.
    """
    if isinstance(image, np.ndarray):
        is_rgb = image.ndim == 3 and image.shape[2] == 3 and image.size > 0
        if is_rgb and image.dtype == np.uint8:
            return
        received = f"{image.dtype} {image.shape}"
    else:
        received = type(image).__name__
    raise ValueError(
        "An image is an RGB uint8 array of shape (height, width, 3), as faceattr.load_image gives "
        f"it. Received: {received}"
    )


def read_picture(
    source: PathLike | bytes,
    at_least: int | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    reserve: Callable[[int], None] = lambda size: None,
) -> Picture:
    """Read a picture file, a JPEG at reduced scale where that is enough.

    Args:
        source: A path, or what is in the file.
        at_least: The longer side that must remain, in pixels. A JPEG is then decoded at a
            half, quarter or eighth, which costs a fraction of the time. None reads it whole.
        max_pixels: As for `load_image`.
        reserve: Is called before a picture is decoded with the bytes that may take at once.

    Raises:
        OSError, ValueError: As for `load_image`.
    """
    name = NAMELESS if isinstance(source, bytes) else source
    with _reasons(name), _opened(_with_content(source), max_pixels) as opened:
        full_size = opened.size[::-1]
        if at_least:
            # Of the scales that JPEG offers, Pillow takes the smallest not below this.
            share = min(1.0, at_least / max(opened.size))
            width, height = (max(1, round(side * share)) for side in opened.size)
            opened.draft(None, (width, height))
        reserve(math.prod(opened.size) * BYTES_A_PIXEL)
        if (image := decode_jpeg(opened)) is None:
            opened.load()  # which turns a TIFF by itself
        if opened.getexif().get(ExifTags.Base.Orientation, 1) in LYING:
            full_size = full_size[::-1]
        if image is None:
            ImageOps.exif_transpose(opened, in_place=True)
            image = _to_rgb(opened)
    return Picture(image, full_size)


def _opened(file: Path | BinaryIO, max_pixels: int) -> ImageFile.ImageFile:
    """An opened file, not yet decoded."""
    try:
        opened = Image.open(file)
    except Image.DecompressionBombError:
        # Pillow's own limit holds for the whole process; ours is checked below.
        with _beyond_pillows_limit:
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                opened = Image.open(file)
            finally:
                Image.MAX_IMAGE_PIXELS = before
    try:
        _must_be_small(opened, max_pixels)
    except ValueError:
        opened.close()
        raise
    return opened


def _must_be_small(opened: Image.Image, max_pixels: int) -> None:
    width, height = opened.size
    if width * height > max_pixels:
        raise _NotRead(
            f"too large: {width}x{height} are {width * height / 1e6:,.4g} million pixels, and at "
            f"most {max_pixels / 1e6:,g} million are read (--max-pixels)"
        )


def _with_content(source: PathLike | bytes) -> Path | BinaryIO:
    if isinstance(source, bytes):
        size = len(source)
    else:
        status = Path(source).stat()
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise _NotRead("not a file but a folder or a device")
    if size == 0:
        raise _NotRead("empty file")
    return io.BytesIO(source) if isinstance(source, bytes) else Path(source)


class _NotRead(ValueError):
    """A reason that needs no other words; what Pillow raises as ValueError does."""


@contextlib.contextmanager
def _reasons(name: object) -> Iterator[None]:
    """Turn whatever is raised for a bad file into one ValueError: its name and the reason."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise ValueError(f"{name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, _NotRead):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return NO_PICTURE
    if isinstance(error, MemoryError):
        return "too large for the memory at hand"
    if "Ghostscript" in str(error):
        return "PostScript, which is read only by Ghostscript, where it is installed and allowed"
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
