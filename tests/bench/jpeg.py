"""Which decoder reads JPEGs fastest, and whether its pixels are the same.

    python tests/bench/jpeg.py PICTURES [--side 960] [--rounds 5]

Pictures are decoded whole, and at the least scale whose longer side is `--side` or more: Pillow's
draft mode and OpenCV know a half, a quarter and an eighth, simplejpeg every eighth (here called
free). Decoders take turns; the least seconds of this thread's processor are compared.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import simplejpeg

from faceattr.images.inputs import Inputs
from faceattr.images.load import read_picture

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from figures import add_write, record

Decoder = Callable[[bytes, int | None], np.ndarray]
REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--side", type=int, default=960)
    parser.add_argument("--rounds", type=int, default=5)
    add_write(parser)
    options = parser.parse_args()
    paths = [Path(file.path) for file in Inputs(options.pictures)]
    contents = [path.read_bytes() for path in paths if path.suffix.lower() in (".jpg", ".jpeg")]
    cv2.setNumThreads(1)
    sides = ("whole", None), (f"at {options.side} pixels or more", options.side)
    found = [compare(contents, side, options.rounds) for _, side in sides]
    columns = ["decoder", *(word for name, _ in sides for word in (name, "the same pixels in"))]
    rows = [[name, *(word for one in found for word in one[name])] for name in DECODERS]
    of = {name: version(name) for name in ("pillow", "simplejpeg", "opencv-python")}
    record(options.write, "jpeg", columns, rows, of)


def ours(content: bytes, side: int | None) -> np.ndarray:
    return read_picture(content, side).image


def pillow(content: bytes, side: int | None) -> np.ndarray:
    with mock.patch("faceattr.images.load.decode_jpeg", lambda opened: None):
        return read_picture(content, side).image


def opencv(content: bytes, side: int | None) -> np.ndarray:
    height, width, *_ = simplejpeg.decode_jpeg_header(content)
    fits = [flag for n, flag in REDUCED.items() if side and max(height, width) / n >= side]
    image = cv2.imdecode(np.frombuffer(content, np.uint8), fits[0] if fits else cv2.IMREAD_COLOR)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def free(content: bytes, side: int | None, fast: bool = False) -> np.ndarray:
    height, width, *_ = simplejpeg.decode_jpeg_header(content)
    share = min(1.0, side / max(height, width)) if side else 1.0
    least = {"min_height": round(height * share), "min_width": round(width * share)}
    return simplejpeg.decode_jpeg(content, "RGB", fastdct=fast, fastupsample=fast, **least)


DECODERS: dict[str, Decoder] = {
    "Pillow, draft mode": pillow,
    "ours (simplejpeg)": ours,
    "simplejpeg, free": free,
    "simplejpeg, fast DCT": partial(free, fast=True),
    "OpenCV, reduced": opencv,
}


def compare(contents: list[bytes], side: int | None, rounds: int) -> dict[str, list[str]]:
    """By decoder its time against the first's, and how many pictures are the same."""
    seconds: dict[str, list[float]] = {name: [] for name in DECODERS}
    images: dict[str, list[np.ndarray]] = {}
    for _ in range(rounds):
        for name, decode in DECODERS.items():
            start = time.thread_time()
            images[name] = [decode(content, side) for content in contents]
            seconds[name].append(time.thread_time() - start)
    first = next(iter(DECODERS))
    print(f"{len(contents)} JPEGs, {f'of {side} pixels or more' if side else 'whole'}")
    cells = {}
    for name, found in images.items():
        same = sum(map(np.array_equal, found, images[first]))
        ratio = min(seconds[name]) / min(seconds[first])
        print(f"  {name:<21} {ratio:.2f} x the time, the same pixels in {same}", flush=True)
        cells[name] = [f"{ratio:.2f}", f"{same} of {len(contents)}"]
    return cells


if __name__ == "__main__":
    main()
