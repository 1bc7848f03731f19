"""Recall, precision and speed of every detector on photographs with known boxes.

    python tests/bench/detectors.py FACES.csv [--yunet FILE.onnx] [--turned]
    python tests/bench/detectors.py FACES.csv [--yunet FILE.onnx] --sides 320 480 640 [--grid 2]

`FACES.csv` has ``path,x0,y0,x1,y1`` with paths relative to itself; a row without a box stands for
a picture without a face. A detection is right when its centre lies in a box that no other
detection has taken. `--turned` sets every picture on its sides and head and compares plain
looking with `find_rotated_faces`. `--sides` compares input sizes, each alone and with a second look
at the detector's own size where the first found nothing, or a face smaller than so many of the
pixels that it saw; `--grid 2` first joins 2 x 2 photographs to one with small faces.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from faceattr.detection.base import (
    Detector,
    Face,
    NetworkDetector,
    find_rotated_faces,
    reduced,
)
from faceattr.detection.centerface import CenterFace
from faceattr.detection.choose import choose_detector
from faceattr.detection.yunet import YuNet
from faceattr.images.load import read_image

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from figures import add_write, of_detectors, record

Boxes = list[tuple[float, ...]]
Images = dict[str, np.ndarray]
Look = Callable[[np.ndarray], list[Face]]
Maker = Callable[..., NetworkDetector]
COLUMNS = ["detector", "looks at", "found", "wrong", "of a core, a picture"]
SIDES = ["detector", "long side", "found", "wrong", "time"]
SMALL = (1, 32, 48)  # pixels of a face that gets a second look; 1 stands for none found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--yunet", help="a YuNet file")
    parser.add_argument("--turned", action="store_true")
    parser.add_argument("--sides", type=int, nargs="+", default=[])
    parser.add_argument("--grid", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    add_write(parser)
    options = parser.parse_args()
    truth = read_truth(options.faces)
    images = {path: read_image(options.faces.parent / path) for path in truth}
    if options.grid > 1:
        images, truth = joined(images, truth, options.grid)
    if options.sides:
        makers: dict[str, Maker] = {"centerface": CenterFace}
        if options.yunet:
            makers["yunet"] = partial(YuNet, Path(options.yunet))
        rows = [
            row
            for name, make in makers.items()
            for row in print_sides(name, make, options, images, truth)
        ]
        named = "detector_sides" + "_of_groups" * (options.grid > 1)
        record(
            options.write, named, SIDES, rows, of_detectors(*(make() for make in makers.values()))
        )
        return
    names = ["centerface", "mtcnn", *([options.yunet] if options.yunet else [])]
    detectors = {name: choose_detector(name) for name in names}
    if options.turned:
        print_turned(detectors.values(), images, truth)
        return
    rows, seconds = [], defaultdict(list)
    for detector in detectors.values():
        detector(next(iter(images.values())))
    for _ in range(options.rounds):
        for name, detector in detectors.items():
            start = time.process_time()
            found = {path: detector(image) for path, image in images.items()}
            seconds[name].append(time.process_time() - start)
            if len(seconds[name]) == options.rounds:
                rows += [print_line(detector.provenance, score(found, truth), seconds[name], found)]
    record(options.write, "detectors", COLUMNS, rows, of_detectors(*detectors.values()))


def read_truth(table: Path) -> dict[str, Boxes]:
    truth: dict[str, Boxes] = defaultdict(list)
    with open(table, newline="") as file:
        for row in csv.DictReader(file):
            boxes = truth[row["path"]]
            if row["x0"]:
                boxes.append(tuple(float(row[name]) for name in ("x0", "y0", "x1", "y1")))
    return dict(truth)


def score(found: dict[str, list[Face]], truth: dict[str, Boxes]) -> tuple[int, int, int]:
    """Right detections, wrong ones, faces that there are."""
    right = 0
    for path, boxes in truth.items():
        free = list(boxes)
        for face in sorted(found[path], key=lambda face: -face.score):
            x, y = np.reshape(face.box, (2, 2)).mean(0)
            hit = next((b for b in free if b[0] <= x <= b[2] and b[1] <= y <= b[3]), None)
            if hit:
                free.remove(hit)
                right += 1
    total = sum(map(len, found.values()))
    return right, total - right, sum(map(len, truth.values()))


def joined(images: Images, truth: dict[str, Boxes], grid: int) -> tuple[Images, dict[str, Boxes]]:
    """So many photographs a side become one of 1600 pixels, and their boxes with them."""
    cell, wholes, boxes = 1600 // grid, {}, {}
    for first in range(0, len(images), grid * grid):
        whole, name = np.zeros((1600, 1600, 3), np.uint8), f"photographs from {first} on"
        wholes[name], boxes[name] = whole, []
        for number, path in enumerate(list(images)[first : first + grid * grid]):
            small, share = reduced(images[path], cell)
            y, x = cell * (number // grid), cell * (number % grid)
            whole[y : y + small.shape[0], x : x + small.shape[1]] = small
            moved = [np.add(np.multiply(box, share), (x, y, x, y)) for box in truth[path]]
            boxes[name] += [tuple(box.tolist()) for box in moved]
    return wholes, boxes


def print_sides(
    name: str, make: Maker, options: argparse.Namespace, images: Images, truth: dict[str, Boxes]
) -> Iterator[list[str]]:
    """Print a line for each size; gives the rows of the page's table."""
    own = make()
    ways: dict[str, Look] = {f"{own.long_side} (its own)": own}
    for side in options.sides:
        first = make(side)
        ways[f"{side}"] = first
        if side < (own.long_side or 0):
            for least in SMALL:
                ways[f"{side}, again below {least}"] = second_look(first, own, least)
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for way, look in ways.items():
            start = time.process_time()
            found = {path: look(image) for path, image in images.items()}
            seconds[way].append(time.process_time() - start)
            if len(seconds[way]) == options.rounds:
                right, wrong, faces = score(found, truth)
                ratio = min(seconds[way]) / min(seconds[next(iter(ways))])
                row = [name, way, f"{right} of {faces}", str(wrong), f"{ratio:.2f}"]
                print(f"{name:<11} {way:<20} found {row[2]}, {wrong} wrong  {ratio:.2f} x")
                yield row


