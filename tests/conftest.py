"""Drawn faces, toy models and small manifests that the tests share."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A Ray of a test listens on loopback alone; it looks when it is imported.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from use_ci import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401
from use_network import refuse_all_but_loopback
from use_toys import SHADE, OnEach  # noqa: F401
from use_windows import as_on_windows  # noqa: F401

from faceattr.evaluation.report import SCORES
from faceattr.images.crop import CropRule
from faceattr.model import file as model_file
from faceattr.model.file import Description
from faceattr.tasks import EXPRESSION, GENDER, Task
from faceattr.training.checkpoint import Epoch

refuse_all_but_loopback()

TINT = Task("tint", ("blue", "green", "red"))


def toy_network(tasks=(EXPRESSION, GENDER), dtype="float32", *, seed=None) -> keras.Model:
    """A few hundred weights with the contract of the real network: named convolutions,
    dropout, heads named after their tasks, RGB uint8 in, a dict of probabilities out. With a
    seed, whatever is random from here on begins there."""
    if seed is not None:
        keras.utils.set_random_seed(seed)
    crops = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, -1, dtype="float32")(crops)
    x = keras.layers.Conv2D(4, 3, strides=4, activation="relu", name="block1_conv1", dtype=dtype)(x)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="block4_conv1", dtype=dtype)(x)
    x = keras.layers.GlobalAveragePooling2D(dtype=dtype)(x)
    x = keras.layers.Dropout(0.2, seed=0, dtype=dtype)(x)
    heads = {
        task.name: keras.layers.Dense(
            len(task.classes), activation="softmax", name=task.name, dtype="float32"
        )(x)
        for task in tasks
    }
    return keras.Model(crops, heads)


@pytest.fixture(autouse=True)
def no_copies(request, monkeypatch):
    """Trainings make no LiteRT copy, which takes seconds, but where a test is about that."""
    if "makes_copies" not in request.keywords:
        monkeypatch.setattr("faceattr.training.package.add_copy", lambda *given, **how: None)


@pytest.fixture
def toy_model_path(tmp_path):
    """A saved toy model of expression and gender."""
    return save_toy(tmp_path / "toy.keras")


@pytest.fixture
def refused(capsys):
    """What a command said that ended with 2, wrong input."""

    def said(code):
        assert code == 2
        return capsys.readouterr().err

    return said


def save_toy(path, tasks=(EXPRESSION, GENDER), crop=None, *, seed=0, half=True, **about):
    """A model file of a toy network; `about` is for its `Description`."""
    description = Description(tasks, crop or CropRule(), **about)
    model_file.save(toy_network(tasks, seed=seed), description, path, half=half)
    return path


def save_classes(folder: Path, **pictures: Iterable[np.ndarray]) -> Path:
    """Class folders of RGB pictures, ``light/0.png``."""
    for name, of_class in pictures.items():
        (folder / name).mkdir(parents=True)
        for number, picture in enumerate(of_class):
            Image.fromarray(picture).save(folder / name / f"{number}.png")
    return folder


def shaded(level: int, seed: int = 0, size: int = 40) -> np.ndarray:
    """A square picture of one grey level with a little noise, RGB uint8."""
    noise = np.random.default_rng([level, seed]).integers(-20, 21, (size, size, 3))
    return np.clip(level + noise, 0, 255).astype("uint8")


def noted_epochs(stop_after: int | None = None):
    """A list, and a progress that puts epochs into it and interrupts the run behind one."""
    seen = []

    def note(epoch: Epoch) -> None:
        seen.append(epoch)
        if epoch.number == stop_after:
            raise KeyboardInterrupt

    return seen, OnEach(note, Epoch)


def only_scores(evaluation, folder) -> None:
    """What tells a finished run, without the pictures and pages of a report."""
    (folder / SCORES).write_text("{}")


def interrupt(*args, **kwargs) -> None:
    raise KeyboardInterrupt
