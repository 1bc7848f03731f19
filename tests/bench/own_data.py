"""Somebody's own data, played with real pictures: what the README's commands take and give.

Run: python tests/bench/own_data.py FER2013 UTKFACE [FOLDER]    (both with a manifest.csv)

* `mood`: 40 faces of each of three FER2013 classes in folders called laughing, crying and cute.
* `people`: a CSV of 400 UTKFace rows with gender and generation (a task of one's own) in which
  half of the cells are empty.

Both are trained by `faceattr train` with nothing but a source and an output, start-up included in
the time of processors, and judged by `faceattr evaluate` on val rows of the sets, which no training
saw. `--write` notes the table in docs/figures.json; `python docs/figures.py` puts it into the
README.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from faceattr.model.file import shipped_model
from faceattr.model.runtime import sha256_of

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from figures import add_write, record

MOODS = {"happy": "laughing", "sad": "crying", "surprise": "cute"}
DATA = {"mood": "three classes in folders", "gender": "CSV, half of its cells empty"}
DATA["generation"] = DATA["gender"]
COLUMNS = ["data", "images", "processor time", "task", "other faces", "accuracy (95 % interval)"]
EACH, JUDGED_EACH, PEOPLE, JUDGED_PEOPLE = 40, 100, 400, 1000


def faceattr(*words: object) -> float:
    """Run a command and return the seconds of processors that it took."""
    command = ["faceattr", *map(str, words)]
    print("$", *command, flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def class_folders(fer: Path, folder: Path, split: str, each: int) -> Path:
    """Copy some faces of every mood into a folder named after it."""
    table = pd.read_csv(fer / "manifest.csv")
    for name, mood in MOODS.items():
        rows = table[(table["split"] == split) & (table["expression"] == name)]
        (folder / mood).mkdir(parents=True)
        for path in rows["path"].sample(each, random_state=0):
            shutil.copy(fer / path, folder / mood)
    return folder


def table_with_holes(utkface: Path, path: Path) -> Path:
    """Some people, each cell of the two tasks empty with a chance of one half."""
    rows = _people(utkface, "train", PEOPLE)
    for seed, task in enumerate(("gender", "generation")):
        rows.loc[rows.sample(frac=0.5, random_state=seed).index, task] = ""
    rows.drop(columns="split").to_csv(path, index=False)
    return path


def _people(utkface: Path, split: str, count: int) -> pd.DataFrame:
    rows = pd.read_csv(utkface / "manifest.csv").query("split == @split")
    rows = rows.dropna(subset=["gender"]).sample(count, random_state=0)
    rows["path"] = [utkface.absolute() / path for path in rows["path"]]
    rows["generation"] = pd.cut(rows["age"], (0, 29, 59, 200), labels=("young", "middle", "old"))
    return rows[["path", "split", "gender", "generation"]].astype(str)


def report(folder: Path, seconds: float, faces: int, tasks: Iterable[str]) -> Iterator[list[str]]:
    """Rows of the table in the README."""
    scores = json.loads((folder / "scores.json").read_text())
    for task in tasks:
        found = scores[task]
        low, high = (100 * bound for bound in found["interval"])
        accuracy = f"{100 * found['accuracy']:.1f} % ({low:.1f} to {high:.1f})"
        yield [DATA[task], str(faces), f"{seconds:.0f} s", task, str(found["n"]), accuracy]


def main(fer: Path, utkface: Path, folder: Path) -> list[list[str]]:
    rows: list[list[str]] = []
    cache = folder / "cache"
    photos = class_folders(fer, folder / "my_photos", "train", EACH)
    others = class_folders(fer, folder / "new_photos", "val", JUDGED_EACH)
    people = table_with_holes(utkface, folder / "people.csv")
    _people(utkface, "val", JUDGED_PEOPLE).to_csv(folder / "others.csv", index=False)
    for task, source, judges, faces, tasks in (
        ("mood", f"mood={photos}", f"mood={others}", EACH * len(MOODS), ["mood"]),
        ("people", people, folder / "others.csv", PEOPLE, ["gender", "generation"]),
    ):
        model = folder / f"{task}.keras"
        seconds = faceattr("train", source, "-o", model, "--cache", cache)
        judged = folder / f"{task}-judged"
        faceattr("evaluate", model, judges, "-o", judged, "--cache", cache)
        rows += report(judged, seconds, faces, tasks)
        print(*rows, sep="\n", flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("fer2013", type=Path)
    parser.add_argument("utkface", type=Path)
    parser.add_argument("folder", type=Path, nargs="?")
    add_write(parser)
    places = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = main(places.fer2013, places.utkface, places.folder or Path(temporary))
    record(places.write, "own_data", COLUMNS, found, {"model": sha256_of(shipped_model())})
