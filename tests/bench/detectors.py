"""Recall, precision and speed of every detector on photographs with known boxes.

    python tests/bench/detectors.py FACES.csv [--yunet FILE.onnx] [--turned]

`FACES.csv` has ``path,x0,y0,x1,y1`` with paths relative to itself; a row without a box stands for
a picture without a face. A detection is right when its centre lies in a box that no other
detection has taken. `--turned` sets every picture on its sides and head and compares plain
looking with `find_rotated_faces`.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from faceattr.detection.base import Detector, Face, choose_detector, find_rotated_faces
from faceattr.images.load import read_image

Boxes = list[tuple[float, ...]]
Images = dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--yunet", help="a YuNet file")
    parser.add_argument("--turned", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    truth = read_truth(options.faces)
    images = {path: read_image(options.faces.parent / path) for path in truth}
    names = ["centerface", "mtcnn", *([options.yunet] if options.yunet else [])]
    detectors = {name: choose_detector(name) for name in names}
    if options.turned:
        print_turned(detectors.values(), images, truth)
        return
    seconds: dict[str, list[float]] = defaultdict(list)
    for detector in detectors.values():
        detector(next(iter(images.values())))
    for _ in range(options.rounds):
        for name, detector in detectors.items():
            start = time.perf_counter()
            found = {path: detector(image) for path, image in images.items()}
            seconds[name].append(time.perf_counter() - start)
            if len(seconds[name]) == options.rounds:
                print_line(detector.provenance, score(found, truth), seconds[name], found)


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


def print_line(about, counts, seconds, found) -> None:
    right, wrong, faces = counts
    spent = statistics.median(seconds)
    print(
        f"{about['name']:<11} {about['long_side']} px  recall {right / faces:6.1%}  "
        f"precision {right / max(1, right + wrong):6.1%}  {spent / len(found) * 1e3:6.1f} ms a "
        f"picture  {(right + wrong) / spent:6.1f} faces/s"
    )


if __name__ == "__main__":
    main()
