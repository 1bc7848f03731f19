import json
from dataclasses import asdict

import keras
import numpy as np
import pytest
from conftest import toy_network

from faceattr.data.dataset import LabeledDataset
from faceattr.evaluation.metrics import (
    calibration_error,
    expected_ece,
    mean_accuracy,
    predict,
    score,
    score_model,
)
from faceattr.evaluation.robustness import accuracy_by_size, smallest_face
from faceattr.files import write_json
from faceattr.images.crop import CropRule
from faceattr.tasks import AGE_GROUP, EXPRESSION, GENDER

# Truth: male x4, female x2, unknown x2. Answers: m m m f, f m, and two that must not count.
TARGET = np.array([[1, 0]] * 4 + [[0, 1]] * 2 + [[0, 0]] * 2, "float32")
ANSWER = np.array(
    [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9], [0.7, 0.3], [1, 0], [0, 1]],
    "float32",
)


def test_only_labelled_rows_count():
    result = score(GENDER, TARGET, ANSWER)
    assert result.n == 6
    assert result.accuracy == pytest.approx(4 / 6)
    assert result.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert result.recall == {"male": 0.75, "female": 0.5}
    assert result.confusion == ((3, 1), (1, 1))
    # F1 of male: precision 3/4, recall 3/4; of female: precision 1/2, recall 1/2.
    assert result.macro_f1 == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_the_interval_is_wilson_s():
    low, high = score(GENDER, TARGET, ANSWER).interval
    z, n, p = 1.959964, 6, 4 / 6
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_a_task_without_rows_has_no_figures():
    result = score(EXPRESSION, np.zeros((3, 7)), np.full((3, 7), 1 / 7))
    assert result.n == 0
    assert np.isnan(result.accuracy)
    assert np.isnan(mean_accuracy({"expression": result}))
    assert np.isnan(mean_accuracy({"expression": result}, balanced=True))


def test_the_neighbours_of_an_age_group_are_told_apart_from_its_distant_ones():
    answered = np.eye(9)[[0, 1, 2, 8, 7]]
    result = score(AGE_GROUP, np.eye(9)[[0, 0, 0, 8, 8]], answered)
    assert (result.accuracy, result.within_one) == (pytest.approx(0.4), pytest.approx(0.8))
    assert score(EXPRESSION, np.eye(7)[[0]], np.eye(7)[[1]]).within_one is None
    assert score(AGE_GROUP, np.zeros((1, 9)), answered[:1]).within_one is None


def test_a_class_without_rows_does_not_count_into_the_means():
    target, answer = np.eye(7)[[0, 0, 3]], np.eye(7)[[0, 3, 3]]
    result = score(EXPRESSION, target, answer)
    assert np.isnan(result.recall["sad"])
    assert result.balanced_accuracy == pytest.approx((0.5 + 1) / 2)


def test_votes_are_scored_by_their_largest_class():
    assert score(GENDER, np.array([[0.4, 0.6]]), np.array([[0.1, 0.9]])).accuracy == 1


@pytest.mark.parametrize(
    ("right", "confidence", "expected"),
    [
        ([1, 1, 1, 1], [1.0, 1.0, 1.0, 1.0], 0.0),
        ([0, 0], [1.0, 1.0], 1.0),
        ([1, 0, 1, 1], [0.75, 0.75, 0.75, 0.75], 0.0),
        ([1, 1, 0, 0], [0.9, 0.9, 0.6, 0.6], (0.1 + 0.6) / 2),
    ],
)
def test_the_calibration_error_is_the_mean_gap_over_bins(right, confidence, expected):
    found = calibration_error(np.array(right, bool), np.array(confidence))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("rows", [200, 2000])
def test_the_chance_error_is_what_a_head_shows_that_is_right_as_often_as_it_says(rows):
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.3, 1, rows)
    shown = [calibration_error(generator.random(rows) < confidence, confidence) for _ in range(300)]
    assert expected_ece(confidence) == pytest.approx(np.mean(shown), rel=0.03)


def test_without_an_answer_there_is_no_calibration_error():
    assert np.isnan(calibration_error(np.array([], bool), np.array([])))
    assert np.isnan(expected_ece(np.array([])))


