"""Which runtime answers fastest, and which answers change: the shipped model on all of them.

    python tests/bench/engines.py expression=FER2013 gender=UTKFACE --files DIR --what answers
    python tests/bench/engines.py expression=FER2013 gender=UTKFACE --files DIR --what speed

Each engine's file is made here as `faceattr export` makes it, from the same train crops, or
found in DIR. For `speed` every engine in turn is asked for the same batch, so that whatever else
the machine does hits all of them; medians are printed. `answers` are over val rows of each task.
Needs the extras onnx, litert and openvino; what is not installed is left out and said.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from faceattr.evaluation.metrics import difference, predict, scores_of
from faceattr.exporting import formats
from faceattr.exporting.parity import ParityData, choose_crops, milliseconds
from faceattr.inference.predictor import FaceAttributes
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.file import Description

BATCHES = (1, 32, 128)
KERAS = "keras float32"


def main() -> None:
    options = parse()
    description = model_file.describe(model_file.shipped_model())
    shown = choose_crops(description, options.sources, options.rows, int8=True)
    options.files.mkdir(parents=True, exist_ok=True)
    models = keras_models() | exported(options.files, description, shown)
    if options.what == "answers":
        print_answers(models, description, shown)
    else:
        print_speed(models, shown.rows.crops[shown.rows.index], options.rounds)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--files", type=Path, required=True, help="folder of the exported files")
    parser.add_argument("--what", choices=("answers", "speed"), default="speed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=1000)
    return parser.parse_args()


def keras_models() -> dict:
    models = {KERAS: FaceAttributes.load(detector="none", engine="keras").model}
    flags = Path("/proc/cpuinfo")
    if flags.is_file() and "bf16" not in flags.read_text():
        print("keras bfloat16 is left out: this processor has neither AMX nor AVX512-BF16")
    else:
        models["keras bfloat16"] = FaceAttributes.load(detector="none", precision="bfloat16").model
    return models


def exported(folder: Path, description: Description, shown: ParityData) -> dict:
    """Every target in float32 and int8, opened."""
    network, side = model_file.load(model_file.shipped_model())[0], description.crop.size
    models = {}
    for name, target in formats.TARGETS.items():
        for precision in ("float32", "int8") if target.write_int8 else ("float32",):
            path = folder / f"{name}_{precision}{target.ending}"
            crops = shown.calibrating if precision == "int8" else None
            try:
                if not path.exists():
                    formats.write(name, network, path, side, crops)
                models[f"{name} {precision}"] = runtime.open_exported(path, precision)
                size = sum(part.stat().st_size for part in runtime.files_of(path)) / 1e6
                print(f"{name} {precision}: {size:.1f} MB", flush=True)
            except ValueError as error:
                print(f"{name} {precision} is left out: {error}")
    return models


def print_answers(models: dict, description: Description, shown: ParityData) -> None:
    """Accuracy and agreement with Keras in float32, a line for each engine."""
    print(f"accuracy, same answer, largest difference by task; {shown.about}")
    before = predict(models[KERAS], shown.rows, 64)
    for name, model in models.items():
        after = predict(model, shown.rows, 64)
        scores = scores_of(after, description.tasks, shown.rows)
        apart = difference(before, after)
        found = "  ".join(
            f"{task} ({score.n:,}) {100 * score.accuracy:5.2f} "
            f"{100 * apart[task]['same_answer']:6.2f} {apart[task]['largest']:7.1e}"
            for task, score in scores.items()
        )
        print(f"{name:<22}{found}", flush=True)


def print_speed(models: dict, crops: np.ndarray, rounds: int) -> None:
    for size in BATCHES:
        median = milliseconds(models, np.resize(crops, (size, *crops.shape[1:])), rounds)
        print(f"batch {size}, median of {rounds} rounds")
        for name, spent in median.items():
            times = median[KERAS] / spent
            line = f"{spent:8.1f} ms {1000 * size / spent:6.0f} crops/s {times:5.2f} x {KERAS}"
            print(f"  {name:<22}{line}", flush=True)


if __name__ == "__main__":
    main()
