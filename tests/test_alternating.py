import keras
import numpy as np
import pytest
from conftest import SHADE, TINT, toy_network
from test_trainer import TRAIN, run_killed_and_resumed

from faceattr.training import trainer
from faceattr.training.config import NO_AUGMENTATION, Phase, Settings
from faceattr.training.optimizers import ConvolutionMuon, make_optimizer
from faceattr.training.trainer import Alternating, PhaseInputs, task_schedule

PHASE = Phase("finetune", epochs=5, learning_rate=0.1, unfreeze_from="backbone", weight_decay=0.1)


def settings(**other):
    how = {"batch_size": 16, "augmentation": NO_AUGMENTATION, "schedule": "alternating", **other}
    return Settings(phases=(PHASE,), **how)


@pytest.fixture
def network():
    return toy_network((SHADE, TINT), seed=0)


def values(variables):
    return [variable.numpy() for variable in variables]


def same(before, after):
    return all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adam(0.05),
        keras.optimizers.AdamW(0.05, weight_decay=0.1),
        keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.1),
        ConvolutionMuon(0.05, weight_decay=0.1),
    ],
    ids=["adam", "adamw", "momentum", "muon"],
)
def test_a_step_of_one_task_leaves_the_other_head_as_it_is_to_the_bit(
    network, monkeypatch, optimizer
):
    """With momentum and weight decay, and after the other head has gathered momentum."""
    copies = optimizer.from_config
    monkeypatch.setattr(trainer, "make_optimizer", lambda *_: copies(optimizer.get_config()))
    course = task_schedule(PhaseInputs(network, PHASE, settings(), TRAIN))
    assert isinstance(course, Alternating)
    shade, tint = (course._models[name] for name in ("shade", "tint"))
    batch = next(batch for name, batch in course._turns(0, 40) if name == "shade")
    other = next(batch for name, batch in course._turns(0, 40) if name == "tint")
    shade.run_eagerly = tint.run_eagerly = True
    tint.train_on_batch(*other)
    head = values(network.get_layer("tint").weights)
    state = values(tint.optimizer.variables)
    backbone = values(network.get_layer("block1_conv1").weights)
    for _ in range(3):
        shade.train_on_batch(*batch)
    assert same(head, values(network.get_layer("tint").weights))
    assert same(state, values(tint.optimizer.variables))
    assert not same(backbone, values(network.get_layer("block1_conv1").weights))


def test_the_batches_of_a_turn_know_its_task_and_no_task_is_always_last(network):
    course = task_schedule(PhaseInputs(network, PHASE, settings(), TRAIN))
    orders = []
    for epoch in range(3):
        turns = list(course._turns(epoch, 32))
        orders.append([name for name, _ in turns])
        for name, (crops, targets, masks) in turns:
            assert list(targets) == [name]
            assert masks[name].all()
            assert crops.shape == (16, 32, 32, 3)
    assert sorted(orders[0]) == sorted(orders[1]) == ["shade"] * 10 + ["tint"] * 10
    assert len({tuple(order) for order in orders}) == 3


def test_the_turns_of_an_epoch_are_as_many_as_the_steps_of_a_joint_one(network):
    """An odd number of steps in equal parts: both were rounded to the even number below."""
    some = TRAIN.take(np.arange(0, 84, 4))
    inputs = PhaseInputs(network, PHASE, settings(batch_size=1), some)
    assert inputs.steps == 21
    assert sorted(task_schedule(inputs)._steps.values()) == [10, 11]


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [pytest.param({}, marks=pytest.mark.slow), {"schedule": "joint", "combine": "uncertainty"}],
)
def test_such_runs_learn_and_are_resumed(tmp_path, other):
    _, seen, rest = run_killed_and_resumed(tmp_path, settings(**other))
    assert seen[-1].scores["shade"].accuracy > 0.7
    assert {"shade_loss", "tint_loss", "tint_accuracy"} <= set(seen[-1].logs)
    assert [epoch.number for epoch in rest] == [2, 3, 4, 5]


def test_each_branch_has_its_own_rate(network):
    phase = Phase(
        "a", 1, 1e-3, unfreeze_from="backbone", branch_rates={"shade": 1e-2, "block4": 1e-4}
    )
    optimizer = make_optimizer(phase, 10)
    optimizer.build(network.trainable_variables)
    peak = {
        path: max(float(inner._learning_rate(step)) for step in range(10))
        for path, inner in (
            (v.path, optimizer._optimizer_map(v)) for v in network.trainable_variables
        )
    }
    assert peak["shade/kernel"] == pytest.approx(1e-2)
    assert peak["block4_conv1/kernel"] == pytest.approx(1e-4)
    assert peak["tint/bias"] == peak["block1_conv1/kernel"] == pytest.approx(1e-3)


def test_a_run_that_goes_on_from_a_file_takes_other_turns(network):
    def turns(*salt):
        course = task_schedule(PhaseInputs(network, PHASE, settings(), TRAIN, seed_salt=salt))
        return [name for name, _ in course._turns(0, 40)]

    assert turns(7) == turns(7)
    assert turns(7) != turns()
