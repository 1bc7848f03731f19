from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from faceattr.data import splits
from faceattr.data.manifest import Example
from faceattr.data.splits import assign_splits, with_stated_splits
from faceattr.tasks import GENDER

SIDES = ("train", "val")


def people(count, **fields):
    return tuple(
        Example(
            Path(f"{i}.jpg"),
            {"gender": GENDER.classes[i % 2]},
            **{name: value(i) for name, value in fields.items()},
        )
        for i in range(count)
    )


def rows_of(examples, split):
    return [example for example in examples if example.split == split]


def test_rows_with_a_split_keep_it():
    read = people(4, split=lambda i: "val" if i == 0 else "train")
    assert assign_splits(read) == read


def test_a_fifth_goes_to_val_in_the_proportions_of_the_classes():
    split = assign_splits(people(50))
    val = rows_of(split, "val")
    assert len(val) == 10
    assert [e.labels["gender"] for e in val].count("male") == 5
    assert len(rows_of(split, "train")) == 40


def test_the_same_rows_are_chosen_every_time():
    assert assign_splits(people(50)) == assign_splits(people(50))


def test_no_group_sits_in_both_splits():
    split = assign_splits(people(60, group=lambda i: f"person {i // 6}"))
    train, val = ({e.group for e in rows_of(split, name)} for name in ("train", "val"))
    assert train and val
    assert not train & val


