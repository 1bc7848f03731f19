import keras
import numpy as np
import pytest
from conftest import SHADE, TINT
from test_trainer import PHASES, VAL, run

from faceattr.evaluation.metrics import score_model
from faceattr.training.checkpoint import Checkpoints
from faceattr.training.config import NO_AUGMENTATION, Settings
from faceattr.training.optimizers import WeightAverage

SETTINGS = Settings(phases=PHASES, batch_size=16, augmentation=NO_AUGMENTATION, seed=3, ema=0.9)


def test_an_average_follows_its_weight_and_forgets_the_start():
    weight = keras.Variable([0.0])
    average = WeightAverage([weight], 0.9)
    weight.assign([1.0])
    for _ in range(200):
        average.on_train_batch_end(0)
    with average.in_place():
        assert float(weight[0]) == pytest.approx(1, abs=1e-4)


def test_the_weights_that_learn_are_back_after_they_were_judged():
    weight = keras.Variable([1.0])
    average = WeightAverage([weight], 0.99)
    weight.assign([3.0])
    for _ in range(8):
        average.on_train_batch_end(0)
    with average.in_place():
        assert 1 < float(weight[0]) < 3
    assert float(weight[0]) == 3.0


def test_an_average_moves_as_numpy_says():
    weight, generator = keras.Variable([0.0]), np.random.default_rng(0)
    average, expected = WeightAverage([weight], 0.95), 0.0
    for step in range(1, 41):
        value = generator.normal()
        weight.assign([value])
        average.on_train_batch_end(0)
        if step % 4 == 0:
            kept = min(0.95, (1 + step) / (10 + step)) ** 4
            expected = kept * expected + (1 - kept) * value
    with average.in_place():
        assert float(weight[0]) == pytest.approx(expected, rel=1e-5)


def test_a_checkpoint_that_cannot_be_read_just_now_is_not_called_damaged(tmp_path, monkeypatch):
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    checkpoints = Checkpoints(tmp_path, network, ())
    position = checkpoints.begin({"settings": {}}, resume=False)
    checkpoints.save(position, checkpoints.changed(position), ())
    assert checkpoints.begin({"settings": {}}, resume=True) == position

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("faceattr.training.checkpoint.open", refused, raising=False)
    with pytest.raises(OSError, match=r"checkpoint.npz cannot be read: Permission denied\.$"):
        checkpoints.begin({"settings": {}}, resume=True)


@pytest.mark.slow
def test_the_average_is_judged_and_kept(tmp_path):
    plain, _ = run(tmp_path / "plain", Settings(**{**vars(SETTINGS), "ema": 0.0}))
    averaged, epochs = run(tmp_path / "averaged", SETTINGS)
    best = max(epochs, key=lambda epoch: epoch.is_best * epoch.number)
    assert score_model(averaged, (SHADE, TINT), VAL) == best.scores
    both = zip(plain.weights, averaged.weights, strict=True)
    assert any((a.numpy() != b.numpy()).any() for a, b in both)


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_with_an_average_is_resumed_to_the_last_bit(tmp_path, kill_after):
    whole, epochs = run(tmp_path / "whole", SETTINGS)
    run(tmp_path / "part", SETTINGS, kill_after)
    resumed, rest = run(tmp_path / "part", SETTINGS, resume=True)
    assert rest[-1].scores == epochs[-1].scores
    for one, other in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_what_does_not_learn_stays_as_it_is_to_the_last_bit():
    values = np.random.default_rng(0).normal(size=1000).astype("float32")
    weight = keras.Variable(values)
    average = WeightAverage([weight], 0.998)
    for _ in range(400):
        average.on_train_batch_end(0)
    with average.in_place():
        np.testing.assert_array_equal(weight, values)
