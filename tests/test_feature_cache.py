import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import SHADE, TINT, toy_network
from test_trainer import PHASES, TRAIN, VAL, new_network, run

from faceattr.progress import Progress
from faceattr.training import feature_cache as frozen_module
from faceattr.training.config import NO_AUGMENTATION, Augmentation, Phase, Settings
from faceattr.training.feature_cache import FeatureCache, cut_network, fingerprint, trainable_in
from faceattr.training.optimizers import unfreeze

SETTINGS = Settings(phases=PHASES, batch_size=16, augment_repeats=3, seed=3)


def cache(folder, settings=SETTINGS, told=None):
    progress = Progress()
    progress.show = ([] if told is None else told).append
    return FeatureCache(folder, settings, TRAIN, VAL, progress=progress)


def test_a_network_is_cut_below_the_first_layer_that_learns():
    network = new_network()
    unfreeze(network, PHASES[1])
    cut = cut_network(network)
    assert [v.path for v in cut.frozen.variables] == ["block1_conv1/kernel", "block1_conv1/bias"]
    crops = TRAIN.crops[:8]
    apart = cut.trainable.predict_on_batch(cut.frozen.predict_on_batch(crops))
    for name, answers in network.predict_on_batch(crops).items():
        np.testing.assert_allclose(apart[name], answers, rtol=1e-5, atol=1e-6)


def test_where_the_whole_backbone_learns_nothing_is_cut():
    network = new_network()
    unfreeze(network, Phase("all", 1, 0.1, unfreeze_from="backbone"))
    assert cut_network(network) is None


def test_a_head_that_is_tapped_below_lowers_the_cut():
    network = new_network()
    low = network.get_layer("block1_conv1").output
    tapped = keras.layers.Dense(2, name="low")(keras.layers.GlobalAveragePooling2D()(low))
    branched = keras.Model(network.input, {**network.output, "low": tapped})
    unfreeze(branched, PHASES[0])
    assert cut_network(branched).frozen.output is low


def test_only_what_a_phase_lets_learn_can_change():
    network = new_network()
    of_heads = [v.path for v in trainable_in(network, PHASES[:1])]
    assert "shade/kernel" in of_heads
    assert not [path for path in of_heads if "conv" in path]
    assert "block4_conv1/kernel" in [v.path for v in trainable_in(network, PHASES)]


def test_a_fingerprint_tells_weights_and_wiring_and_nothing_else():
    one, same = new_network(), new_network()
    same.trainable = False
    assert fingerprint(one) == fingerprint(same)
    kernel = same.get_layer("block1_conv1").kernel
    kernel.assign(kernel + 1)
    assert fingerprint(one) != fingerprint(same)


def test_each_epoch_draws_from_one_more_copy_until_there_are_enough(tmp_path):
    network = new_network()
    copies = cache(tmp_path).prepare_phase(network, 0).repeats[40]
    index = np.zeros(60, int)
    looks = []
    for epoch in range(5):
        copies.prepare(epoch)
        drawn = copies.draw(index, epoch, np.random.default_rng(0))
        looks.append(len(np.unique(drawn, axis=0)))
    assert looks == [1, 2, 3, 3, 3]


def test_features_are_what_the_network_computes(tmp_path):
    network = new_network()
    frozen = cache(tmp_path).prepare_phase(network, 0)
    seen = frozen.trainable.predict_on_batch(frozen.val.batch(np.arange(20))[0])
    whole = network.predict_on_batch(VAL.batch(np.arange(20))[0])
    for name, answers in whole.items():
        np.testing.assert_allclose(seen[name], answers, rtol=1e-5, atol=1e-6)


def test_features_are_computed_once_also_for_the_phases_to_come(tmp_path, monkeypatch):
    network = new_network()
    cache(tmp_path).prepare_phase(network, 0).repeats[40].prepare(2)
    again = cache(tmp_path)
    monkeypatch.setattr(
        "faceattr.training.feature_cache.Features._compute", lambda self, looks: 1 / 0
    )
    for position in (0, 1):
        kept = again.prepare_phase(network, position).repeats[40]
        kept.prepare(2)
        assert np.isfinite(kept.array).all() and len(kept.array)


def test_phases_that_are_cut_at_the_same_place_share_one_file(tmp_path):
    settings = replace(SETTINGS, phases=(*PHASES, *PHASES))
    frozen = cache(tmp_path, settings).prepare_phase(new_network(), 0)
    frozen.repeats[40].prepare(2)
    assert len(list(tmp_path.glob("*.features"))) == 2


def test_a_changed_backbone_gets_new_features(tmp_path):
    network = new_network()
    cache(tmp_path).prepare_phase(network, 0).repeats[40].prepare(0)
    bias = network.get_layer("block1_conv1").bias
    bias.assign(bias + 1)
    before = len(list(tmp_path.glob("*.features")))
    cache(tmp_path).prepare_phase(network, 0).repeats[40].prepare(0)
    assert len(list(tmp_path.glob("*.features"))) == 2 * before


