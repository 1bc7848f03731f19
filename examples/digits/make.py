"""Strips of handwritten digits with a manifest beside them: `python make.py FOLDER`.

The digits are scikit-learn's: 8 x 8 pixels, written by 43 people. Strips for training and for
validation are composed of different digits. Two manifests name the same pictures: in `none.csv`
a place without a digit has the answer "none", in `unknown.csv` it has none at all.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

PLACES = 5
MOST = 6  # one more than there are places: "more"
SIDE = 16
STRIPS = {"train": 8000, "val": 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where pictures and manifests go")
    folder = parser.parse_args().folder
    rows = []
    for split, (images, digits) in _splits().items():
        generator = np.random.default_rng(len(split))
        for number in range(STRIPS[split]):
            chosen = generator.integers(0, len(digits), generator.integers(0, MOST + 1))
            path = f"{split}/{number:05}.png"
            (folder / split).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / path), _strip(images[chosen], generator))
            rows.append({"path": path, "split": split} | _answers(digits[chosen]))
    table = pd.DataFrame(rows)
    table.to_csv(folder / "unknown.csv", index=False)
    table.fillna("none").to_csv(folder / "none.csv", index=False)


def _splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By split the digits' pictures and what they are; every digit is in one split only."""
    images, digits = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) * 255 / 16).astype("uint8")
    parts = train_test_split(images, digits, test_size=0.2, stratify=digits, random_state=0)
    return {"train": (parts[0], parts[2]), "val": (parts[1], parts[3])}


def _strip(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Digits in a row, from the left; each a pixel or two off its place."""
    strip = np.zeros((SIDE + 4, MOST * SIDE + 4), "uint8")
    for place, image in enumerate(images):
        top, left = generator.integers(0, 5, 2) + np.array([0, place * SIDE])
        strip[top : top + SIDE, left : left + SIDE] |= cv2.resize(image, (SIDE, SIDE))
    return strip


def _answers(digits: np.ndarray) -> dict[str, str | None]:
    """The answer of every head; None where there is no digit."""
    length = str(len(digits)) if len(digits) <= PLACES else "more"
    written = [str(digit) for digit in digits[:PLACES]]
    written += [None] * (PLACES - len(written))
    names = [f"digit{place}" for place in range(1, PLACES + 1)]
    return {"length": length} | dict(zip(names, written, strict=True))


if __name__ == "__main__":
    main()
