"""Each head on the other set's faces, which have no label for it: contact sheets to look at.

    python tests/bench/other_set.py FER2013 UTKFACE FOLDER     (both with a manifest.csv)

Gender on 200 val faces of FER2013, expression on 200 of UTKFace (age 6 and older), drawn by
chance and ordered by answer and confidence; beside each sheet a table of the same answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from faceattr.images.crop import crop
from faceattr.images.draw import Tile, contact_sheet
from faceattr.images.load import read_image
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.results import Prediction

FACES, COLUMNS, SIDE = 200, 20, 72


def main(fer2013: Path, utkface: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    attributes = FaceAttributes.load(detector="none")
    for source, task, query in (
        (fer2013, "gender", "split == 'val'"),
        (utkface, "expression", "split == 'val' and age >= 6"),
    ):
        rows = pd.read_csv(source / "manifest.csv").query(query).sample(FACES, random_state=0)
        pictures = [read_image(source / path) for path in rows["path"]]
        answers = predictions_for(task, pictures, attributes)
        order = sorted(range(FACES), key=lambda i: (answers[i].label, -answers[i].probability))
        tiles = [Tile(pictures[i], words(number, answers[i])) for number, i in enumerate(order)]
        name = f"{source.name}-{task}"
        title = f"{task}, {FACES} val faces of {source.name}"
        sheet = contact_sheet(tiles, columns=COLUMNS, side=SIDE, title=title)
        sheet.save(folder / f"{name}.png")
        said = [(rows["path"].iloc[i], answers[i].label, answers[i].probability) for i in order]
        table = pd.DataFrame(said, columns=["path", task, "probability"])
        table.to_csv(folder / f"{name}.csv", index_label="number")
        print(f"{title}: {table[task].value_counts().to_dict()}")


def predictions_for(task: str, pictures: list, attributes: FaceAttributes) -> list[Prediction]:
    """What the model says of pictures that are faces."""
    crops = [crop(picture, None, attributes.crop_rule) for picture in pictures]
    found = attributes.predict(crops)
    faces = [attributes.find(picture)[0] for picture in pictures]
    return [face[task] for face in attributes.described(faces, found)]


def words(number: int, answer: Prediction) -> tuple[str, ...]:
    return f"{number} {answer.label}", f"{answer.probability:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("fer2013", "utkface", "folder"):
        parser.add_argument(name, type=Path)
    main(**vars(parser.parse_args()))