def second_look(first: NetworkDetector, own: NetworkDetector, least: int) -> Look:
    """Look again where nothing was found, or a face smaller than `least` pixels of what it saw."""

    def look(image: np.ndarray) -> list[Face]:
        faces, side = first(image), max(image.shape)
        if side <= (first.long_side or side):
            return faces
        share = (first.long_side or side) / side
        return own(image) if min((f.side * share for f in faces), default=0) < least else faces

    return look


def print_turned(detectors: Iterable[Detector], images: Images, truth: dict[str, Boxes]) -> None:
    for detector in detectors:
        for turn in range(4):
            lying = {p: np.ascontiguousarray(np.rot90(image, turn)) for p, image in images.items()}
            boxes = {p: [turned(box, turn, images[p].shape) for box in truth[p]] for p in images}
            plain = score({p: detector(image) for p, image in lying.items()}, boxes)
            found = {p: find_rotated_faces(detector, image) for p, image in lying.items()}
            right, wrong, faces = score(found, boxes)
            upright = [
                (face.rotation + turn) % 4 == 0 for faces in found.values() for face in faces
            ]
            print(
                f"{detector.provenance['name']:<11} turned by {90 * turn:>3}  plain recall "
                f"{plain[0] / faces:6.1%}  upright recall {right / faces:6.1%}, precision "
                f"{right / (right + wrong):6.1%}, set upright {np.mean(upright):6.1%}"
            )


def turned(box: tuple[float, ...], turn: int, shape: tuple[int, ...]) -> tuple[float, ...]:
    """A box of an image of `shape` in that image turned counter-clockwise."""
    height, width = shape[:2]
    for _ in range(turn):
        x0, y0, x1, y1 = box
        box = (y0, width - x1, y1, width - x0)
        height, width = width, height
    return box


def print_line(about, counts, seconds, found) -> list[str]:
    right, wrong, faces = counts
    spent = min(seconds)
    print(
        f"{about['name']:<11} {about['long_side']} px  recall {right / faces:6.1%}  "
        f"precision {right / max(1, right + wrong):6.1%}  {spent / len(found) * 1e3:6.1f} ms of "
        "processors a picture"
    )
    name, pixels = about["name"], f"{about['long_side']} pixels"
    return [name, pixels, f"{right} of {faces}", str(wrong), f"{spent / len(found) * 1e3:.0f} ms"]


if __name__ == "__main__":
    main()
