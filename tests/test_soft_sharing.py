"""Soft sharing: a backbone per task, from independent to equal."""

import keras
import numpy as np
import pytest
from conftest import SHADE, TINT, toy_network
from keras import layers
from test_trainer import TRAIN, run_killed_and_resumed

from faceattr.training.config import NO_AUGMENTATION, Auxiliary, Phase, Settings
from faceattr.training.losses import compiled
from faceattr.training.optimizers import (
    SoftSharing,
    branch_pattern,
    corresponding_variables,
    divergence,
    proximal_step,
    unfreeze,
)
from faceattr.training.trainer import PhaseInputs, task_schedule

PHASE = Phase("finetune", epochs=2, learning_rate=0.05, unfreeze_from="backbone")


def settings(**other):
    how = {"batch_size": 16, "augmentation": NO_AUGMENTATION, **other}
    return Settings(phases=(PHASE,), **how)


def network(tasks=(SHADE, TINT), soft=True):
    """Two convolutions for all tasks or for each, all from the same start; no dropout."""
    crops = keras.Input((None, None, 3), dtype="uint8")
    scaled = layers.Rescaling(1 / 127.5, -1, dtype="float32")(crops)
    heads, backbones = {}, {}
    for task in tasks:
        owner = f"_of_{task.name}" if soft else ""
        if owner not in backbones:
            x = scaled
            for seed, (name, filters) in enumerate((("block1_conv1", 4), ("block4_conv1", 8))):
                start = keras.initializers.GlorotUniform(seed)
                conv = layers.Conv2D(
                    filters, 3, 3, activation="relu", kernel_initializer=start, name=name + owner
                )
                x = conv(x)
            backbones[owner] = layers.GlobalAveragePooling2D()(x)
        start = keras.initializers.GlorotUniform(7)
        heads[task.name] = layers.Dense(
            len(task.classes), activation="softmax", kernel_initializer=start, name=task.name
        )(backbones[owner])
    return keras.Model(crops, heads)


def trained(model, optimizer, strength=0.0, steps=6):
    """A few steps on the same batch, which knows each task in half of its rows."""
    how = settings(sharing_strength=strength)
    trainee = compiled(model, optimizer, how)
    trainee.run_eagerly = True
    crops, targets, masks = TRAIN.batch(np.arange(32, 64))
    known = {name: targets[name] for name in model.output}
    trainee.fit(
        crops,
        known,
        sample_weight={name: masks[name] for name in known},
        epochs=steps,
        verbose=0,
        callbacks=[SoftSharing(model, strength, lambda step: 1.0, 1)] if strength else [],
    )
    return model


def backbone(model, task=None):
    owner = f"_of_{task}" if task else ""
    names = [name + owner for name in ("block1_conv1", "block4_conv1")]
    return [weight for name in names for weight in model.get_layer(name).get_weights()]


def test_the_pull_is_the_exact_compromise_and_leaves_the_mean():
    start = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    variables = [keras.Variable(row) for row in start]
    proximal_step(variables, 4.0)
    now, mean = np.array(variables), start.mean(axis=0)
    # Where |W - start|^2 + 4 |W - mean|^2 is smallest, its derivative is zero.
    np.testing.assert_allclose((now - start) + 4 * (now - mean), 0, atol=1e-6)
    np.testing.assert_allclose(now.mean(axis=0), mean, atol=1e-6)


def test_without_a_tie_each_task_trains_as_if_alone():
    both = trained(network(), keras.optimizers.AdamW(0.01), strength=0)
    for task in (SHADE, TINT):
        alone = trained(network((task,)), keras.optimizers.AdamW(0.01))
        for one, other in zip(backbone(both, task.name), backbone(alone, task.name), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert divergence(corresponding_variables(both)) > 0.01


def test_an_infinite_tie_is_hard_sharing():
    """One step moves the mean of two backbones half as far as it moves a shared backbone."""
    soft = trained(network(), keras.optimizers.SGD(0.1), strength=np.inf)
    half = {branch_pattern("backbone", ["backbone"]): keras.optimizers.SGD(0.05)}
    rates = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), half)
    hard = trained(network(soft=False), keras.optimizers.MultiOptimizer(rates))
    for shade, tint, shared in zip(
        backbone(soft, "shade"), backbone(soft, "tint"), backbone(hard), strict=True
    ):
        np.testing.assert_array_equal(shade, tint)
        np.testing.assert_allclose(shade, shared, rtol=1e-3, atol=1e-5)
    assert np.abs(backbone(hard)[0] - backbone(network(soft=False))[0]).max() > 1e-3


def test_a_stronger_tie_keeps_backbones_closer():
    weak, strong = (
        divergence(
            corresponding_variables(
                trained(network(), keras.optimizers.Adam(0.01), strength=strength)
            )
        )
        for strength in (0.1, 10)
    )
    assert weak > 5 * strong > 0


def test_a_step_of_one_task_leaves_the_other_s_backbone_to_the_tie():
    model = network()
    course = task_schedule(PhaseInputs(model, PHASE, settings(schedule="alternating"), TRAIN))
    name, batch = next(iter(course._turns(0, 32)))
    other = "tint" if name == "shade" else "shade"
    before = backbone(model, other), backbone(model, name)
    course._models[name].train_on_batch(*batch)
    assert all(map(np.array_equal, before[0], backbone(model, other)))
    assert not all(map(np.array_equal, before[1], backbone(model, name)))


def test_tasks_that_share_a_backbone_and_backbones_that_do_not_learn_are_not_drawn_together():
    assert not PhaseInputs(toy_network((SHADE, TINT)), PHASE, settings(), TRAIN).soft_sharing(5)
    model = network()
    unfreeze(model, Phase("frozen", 1, 0.1))
    assert not PhaseInputs(model, PHASE, settings(), TRAIN).soft_sharing(5)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["joint", pytest.param("alternating", marks=pytest.mark.slow)])
def test_such_runs_learn_log_how_far_apart_they_are_and_are_resumed(tmp_path, schedule):
    early = Auxiliary("tint", "block1_conv1")
    how = settings(schedule=schedule, sharing_strength=0.1, auxiliary=(early,))
    whole, seen, rest = run_killed_and_resumed(tmp_path, how, network)
    assert seen[-1].scores["shade"].accuracy > 0.6
    assert 0 < seen[-1].logs["backbones_apart"] < 0.5
    assert [epoch.number for epoch in rest] == [2]
    assert list(whole.output) == ["shade", "tint"]
