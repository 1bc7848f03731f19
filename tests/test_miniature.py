"""The reference miniature: five pictures of a mood, six of a gender, targets of width 3 + 2."""

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import shaded, toy_network
from PIL import Image

from faceattr.data.dataset import read_dataset
from faceattr.data.manifest import targets
from faceattr.data.sources import read_for_model
from faceattr.images.crop import CropRule
from faceattr.tasks import GENDER, Task
from faceattr.training.config import FROZEN, Settings
from faceattr.training.losses import compiled

MOOD = Task("mood", ("laughing", "crying", "cute"))
MOODS = ("laughing", "crying", "cute", "laughing", "cute")
GENDERS = ("female", "male", "male", "female", "female", "male")
EXPECTED = [
    [1, 0, 0, 0, 0],
    [0, 1, 0, 0, 0],
    [0, 0, 1, 0, 0],
    [1, 0, 0, 0, 0],
    [0, 0, 1, 0, 0],
    [0, 0, 0, 0, 1],
    [0, 0, 0, 1, 0],
    [0, 0, 0, 1, 0],
    [0, 0, 0, 0, 1],
    [0, 0, 0, 0, 1],
    [0, 0, 0, 1, 0],
]


@pytest.fixture
def manifest(tmp_path):
    for task, labels in (("mood", MOODS), ("gender", GENDERS)):
        names = [f"{task}{number}.png" for number in range(len(labels))]
        for number, name in enumerate(names):
            Image.fromarray(shaded(40 * number + 20, seed=len(task))).save(tmp_path / name)
        pd.DataFrame({"path": names, task: labels}).to_csv(tmp_path / f"{task}.csv", index=False)
    specs = [str(tmp_path / "mood.csv"), str(tmp_path / "gender.csv")]
    return read_for_model(specs, {"mood": MOOD, "gender": GENDER})


def test_eleven_pictures_have_targets_of_width_three_and_two_with_zeros_where_unknown(manifest):
    found = targets((MOOD, GENDER), manifest.examples)
    np.testing.assert_array_equal(
        np.concatenate([found["mood"], found["gender"]], axis=1), EXPECTED
    )


def test_a_step_on_the_moods_leaves_gender_alone_and_the_other_way_round(manifest, tmp_path):
    rows, _ = read_dataset(manifest.examples, (MOOD, GENDER), CropRule(32), tmp_path / "cache")
    for task, other in (("mood", "gender"), ("gender", "mood")):
        network = toy_network((MOOD, GENDER), seed=0)
        before = {name: network.get_layer(name).get_weights() for name in (task, other)}
        model = compiled(network, keras.optimizers.SGD(0.1), Settings(phases=(FROZEN,)))
        model.run_eagerly = True
        knows = np.flatnonzero(rows.targets[task].any(axis=1))
        crops, chosen, masks = rows.batch(knows)
        model.train_on_batch(crops, chosen, masks)
        assert all(map(np.array_equal, before[other], network.get_layer(other).get_weights()))
        assert not np.array_equal(before[task][1], network.get_layer(task).bias)
