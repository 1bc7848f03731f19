import contextlib
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import SHADE, TINT, noted_epochs, shaded, toy_network

from faceattr.data.dataset import LabeledDataset
from faceattr.evaluation.metrics import score_model
from faceattr.progress import Progress
from faceattr.training.config import NO_AUGMENTATION, Phase, Settings, TaskSampling
from faceattr.training.trainer import fit

PHASES = (
    Phase("frozen", epochs=2, learning_rate=0.1),
    Phase("finetune", epochs=3, learning_rate=0.05, unfreeze_from="block4_conv1", sizes=(0.8, 1)),
)
SETTINGS = Settings(phases=PHASES, batch_size=16, augmentation=NO_AUGMENTATION, seed=3)


def rows(count, seed):
    """Half of the pictures know how light they are, half what colour they have."""
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, 255, count)
    crops = np.stack([shaded(int(level), seed=i) for i, level in enumerate(levels)])
    tint = generator.integers(3, size=count)
    crops[np.arange(count), :, :, 2 - tint] //= 4
    light = np.eye(2, dtype="float32")[(crops.max(axis=-1).mean(axis=(1, 2)) > 128).astype(int)]
    tints = np.eye(3, dtype="float32")[tint]
    light[: count // 2], tints[count // 2 :] = 0, 0
    return LabeledDataset(crops, np.arange(count), {"shade": light, "tint": tints})


TRAIN, VAL = rows(96, 0), rows(48, 1)


def new_network():
    return toy_network((SHADE, TINT), seed=0)


def run(
    folder, settings=SETTINGS, kill_after=None, resume=False, train=TRAIN, network=None, **more
):
    network, (epochs, progress) = network or new_network(), noted_epochs(kill_after)
    with contextlib.suppress(KeyboardInterrupt):
        fit(
            network,
            (SHADE, TINT),
            train,
            VAL,
            settings,
            folder,
            resume=resume,
            progress=progress,
            **more,
        )
    return network, epochs


def run_killed_and_resumed(tmp_path, settings, new=new_network):
    """A run to its end and one that is killed and goes on end alike; the network, its epochs, and
    those behind the kill."""
    whole, seen = run(tmp_path / "whole", settings, network=new())
    _, begun = run(tmp_path / "part", settings, kill_after=2, network=new())
    assert [epoch.number for epoch in begun] == [1, 2]
    resumed, rest = run(tmp_path / "part", settings, resume=True, network=new())
    for one, two in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5, err_msg=one.path)
    return whole, seen, rest


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    return folder, *run(folder)


def test_disjoint_data_teach_both_heads(unbroken):
    _, _, epochs = unbroken
    assert epochs[-1].scores["tint"].accuracy > 0.6
    assert epochs[-1].scores["tint"].n == epochs[-1].scores["shade"].n == 24