def test_every_row_is_predicted_once_and_in_order_whatever_the_batch_size():
    crops = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype="uint8")
    shuffled = np.random.default_rng(1).permutation(10)
    targets = {"expression": np.zeros((10, 7)), "gender": np.eye(2)[np.arange(10) % 2]}
    network = toy_network()
    whole = network.predict(crops[shuffled], verbose=0)["gender"]
    for batch_size in (3, 10, 64):
        answers = predict(network, LabeledDataset(crops, shuffled, targets), batch_size)
        np.testing.assert_allclose(answers["gender"], whole, rtol=1e-4)


def test_a_model_is_scored_on_the_tasks_that_the_rows_have():
    keras.utils.set_random_seed(0)
    crops = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype="uint8")
    rows = LabeledDataset(crops, np.arange(6), {"gender": TARGET[:6]})
    scored = score_model(toy_network(), (EXPRESSION, GENDER), rows)
    assert list(scored) == ["gender"]


def test_scores_are_written_as_json(tmp_path):
    scores = {
        "gender": score(GENDER, TARGET, ANSWER),
        "expression": score(EXPRESSION, np.zeros((3, 7)), np.full((3, 7), 1 / 7)),
    }
    write_json({name: asdict(one) for name, one in scores.items()}, tmp_path / "scores.json")
    read = json.loads((tmp_path / "scores.json").read_text())
    assert read["gender"]["n"] == 6
    assert read["expression"]["accuracy"] is None


def test_the_smallest_face_keeps_nine_tenths_of_every_accuracy():
    table = {
        12: {"gender": 0.6, "expression": 0.2},
        16: {"gender": 0.9, "expression": 0.5},
        24: {"gender": 0.91, "expression": 0.62},
        48: {"gender": 0.95, "expression": 0.65},
    }
    assert smallest_face(table) == 24
    # A small size that is right by luck lies below one that is not.
    assert smallest_face({12: {"a": 0.95}, 16: {"a": 0.7}, 24: {"a": 0.92}, 48: {"a": 1.0}}) == 24
    assert smallest_face({12: {}, 48: {}}) == 12


def test_accuracy_by_size_shrinks_the_faces():
    """Fine stripes are seen at full size and are gone at a quarter of it."""

    class StripesOrNot(keras.layers.Layer):
        def call(self, crops):
            step = keras.ops.abs(
                keras.ops.cast(crops[:, :, 1:, :1] - crops[:, :, :-1, :1], "float32")
            )
            striped = keras.ops.mean(step, axis=(1, 2, 3))
            answer = keras.ops.cast(striped > 50, "float32")
            return keras.ops.stack([1 - answer, answer], axis=1)

    crops = np.full((20, 48, 48, 3), 100, "uint8")
    crops[::2, :, ::2] = 240
    pixels = keras.Input((None, None, 3), dtype="int32")
    network = keras.Model(pixels, {"gender": StripesOrNot()(pixels)})
    rows = LabeledDataset(
        crops.astype("uint8"), np.arange(20), {"gender": np.eye(2)[np.arange(20) % 2][:, ::-1]}
    )
    table = accuracy_by_size(network, (GENDER,), rows, CropRule(48))
    assert list(table) == [12, 16, 24, 32, 48]
    assert table[48] == {"gender": 1.0}
    assert table[12] == {"gender": 0.5}


def test_every_class_has_its_interval_and_few_rows_are_marked():
    male, female = score(GENDER, TARGET, ANSWER).classes
    assert (male.n, male.recall, male.precision) == (4, 0.75, 0.75)
    assert male.interval == pytest.approx((0.3006, 0.9544), abs=1e-4)  # Wilson, 3 of 4
    assert female.f1 == pytest.approx(0.5)
    assert female.has_few
    unseen = score(EXPRESSION, np.eye(7)[[0, 0]], np.eye(7)[[0, 3]]).classes[6]
    assert unseen.n == 0 and np.isnan(unseen.recall) and unseen.interval == (0, 1)


def test_the_best_epoch_of_balanced_classes_is_told_by_balanced_accuracy():
    always_male = np.tile([0.9, 0.1], (4, 1))
    result = score(GENDER, np.eye(2)[[0, 0, 0, 1]], always_male)
    assert mean_accuracy({"gender": result}) == 0.75
    assert mean_accuracy({"gender": result}, balanced=True) == 0.5
