"""How fast a folder is labelled: ours, a plain loop, and the kernels alone, side by side.

    python tests/bench/label_speed.py PICTURES [--copies 4] [--detector centerface] [--model FILE]

(a) ours          `label_to`: threads, one batched forward for the faces of many pictures.
(b) plain MTCNN   a picture at a time, MTCNN, then `model.predict` a face, as peers do it.
(c) plain Haar    the same with OpenCV's Haar cascade, where this OpenCV still has it.
(d) plain, our detector   the same loop with the detector of (a): what the pipeline alone brings.
(k) the kernels   decode all, then detect all, then predict all, each as fast as it goes alone.

Every way runs `--rounds` times in turn, so that whatever else the machine does hits all of them;
medians are compared.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np

from faceattr.detection.base import Detector, Face, choose_detector, min_decode_size
from faceattr.images.crop import crop
from faceattr.images.inputs import Inputs
from faceattr.images.load import read_image, read_picture
from faceattr.inference.label import label_to
from faceattr.inference.pipeline import count_workers
from faceattr.inference.predictor import FaceAttributes


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        files = copies(options.pictures, Path(folder, "in"), options.copies)
        ours = FaceAttributes.load(options.model, options.detector, offline=True)
        ways = ways_of(ours, files, Path(folder), options.without)
        for run in ways.values():
            run()  # compiles, and fills the page cache
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, run in ways.items():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    print_table(seconds, len(files), ours)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--copies", type=int, default=2, help="how often each picture is in it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--detector", default="centerface")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--without", nargs="*", default=[], help="ways to leave out: b c d")
    return parser.parse_args()


def copies(pictures: Path, folder: Path, count: int) -> list[str]:
    """A folder in which every picture lies `count` times."""
    folder.mkdir()
    for number in range(count):
        for file in Inputs(pictures):
            path = Path(file.path)
            shutil.copyfile(path, folder / f"{path.stem}-{number}{path.suffix}")
    return [file.path for file in Inputs(folder)]


def ways_of(
    ours: FaceAttributes, files: list[str], folder: Path, without: list[str]
) -> dict[str, Callable[[], object]]:
    ways: dict[str, Callable[[], object]] = {
        "(a) ours": lambda: label_to(
            folder / "ours.csv", Path(files[0]).parent, ours, overwrite=True
        ),
        "(d) plain, our detector": lambda: plain_loop(files, peers, ours.detector, folder),
        "(b) plain, MTCNN": lambda: plain_loop(files, peers, mtcnn, folder),
        "(c) plain, Haar": lambda: plain_loop(files, peers, haar, folder),
        **kernels(ours, files),
    }
    # Peers ask the Keras network, whatever answers ours.
    peers = FaceAttributes.load(ours.path, "none", engine="keras")
    mtcnn = choose_detector("mtcnn") if "b" not in without else None
    haar = Haar() if hasattr(cv2, "CascadeClassifier") else None
    if haar is None:
        print("(c) is left out: this OpenCV has no Haar cascade any more")
        without = [*without, "c"]
    return {name: way for name, way in ways.items() if name[1] not in without}


class Haar:
    """OpenCV's frontal face cascade."""

    def __init__(self) -> None:
        name = "haarcascade_frontalface_default.xml"
        self._net = cv2.CascadeClassifier(cv2.data.haarcascades + name)

    def __call__(self, image: np.ndarray) -> list[Face]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        boxes = self._net.detectMultiScale(grey, 1.1, 5)
        return [Face((x, y, x + w, y + h), None, 1.0) for x, y, w, h in boxes]


def plain_loop(
    files: list[str], ours: FaceAttributes, detector: Detector | None, folder: Path
) -> None:
    """One picture at a time, one `predict` a face; a row each at the end."""
    rows: list[list[object]] = []
    for path in files:
        image = read_image(path)
        for face in detector(image):  # type: ignore[misc]
            crops = crop(image, face.box, ours.crop_rule)[None]
            answer = ours.model.predict(crops, verbose=0)
            rows.append([path, *face.box, *(int(p[0].argmax()) for p in answer.values())])
    with open(folder / "plain.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


def kernels(ours: FaceAttributes, files: list[str]) -> dict[str, Callable[[], object]]:
    """Each stage alone, on all processors, with everything it needs in memory."""
    workers = count_workers()
    side = min_decode_size(ours.detector)
    images = [read_picture(path, side).image for path in files]
    faces = [ours.find(image) for image in images]
    crops = [
        ours.cut(image, face)
        for image, found in zip(images, faces, strict=True)
        for face in found
        if ours.is_large(face)
    ]

    def spread(work: Callable, over: list) -> None:
        before = cv2.getNumThreads()
        cv2.setNumThreads(1)
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, over))
        cv2.setNumThreads(before)

    return {
        "(k) decode": lambda: spread(lambda path: read_picture(path, side), files),
        "(k) detect": lambda: spread(ours.find, images),
        "(k) predict": lambda: ours.predict(crops, full_batches=True),
    }


def print_table(seconds: dict[str, list[float]], count: int, ours: FaceAttributes) -> None:
    median = {name: statistics.median(times) for name, times in seconds.items()}
    limit = sum(time for name, time in median.items() if name.startswith("(k)"))
    print(f"{count} pictures, detector {ours.detector.provenance['name']}, {count_workers()} cores")
    for name, spent in median.items():
        shown = f"{name:<24} {spent:7.2f} s  {count / spent:7.1f} pictures/s"
        if name.startswith("(k)"):
            print(f"{shown}  {spent / limit:5.0%} of the kernels")
        else:
            print(f"{shown}  ours is {spent / median['(a) ours']:5.2f} times as fast")
    print(f"{'the kernels together':<24} {limit:7.2f} s  {count / limit:7.1f} pictures/s")
    print(f"ours reaches {limit / median['(a) ours']:.0%} of the kernels' limit")


if __name__ == "__main__":
    main()
