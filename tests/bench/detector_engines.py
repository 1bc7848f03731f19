"""Which engine computes a detector fastest, and whether its boxes are the same.

    python tests/bench/detector_engines.py PICTURES [--yunet FILE.onnx]
    python tests/bench/detector_engines.py PICTURES --squares FOLDER    # those for LiteRT
    onnx2tf -i FOLDER/centerface.onnx -o FOLDER/centerface -n           # pip install onnx2tf
    python tests/bench/detector_engines.py PICTURES --litert FOLDER

Engines take turns, so that whatever else the machine does hits all of them; the least seconds of
processors of `--rounds` are compared. OpenVINO needs the extra of that name. LiteRT takes images of
one size alone, so with `--litert` every engine sees each picture on a black square.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np

from faceattr.detection import centerface, yunet
from faceattr.detection.base import reduced
from faceattr.detection.centerface import CenterFace
from faceattr.detection.onnx_network import OnnxNetwork
from faceattr.detection.yunet import YuNet
from faceattr.images.inputs import Inputs
from faceattr.images.load import read_image

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from figures import add_write, of_detectors, record

Run = Callable[[Sequence[str], dict[str, np.ndarray]], Sequence[np.ndarray]]
FIRST = "OpenCV"
COLUMNS = ["detector", "engine", "time", "of a core, a picture", "boxes"]


def main() -> None:
    options = parse()
    cv2.setNumThreads(options.threads)
    rows, of = [], {}
    for name, (detector, content) in detectors(options.yunet).items():
        side = detector.long_side or 0
        if options.squares:
            write_square(options.squares / f"{name}.onnx", content, side)
            continue
        images = [reduced(read_image(file.path), side)[0] for file in Inputs(options.pictures)]
        if options.litert:
            images = [on_square(image, side) for image in images]
        engines = engines_of(content, options.threads)
        if options.litert:
            (file,) = (options.litert / name).glob("*_float32.tflite")
            engines["LiteRT"] = LiteRt(file, engines["ONNX Runtime"], options.threads).run
        rows += compare(name, detector, engines, images, options.rounds)
        of |= of_detectors(detector)
    if not options.squares:
        named = "detector_engines" + "_on_squares" * bool(options.litert)
        record(options.write, named, COLUMNS, rows, of)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--yunet", type=Path, help="a YuNet file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--squares", type=Path, help="write networks for square images there")
    parser.add_argument("--litert", type=Path, help="a folder of networks that onnx2tf converted")
    add_write(parser)
    return parser.parse_args()


def detectors(file: Path | None) -> dict[str, tuple[YuNet | CenterFace, bytes]]:
    """Each detector by name, and its network for images of any size."""
    found: dict[str, tuple[YuNet | CenterFace, bytes]] = {
        "centerface": (CenterFace(), centerface._content())
    }
    if file:
        found["yunet"] = (YuNet(file), yunet._content(file))
    return found


def engines_of(content: bytes, threads: int) -> dict[str, Run]:
    """By name what `OnnxNetwork.run` does, in every engine at hand."""
    net = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))

    def in_opencv(outputs, inputs):
        net.setInput(next(iter(inputs.values())))
        return net.forward(list(outputs))

    engines: dict[str, Run] = {FIRST: in_opencv, "ONNX Runtime": OnnxNetwork(lambda: content).run}
    try:
        import openvino
    except ImportError:
        print("OpenVINO is left out: it is not installed")
        return engines
    how = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    how |= {"PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().read_model(content)
    request = openvino.Core().compile_model(model, "CPU", how).create_infer_request()

    def in_openvino(outputs, inputs):
        answers = request.infer(inputs)
        return [answers[name] for name in outputs]

    return engines | {"OpenVINO": in_openvino}


class LiteRt:
    """A converted network. Its outputs have lost their names: the nearest to `like`'s are taken."""

    def __init__(self, file: Path, like: Run, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._like = like
        self._net = Interpreter(str(file), num_threads=threads)
        self._net.allocate_tensors()
        self._order: list[int] = []

    def run(self, outputs: Sequence[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        (blob,) = inputs.values()
        place = self._net.get_input_details()[0]["index"]
        self._net.set_tensor(place, np.ascontiguousarray(blob.transpose(0, 2, 3, 1)))
        self._net.invoke()
        found = [self._net.get_tensor(one["index"]) for one in self._net.get_output_details()]
        found = [one.transpose(0, 3, 1, 2) if one.ndim == 4 else one for one in found]
        if not self._order:
            wanted = self._like(outputs, inputs)
            self._order = [int(np.argmin([apart(a, b) for b in found])) for a in wanted]
        return [found[place] for place in self._order]


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max()) if one.shape == other.shape else np.inf


def write_square(path: Path, content: bytes, side: int) -> None:
    import onnx

    model = onnx.load_model_from_string(content)
    shape = model.graph.input[0].type.tensor_type.shape
    for dimension, size in zip(shape.dim, (1, 3, side, side), strict=True):
        dimension.dim_value = size
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    print(path)


def on_square(image: np.ndarray, side: int) -> np.ndarray:
    square = np.zeros((side, side, 3), np.uint8)
    square[: image.shape[0], : image.shape[1]] = image
    return square


def compare(
    name: str, detector: YuNet | CenterFace, engines: dict[str, Run], images: list, rounds: int
) -> Iterator[list[str]]:
    """Print and give a line an engine: time against that of OpenCV, and how far its boxes are."""
    networks = {engine: Network(run) for engine, run in engines.items()}
    rows: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, list[float]] = {engine: [] for engine in engines}
    for number in range(rounds + 1):
        for engine, network in networks.items():
            if isinstance(detector, YuNet):
                detector._net = network
            else:
                detector._net.sess = network
            start = time.process_time()
            rows[engine] = [detector.detect(image) for image in images]
            if number:  # the first round opens and warms
                seconds[engine].append(time.process_time() - start)
    least = {engine: min(spent) for engine, spent in seconds.items()}
    for engine, found in rows.items():
        ratio, spent = least[engine] / least[FIRST], 1000 * least[engine] / len(images)
        apart = difference(rows[FIRST], found) if engine != FIRST else ""
        row = [name, engine, f"{ratio:.2f}", f"{spent:.1f} ms", apart]
        print(*row, sep="  ", flush=True)
        yield row


class Network:
    """What a detector asks in place of its session."""

    def __init__(self, run: Run) -> None:
        self.run = run


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> str:
    if any(a.shape != b.shape for a, b in zip(one, other, strict=True)):
        return "other faces"
    farthest = max(apart(a, b) for a, b in zip(one, other, strict=True) if len(a))
    return f"the same {sum(map(len, one))} faces, boxes {farthest:.5f} px apart at most"


if __name__ == "__main__":
    main()
