"""Numbers are the same everywhere: 100 drawn faces, their stored probabilities, every runtime.

    python tests/campaigns/golden.py            # compare what this machine computes
    python tests/campaigns/golden.py --write    # store what Keras says, after a new model

Each engine answers the same crops with the shipped model; the largest and the mean difference of
a probability to the stored ones are printed. Exit code 1 where one is above its tolerance. What is
not installed is told and left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

STORED = Path(__file__).parents[1] / "golden.json"
COUNT = 100
# By what computes: the largest difference of a probability, and the mean one.
TOLERANCES = {"float32": (1e-4, 1e-5), "bfloat16": (3e-2, 3e-3), "int8": (2e-1, 2e-2)}
BY_KERAS = """
import sys, numpy as np
from faceattr.model import file
network = file.load(file.shipped_model())[0]
answers = network.predict_on_batch(np.load(sys.argv[1]))
np.savez(sys.argv[2], **{name: np.asarray(rows) for name, rows in answers.items()})
"""


def faces(count: int = COUNT, side: int = 64) -> np.ndarray:
    """Drawn faces, RGB ``uint8`` ``(count, side, side, 3)``: arithmetic alone, equal everywhere."""
    rng = np.random.default_rng(20261126)
    down, right = np.mgrid[0:side, 0:side] / (side - 1)
    return np.stack([_face(rng, down, right) for _ in range(count)])


def _face(rng: np.random.Generator, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    ground, skin = rng.integers(0, 256, 3), np.sort(rng.integers(60, 250, 3))[::-1]
    image = np.ones((*down.shape, 3)) * ground
    image += 60 * (down * rng.uniform(-1, 1) + right * rng.uniform(-1, 1))[..., None]

    def ellipse(x: float, y: float, wide: float, high: float, colour: np.ndarray) -> None:
        inside = ((right - x) / wide) ** 2 + ((down - y) / high) ** 2 <= 1
        image[inside] = colour + 40 * (0.5 - right[inside])[:, None]

    x, y = rng.uniform(0.45, 0.55, 2)
    ellipse(x, y - 0.12, 0.40, 0.44, rng.integers(0, 120, 3))  # hair
    ellipse(x, y, 0.33, 0.42, skin)
    for eye in (x - 0.14, x + 0.14):
        ellipse(eye, y - 0.08, 0.07, rng.uniform(0.01, 0.06), np.full(3, 240))
        ellipse(eye, y - 0.08, 0.03, 0.03, np.full(3, 20))
        ellipse(eye, y - 0.08 - rng.uniform(0.06, 0.12), 0.09, 0.015, skin * 0.4)
    ellipse(x, y + 0.07, 0.03, 0.06, skin * 0.85)
    bend, wide = rng.uniform(-0.12, 0.12), rng.uniform(0.08, 0.18)
    mouth = np.abs(down - (y + 0.22 + bend * ((right - x) / wide) ** 2)) < rng.uniform(0.01, 0.05)
    image[mouth & (np.abs(right - x) < wide)] = (150, 40, 50)
    return image.clip(0, 255).astype("uint8")


def answer_of(network) -> dict[str, np.ndarray]:
    """What anything with ``predict_on_batch`` says of the faces, 20 at a time."""
    parts = [network.predict_on_batch(some) for some in np.split(faces(), COUNT // 20)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}


def _keras(backend: str) -> dict[str, np.ndarray]:
    """The network itself on a backend of Keras, which takes a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        crops, answers = Path(folder, "crops.npy"), Path(folder, "answers.npz")
        np.save(crops, faces())
        environment = {**os.environ, "KERAS_BACKEND": backend}
        command = [sys.executable, "-c", BY_KERAS, str(crops), str(answers)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        with np.load(answers) as found:
            return dict(found)


def _loaded(**how) -> dict[str, np.ndarray]:
    from faceattr.inference.predictor import FaceAttributes

    return answer_of(FaceAttributes.load(detector="none", **how).model)


def _exported(target: str, precision: str) -> dict[str, np.ndarray]:
    from faceattr.exporting import formats
    from faceattr.model import file, runtime

    network, about = file.load(file.shipped_model())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"faces{formats.TARGETS[target].ending}")
        crops = faces() if precision == "int8" else None
        formats.write(target, network, path, about.crop.size, crops)
        return answer_of(runtime.open_exported(path, precision))


Engine = tuple[str, Callable[[], dict[str, np.ndarray]]]
ENGINES: dict[str, Engine] = {
    "Keras on TensorFlow": ("float32", lambda: _keras("tensorflow")),
    "Keras on JAX": ("float32", lambda: _keras("jax")),
    "Keras, bfloat16": ("bfloat16", lambda: _loaded(precision="bfloat16")),
    "LiteRT, the copy inside": ("int8", lambda: _loaded(engine="litert")),
    "LiteRT": ("float32", lambda: _exported("litert", "float32")),
    "ONNX Runtime": ("float32", lambda: _exported("onnx", "float32")),
    "ONNX Runtime, int8": ("int8", lambda: _exported("onnx", "int8")),
    "OpenVINO": ("float32", lambda: _exported("openvino", "float32")),
    "OpenVINO, int8": ("int8", lambda: _exported("openvino", "int8")),
}


def model_hash() -> str:
    """The SHA-256 of the shipped file's weights; the file itself also holds scores and a copy."""
    from faceattr.model import file

    network = file.load(file.shipped_model())[0]
    digest = hashlib.sha256()
    for weight in network.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def stored() -> dict:
    return json.loads(STORED.read_text())


def write() -> None:
    answers = {name: np.round(of, 6).tolist() for name, of in _keras("tensorflow").items()}
    digest = hashlib.sha256(faces().tobytes()).hexdigest()
    page = {"model": model_hash(), "faces": digest, "answers": answers}
    STORED.write_text(json.dumps(page) + "\n")


def compare(answers: dict[str, np.ndarray]) -> tuple[float, float]:
    """The largest and the mean difference of a probability to the stored ones."""
    apart = [np.abs(answers[name] - np.array(of)) for name, of in stored()["answers"].items()]
    return float(max(of.max() for of in apart)), float(np.mean([of.mean() for of in apart]))


def run(names: tuple[str, ...] = tuple(ENGINES)) -> Iterator[tuple[str, str, float, float, bool]]:
    """By engine: its name and precision, how far its answers are, whether it keeps to that."""
    for name in names:
        precision, answer = ENGINES[name]
        try:
            largest, mean = compare(answer())
        except (ImportError, ValueError) as error:
            print(f"{name} is left out: {error}")
            continue
        most, on_average = TOLERANCES[precision]
        yield name, precision, largest, mean, largest <= most and mean <= on_average


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="store what Keras says now")
    if parser.parse_args().write:
        write()
        return 0
    kept = True
    print(f"{'':<24}{'precision':<10}{'largest':>10}{'mean':>10}   tolerance")
    for name, precision, largest, mean, is_kept in run():
        most, on_average = TOLERANCES[precision]
        kept &= is_kept
        limits = f"{most:g}, {on_average:g}" + ("" if is_kept else "  BROKEN")
        print(f"{name:<24}{precision:<10}{largest:>10.1e}{mean:>10.1e}   {limits}")
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
