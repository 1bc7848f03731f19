"""The shipped model beside @vladmandic/face-api (npm), on the same val rows.

    npm install @vladmandic/face-api @tensorflow/tfjs @tensorflow/tfjs-backend-wasm
    python tests/bench/face_api.py FER2013 UTKFACE     (where npm installed; a manifest.csv each)

Expression is scored against FER2013's own labels and against what most of FER+'s ten people saw
(their ties and faces that most took for none or for contempt left out); gender against UTKFace's.
face-api gets the pictures as they are, faceattr crops of its own size out of them.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from faceattr.data.csv_manifest import FERPLUS
from faceattr.evaluation.metrics import wilson
from faceattr.images.crop import crop
from faceattr.images.load import read_image
from faceattr.inference.predictor import FaceAttributes
from faceattr.tasks import EXPRESSION, GENDER, Task


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("fer2013", type=Path)
    parser.add_argument("utkface", type=Path)
    parser.add_argument("--rows", type=int, help="only so many val rows of each set")
    given = parser.parse_args()
    table = Table("rows", "n", "model", "accuracy", "95 % interval", "balanced")
    fer = val_rows(given.fer2013, given.rows)
    own = fer["expression"].map(EXPRESSION.classes.index).to_numpy()
    truths = {"FER2013's labels": own, "FER+ majority": majority(fer)}
    compare(table, given.fer2013, fer, EXPRESSION, truths)
    people = val_rows(given.utkface, given.rows)
    people = people[people["gender"].isin(GENDER.classes)]
    truth = people["gender"].map(GENDER.classes.index).to_numpy()
    compare(table, given.utkface, people, GENDER, {"UTKFace's labels": truth})
    Console(width=100).print(table)


def val_rows(folder: Path, count: int | None) -> pd.DataFrame:
    """The val rows of a manifest, or the first `count` of them in an order of chance."""
    rows = pd.read_csv(folder / "manifest.csv").query("split == 'val'")
    return rows.sample(count, random_state=0) if count and count < len(rows) else rows


def majority(rows: pd.DataFrame) -> np.ndarray:
    """The class that most people saw; -1 where that is no class of ours, or a tie."""
    votes = rows[[f"votes_{name}" for name in FERPLUS]].to_numpy()
    classes = [EXPRESSION.index(name) if name in EXPRESSION else -1 for name in FERPLUS]
    alone = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) == 1
    return np.where(alone, np.array(classes)[votes.argmax(axis=1)], -1)


def compare(table: Table, folder: Path, rows: pd.DataFrame, task: Task, truths: dict) -> None:
    """Ask both models about the rows, and add a line for each truth and model."""
    pictures = np.stack([read_image(folder / path) for path in rows["path"]])
    answers = {"face-api": face_api(pictures)[task.name], "faceattr": faceattr(pictures)[task.name]}
    for name, truth in truths.items():
        known = truth >= 0
        for model, probabilities in answers.items():
            said = probabilities.argmax(axis=1)[known]
            right = accuracy_score(truth[known], said)
            low, high = wilson(round(right * known.sum()), int(known.sum()))
            balanced = balanced_accuracy_score(truth[known], said)
            interval = f"{low:.1%} to {high:.1%}"
            cells = f"{known.sum():,}", model, f"{right:.1%}", interval, f"{balanced:.1%}"
            table.add_row(name, *cells)


def face_api(pictures: np.ndarray) -> dict[str, np.ndarray]:
    """What face-api says of faces ``(n, side, side, 3)``, by task ``(n, classes)``."""
    with tempfile.TemporaryDirectory() as folder:
        faces, answers = Path(folder, "faces.raw"), Path(folder, "answers.json")
        pictures.tofile(faces)
        script = Path(__file__).with_suffix(".mjs").resolve()
        subprocess.run(["node", script, faces, str(pictures.shape[1]), answers], check=True)
        return {name: np.array(rows) for name, rows in json.loads(answers.read_text()).items()}


def faceattr(pictures: np.ndarray) -> dict[str, np.ndarray]:
    """The same of the shipped model."""
    attributes = FaceAttributes.load(detector="none")
    crops = [crop(picture, None, attributes.crop_rule) for picture in pictures]
    answers = attributes.predict(crops)
    return {task: np.stack([one[task] for one in answers]) for task in answers[0]}


if __name__ == "__main__":
    main()
