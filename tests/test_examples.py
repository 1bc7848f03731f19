"""The examples' own code: it only makes pictures and manifests."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from faceattr.cli.recipe import read_recipes
from faceattr.cli.train import add_options, network_of, settings_of

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / name / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def is_face():
    return load("is_face")


def test_no_digit_is_written_in_strips_of_both_splits(digits):
    splits = digits._splits()
    train, val = ({image.tobytes() for image in images} for images, _ in splits.values())
    assert not train & val
    assert sum(len(labels) for _, labels in splits.values()) == 1797


@pytest.mark.parametrize(
    ("written", "length", "answers"),
    [
        ([], "0", [None] * 5),
        ([4, 2], "2", ["4", "2", None, None, None]),
        ([0, 1, 2, 3, 4, 5], "more", ["0", "1", "2", "3", "4"]),
    ],
)
def test_places_without_a_digit_have_no_answer(digits, written, length, answers):
    found = digits._answers(np.array(written, int))
    assert list(found.values()) == [length, *answers]


def test_digits_stand_in_their_order(digits):
    bright = np.full((2, 8, 8), 255, "uint8") // np.array([[[1]], [[2]]], "uint8")
    strip = digits._strip(bright, np.random.default_rng(0))
    assert strip[:, :12].max() == 255 and 0 < strip[:, 24:40].max() < 130
    assert not strip[:, 40:].any()


@pytest.fixture
def photos(tmp_path):
    """Four pictures with a face each, by their table."""
    rows = []
    for number in range(4):
        picture = np.random.default_rng(number).integers(0, 256, (90, 120, 3), "uint8")
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        rows.append({"path": f"{number}.png", "x0": 40, "y0": 30, "x1": 70, "y1": 60})
    pd.DataFrame(rows).to_csv(tmp_path / "photos.csv", index=False)
    return tmp_path / "photos.csv"


def test_what_is_measured_on_is_no_source_of_rows(is_face, photos):
    halves = [{path.name for path, _ in is_face.photographs(photos, odd=odd)} for odd in (0, 1)]
    assert halves == [{"0.png", "2.png"}, {"1.png", "3.png"}]


def test_background_touches_no_face_and_looks_at_a_face_are_near_it(is_face, photos):
    path, faces = next(is_face.photographs(photos, odd=False))
    generator = np.random.default_rng(0)
    away = is_face._squares(path, faces, generator)
    assert len(away) > 5 and set(away["is_face"]) == {"no"}
    assert not any(is_face._touches(box, faces) for box in away[is_face.BOX].to_numpy())
    near = is_face._looks(path, faces, generator)
    assert len(near) == is_face.LOOKS and set(near["is_face"]) == {"yes"}
    assert (near[is_face.BOX] - [40, 30, 70, 60]).abs().max(axis=None) <= 5


def test_a_picture_that_is_all_face_gives_no_background(is_face, photos):
    path, _ = next(is_face.photographs(photos, odd=False))
    all_of_it = np.array([[0.0, 0.0, 120.0, 90.0]])
    assert is_face._squares(path, all_of_it, np.random.default_rng(0)).empty


@pytest.mark.parametrize("file", ["examples/digits/recipe.toml", "tests/bench/ways.toml"])
def test_recipes_hold_what_train_understands(file):
    for given in read_recipes(str(ROOT / file), add_options).values():
        settings_of(network_of(given).phases, given)
        assert not given
