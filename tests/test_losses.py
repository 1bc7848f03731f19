import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import toy_network
from keras import ops

from faceattr.data.dataset import class_prior, mask
from faceattr.tasks import Task
from faceattr.training.config import FINETUNE, Phase, Settings
from faceattr.training.losses import COMBINATIONS, LOSS_FLOOR, CombinedLosses, compiled
from faceattr.training.optimizers import make_optimizer

PHASE = Phase("tiny", 1, 1e-7, unfreeze_from="backbone")
GENERATOR = np.random.default_rng(0)
CROPS = GENERATOR.integers(0, 256, (8, 32, 32, 3), dtype="uint8")


def combined(name, losses, present=(1.0, 1.0), weights=None, seed=0):
    combine = COMBINATIONS[name](weights or {}, len(losses), seed)
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
        ("log", {}, np.log(2.0 + LOSS_FLOOR) + np.log(0.5 + LOSS_FLOOR)),
        ("uncertainty", {}, 2.0 + 0.5),  # as long as nothing is learnt, s = 0
    ],
)
def test_two_losses_become_one(name, weights, expected):
    assert combined(name, (2.0, 0.5), weights=weights) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["sum", "log", "uncertainty"])
def test_a_task_that_a_batch_lacks_adds_nothing(name):
    alone = {"sum": 2.0, "log": np.log(2.0 + LOSS_FLOOR), "uncertainty": 2.0}[name]
    assert combined(name, (2.0, 0.0), present=(1, 0)) == pytest.approx(alone, rel=1e-5)
    assert combined(name, (0.0, 0.0), present=(0, 0)) == 0


def test_the_product_s_pull_on_a_solved_task_is_bounded():
    assert combined("log", (1.0, 1e-9)) == pytest.approx(np.log(LOSS_FLOOR), abs=0.01)


@pytest.mark.parametrize("loss", [0.5, 0.005, 1e-6])
def test_a_task_goes_on_learning_however_small_its_loss(loss):
    combine, one = COMBINATIONS["log"]({}, 1, 0), {"a": ops.ones(())}
    variable = keras.Variable(loss)
    with tf.GradientTape() as tape:
        total = combine({"a": variable + 0.0}, one)
    pull = float(tape.gradient(total, variable.value))
    assert 0.9 / (loss + LOSS_FLOOR) < pull < 1.1 / (loss + LOSS_FLOOR)


@pytest.mark.filterwarnings("error")
def test_a_random_weight_of_one_task_alone_is_one_and_warns_of_nothing():
    """As the baseline of a comparison is trained: Keras warned that a sigmoid may be meant."""
    combine = COMBINATIONS["random"]({}, 1, 0)
    assert float(combine({"a": ops.array(3.0)}, {"a": ops.array(1.0)})) == 3


def test_random_weights_are_new_at_every_step_and_have_the_mean_one():
    combine = COMBINATIONS["random"]({}, 2, 0)
    one = {name: ops.convert_to_tensor(np.float32(1)) for name in "ab"}
    left = {"a": one["a"], "b": one["b"] * 0}
    drawn = [float(combine(left, one)) for _ in range(200)]
    assert np.mean(drawn) == pytest.approx(1, abs=0.1)
    assert len(set(drawn)) > 190
    assert combined("random", (1.0, 1.0)) == pytest.approx(2, rel=1e-4)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ValueError, match="one of sum, log, uncertainty, random"):
        Settings(phases=(FINETUNE,), combine="product")


