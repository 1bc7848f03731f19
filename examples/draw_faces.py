"""Draw faces to try a training on: python examples/draw_faces.py my_photos [COUNT [SEED]]

Three folders, laughing/, crying/ and cute/, get COUNT pictures each (60). They are drawings, so
that nobody's photographs are needed; with your own pictures in such folders the commands are the
same.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SIDE = 96
SKIN = ("#f6d3b8", "#e8b48f", "#c98d63", "#9a623d", "#6b432a")


def draw(mood: str, dice: random.Random) -> Image.Image:
    """One face, RGB, 96 x 96 pixels."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(dice.randrange(60, 220) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    x, y = 48 + dice.uniform(-4, 4), 50 + dice.uniform(-4, 4)
    wide, high = dice.uniform(30, 36), dice.uniform(36, 42)
    hair = tuple(dice.randrange(20, 120) for _ in range(3))
    pen.ellipse((x - wide - 3, y - high - 6, x + wide + 3, y + high - 8), fill=hair)
    pen.ellipse((x - wide, y - high, x + wide, y + high), fill=dice.choice(SKIN))
    for side in (-1, 1):
        EYES[mood](pen, x + side * dice.uniform(12, 15), y - 9 + dice.uniform(-2, 2), dice)
    MOUTHS[mood](pen, x, y + 18 + dice.uniform(-2, 2), dice)
    ground = image.getpixel((0, 0))
    image = image.rotate(dice.uniform(-8, 8), Image.Resampling.BICUBIC, fillcolor=ground)
    return image.filter(ImageFilter.GaussianBlur(dice.uniform(0, 1)))


def _closed_eye(pen, x: float, y: float, dice: random.Random) -> None:
    pen.arc((x - 6, y - 3, x + 6, y + 7), 190, 350, fill="#222222", width=2)


def _crying_eye(pen, x: float, y: float, dice: random.Random) -> None:
    pen.arc((x - 6, y - 6, x + 6, y + 3), 10, 170, fill="#222222", width=2)
    drop = dice.uniform(10, 24)
    pen.ellipse((x - 3, y + 3, x + 3, y + 3 + drop), fill="#6fb7ff")


def _round_eye(pen, x: float, y: float, dice: random.Random) -> None:
    pen.ellipse((x - 7, y - 7, x + 7, y + 7), fill="white")
    pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill="#2a1c12")
    pen.ellipse((x, y - 4, x + 3, y - 1), fill="white")


def _open_mouth(pen, x: float, y: float, dice: random.Random) -> None:
    high = dice.uniform(8, 14)
    pen.chord((x - 15, y - high, x + 15, y + high), 0, 180, fill="#7a1f2b")
    pen.rectangle((x - 11, y, x + 11, y + 3), fill="white")


def _sad_mouth(pen, x: float, y: float, dice: random.Random) -> None:
    pen.arc((x - 12, y - 1, x + 12, y + dice.uniform(12, 18)), 200, 340, fill="#7a1f2b", width=3)


def _small_mouth(pen, x: float, y: float, dice: random.Random) -> None:
    pen.arc((x - 5, y - 6, x + 5, y + dice.uniform(0, 3)), 20, 160, fill="#b0404f", width=2)
    for side in (-18, 18):
        pen.ellipse((x + side - 5, y - 13, x + side + 5, y - 7), fill="#f29a9a")


EYES = {"laughing": _closed_eye, "crying": _crying_eye, "cute": _round_eye}
MOUTHS = {"laughing": _open_mouth, "crying": _sad_mouth, "cute": _small_mouth}


def main(folder: str, count: str = "60", seed: str = "0") -> None:
    dice = random.Random(int(seed))
    for mood in EYES:
        target = Path(folder, mood)
        target.mkdir(parents=True, exist_ok=True)
        for number in range(int(count)):
            draw(mood, dice).save(target / f"{number:03}.png")
    print(f"{len(EYES)} folders with {count} pictures each: {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
