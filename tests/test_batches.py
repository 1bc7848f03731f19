from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from faceattr.data.crops import CachedCrops
from faceattr.data.dataset import LabeledDataset, build_dataset, mask
from faceattr.data.manifest import Example
from faceattr.tasks import EXPRESSION, GENDER
from faceattr.training.batches import (
    MaskedBatches,
    pattern_shares,
    stratified_interleave,
)
from faceattr.training.config import FROZEN, NO_AUGMENTATION, Augmentation, Settings, TaskSampling

SIZE = 32


def rows(*known):
    """One row per argument; its first pixel tells which. ``"eg"`` knows both tasks."""
    crops = np.zeros((len(known), SIZE, SIZE, 3), "uint8")
    crops[:, ...] = np.arange(len(known))[:, None, None, None]
    expression, gender = np.zeros((len(known), 7), "float32"), np.zeros((len(known), 2), "float32")
    for row, tasks in enumerate(known):
        expression[row, row % 7] = "e" in tasks
        gender[row, row % 2] = "g" in tasks
    return LabeledDataset(
        crops, np.arange(len(known)), {"expression": expression, "gender": gender}
    )


def batches(of, seed=(), epoch=0, steps=None, **settings):
    settings = {"batch_size": 8, "augmentation": NO_AUGMENTATION, **settings}
    how = Settings((FROZEN,), **settings)
    return MaskedBatches(of, SIZE, how, seed=seed, epoch=epoch, steps=steps)


def seen(epoch):
    """Which rows the batches of an epoch show, in order."""
    return [crops[:, 0, 0, 0].tolist() for crops, _, _ in (epoch[i] for i in range(len(epoch)))]


def test_the_mask_is_one_where_the_target_is_not_all_zeros():
    target = np.array([[0, 0], [1, 0], [0.5, 0.5]])
    np.testing.assert_array_equal(mask(target), [0, 1, 1])
    assert mask(np.zeros((0, 7))).shape == (0,)


def test_a_batch_holds_crops_targets_and_masks():
    crops, targets, masks = batches(rows(*["e"] * 8, *["g"] * 8))[0]
    assert crops.shape == (8, SIZE, SIZE, 3)
    assert crops.dtype == np.uint8
    for name, classes in (("expression", 7), ("gender", 2)):
        assert targets[name].shape == (8, classes)
        np.testing.assert_array_equal(masks[name], targets[name].any(axis=1))
    np.testing.assert_array_equal(masks["expression"] + masks["gender"], 1)


def test_crops_and_targets_belong_together():
    crops, targets, _ = batches(rows(*["e"] * 20))[0]
    np.testing.assert_array_equal(targets["expression"].argmax(axis=1), crops[:, 0, 0, 0] % 7)


def test_by_default_every_task_has_the_same_labelled_rows_in_every_batch():
    epoch = batches(rows(*["e"] * 190, *["g"] * 10))
    assert len(epoch) == 25
    for step in range(len(epoch)):
        _, _, masks = epoch[step]
        assert masks["expression"].sum() == masks["gender"].sum() == 4


def test_shares_and_natural_proportions_are_options():
    both = rows(*["e"] * 90, *["g"] * 30)

    def expression_rows(mix):
        epoch = batches(both, batch_size=16, task_sampling=mix)
        return [epoch[i][2]["expression"].sum() for i in range(len(epoch))]

    assert expression_rows(TaskSampling(shares={"expression": 3, "gender": 5})) == [6] * 20
    assert expression_rows(TaskSampling(temperature=1)) == [12] * 20
    assert np.mean(expression_rows(TaskSampling(temperature=2))) == pytest.approx(
        16 * 0.634, abs=0.2
    )


def test_shares_name_every_task():
    with pytest.raises(ValueError, match="given for every task"):
        batches(rows("e", "g"), task_sampling=TaskSampling(shares={"gender": 1}))


@pytest.mark.parametrize(
    ("kinds", "counts"),
    [
        ([[1, 0], [0, 1]], [900, 3]),
        ([[1, 1], [1, 0], [0, 1]], [1000, 500, 3000]),
        ([[1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 1]], [50, 600, 70, 80]),
    ],
)
def test_tasks_are_balanced_wherever_the_kinds_of_rows_allow_it(kinds, counts):
    kinds, counts = np.array(kinds, float), np.array(counts, float)
    wanted = np.full(kinds.shape[1], 1 / kinds.shape[1])
    shares = pattern_shares(kinds, counts, wanted)
    labelled = shares @ kinds
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(labelled / labelled.sum(), wanted, atol=1e-3)


def test_balance_does_not_throw_a_kind_of_row_away():
    # Every row knows gender: balance would need rows that know the expression alone.
    shares = pattern_shares(np.array([[1.0, 1], [0, 1]]), np.array([100.0, 100]), np.full(2, 0.5))
    assert shares[1] > 0.1