def test_rows_without_a_split_follow_their_group():
    split = assign_splits(
        people(40, group=lambda i: str(i // 4), split=lambda i: {0: "val", 4: "train"}.get(i, ""))
    )
    assert {e.group for e in rows_of(split, "val")} == {"0"}
    assert len(rows_of(split, "val")) == 4


def test_a_group_in_two_splits_is_refused():
    wrong = people(8, group=lambda i: "ann", split=lambda i: "val" if i == 5 else "train")
    with pytest.raises(ValueError, match="group 'ann' is in train and in val"):
        assign_splits(wrong)


def test_with_val_rows_of_its_own_the_rest_trains():
    split = assign_splits(people(10, split=lambda i: "val" if i == 3 else ""))
    assert len(rows_of(split, "val")) == 1
    assert len(rows_of(split, "train")) == 9


def test_only_splits_that_need_no_choice_are_stated():
    mine = people(8, source=lambda i: "ab"[i % 2], split=lambda i: {0: "val", 3: "test"}.get(i, ""))
    mine = [replace(one, group="ann") if i in (0, 2, 5) else one for i, one in enumerate(mine)]
    found = [one.split for one in with_stated_splits(mine)]
    assert found == ["val", "", "val", "test", "train", "val", "train", ""]
    assert with_stated_splits(plain := people(3)) == plain


def test_train_and_test_without_val_give_a_fifth_of_train():
    split = assign_splits(people(50, split=lambda i: "test" if i < 10 else "train"))
    assert len(rows_of(split, "test")) == 10
    assert len(rows_of(split, "val")) == 8


def test_too_few_rows_to_split_are_refused():
    with pytest.raises(ValueError, match="give at least 5"):
        assign_splits(people(4))


def test_near_duplicates_sit_on_one_side():
    def pairs_of_three(examples):
        return [int(example.path.stem) // 3 for example in examples]

    split = assign_splits(people(60), pairs_of_three)
    train, val = ({int(e.path.stem) // 3 for e in rows_of(split, name)} for name in SIDES)
    assert len(rows_of(split, "val")) == 12
    assert not train & val


def test_faces_of_one_picture_sit_on_one_side():
    read = people(60)
    crowd = [
        replace(example, path=Path(f"photo{i // 4}.jpg"), box=(i, 0, i + 9, 9))
        for i, example in enumerate(read)
    ]
    split = assign_splits(crowd)
    train, val = ({e.path for e in rows_of(split, name)} for name in SIDES)
    assert train and val
    assert not train & val


def test_two_groups_with_a_near_duplicate_in_common_hang_together():
    def ends_meet(examples):
        return [number % (len(examples) - 1) for number in range(len(examples))]

    for seed in range(5):
        read = people(40, group=lambda i: str(i // 4))
        sides = [e.split for e in assign_splits(read, ends_meet, seed=seed)]
        assert sides[0] == sides[3] == sides[36] == sides[39]


def test_nobody_looks_at_pictures_where_val_rows_are_given():
    def never(examples):
        raise AssertionError("asked without need")

    read = people(10, split=lambda i: "val" if i == 3 else "")
    assert len(rows_of(assign_splits(read, never), "val")) == 1


def test_copies_of_one_picture_are_too_few_to_split():
    with pytest.raises(ValueError, match="9 images, of which 1 remain"):
        assign_splits(people(9), lambda examples: [0] * len(examples))


def in_two_sources(count, **fields):
    return people(count, source=lambda i: "ab"[i % 2], **fields)


def test_a_group_sits_on_one_side_whichever_source_it_came_from():
    split = assign_splits(in_two_sources(40, group=lambda i: f"person {i // 4}"))
    train, val = ({e.group for e in rows_of(split, name)} for name in SIDES)
    assert train and val
    assert not train & val


def test_a_group_that_two_sources_state_in_two_splits_is_refused():
    wrong = in_two_sources(8, group=lambda i: "ann", split=lambda i: SIDES[i % 2])
    with pytest.raises(
        ValueError, match=r"'ann' is in train and in val.*number their groups alike"
    ):
        assign_splits(wrong)


def test_copies_in_another_order_in_another_source_sit_on_one_side():
    def copied(examples):
        return [int(e.path.stem) if e.source == "a" else 39 - int(e.path.stem) for e in examples]

    split = assign_splits(in_two_sources(40), copied)
    train, val = (set(copied(rows_of(split, name))) for name in SIDES)
    assert len(rows_of(split, "val")) == 8
    assert not train & val


def test_a_source_that_shares_faces_with_one_that_has_val_still_gives_a_fifth():
    small = people(70, source=lambda i: "small")
    large = tuple(
        Example(
            Path(f"large/{i}.jpg"),
            {"gender": GENDER.classes[i % 2]},
            source="large",
            split="val" if i < 2 else "train",
        )
        for i in range(10)
    )

    split = assign_splits((*small, *large), lambda examples: [int(e.path.stem) for e in examples])
    of_small = [e for e in rows_of(split, "val") if e.source == "small"]
    assert len(of_small) == 2 + 12  # two copies of val rows, and a fifth of the other sixty
    assert {e.path.stem for e in of_small} >= {"0", "1"}


def test_each_source_without_val_gives_a_fifth():
    uneven = people(100, source=lambda i: "a" if i < 20 else "b")
    val = rows_of(assign_splits(uneven), "val")
    assert [e.source for e in val].count("a") == 4
    assert len(val) == 20


def test_a_group_in_common_with_a_val_row_does_not_take_the_fifth_away():
    stated = people(
        10,
        source=lambda i: "a",
        split=lambda i: "val" if i < 2 else "train",
        group=lambda i: f"g{i}",
    )
    other = tuple(
        replace(e, path=Path(f"b/{e.path}"), source="b", split="", group=f"g{i}" if not i else "")
        for i, e in enumerate(people(101))
    )
    val = [e for e in rows_of(assign_splits((*stated, *other)), "val") if e.source == "b"]
    assert len(val) == 1 + 20


def test_where_all_is_decided_by_another_source_nothing_is_too_few():
    stated = people(10, source=lambda i: "a", split=lambda i: "val" if i < 2 else "train")
    copies = tuple(replace(e, path=Path(f"b/{e.path}"), source="b", split="") for e in stated)
    split = assign_splits((*stated, *copies), lambda examples: [int(e.path.stem) for e in examples])
    assert [e.split for e in split[:10]] == [e.split for e in split[10:]]


def test_strata_do_not_grow_with_the_number_of_tasks(monkeypatch):
    class Counted(splits.StratifiedGroupKFold):
        def split(self, X, y, groups):
            strata.append(len(np.unique(y)))
            return super().split(X, y, groups)

    strata = []
    monkeypatch.setattr(splits, "StratifiedGroupKFold", Counted)
    monkeypatch.setattr(splits, "STRATA", 8)
    usual = [replace(one, group=f"person {i // 2}") for i, one in enumerate(people(40))]
    rare = [
        replace(one, labels={f"task{bit}": "yes" for bit in range(6) if number >> bit & 1})
        for number, one in enumerate(people(64))
    ]
    split = assign_splits([*usual, *rare[1:]])
    assert strata == [9]
    # A fifth of 20; which one scikit-learn draws differs between its versions.
    assert len(rows_of(split[:40], "val")) == pytest.approx(8, abs=2)
