import keras
import numpy as np
import pytest
from conftest import toy_network
from keras import ops

from faceattr.data.rows import mask
from faceattr.training.combine import COMBINATIONS, LOSS_FLOOR, CombinedLosses, combination

GENERATOR = np.random.default_rng(0)
CROPS = GENERATOR.integers(0, 256, (8, 32, 32, 3), dtype="uint8")


def combined(name, losses, present=(1.0, 1.0), weights=None, seed=0):
    combine = combination(name, weights or {}, len(losses), seed)
    return float(
        combine(
            dict(zip("ab", map(ops.convert_to_tensor, np.float32(losses)), strict=True)),
            dict(zip("ab", map(ops.convert_to_tensor, np.float32(present)), strict=True)),
        )
    )


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("sum", {}, 2.0 + 0.5),
        ("sum", {"b": 0.3}, 2.0 + 0.3 * 0.5),
        ("log", {}, np.log(2.0) + np.log(0.5)),
        ("uncertainty", {}, 2.0 + 0.5),  # as long as nothing is learnt, s = 0
    ],
)
def test_two_losses_become_one(name, weights, expected):
    assert combined(name, (2.0, 0.5), weights=weights) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["sum", "log", "uncertainty"])
def test_a_task_that_a_batch_lacks_adds_nothing(name):
    alone = {"sum": 2.0, "log": np.log(2.0), "uncertainty": 2.0}[name]
    assert combined(name, (2.0, 0.0), present=(1, 0)) == pytest.approx(alone, rel=1e-5)
    assert combined(name, (0.0, 0.0), present=(0, 0)) == 0


def test_the_product_s_pull_on_a_solved_task_is_bounded():
    assert combined("log", (1.0, 1e-9)) == pytest.approx(np.log(LOSS_FLOOR), rel=1e-5)


def test_random_weights_are_new_at_every_step_and_have_the_mean_one():
    combine = combination("random", {}, 2, 0)
    one = {name: ops.convert_to_tensor(np.float32(1)) for name in "ab"}
    left = {"a": one["a"], "b": one["b"] * 0}
    drawn = [float(combine(left, one)) for _ in range(200)]
    assert np.mean(drawn) == pytest.approx(1, abs=0.1)
    assert len(set(drawn)) > 190
    assert combined("random", (1.0, 1.0)) == pytest.approx(2, rel=1e-4)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ValueError, match="one of sum, log, uncertainty, random"):
        combination("product", {}, 2, 0)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_training_on_one_task_leaves_the_other_head_alone(name):
    keras.utils.set_random_seed(0)
    network = toy_network()
    model = CombinedLosses(network, combination(name, {}, 2, 0), label_smoothing=0.1)
    model.compile(
        keras.optimizers.SGD(0.1), weighted_metrics={n: ["accuracy"] for n in model.output}
    )
    targets = {"expression": np.eye(7)[GENERATOR.integers(7, size=8)], "gender": np.zeros((8, 2))}
    masks = {task: mask(target) for task, target in targets.items()}
    before = network.get_layer("gender").get_weights()
    trunk = network.get_layer("block1_conv1").kernel.numpy()
    logs = model.fit(CROPS, targets, sample_weight=masks, epochs=2, verbose=0).history
    for old, new in zip(before, network.get_layer("gender").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.abs(network.get_layer("block1_conv1").kernel - trunk).max() > 0
    assert {"expression_loss", "expression_accuracy", "loss"} <= set(logs)
    assert logs["gender_loss"] == [0, 0]


def test_uncertainty_learns_its_weights():
    keras.utils.set_random_seed(0)
    model = CombinedLosses(toy_network(), combination("uncertainty", {}, 2, 0))
    model.compile(keras.optimizers.SGD(0.1))
    targets = {
        "expression": np.eye(7)[GENERATOR.integers(7, size=8)],
        "gender": np.eye(2)[GENERATOR.integers(2, size=8)],
    }
    masks = {task: mask(target) for task, target in targets.items()}
    model.fit(CROPS, targets, sample_weight=masks, epochs=3, verbose=0)
    expression, gender = model.combine.log_variance.numpy()
    assert expression > gender != 0  # the larger loss is trusted less


def test_the_loss_that_is_told_is_the_mean_over_labelled_rows_of_the_epoch():
    keras.utils.set_random_seed(0)
    model = CombinedLosses(toy_network(), combination("log", {}, 2, 0))
    model.compile(keras.optimizers.SGD(0.0))
    targets = {"expression": np.eye(7)[[0] * 8], "gender": np.eye(2)[[0] * 8]}
    targets["gender"][1:6] = 0  # one labelled row in the first batch, two in the second
    masks = {task: mask(target) for task, target in targets.items()}
    logs = model.fit(
        CROPS, targets, sample_weight=masks, batch_size=4, shuffle=False, verbose=0
    ).history
    answer = model.predict(CROPS, verbose=0)["gender"][[0, 6, 7], 0]
    # Dropout is on while training, so the two differ a little.
    assert logs["gender_loss"][0] == pytest.approx(-np.log(answer).mean(), abs=0.2)
