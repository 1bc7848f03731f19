"""How fast a folder is labelled: ours, a plain loop and what peers do, on the same pictures.

    python tests/bench/label_speed.py PICTURES [--count 500] [--detector FILE.onnx] [--model FILE]

(a) ours          `label_to`: threads, one batched forward for the faces of many pictures.
(b) plain         a picture at a time with our detector, then `model.predict` a face.
(c) plain, MTCNN  the same with MTCNN, as fer and deepface do it.
(k) kernels       each stage alone, with what it needs in memory: the least that the work takes.

Pictures are linked as often as it takes. Every way does one of `--parts` after the other in turn,
so that whatever else the machine does hits all of them; seconds of processors hardly depend on it.
A way's stages are shares of its own time; `ours` sums them over its threads.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from faceattr.detection.base import Detector, min_decode_size
from faceattr.detection.choose import choose_detector
from faceattr.images.crop import crop
from faceattr.images.inputs import Inputs
from faceattr.images.load import read_image, read_picture
from faceattr.inference.label import label_to
from faceattr.inference.pipeline import StageTimes, count_workers, opencv_threads
from faceattr.inference.predictor import FaceAttributes
from faceattr.model.runtime import sha256_of

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from figures import add_write, of_detectors, record

STAGES = ("decode", "detect", "crop", "predict", "write")
COLUMNS = ["way", "clock", "processors", "decode, detect, crop, predict, write"]
BOUND = ("(k) decode", "(k) detect", "(k) predict")
Way = Callable[[Path], Mapping[str, float]]  # does the pictures of a folder; seconds by stage


@dataclass
class Spent:
    """Seconds of one way: by the clock, of all processors, and by stage."""

    clock: float = 0.0
    processors: float = 0.0
    stages: Counter[str] = field(default_factory=Counter)

    def add(self, way: Way, folder: Path) -> None:
        clock, processors = time.perf_counter(), time.process_time()
        stages = way(folder)
        self.clock += time.perf_counter() - clock
        self.processors += time.process_time() - processors
        self.stages.update(stages)


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "faces.csv")
        warm, *parts = linked(options.pictures, Path(folder), options.count, options.parts)
        ours = FaceAttributes.load(options.model, options.detector, offline=True)
        ways = ways_of(ours, out, options.without)
        for way in ways.values():
            way(warm)  # compiles
        spent = {name: Spent() for name in ways}
        for number, part in enumerate(parts, 1):
            for name, way in ways.items():
                spent[name].add(way, part)
            print(f"part {number} of {len(parts)} is done", flush=True)
    print_table(spent, options.count, ours)
    of = {"model": sha256_of(ours.path), **of_detectors(ours.detector)}
    record(options.write, "label_speed", COLUMNS, list(rows_of(spent)), of)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=500, help="pictures that every way does")
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--detector", default="centerface")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--without", nargs="*", default=[], help="ways to leave out: b c k")
    add_write(parser)
    return parser.parse_args()


def linked(pictures: Path, folder: Path, count: int, parts: int) -> list[Path]:
    """A folder of two pictures, then so many that share `count` of them."""
    files = itertools.cycle([Path(file.path).absolute() for file in Inputs(pictures)])
    sizes = [2, *(count * (n + 1) // parts - count * n // parts for n in range(parts))]
    folders = [folder / f"part-{number}" for number in range(len(sizes))]
    for part, size in zip(folders, sizes, strict=True):
        part.mkdir()
        for number, path in zip(range(size), files, strict=False):
            (part / f"{number:04}{path.suffix}").symlink_to(path)
    return folders


def ways_of(ours: FaceAttributes, out: Path, without: list[str]) -> dict[str, Way]:
    """Every way by name, those that cannot be had left out and told."""
    ways: dict[str, Way] = {
        "(a) ours": lambda folder: label_to(out, folder, ours, overwrite=True).stages
    }
    # Peers ask the Keras network, whatever answers ours.
    peers = FaceAttributes.load(ours.path, "none", engine="keras")
    ways["(b) plain"] = partial(plain_loop, peers, ours.detector, out)
    if "c" not in without:
        try:
            ways["(c) plain, MTCNN"] = partial(plain_loop, peers, choose_detector("mtcnn"), out)
        except ValueError as error:
            print(f"(c) is left out: {error}")
    kernels = Kernels(ours)
    ways |= {f"(k) {stage}": getattr(kernels, stage) for stage in STAGES[:-1]}
    return {name: way for name, way in ways.items() if name[1] not in without}


def plain_loop(
    peers: FaceAttributes, detector: Detector, out: Path, folder: Path
) -> Mapping[str, float]:
    """One picture at a time, one `predict` a face; a row each at the end."""
    rows: list[list[object]] = []
    times = StageTimes()
    for path in files_of(folder):
        with times.measure("decode"):
            image = read_image(path)
        with times.measure("detect"):
            faces = detector(image)
        for face in faces:
            with times.measure("crop"):
                crops = crop(image, face.box, peers.crop_rule)[None]
            with times.measure("predict"):
                answer = peers.model.predict(crops, verbose=0)
            rows.append([path, *face.box, *(int(p[0].argmax()) for p in answer.values())])
    with times.measure("write"), open(out, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return times.seconds


def files_of(folder: Path) -> list[str]:
    return [file.path for file in Inputs(folder)]


class Kernels:
    """The stages of ours, each alone on all processors; a stage works on what the last one left."""

    def __init__(self, ours: FaceAttributes) -> None:
        self._ours, self._side = ours, min_decode_size(ours.detector)
        self._images: list = []
        self._faces: list = []
        self._crops: list = []

    def decode(self, folder: Path) -> Mapping[str, float]:
        self._images = spread(lambda path: read_picture(path, self._side).image, files_of(folder))
        return {}

    def detect(self, folder: Path) -> Mapping[str, float]:
        self._faces = spread(self._ours.find, self._images)
        return {}

    def crop(self, folder: Path) -> Mapping[str, float]:
        pairs = zip(self._images, self._faces, strict=True)
        large = [(image, f) for image, faces in pairs for f in faces if self._ours.is_large(f)]
        self._crops = spread(lambda pair: self._ours.cut(*pair), large)
        return {}

    def predict(self, folder: Path) -> Mapping[str, float]:
        self._ours.predict(self._crops, full_batches=True)
        return {}


def spread(work: Callable, over: list) -> list:
    with opencv_threads(1), ThreadPoolExecutor(count_workers()) as pool:
        return list(pool.map(work, over))


def rows_of(spent: dict[str, Spent]) -> Iterator[list[str]]:
    """The page's table: each way against ours, and at its end what no way can be without."""
    first, bound = spent["(a) ours"], [spent[name] for name in BOUND if name in spent]
    alone = Spent(sum(one.clock for one in bound), sum(one.processors for one in bound))
    ways = {name: one for name, one in spent.items() if not name.startswith("(k)")}
    for name, one in {**ways, "decode, detect and predict alone": alone}.items():
        total = sum(one.stages.values())
        shares = [f"{one.stages[stage] / total:.0%}" for stage in STAGES if total]
        clock, processors = one.clock / first.clock, one.processors / first.processors
        yield [name.split(") ")[-1], f"{clock:.2f}", f"{processors:.2f}", ", ".join(shares)]


def print_table(spent: dict[str, Spent], count: int, ours: FaceAttributes) -> None:
    first = spent["(a) ours"]
    print(f"{count} pictures, detector {ours.detector.provenance['name']}, {count_workers()} cores")
    print(f"{'':<17} clock s  x ours  processors s  x ours  {'  '.join(STAGES)}")
    for name, one in spent.items():
        total = sum(one.stages.values())
        shares = "".join(f"{one.stages[stage] / total:>8.0%}" for stage in STAGES if total)
        print(
            f"{name:<17}{one.clock:8.2f}{one.clock / first.clock:8.2f}"
            f"{one.processors:14.2f}{one.processors / first.processors:8.2f}{shares}"
        )
    if all(name in spent for name in BOUND):
        clock = sum(spent[name].clock for name in BOUND) / first.clock
        processors = sum(spent[name].processors for name in BOUND) / first.processors
        print(
            f"decode, detect and predict alone take {clock:.0%} of ours by the clock and "
            f"{processors:.0%} of its processors"
        )


if __name__ == "__main__":
    main()
