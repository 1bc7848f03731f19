"""Rows that know one task, whether something is a face: `python make.py --help`.

`no` are pictures that most of FER+'s ten raters called no face, and squares of photographs that
touch no face; `yes` are faces of the sets, and the faces of the same photographs. Nothing is
copied: the manifest names boxes in pictures that are there.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from faceattr.detection.centerface import CenterFace
from faceattr.images.load import read_image

FROM_EACH_SET = 2000
SQUARES = 120  # from a photograph
LOOKS = 20  # at each face of a photograph
VAL = 5  # every fifth photograph
BOX = ["x0", "y0", "x1", "y1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fer", type=Path, required=True, help="manifest with FER+'s votes_*")
    parser.add_argument("--faces", type=Path, required=True, help="manifest of another face set")
    parser.add_argument("--photos", type=Path, required=True, help="CSV of path and face boxes")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    generator = np.random.default_rng(0)
    parts = [_voted(given.fer), _some(given.fer), _some(given.faces)]
    for number, (path, faces) in enumerate(photographs(given.photos, odd=False)):
        rows = pd.concat([_squares(path, faces, generator), _looks(path, faces, generator)])
        parts.append(rows.assign(split="train" if number % VAL else "val"))
    pd.concat(parts).to_csv(given.output, index=False)


def photographs(table: Path, *, odd: bool):
    """Every second picture with the boxes of its faces; the other half is there to measure on."""
    places = pd.read_csv(table)
    for number, (name, rows) in enumerate(places.groupby("path")):
        if bool(number % 2) == odd:
            yield table.parent / name, rows[BOX].dropna().to_numpy()


def _voted(fer: Path) -> pd.DataFrame:
    """What more than half of the raters called no face."""
    table = pd.read_csv(fer)
    return _rows(fer, table[table["votes_nf"] > 5], "no")


def _some(manifest: Path) -> pd.DataFrame:
    table = pd.read_csv(manifest)
    if "votes_nf" in table:
        table = table[table["votes_nf"] == 0]
    return _rows(manifest, table.sample(FROM_EACH_SET, random_state=0), "yes")


def _rows(manifest: Path, table: pd.DataFrame, answer: str) -> pd.DataFrame:
    paths = [str((manifest.parent / path).absolute()) for path in table["path"]]
    return pd.DataFrame({"path": paths, "split": table["split"], "is_face": answer})


def _squares(path: Path, faces: np.ndarray, generator: np.random.Generator) -> pd.DataFrame:
    """Squares that touch no face, of all sizes, and what a detector takes for one at a venture."""
    image = read_image(path)
    height, width = image.shape[:2]
    sides = np.exp(generator.uniform(np.log(20), np.log(min(width, height)), SQUARES))
    corners = generator.uniform(size=(SQUARES, 2)) * (np.array([width, height]) - sides[:, None])
    squares = np.hstack([corners, corners + sides[:, None]])
    found = CenterFace(threshold=0.05)(image)
    boxes = np.vstack([squares, *([face.box] for face in found)])
    return _boxes(path, [box for box in boxes if not _touches(box, faces)], "no")


def _looks(path: Path, faces: np.ndarray, generator: np.random.Generator) -> pd.DataFrame:
    """Every face some times, its box moved and scaled by up to a tenth."""
    looks = []
    for x0, y0, x1, y1 in np.repeat(faces, LOOKS, axis=0):
        side = max(x1 - x0, y1 - y0)
        x, y, scale = (x0 + x1) / 2, (y0 + y1) / 2, side / 2 * generator.uniform(0.9, 1.1)
        dx, dy = side * generator.uniform(-0.1, 0.1, 2)
        looks.append((x + dx - scale, y + dy - scale, x + dx + scale, y + dy + scale))
    return _boxes(path, looks, "yes")


def _touches(box: np.ndarray, faces: np.ndarray) -> bool:
    x0, y0, x1, y1 = faces.T
    return bool(np.any((x0 < box[2]) & (box[0] < x1) & (y0 < box[3]) & (box[1] < y1)))


def _boxes(path: Path, boxes, answer: str) -> pd.DataFrame:
    table = pd.DataFrame(np.round(boxes, 1), columns=BOX) if len(boxes) else pd.DataFrame()
    return table.assign(path=str(path.absolute()), is_face=answer)


if __name__ == "__main__":
    main()
