"""Rare classes count as much as frequent ones, and the masked loss stays exact."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import SHADE, TINT, toy_network

from faceattr.data.dataset import (
    LabeledDataset,
    class_weights,
    log_priors_of,
    row_weights,
    sampling_weights,
    smooth_labels,
)
from faceattr.data.manifest import Example
from faceattr.training.batches import MaskedBatches, draw
from faceattr.training.config import FROZEN, NO_AUGMENTATION, Settings
from faceattr.training.losses import compile_masked

RARE = np.eye(2, dtype="float32")[[0] * 15 + [1] * 5]
UNKNOWN = np.zeros((4, 2), "float32")


def rows(balance="none", shade=RARE):
    crops = np.random.default_rng(0).integers(0, 255, (len(shade), 32, 32, 3)).astype("uint8")
    tint = np.zeros((len(shade), 3), "float32")
    tint[::2, 0] = tint[1::4, 1] = 1
    return LabeledDataset(
        crops, np.arange(len(shade)), {"shade": shade, "tint": tint}, balance=balance
    )


def batches(of, **how):
    return MaskedBatches(of, 32, Settings((FROZEN,), augmentation=NO_AUGMENTATION, **how))


def test_a_class_weighs_the_more_the_rarer_it_is_and_a_row_weighs_1_on_average():
    np.testing.assert_allclose(class_weights(RARE), [20 / 30, 20 / 10])
    weights = row_weights(np.concatenate([RARE, UNKNOWN]))
    assert weights[:20].mean() == pytest.approx(1)
    np.testing.assert_array_equal(weights[20:], 0)


def test_a_class_without_a_row_and_a_task_without_a_row_weigh_nothing():
    np.testing.assert_allclose(class_weights(np.eye(3)[[0, 0, 1]]), [0.75, 1.5, 0])
    np.testing.assert_array_equal(class_weights(UNKNOWN), 0)


def test_votes_weigh_by_their_shares():
    votes = np.array([[1, 0], [0.5, 0.5]])
    np.testing.assert_allclose(row_weights(votes), votes @ [2 / 3, 2])


def test_the_weighted_loss_is_the_mean_of_the_classes_means():
    model, of = toy_network((SHADE, TINT)), rows("weights")
    compile_masked(model, keras.optimizers.SGD(0.0))
    found = model.test_on_batch(*of.batch(np.arange(20)), return_dict=True)
    answers = model.predict_on_batch(of.crops)["shade"]
    losses = -np.log((answers * RARE).sum(axis=1))
    expected = (losses[:15].mean() + losses[15:].mean()) / 2
    assert found["shade_loss"] == pytest.approx(expected, rel=1e-5)


def test_sampling_shows_all_classes_equally_often_in_every_epoch():
    for balance, rare in (("none", 0.25), ("sampling", 0.5)):
        epoch = batches(rows(balance).only("shade"), batch_size=8)
        shown = np.concatenate([epoch[i][1]["shade"] for i in range(len(epoch))])
        assert shown.mean(axis=0)[1] == pytest.approx(rare, abs=0.02)


def test_sampling_keeps_the_shares_of_tasks_that_share_no_row():
    shade = np.concatenate([RARE, np.zeros((20, 2), "float32")])
    of = rows("sampling", shade)
    of.targets["tint"][:20] = 0
    epoch = batches(of, batch_size=8)
    known = [[mask.sum() for mask in epoch[i][2].values()] for i in range(len(epoch))]
    np.testing.assert_array_equal(known, 4)


def test_a_row_of_several_tasks_is_drawn_for_each_of_them():
    both = {"shade": RARE, "tint": np.eye(2, dtype="float32")[[0, 1] * 10]}
    np.testing.assert_allclose(sampling_weights(both), (row_weights(RARE) + 1) / 2)


def test_draws_follow_the_shares_give_or_take_one_and_the_seed_alone():
    shares = np.array([1.0, 2.0, 5.0])
    drawn = draw(np.array([7, 8, 9]), shares, 16, np.random.default_rng(1))
    assert np.abs(np.bincount(drawn, minlength=10)[7:] - 2 * shares).max() <= 1
    again = draw(np.array([7, 8, 9]), shares, 16, np.random.default_rng(1))
    np.testing.assert_array_equal(drawn, again)


def test_one_task_s_rows_keep_the_balance():
    only = rows("weights").only("shade")
    np.testing.assert_allclose(only.masks["shade"], row_weights(RARE))


def test_answers_of_another_model_are_not_balanced():
    soft = np.full((20, 3), 1 / 3, "float32")
    of = rows("weights")
    kept = LabeledDataset(
        of.crops, of.index, {"shade": RARE, "tint": soft}, (), "weights", ("tint",)
    )
    np.testing.assert_array_equal(kept.masks["tint"], 1)
    np.testing.assert_allclose(kept.masks["shade"], row_weights(RARE))
    np.testing.assert_allclose(kept.sampling_weights, row_weights(RARE))
    neither = LabeledDataset(
        of.crops, of.index, {"shade": RARE, "tint": soft}, soft=("shade", "tint")
    )
    np.testing.assert_array_equal(neither.sampling_weights, 1)


def from_two_sources(**how):
    examples = [Example(Path("a"), {}, source=name) for name in ["clean"] * 10 + ["noisy"] * 10]
    return replace(rows(), examples=examples, **how)


def test_a_source_s_rows_count_what_is_asked_and_unknown_rows_stay_nothing():
    plain, found = from_two_sources().masks, from_two_sources(source_weights={"noisy": 0.25}).masks
    np.testing.assert_array_equal(found["tint"][:10], plain["tint"][:10])
    np.testing.assert_array_equal(found["tint"][10:], plain["tint"][10:] / 4)
    assert (plain["tint"] == 0).any()


def test_classes_count_the_same_whatever_their_sources_weigh():
    target = np.repeat(np.eye(2, dtype="float32"), [10, 10], axis=0)  # one class a source
    balanced = from_two_sources(
        targets={"shade": target}, balance="weights", source_weights={"noisy": 0.25}
    )
    clean, noisy = balanced.masks["shade"] @ target
    assert clean == pytest.approx(noisy)


def test_the_labels_of_a_source_are_spread_and_unknown_rows_stay_zero():
    before, after = from_two_sources(), smooth_labels(from_two_sources(), {"noisy": 0.3}, 0.06)
    known = before.masks["tint"] > 0
    np.testing.assert_array_equal(after.masks["tint"], before.masks["tint"])
    np.testing.assert_array_equal(after.targets["tint"][~known], 0)
    tops = after.targets["tint"].max(axis=1)
    np.testing.assert_allclose(tops[:10][known[:10]], 1 - 0.06 * 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(tops[10:][known[10:]], 1 - 0.3 * 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(after.targets["tint"].sum(axis=1)[known], 1, rtol=1e-6)
    assert Settings((FROZEN,), label_smoothing=0.06).loss_smoothing == 0.06
    by_source = {"label_smoothing": 0.06, "source_smoothing": {"noisy": 0.3}}
    assert Settings((FROZEN,), **by_source).loss_smoothing == 0


def test_each_row_has_the_class_shares_of_its_source():
    target = np.array([[1, 0], [1, 0], [0, 1], [0, 0], [0, 1]], float)
    train = SimpleNamespace(targets={"shade": target}, sources=np.array(list("aaaab")))
    asked = SimpleNamespace(sources=np.array(["b", "a", "unheard of"]))
    found = np.exp(log_priors_of(asked, "shade", train))
    np.testing.assert_allclose(found[0], np.array([0.5, 1.5]) / 2, rtol=1e-5)
    np.testing.assert_allclose(found[1], np.array([2.5, 1.5]) / 4, rtol=1e-5)
    np.testing.assert_allclose(found[2], np.array([2.5, 2.5]) / 5, rtol=1e-5)
