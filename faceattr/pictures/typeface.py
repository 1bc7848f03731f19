"""The letters of texts that are drawn into pictures."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

# Pillow's own typeface knows little beyond ASCII; this one has what is written from Lisbon to
# Vladivostok. It lies in matplotlib, which need not be imported for it.
PLACE = "mpl-data/fonts/ttf/DejaVuSans.ttf"


@lru_cache(maxsize=64)
def typeface(size: float) -> ImageFont.FreeTypeFont:
    """A plain sans-serif of so many pixels."""
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("Texts are drawn with a typeface of matplotlib: install it.")
    return ImageFont.truetype(Path(package.origin).parent / PLACE, size)
