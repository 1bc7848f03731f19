"""Does `faceattr explain` point at what an answer rests on? Hide it and see.

    python tests/bench/heat.py MODEL [TASK=]MANIFEST… --faces 200

Of each crop a fifth is blurred away: the hottest, the coldest, or random patches. Printed is how
much probability the answer loses by that, on average over faces of split val.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np

from faceattr.data.dataset import LabeledDataset, read_dataset
from faceattr.data.manifest import select_split
from faceattr.data.sources import read_for_model
from faceattr.evaluation.metrics import predict
from faceattr.inference.explain import Heat
from faceattr.model import file as model_file

SHARE = 0.2
BLUR = 8.0  # pixels


def hidden(crops: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The crops with the pixels of the highest `order` blurred, the same number in each."""
    count = round(SHARE * order[0].size)
    places = np.argsort(-order.reshape(len(order), -1), axis=1)[:, :count]
    flat = crops.reshape(len(crops), -1, 3).copy()
    for face, blurred, own in zip(flat, crops, places, strict=True):
        face[own] = cv2.GaussianBlur(blurred, (0, 0), BLUR).reshape(-1, 3)[own]
    return flat.reshape(crops.shape)


def patches(shape: tuple[int, int, int]) -> np.ndarray:
    """Smooth noise, whose highest places are a few patches as large as a heat's."""
    generator = np.random.default_rng(0)
    cells = [generator.random((6, 6)).astype("float32") for _ in range(shape[0])]
    return np.stack([cv2.resize(c, shape[2:0:-1], interpolation=cv2.INTER_CUBIC) for c in cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--faces", type=int, default=200)
    given = parser.parse_args()
    path = model_file.shipped_model() if given.model == "shipped" else given.model
    model, about = model_file.load(path)
    known = {task.name: task for task in about.tasks}
    _, manifest = select_split(read_for_model(given.sources, known), None)
    rows, _ = read_dataset(manifest.examples, manifest.tasks, about.crop)
    for name in rows.targets:
        own = rows.only(name)
        crops = np.asarray(own.crops[own.index[: given.faces]])
        print(f"{name}: {_told(model, Heat(model, about.crop.size), crops, name)}")


def _told(model, heat: Heat, crops: np.ndarray, task: str) -> str:
    def asked(faces: np.ndarray) -> np.ndarray:
        return predict(model, LabeledDataset(faces, np.arange(len(faces)), {}))[task]

    said = asked(crops)
    answer, faces = said.argmax(axis=1), np.arange(len(crops))
    hot = heat(crops, task, answer)
    ways = {"hottest": hot, "random patches": patches(hot.shape), "coldest": -hot}
    lost = {
        name: (said[faces, answer] - asked(hidden(crops, order))[faces, answer]).mean()
        for name, order in ways.items()
    }
    return ", ".join(f"{name} {100 * points:.1f} points" for name, points in lost.items())


if __name__ == "__main__":
    main()
