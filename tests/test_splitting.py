from pathlib import Path

import pytest

from faceattr.tasks import GENDER
from faceattr.training.manifest import Example, Manifest
from faceattr.training.splitting import split_off_val


def people(count, **fields):
    return Manifest(
        (GENDER,),
        tuple(
            Example(
                Path(f"{i}.jpg"),
                {"gender": GENDER.classes[i % 2]},
                **{name: value(i) for name, value in fields.items()},
            )
            for i in range(count)
        ),
    )


def test_rows_with_a_split_keep_it():
    read = people(4, split=lambda i: "val" if i == 0 else "train")
    assert split_off_val(read) == read


def test_a_fifth_goes_to_val_in_the_proportions_of_the_classes():
    split = split_off_val(people(50))
    val = split.only("val")
    assert len(val) == 10
    assert [e.labels["gender"] for e in val].count("male") == 5
    assert len(split.only("train")) == 40


def test_the_same_rows_are_chosen_every_time():
    assert split_off_val(people(50)) == split_off_val(people(50))


def test_no_group_sits_in_both_splits():
    split = split_off_val(people(60, group=lambda i: f"person {i // 6}"))
    train, val = ({e.group for e in split.only(name)} for name in ("train", "val"))
    assert train and val
    assert not train & val


def test_with_val_rows_of_its_own_the_rest_trains():
    split = split_off_val(people(10, split=lambda i: "val" if i == 3 else ""))
    assert len(split.only("val")) == 1
    assert len(split.only("train")) == 9


def test_too_few_rows_to_split_are_refused():
    with pytest.raises(ValueError, match="give at least 5"):
        split_off_val(people(4))
