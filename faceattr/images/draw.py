"""A contact sheet: small pictures in a grid with a few words under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from faceattr.images.load import PathLike


@lru_cache(maxsize=64)
def typeface(size: float) -> ImageFont.FreeTypeFont:
    """A plain sans-serif of so many pixels: matplotlib's, as Pillow's knows little but ASCII."""
    import matplotlib as mpl  # for those alone who draw

    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


GAP = 10
LINE = 1.3  # height of a line of text in sizes of its font
INK, SOFT, GROUND = (27, 29, 34), (95, 97, 110), (255, 255, 255)


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Args:
        image: RGB ``uint8`` ``(height, width, 3)``; it is drawn as a square.
        lines: What stands under it, the first in dark ink; too long ones are cut.
    """

    image: np.ndarray
    lines: tuple[str, ...] = ()


def validate_sheet_path(path: PathLike, most: int = 1, *, overwrite: bool = False) -> None:
    """Refuse a sheet before any work is done.

    Args:
        path: Where it is to be written.
        most: How many faces it may have.
        overwrite: Replace a file that is there.

    Raises:
        ValueError: Its name's ending is of no picture, or it has no room for a face.
        OSError: There is a file that may not be replaced, or a folder.
    """
    path = Path(path)
    if most < 1:
        raise ValueError(f"A sheet has room for at least 1 face. Received: {most}")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"A sheet's name ends in .png or .jpg. Received: {path}")
    if path.is_dir() or (path.exists() and not overwrite):
        raise FileExistsError(f"{path} exists already: choose another name, or --overwrite.")


def contact_sheet(
    tiles: Sequence[Tile], *, columns: int = 8, side: int = 112, title: str = ""
) -> Image.Image:
    """Draw pictures row by row.

    Args:
        tiles: The pictures; without one the sheet has its title alone.
        columns: How many stand side by side.
        side: Of each picture in pixels.
        title: A line above them.
    """
    text, head = typeface(max(11, side // 9)), typeface(18)
    line = round(text.size * LINE)
    below = 4 + line * max((len(tile.lines) for tile in tiles), default=0)
    above = GAP + (round(head.size * 1.8) if title else 0)
    rows = -(-len(tiles) // columns)
    width = max(columns * (side + GAP) + GAP, round(head.getlength(title)) + 2 * GAP)
    sheet = Image.new("RGB", (width, above + rows * (side + below + GAP)), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), title, INK, font=head)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left, top = GAP + column * (side + GAP), above + row * (side + below + GAP)
        sheet.paste(_square(tile.image, side), (left, top))
        for place, words in enumerate(tile.lines):
            where = (left, top + side + 4 + place * line)
            pen.text(where, _cut(words, text, side), SOFT if place else INK, font=text)
    return sheet


def _square(image: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)


def _cut(words: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """As much of the words as fits."""
    if font.getlength(words) <= width:
        return words
    while words and font.getlength(words + "…") > width:
        words = words[:-1]
    return words + "…"