@pytest.mark.parametrize("name", COMBINATIONS)
def test_training_on_one_task_leaves_the_other_head_alone(name):
    network = toy_network(seed=0)
    model = CombinedLosses(network, COMBINATIONS[name]({}, 2, 0), label_smoothing=0.1)
    model.compile(
        keras.optimizers.SGD(0.1), weighted_metrics={n: ["accuracy"] for n in model.output}
    )
    targets = {"expression": np.eye(7)[GENERATOR.integers(7, size=8)], "gender": np.zeros((8, 2))}
    masks = {task: mask(target) for task, target in targets.items()}
    before = network.get_layer("gender").get_weights()
    backbone = network.get_layer("block1_conv1").kernel.numpy()
    logs = model.fit(CROPS, targets, sample_weight=masks, epochs=2, verbose=0).history
    for old, new in zip(before, network.get_layer("gender").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.abs(network.get_layer("block1_conv1").kernel - backbone).max() > 0
    assert {"expression_loss", "expression_accuracy", "loss"} <= set(logs)
    assert logs["gender_loss"] == [0, 0]


def test_uncertainty_learns_its_weights():
    model = CombinedLosses(toy_network(seed=0), COMBINATIONS["uncertainty"]({}, 2, 0))
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
    model = CombinedLosses(toy_network(seed=0), COMBINATIONS["log"]({}, 2, 0))
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


def test_uncertainty_has_a_rate_of_its_own_and_keeps_its_weights_over_phases():
    """Losses that differ by a factor of ten get weights that differ by several."""
    network, combine = toy_network(seed=0), COMBINATIONS["uncertainty"]({}, 2, 0)
    settings = Settings(phases=(FINETUNE,), combine="uncertainty", loss_weights={"gender": 1})
    expression = np.full((8, 7), 1 / 7)  # a loss of 1.9 that nothing lowers
    targets = {"expression": expression, "gender": np.eye(2)[[0] * 8]}
    masks = {task: mask(target) for task, target in targets.items()}
    head = network.get_layer("gender")
    head.set_weights([np.zeros_like(head.get_weights()[0]), np.array([1.6, 0.0])])  # 0.18
    rows = tf.data.Dataset.from_tensors((CROPS, targets, masks))
    for _ in range(2):
        optimizer = make_optimizer(PHASE, 100, combine.optimizers())
        trained = compiled(network, optimizer, settings, combine)
        trained.fit(rows.repeat(), steps_per_epoch=100, shuffle=False, verbose=0)
    weights = np.exp(-combine.log_variance.numpy())
    assert weights[1] / weights[0] > 5


def with_priors(targets, priors):
    return {**targets, **{class_prior(task): prior for task, prior in priors.items()}}


def test_the_loss_under_a_prior_is_that_of_answers_times_class_shares():
    """Against numpy, with unlabelled rows and sources that differ."""
    network = toy_network(seed=0)
    model = CombinedLosses(network, COMBINATIONS["sum"]({}, 2, 0), label_smoothing=0.1)
    targets = {
        "expression": np.eye(7)[GENERATOR.integers(7, size=8)] * (np.arange(8) % 2)[:, None],
        "gender": np.eye(2)[GENERATOR.integers(2, size=8)] * (np.arange(8) < 3)[:, None],
    }
    masks = {task: mask(target) for task, target in targets.items()}
    shares = GENERATOR.dirichlet(np.ones(7), 8)
    answers = {name: ops.convert_to_numpy(of) for name, of in network(CROPS).items()}
    batch = with_priors(targets, {"expression": np.log(shares).astype("float32")})
    found = float(model.compute_loss(CROPS, batch, network(CROPS), masks))
    expected = 0.0
    for task, target in targets.items():
        known = target.any(axis=1)
        put = answers[task][known] * (shares[known] if task == "expression" else 1)
        put = put / put.sum(axis=1, keepdims=True)
        smoothed = target[known] * 0.9 + 0.1 / target.shape[1]
        expected -= (smoothed * np.log(put)).sum(axis=1).mean()
    assert found == pytest.approx(expected, rel=1e-4)


def test_under_a_prior_unlabelled_rows_move_nothing():
    network = toy_network(seed=0)
    model = CombinedLosses(network, COMBINATIONS["sum"]({}, 2, 0), label_smoothing=0.1)
    targets = {"expression": np.zeros((8, 7)), "gender": np.eye(2)[[0] * 8]}
    masks = {task: mask(target) for task, target in targets.items()}
    shares = np.log(GENERATOR.dirichlet(np.ones(7), 8)).astype("float32")
    with tf.GradientTape() as tape:
        batch = with_priors(targets, {"expression": shares})
        loss = model.compute_loss(CROPS, batch, network(CROPS), masks)
    head = network.get_layer("expression")
    for gradient in tape.gradient(loss, [weight.value for weight in head.weights]):
        assert not np.any(gradient)
    assert float(loss) > 0


def test_a_head_with_a_prior_answers_as_if_classes_were_equally_frequent():
    """A constant picture of a source with 90 % of one class tells nothing: both are as likely."""
    keras.utils.set_random_seed(0)
    network = toy_network((Task("shade", ("dark", "light")),))
    crops = np.full((40, 32, 32, 3), 99, "uint8")
    target = np.eye(2)[[0] * 36 + [1] * 4]
    model = CombinedLosses(network, COMBINATIONS["sum"]({}, 1, 0))
    model.compile(keras.optimizers.Adam(0.05))
    log_priors = np.tile(np.log([0.9, 0.1]).astype("float32"), (40, 1))
    batch = with_priors({"shade": target}, {"shade": log_priors})
    rows = tf.data.Dataset.from_tensors((crops, batch, {"shade": mask(target)}))
    model.fit(rows.repeat(), steps_per_epoch=60, shuffle=False, verbose=0)
    answers = network.predict(crops[:1], verbose=0)["shade"][0]
    np.testing.assert_allclose(answers, 0.5, atol=0.05)