@pytest.mark.parametrize("tasks", [1, 4, 7])
def test_many_kinds_of_rows_fill_every_batch(tasks):
    generator = np.random.default_rng(tasks)
    known = generator.random((200, tasks)) < 0.5
    targets = {f"t{i}": np.eye(2)[[0] * 200] * known[:, i : i + 1] for i in range(tasks)}
    everything = LabeledDataset(np.zeros((200, SIZE, SIZE, 3), "uint8"), np.arange(200), targets)
    epoch = batches(everything, batch_size=16)
    labelled = np.array([[m.sum() for m in epoch[i][2].values()] for i in range(len(epoch))])
    assert epoch[0][0].shape[0] == 16
    np.testing.assert_allclose(labelled.mean(axis=0), labelled.mean(), rtol=0.15)
    assert labelled.min() >= 1


@pytest.mark.parametrize(("shares", "slots"), [([1.0], 5), ([0.9, 0.1], 7), ([1 / 3] * 3, 64)])
def test_kinds_are_spread_evenly_over_the_slots(shares, slots):
    kinds = stratified_interleave(np.array(shares), slots)
    assert len(kinds) == slots
    for kind, share in enumerate(shares):
        for end in range(1, slots + 1):
            assert abs((kinds[:end] == kind).sum() - share * end) <= 1.5


def test_a_set_smaller_than_a_batch_still_teaches():
    epoch = batches(rows("e", "g", "e"))
    assert len(epoch) == 20
    assert epoch[19][0].shape[0] == 8


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0}, {"temperature": float("nan")}, {"shares": {"a": 0, "b": 1}}]
)
def test_a_mix_checks_itself(wrong):
    with pytest.raises(ValueError, match="above 0"):
        TaskSampling(**wrong)


def test_fractions_of_a_row_are_carried_to_the_next_batch():
    epoch = batches(rows(*["e"] * 60, *["g"] * 60), batch_size=5, steps=24)
    expression = [epoch[i][2]["expression"].sum() for i in range(len(epoch))]
    assert set(expression) == {2, 3}
    assert np.mean(expression) == pytest.approx(2.5, abs=0.05)


def test_no_row_comes_twice_before_all_have_come():
    counts = np.bincount(np.concatenate(seen(batches(rows(*["e"] * 16), steps=5))))
    assert sorted(counts.tolist()) == [2] * 8 + [3] * 8


def test_order_and_augmentation_depend_on_seed_epoch_and_step_alone():
    both = rows(*["e"] * 20, *["g"] * 20)
    unbroken = batches(both, seed=(5,), augmentation=Augmentation())
    for _ in range(3):
        unbroken.on_epoch_begin()
        unbroken.on_epoch_end()
    resumed = batches(both, seed=(5,), augmentation=Augmentation(), epoch=3)
    np.testing.assert_array_equal(unbroken[2][0], resumed[2][0])
    assert seen(batches(both, seed=(5,))) != seen(batches(both, seed=(6,)))
    assert seen(batches(both, seed=(5, 1))) != seen(batches(both, seed=(5, 2)))
    assert seen(batches(both)) == seen(batches(both, seed=(0,)))
    assert seen(batches(both, epoch=0)) != seen(batches(both, epoch=1))


def test_rows_are_shuffled_once_always_alike_and_unusable_ones_left_out():
    examples = [Example(f"{i}.jpg", {"gender": GENDER.classes[i % 2]}) for i in range(30)]
    places = np.where(np.arange(30) == 4, -1, np.arange(30))
    cached = CachedCrops(np.zeros((30, SIZE, SIZE, 3), "uint8"), places)
    made, again = (build_dataset((EXPRESSION, GENDER), examples, cached) for _ in range(2))
    assert len(made) == 29
    np.testing.assert_array_equal(made.index, again.index)
    assert made.index.tolist() != sorted(made.index)
    np.testing.assert_array_equal(made.targets["gender"].argmax(axis=1), made.index % 2)
    assert not made.targets["expression"].any()


def test_the_hash_tells_other_labels_and_other_pixels():
    one, labels, pixels = rows("e", "g"), rows("e", "eg"), rows("e", "g")
    pixels.crops[0, 0, 0, 0] = 77
    assert one.sha256() == rows("e", "g").sha256()
    assert len({one.sha256(), labels.sha256(), pixels.sha256()}) == 3


def from_sources(**counts):
    """Rows that know an expression, so many of each source."""
    of = rows(*["e"] * sum(counts.values()))
    names = [name for name, count in counts.items() for _ in range(count)]
    return replace(of, examples=[Example(Path("a.png"), source=name) for name in names])


def test_a_batch_is_mixed_by_source():
    epoch = batches(
        from_sources(a=30, b=10, c=60), task_sampling=TaskSampling(shares={"a": 1, "b": 2, "c": 1})
    )
    for shown in seen(epoch):
        places = np.digitize(shown, [30, 40])
        assert np.bincount(places, minlength=3).tolist() == [2, 4, 2]


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"a": 1}, r"for every source \(a, b\), or for none"),
        ({"a": 1, "d": 1}, "no task or source d to mix"),
    ],
)
def test_shares_of_sources_are_given_for_all_of_them(shares, message):
    with pytest.raises(ValueError, match=message):
        batches(from_sources(a=30, b=10), task_sampling=TaskSampling(shares=shares))


def test_rows_without_any_label_are_refused():
    with pytest.raises(ValueError, match="2 rows without a label of expression, gender"):
        batches(rows("", ""))
