from pathlib import Path

import pytest

from faceattr.tasks import GENDER
from faceattr.training.manifest import Example, Source
from faceattr.training.splitting import set_val_aside


def people(count, **fields):
    return Source(
        ("gender",),
        tuple(
            Example(
                Path(f"{i}.jpg"),
                {"gender": GENDER.classes[i % 2]},
                **{name: value(i) for name, value in fields.items()},
            )
            for i in range(count)
        ),
    )


def rows_of(source, split):
    return [example for example in source.examples if example.split == split]


def test_rows_with_a_split_keep_it():
    read = people(4, split=lambda i: "val" if i == 0 else "train")
    assert set_val_aside(read) == read


def test_a_fifth_goes_to_val_in_the_proportions_of_the_classes():
    split = set_val_aside(people(50))
    val = rows_of(split, "val")
    assert len(val) == 10
    assert [e.labels["gender"] for e in val].count("male") == 5
    assert len(rows_of(split, "train")) == 40


def test_the_same_rows_are_chosen_every_time():
    assert set_val_aside(people(50)) == set_val_aside(people(50))


def test_no_group_sits_in_both_splits():
    split = set_val_aside(people(60, group=lambda i: f"person {i // 6}"))
    train, val = ({e.group for e in rows_of(split, name)} for name in ("train", "val"))
    assert train and val
    assert not train & val


def test_rows_without_a_split_follow_their_group():
    split = set_val_aside(
        people(40, group=lambda i: str(i // 4), split=lambda i: {0: "val", 4: "train"}.get(i, ""))
    )
    assert {e.group for e in rows_of(split, "val")} == {"0"}
    assert len(rows_of(split, "val")) == 4


def test_a_group_in_two_splits_is_refused():
    wrong = people(8, group=lambda i: "ann", split=lambda i: "val" if i == 5 else "train")
    with pytest.raises(ValueError, match="group 'ann' is in train and in val"):
        set_val_aside(wrong)


def test_with_val_rows_of_its_own_the_rest_trains():
    split = set_val_aside(people(10, split=lambda i: "val" if i == 3 else ""))
    assert len(rows_of(split, "val")) == 1
    assert len(rows_of(split, "train")) == 9


def test_train_and_test_without_val_give_a_fifth_of_train():
    split = set_val_aside(people(50, split=lambda i: "test" if i < 10 else "train"))
    assert len(rows_of(split, "test")) == 10
    assert len(rows_of(split, "val")) == 8


def test_too_few_rows_to_split_are_refused():
    with pytest.raises(ValueError, match="give at least 5"):
        set_val_aside(people(4))
