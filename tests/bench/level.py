"""Do level eyes help? Turned faces, found and cut as they lie and levelled, asked the same model.

    python tests/bench/level.py TASK=PATH [TASK=PATH ...] [--model FILE] [--detector NAME ...]

Rows of split val, chosen at random (`--rows` of each source), set on a canvas twice their size
whose border goes on, and turned by an angle drawn evenly from -T to T. The face nearest the middle
counts; a picture without one is left out of both columns. The same pictures are cut both ways, so
the interval is that of the paired difference (95 %, normal).
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np

from faceattr import FaceAttributes
from faceattr.data.sources import read_source
from faceattr.detection.base import Face
from faceattr.images.crop import crop, eye_tilt
from faceattr.images.load import read_image

SIDE = 200  # of a picture on its canvas, in pixels
TURNS = (0, 15, 30)
LINE = "{:<11} {:<11} {:>5} {:>5} {:>6} {:>7} {:>8} {:>7} {:>17}  {:>9}"
HEADS = ("detector", "task", "turn", "rows", "found", "error", "as found", "level", "difference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--model")
    parser.add_argument("--detector", action="append")
    parser.add_argument("--rows", type=int, default=500)
    options = parser.parse_args()
    print(LINE.format(*HEADS, "per face"))
    for name in options.detector or ["centerface"]:
        attributes = FaceAttributes.load(options.model, name)
        for source in options.sources:
            rows = val_rows(source, attributes, options.rows)
            for most in TURNS:
                print_line(attributes, *rows, most)


def val_rows(source: str, attributes: FaceAttributes, count: int):
    """A task, and pictures with the place of their label in its classes."""
    tasks = {task.name: task for task in attributes.tasks}
    read = read_source(source, known=tasks)
    task = tasks[read.tasks[0]]
    known = [e for e in read.examples if e.split == "val" and e.labels.get(task.name)]
    chosen = np.random.default_rng(0).permutation(len(known))[:count]
    labels = [known[i].labels[task.name] for i in chosen]
    return task, [read_image(known[i].path) for i in chosen], list(map(task.classes.index, labels))


def print_line(attributes: FaceAttributes, task, images, answers, most: int) -> None:
    angles = np.random.default_rng(1).uniform(-most, most, len(images))
    seen = [on_canvas(image, angle) for image, angle in zip(images, angles, strict=True)]
    faces = [nearest(attributes.find(image)) for image in seen]
    kept = [i for i, face in enumerate(faces) if face is not None]
    pairs = [(seen[i], faces[i]) for i in kept]
    truth, right, micros = np.array(answers)[kept], [], []
    for level in (False, True):
        rule = replace(attributes.crop_rule, align=level)
        start = time.perf_counter()
        crops = [crop(image, face.box, rule, face.landmarks) for image, face in pairs]
        micros.append((time.perf_counter() - start) / len(pairs) * 1e6)
        said = [int(answer[task.name].argmax()) for answer in attributes.predict(crops)]
        right.append(said == truth)
    start = time.perf_counter()
    attributes.predict(crops)
    micros.append((time.perf_counter() - start) / len(pairs) * 1e6)
    errors = [abs(eye_tilt(faces[i].landmarks, faces[i].side) - angles[i]) for i in kept]
    gain = right[1].astype(float) - right[0]
    middle, half = gain.mean(), 1.96 * gain.std() / np.sqrt(len(gain))
    print(
        LINE.format(
            attributes.detector.provenance["name"],
            task.name,
            f"±{most}°",
            len(images),
            len(kept),
            f"{np.median(errors):.1f}°",
            f"{right[0].mean():.1%}",
            f"{right[1].mean():.1%}",
            f"{100 * middle:+.1f} ({100 * (middle - half):+.1f} to {100 * (middle + half):+.1f})",
            "cut {:.0f} µs, level {:.0f} µs, model {:.0f} µs".format(*micros),
        ),
        flush=True,
    )


def on_canvas(image: np.ndarray, angle: float) -> np.ndarray:
    """The picture with a side of 200 pixels in the middle of 400, turned clockwise."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), -angle, SIDE / width)
    matrix[:, 2] += SIDE - np.array([width, height]) / 2
    size = (2 * SIDE, 2 * SIDE)
    return cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def nearest(faces: list[Face]) -> Face | None:
    """The face nearest the middle of the canvas."""

    def distance(face: Face) -> float:
        x0, y0, x1, y1 = face.box
        return abs(complex(x0 + x1, y0 + y1) / 2 - complex(SIDE, SIDE))

    return min(faces, key=distance, default=None)


if __name__ == "__main__":
    main()