def test_features_beyond_the_limit_are_not_kept_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(frozen_module, "LIMIT", 1000)
    told = []
    assert cache(tmp_path, told=told).prepare_phase(new_network(), 0) is None
    assert "frozen: features of 96 faces would take" in told[0]
    assert not list(tmp_path.glob("*.features"))


def test_features_of_older_runs_make_room(tmp_path, monkeypatch):
    (tmp_path / "old.features").write_bytes(b"0" * 50_000)
    (tmp_path / "old.index").write_text("")
    monkeypatch.setattr(frozen_module, "LIMIT", 52_000)
    assert cache(tmp_path, Settings(phases=PHASES[:1], augment_repeats=1)).prepare_phase(
        new_network(), 0
    )
    assert not (tmp_path / "old.features").exists()
    assert not (tmp_path / "old.index").exists()


def test_features_that_another_run_uses_are_not_deleted(tmp_path, monkeypatch):
    used = tmp_path / "used.features"
    used.write_bytes(b"0" * 50_000)
    monkeypatch.setattr(frozen_module, "LIMIT", 52_000)
    wait = (
        "import sys; from pathlib import Path; from faceattr.data.store import hold; "
        f"hold(Path({str(used)!r})); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", wait]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert cache(tmp_path, Settings(phases=PHASES[:1], augment_repeats=1)).prepare_phase(
            new_network(), 0
        )
        assert used.exists()
        other.stdin.close()
    assert cache(tmp_path, Settings(phases=PHASES[:1], augment_repeats=1)).prepare_phase(
        new_network(), 0
    )
    assert not used.exists()


@pytest.mark.parametrize(
    "kill_after",
    [pytest.param(number, marks=pytest.mark.slow) for number in (2, 3, 4)],
)
def test_a_run_on_features_is_resumed_to_the_last_bit(tmp_path, kill_after):
    whole, epochs = run(tmp_path / "whole", SETTINGS, features=tmp_path / "one")
    run(tmp_path / "part", SETTINGS, kill_after, features=tmp_path / "two")
    resumed, rest = run(tmp_path / "part", SETTINGS, resume=True, features=tmp_path / "two")
    assert [epoch.number for epoch in rest] == list(range(kill_after, 6))
    assert rest[-1].scores == epochs[-1].scores
    for one, other in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_training_on_features_of_unchanged_crops_is_plain_training(tmp_path):
    """Without augmentation and dropout both take the same steps."""

    def trained(**how):
        settings = Settings(phases=PHASES[:1], batch_size=16, augmentation=NO_AUGMENTATION)
        return run(tmp_path / f"run{len(how)}", settings, network=undropped(), **how)[0]

    plain, fast = trained(), trained(features=tmp_path / "features")
    for one, other in zip(plain.weights, fast.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5, err_msg=one.path)


def undropped():
    network = toy_network((SHADE, TINT), seed=0)
    next(layer for layer in network.layers if isinstance(layer, keras.layers.Dropout)).rate = 0.0
    return network


def test_an_augmented_copy_differs_from_its_crop_and_is_always_the_same(tmp_path):
    network = new_network()
    settings = Settings(phases=PHASES, augment_repeats=1, augmentation=Augmentation())
    first = cache(tmp_path / "a", settings).prepare_phase(network, 0).repeats[40]
    second = cache(tmp_path / "b", settings).prepare_phase(network, 0).repeats[40]
    first.prepare(0)
    second.prepare(0)
    index, generator = TRAIN.index[:10], np.random.default_rng(0)
    np.testing.assert_array_equal(first.draw(index, 0, generator), second.draw(index, 0, generator))
    bare = cut_network(network).frozen.predict_on_batch(TRAIN.crops[:10])
    assert np.abs(first.draw(index, 0, generator) - bare).max() > 1e-3


def test_a_run_that_goes_on_from_a_file_draws_other_copies(tmp_path):
    def drawn(*salt):
        copies = (
            FeatureCache(tmp_path, SETTINGS, TRAIN, VAL, salt).prepare_phase(network, 0).repeats[40]
        )
        copies.prepare(0)
        return copies.draw(TRAIN.index[:10], 0, np.random.default_rng(0))

    network = new_network()
    np.testing.assert_array_equal(drawn(7), drawn(7))
    assert np.abs(drawn(7) - drawn()).max() > 1e-3


def test_crops_of_a_set_are_never_in_memory_together(tmp_path):
    class Counted(np.ndarray):
        def __getitem__(self, place):
            found = np.asarray(super().__getitem__(place))
            taken.append(found.nbytes)
            return found

    taken = []
    parts = [replace(part, crops=part.crops.view(Counted)) for part in (TRAIN, VAL)]
    phase = FeatureCache(tmp_path, SETTINGS, *parts).prepare_phase(new_network(), 0)
    phase.repeats[40].prepare(1)
    assert max(taken) == TRAIN.crops[0].nbytes
