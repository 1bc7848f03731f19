"""Auxiliary losses: they teach the backbone, respect masks, and are not saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHADE, TINT, toy_network
from test_trainer import TRAIN, run_killed_and_resumed

from faceattr.training.config import NO_AUGMENTATION, Auxiliary, Phase, Settings
from faceattr.training.losses import compiled, with_auxiliary
from faceattr.training.trainer import PhaseInputs, check, task_schedule

PHASE = Phase("finetune", epochs=2, learning_rate=0.05, unfreeze_from="backbone")
EARLY = Auxiliary("tint", "block1_conv1", 0.2)
HEAD = "block1_conv1_for_tint"


def settings(*auxiliary, **other):
    how = {"batch_size": 16, "augmentation": NO_AUGMENTATION, **other}
    return Settings(phases=(PHASE,), auxiliary=auxiliary, **how)


def gradients(auxiliary, rows):
    """By variable path, of the loss that is trained, on rows that know one task."""
    network = with_auxiliary(toy_network((SHADE, TINT), seed=0), auxiliary)
    for one in auxiliary:
        kernel = network.get_layer(one.head).kernel
        kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    model = compiled(network, keras.optimizers.SGD(), settings(*auxiliary))
    crops, targets, masks = TRAIN.batch(rows)
    with tf.GradientTape() as tape:
        answers = model(crops, training=False)
        loss = model.compute_loss(None, targets, answers, masks)
    found = tape.gradient(loss, [v.value for v in model.trainable_variables])
    paths = [variable.path for variable in model.trainable_variables]
    return {path: g.numpy() for path, g in zip(paths, found, strict=True)}


KNOWS_TINT, KNOWS_SHADE = np.arange(16), np.arange(80, 96)


def test_rows_that_do_not_know_the_task_move_neither_its_early_head_nor_the_backbone():
    plain, extra = gradients([], KNOWS_SHADE), gradients([EARLY], KNOWS_SHADE)
    assert not extra[f"{HEAD}/kernel"].any() and not extra[f"{HEAD}/bias"].any()
    assert np.abs(plain["block1_conv1/kernel"]).max() > 1e-4
    for path, value in plain.items():
        np.testing.assert_allclose(value, extra[path], atol=1e-7, err_msg=path)


def test_rows_that_know_it_teach_both_in_proportion_to_the_weight():
    plain = gradients([], KNOWS_TINT)["block1_conv1/kernel"]
    once, twice = (
        gradients([Auxiliary("tint", "block1_conv1", weight)], KNOWS_TINT) for weight in (0.2, 0.4)
    )
    more = [found["block1_conv1/kernel"] - plain for found in (once, twice)]
    assert np.abs(more[0]).max() > 1e-4
    np.testing.assert_allclose(more[1], 2 * more[0], rtol=1e-3, atol=1e-6)
    assert np.abs(once[f"{HEAD}/kernel"]).max() > 0


def test_it_stays_behind_when_the_network_is_saved():
    network = toy_network((SHADE, TINT))
    with_extra = with_auxiliary(network, [EARLY])
    assert list(with_extra.output) == ["shade", "tint", HEAD]
    assert with_extra.get_layer("block1_conv1") is network.get_layer("block1_conv1")
    assert not [layer.name for layer in network.layers if "_for_" in layer.name]


def test_nothing_to_add_is_the_network_itself():
    network = toy_network()
    assert with_auxiliary(network, ()) is network


def test_alternating_gives_the_early_head_to_the_turns_of_its_task():
    network = with_auxiliary(toy_network((SHADE, TINT)), [EARLY])
    course = task_schedule(
        PhaseInputs(network, PHASE, settings(EARLY, schedule="alternating"), TRAIN)
    )
    assert list(course._models["shade"].output) == ["shade"]
    assert list(course._models["tint"].output) == ["tint", HEAD]


@pytest.mark.slow
@pytest.mark.parametrize("other", [{"combine": "uncertainty"}, {"schedule": "alternating"}])
def test_such_runs_are_resumed_and_leave_the_network_as_it_was_built(tmp_path, other):
    whole, seen, _ = run_killed_and_resumed(tmp_path, settings(EARLY, **other))
    assert {"shade_loss", "tint_loss", "tint_accuracy"} <= set(seen[-1].logs)
    assert list(whole.output) == ["shade", "tint"]
    assert not [layer.name for layer in whole.layers if "_for_" in layer.name]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("mood", "block1_conv1"), "no task mood for an auxiliary loss"),
        (("tint", "block9_pool"), "Received: 'block9_pool'"),
        (("tint", "block5_pool"), "no layer block5_pool"),
        (("tint", "block1_conv1", 0.0), "finite weight above 0"),
    ],
)
def test_what_does_not_fit_is_told_before_training(wrong, message):
    with pytest.raises(ValueError, match=message):
        check(toy_network((SHADE, TINT)), settings(Auxiliary(*wrong)))
