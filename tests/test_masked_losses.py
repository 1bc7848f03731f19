"""The masked loss, against numpy in float64, and the parity by gradients."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import toy_network

from faceattr.data.dataset import mask
from faceattr.model.build import build
from faceattr.tasks import EXPRESSION, GENDER
from faceattr.training.losses import compile_masked, masked_losses

GENERATOR = np.random.default_rng(0)


def random_targets(rows, classes, known, soft=False):
    target = (
        GENERATOR.dirichlet(np.ones(classes), rows)
        if soft
        else np.eye(classes)[GENERATOR.integers(classes, size=rows)]
    )
    return target * np.asarray(known, float)[:, None]


def reference_loss(target, probabilities, smoothing):
    """Mean cross-entropy over the rows that are not all zero, in float64; 0 without any."""
    known = target.sum(axis=1) > 0
    if not known.any():
        return 0.0
    smoothed = target[known] * (1 - smoothing) + smoothing / target.shape[1]
    return float(-(smoothed * np.log(probabilities[known])).sum(axis=1).mean())


def masked_loss(target, probabilities, smoothing=0.0):
    loss = masked_losses(["head"], smoothing)["head"]
    return float(loss(target, probabilities, sample_weight=mask(target)))


@pytest.mark.parametrize("known", list(itertools.product([0, 1], repeat=4)))
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_is_the_mean_over_labelled_rows_for_every_mix(known, smoothing, soft):
    target = random_targets(4, 7, known, soft)
    probabilities = GENERATOR.dirichlet(np.ones(7), 4)
    expected = reference_loss(target, probabilities, smoothing)
    assert masked_loss(target, probabilities, smoothing) == pytest.approx(expected, rel=1e-5)


def test_an_empty_batch_has_the_loss_zero():
    """As `fit` compiles it: with a number of rows that only the batch tells."""
    loss = masked_losses(["head"], 0.1)["head"]
    shapes = [tf.TensorSpec((None, 7)), tf.TensorSpec((None, 7)), tf.TensorSpec((None,))]
    compiled = tf.function(lambda y, p, w: loss(y, p, sample_weight=w), input_signature=shapes)
    assert float(compiled(tf.zeros((0, 7)), tf.zeros((0, 7)), tf.zeros(0))) == 0.0
    assert float(compiled(tf.zeros((3, 7)), tf.ones((3, 7)) / 7, tf.zeros(3))) == 0.0


def test_unlabelled_rows_do_not_dilute_the_loss():
    labelled, probabilities = random_targets(2, 7, [1, 1]), GENERATOR.dirichlet(np.ones(7), 8)
    diluted = np.concatenate([labelled, np.zeros((6, 7))])
    assert masked_loss(diluted, probabilities) == pytest.approx(
        masked_loss(labelled, probabilities[:2]), rel=1e-5
    )


def test_a_weight_scales_one_task():
    model = toy_network()
    compile_masked(model, keras.optimizers.SGD(), weights={"gender": 0.5})
    assert model._compile_loss._user_loss_weights == {"expression": 1.0, "gender": 0.5}


# The parity: a batch that knows only the expression.

CROPS = GENERATOR.integers(0, 256, (8, 32, 32, 3), dtype="uint8")
TARGETS = {"expression": random_targets(8, 7, np.ones(8)), "gender": np.zeros((8, 2))}
MASKS = {name: mask(target) for name, target in TARGETS.items()}


def gradients(model, heads, *, masks, smoothing=0.1, graph=False, training=False):
    """Gradients of the sum of the heads' losses by variable path (without the model's name)."""
    losses = masked_losses(heads, smoothing)
    if masks is None:
        losses = {name: keras.losses.CategoricalCrossentropy() for name in heads}

    def compute():
        with tf.GradientTape() as tape:
            answers = model(CROPS, training=training)
            total = sum(
                losses[name](
                    TARGETS[name].astype("float32"),
                    answers[name],
                    sample_weight=None if masks is None else masks[name],
                )
                for name in heads
            )
        return tape.gradient(total, [v.value for v in model.trainable_variables])

    values = (tf.function(compute) if graph else compute)()
    paths = [variable.path for variable in model.trainable_variables]
    return {path: g.numpy() for path, g in zip(paths, values, strict=True) if g is not None}


def two_networks(dtype):
    """A network of both heads, and one with the same weights and the expression head alone."""
    keras.utils.set_random_seed(0)
    both, single = toy_network((EXPRESSION, GENDER), dtype), toy_network((EXPRESSION,), dtype)
    for layer in single.layers:
        if layer.weights:
            layer.set_weights(both.get_layer(layer.name).get_weights())
    return both, single


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_unlabelled_rows_leave_head_and_backbone_alone(graph, dtype):
    both, single = two_networks(dtype)
    found = gradients(both, ["expression", "gender"], masks=MASKS, graph=graph)
    alone = gradients(single, ["expression"], masks=MASKS, graph=graph)
    gender = {path: value for path, value in found.items() if path.startswith("gender/")}
    assert len(gender) == 2
    assert all((value == 0).all() for value in gender.values())
    assert any(np.abs(value).max() > 1e-4 for value in alone.values())
    for path, value in alone.items():
        np.testing.assert_array_equal(value, found[path], err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_proof_holds_for_vgg16_while_it_trains(dtype):
    """With dropout and batch normalisation at work; the heads start at zero, so give them some."""
    networks = [
        build(tasks, weights=None, norm=True, dtype=dtype)
        for tasks in ((EXPRESSION, GENDER), (EXPRESSION,))
    ]
    for network in networks:
        for name in network.output:
            kernel = network.get_layer(name).kernel
            kernel.assign(np.random.default_rng(1).normal(0, 0.01, kernel.shape))
    both, single = networks
    found = gradients(both, ["expression", "gender"], masks=MASKS, training=True)
    alone = gradients(single, ["expression"], masks=MASKS, training=True)
    assert not any(found[path].any() for path in ("gender/kernel", "gender/bias"))
    for path, value in alone.items():
        np.testing.assert_array_equal(value, found[path], err_msg=path)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_stock_loss_without_a_mask_fails_the_same_proof(graph, dtype):
    both, single = two_networks(dtype)
    found = gradients(both, ["expression", "gender"], masks=None, graph=graph)
    alone = gradients(single, ["expression"], masks=None, graph=graph)
    assert np.abs(found["gender/bias"]).max() > 0.1
    assert any(np.abs(found[path] - value).max() > 1e-4 for path, value in alone.items())


def test_training_steps_on_one_task_do_not_move_the_other_head():
    model = toy_network(seed=0)
    compile_masked(model, keras.optimizers.SGD(0.1), label_smoothing=0.1)
    before = model.get_layer("gender").get_weights()
    backbone = model.get_layer("block1_conv1").get_weights()[0]
    model.fit(CROPS, TARGETS, sample_weight=MASKS, epochs=3, verbose=0)
    for old, new in zip(before, model.get_layer("gender").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.abs(backbone - model.get_layer("block1_conv1").get_weights()[0]).max() > 0


def test_accuracy_is_over_labelled_rows():
    model = toy_network()
    compile_masked(model, keras.optimizers.SGD())
    targets = {"expression": np.zeros((8, 7)), "gender": np.zeros((8, 2))}
    answer = model.predict(CROPS, verbose=0)["expression"].argmax(axis=1)
    targets["expression"][:2] = np.eye(7)[[answer[0], (answer[1] + 1) % 7]]
    masks = {name: mask(target) for name, target in targets.items()}
    logs = model.evaluate(CROPS, targets, sample_weight=masks, verbose=0, return_dict=True)
    assert logs["expression_accuracy"] == pytest.approx(0.5)