def test_each_epoch_is_told_and_logged(unbroken):
    folder, _, epochs = unbroken
    assert [(epoch.number, epoch.phase, epoch.size) for epoch in epochs] == [
        (1, "frozen", 40),
        (2, "frozen", 40),
        (3, "finetune", 32),
        (4, "finetune", 32),
        (5, "finetune", 40),
    ]
    log = pd.read_csv(folder / "log.csv")
    assert log["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert {"shade_loss", "tint_accuracy", "val_shade_accuracy", "val_tint_accuracy"} <= set(log)


def test_the_loss_of_a_rare_task_is_the_mean_over_the_rows_that_know_it(tmp_path):
    """Batches without such a row are no losses of 0."""
    targets = {name: of.copy() for name, of in TRAIN.targets.items()}
    targets["tint"][4:] = 0  # of those that know it, the first four rows alone
    train, still = replace(TRAIN, targets=targets), Phase("frozen", epochs=1, learning_rate=1e-9)
    natural = {"batch_size": 4, "task_sampling": TaskSampling(temperature=1)}
    settings = replace(SETTINGS, phases=(still,), **natural)
    network, epochs = run(tmp_path, settings, train=train)
    answers = network.predict(TRAIN.crops[:4], verbose=0)["tint"]
    expected = -np.log((answers * targets["tint"][:4]).sum(axis=1)).mean()
    assert epochs[0].logs["tint_loss"] == pytest.approx(expected, rel=0.3)


def test_the_best_epoch_has_the_highest_mean_accuracy(unbroken):
    _, _, epochs = unbroken
    means = [np.mean([score.accuracy for score in epoch.scores.values()]) for epoch in epochs]
    best = [means[i] > max(means[:i], default=-1) for i in range(len(means))]
    assert [epoch.is_best for epoch in epochs] == best


def test_a_frozen_backbone_does_not_move(tmp_path):
    before = new_network().get_layer("block4_conv1").get_weights()
    network, _ = run(tmp_path, Settings(phases=PHASES[:1], batch_size=16))
    for old, new in zip(before, network.get_layer("block4_conv1").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_fine_tuning_moves_the_backbone_from_the_named_layer_on(unbroken):
    _, network, _ = unbroken
    start = new_network()
    for name, moved in (("block1_conv1", False), ("block4_conv1", True)):
        difference = network.get_layer(name).kernel - start.get_layer(name).kernel
        assert bool(np.abs(difference).max() > 0) == moved


@pytest.mark.parametrize(
    "kill_after",
    [1, *(pytest.param(epoch, marks=pytest.mark.slow) for epoch in (2, 3, 4))],
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(unbroken, tmp_path, kill_after):
    """Killed after the epoch, before its checkpoint: the worst moment."""
    _, network, epochs = unbroken
    run(tmp_path, kill_after=kill_after)
    resumed, rest = run(tmp_path, resume=True)
    assert [epoch.number for epoch in rest] == list(range(kill_after, 6))
    for one, other in zip(network.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)
    assert rest[-1].is_best == epochs[-1].is_best
    assert pd.read_csv(tmp_path / "log.csv")["epoch"].tolist() == [1, 2, 3, 4, 5]


def test_a_run_is_resumed_with_the_same_settings_and_data_only(tmp_path):
    run(tmp_path, kill_after=2)
    with pytest.raises(ValueError, match="has other settings"):
        run(tmp_path, Settings(phases=PHASES, batch_size=8, seed=3), resume=True)
    with pytest.raises(ValueError, match="has other settings"):
        run(tmp_path, resume=True, train=rows(96, 7))


def test_without_resume_a_run_starts_anew(tmp_path):
    settings = replace(SETTINGS, phases=PHASES[:1])
    run(tmp_path, settings, kill_after=2)
    _, epochs = run(tmp_path, settings)
    assert [epoch.number for epoch in epochs] == [1, 2]


class Counting(Progress):
    """Counts what is done of what there is to do."""

    def track(self, items, what):
        self.total, self.done = len(items), 0
        for item in items:
            yield item
            self.done += 1


def test_the_bar_of_a_run_reaches_its_end_also_when_it_is_resumed(tmp_path):
    phases = (replace(PHASES[0], epochs=3),)
    settings, model = replace(SETTINGS, phases=phases), (SHADE, TINT)
    run(tmp_path, settings, kill_after=2)
    counting = Counting()
    fit(new_network(), model, TRAIN, VAL, settings, tmp_path, resume=True, progress=counting)
    assert counting.done == counting.total


@pytest.mark.slow
def test_a_phase_ends_after_epochs_without_a_new_best_also_when_resumed(tmp_path):
    phases = (replace(PHASES[0], epochs=6, learning_rate=1e-9, patience=2), PHASES[1])
    settings = replace(SETTINGS, phases=phases)
    whole, epochs = run(tmp_path / "whole", settings)
    numbers = [epoch.number for epoch in epochs]
    assert numbers == [1, 2, 3, 7, 8, 9]
    run(tmp_path / "part", settings, kill_after=7)
    resumed, rest = run(tmp_path / "part", settings, resume=True)
    assert [epoch.number for epoch in rest] == [7, 8, 9]
    assert equal(whole, resumed)


def test_the_best_epoch_is_what_remains(tmp_path):
    """A last phase with far too high a rate spoils the network, and is undone."""
    bad = replace(PHASES[1], name="bad", epochs=1, learning_rate=1e4)
    network, epochs = run(tmp_path, replace(SETTINGS, phases=(PHASES[0], bad)))
    assert not epochs[-1].is_best
    best = [epoch for epoch in epochs if epoch.is_best][-1]
    assert score_model(network, (SHADE, TINT), VAL) == best.scores


def equal(one, other):
    pairs = zip(one.variables, other.variables, strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_a_loss_that_is_no_number_stops_the_run_within_a_few_steps(tmp_path):
    steps = []

    class Counting(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            steps.append(batch)
            if batch == 2:
                self.model.get_layer("shade").bias.assign([np.nan, 0])

    phase = Phase("frozen", epochs=1, learning_rate=0.1)
    many = replace(
        TRAIN,
        index=np.tile(TRAIN.index, 20),
        targets={name: np.tile(target, (20, 1)) for name, target in TRAIN.targets.items()},
    )
    settings = Settings(phases=(phase,), batch_size=16, augmentation=NO_AUGMENTATION)
    with pytest.raises(ValueError, match="NaN or infinite: the learning rate is too high"):
        run(tmp_path, settings, train=many, callbacks=[Counting()])
    assert len(steps) < 40 < len(many) / 16
