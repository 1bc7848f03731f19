"""The letters of texts that are drawn into pictures."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont


@lru_cache(maxsize=64)
def typeface(size: float) -> ImageFont.FreeTypeFont:
    """A plain sans-serif of so many pixels: matplotlib's, as Pillow's knows little but ASCII."""
    import matplotlib as mpl  # for those alone who draw

    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
