from pathlib import Path

import numpy as np
import pytest

from faceattr.data.dataset import LabeledDataset
from faceattr.data.manifest import Example
from faceattr.evaluation.groups import (
    chance_of,
    check_columns,
    score_groups,
    score_named_groups,
)
from faceattr.evaluation.metrics import predictions_for, wilson
from faceattr.tasks import GENDER, Task

MOOD = Task("mood", ("calm", "wild"))


def groups_of(right, about, *columns, labels=None, gender=None):
    """Group answers to MOOD, of which `right` says whether they are right."""
    count = len(right)
    examples = [
        Example(Path("a.png"), labels=(labels or [{}] * count)[i], metadata=about[i])
        for i in range(count)
    ]
    target = np.tile([1.0, 0.0], (count, 1))
    said = np.where(np.array(right, bool)[:, None], [0.8, 0.2], [0.3, 0.7])
    probabilities = {"mood": said}
    tasks = [MOOD]
    if gender is not None:
        tasks.append(GENDER)
        probabilities["gender"] = np.eye(2)[gender]
    rows = LabeledDataset(
        np.zeros((1, 4, 4, 3), "uint8"), np.zeros(count, int), {"mood": target}, examples
    )
    return score_groups(tasks, rows, probabilities, columns)


def test_nothing_to_group_by_gives_no_groups():
    assert groups_of([True], [{}]) == ()


def test_each_group_has_its_accuracy_and_wilson_interval():
    about = [{"hat": "yes"}] * 40 + [{"hat": "no"}] * 50 + [{}] * 3
    right = [True] * 30 + [False] * 10 + [True] * 45 + [False] * 5 + [True] * 3
    (groups,) = groups_of(right, about, "hat")
    no, yes = groups.groups
    assert (no.name, no.n, no.accuracy) == ("no", 50, 0.9)
    assert yes.accuracy == 0.75
    assert yes.interval == pytest.approx((0.5981, 0.8581), abs=1e-4)
    assert groups.unknown == 3
    assert groups.summary.endswith("; 3 of unknown group are not counted")
    assert groups.worst == yes
    assert groups.gap == pytest.approx(0.15)
    assert groups.may_be_chance
    assert "gap 15.0 points, worst yes, best no; may be chance (p = 0.06)" in groups.summary


def test_many_groups_of_one_accuracy_have_no_gap_that_means_something():
    """Of 40 the best and the worst have intervals that do not overlap, by chance alone."""
    generator = np.random.default_rng(0)
    about = [{"team": f"t{number:02}"} for number in range(40) for _ in range(60)]
    (groups,) = groups_of(generator.random(2400) < 0.7, about, "team")
    assert groups.large[0].interval[1] < groups.large[-1].interval[0]
    assert groups.may_be_chance and "may be chance (p = 0." in groups.summary
    (apart,) = groups_of([True] * 40 + [False] * 20 + [True] * 60, about[:120], "team")
    assert apart.p_value < 0.001 and "chance" not in apart.summary


def test_a_few_mistakes_are_no_surprise_in_a_small_group():
    """29 of 30 and 2994 of 3000: chi-squared says 0.0004, Fisher's exact test 0.067."""
    about = [{"hat": "yes"}] * 30 + [{"hat": "no"}] * 3000
    (groups,) = groups_of([False] + [True] * 29 + [False] * 6 + [True] * 2994, about, "hat")
    assert groups.p_value == pytest.approx(0.0675, abs=0.01)
    assert "may be chance (p = 0.07)" in groups.summary
    (apart,) = groups_of([False] * 3 + [True] * 27 + [False] * 4 + [True] * 2996, about, "hat")
    assert apart.p_value < 0.001


def test_equal_groups_surprise_no_more_than_one_time_in_twenty():
    generator, sizes = np.random.default_rng(0), np.array([30, 3000])
    rights = generator.binomial(sizes, 0.995, (400, 2))
    assert np.mean([chance_of(right, sizes) <= 0.05 for right in rights]) < 0.075
    assert chance_of(np.array([20, 40]), np.array([40, 60])) == pytest.approx(0.0956, abs=1e-4)
    assert chance_of(sizes, sizes) == 1.0


def test_small_groups_are_marked_and_do_not_decide_about_the_gap():
    about = [{"hat": "yes"}] * 40 + [{"hat": "no"}] * 29
    (groups,) = groups_of([True] * 40 + [False] * 29, about, "hat")
    assert [group.is_small for group in groups.groups] == [True, False]
    assert groups.gap is None and groups.worst is None
    assert "fewer than two groups" in groups.summary


def test_a_column_goes_before_a_head_and_a_head_stands_in_for_it():
    gender = [0] * 30 + [1] * 30
    (predicted,) = groups_of([True] * 60, [{}] * 60, "gender", gender=gender)
    assert predicted.predicted and predicted.heading == "gender (predicted)"
    assert [(g.name, g.n) for g in predicted.groups] == [("female", 30), ("male", 30)]
    stated = [{"gender": "female"}] * 60
    (columns,) = groups_of([True] * 60, stated, "gender", gender=gender)
    assert not columns.predicted and [g.n for g in columns.groups] == [60]
    (labels,) = groups_of([True] * 60, [{}] * 60, "gender", labels=stated, gender=gender)
    assert not labels.predicted and [g.n for g in labels.groups] == [60]


def test_columns_are_crossed_and_ranges_stand_in_their_order():
    about = [{"age": age, "hat": hat} for age in ("6-12", "13-19", "70+") for hat in "ab"]
    ages, crossed = groups_of([True] * 6, about, "age", "age+hat")
    assert [group.name for group in ages.groups] == ["6-12", "13-19", "70+"]
    assert crossed.groups[0].name == "6-12 + a" and len(crossed.groups) == 6


def test_many_different_numbers_become_quarters():
    (groups,) = groups_of([True] * 100, [{"age": str(age)} for age in range(100)], "age")
    assert [group.name for group in groups.groups] == [
        "0 to 24",
        "25 to 49",
        "50 to 74",
        "75 to 99",
    ]


@pytest.mark.parametrize(
    ("numbers", "names"),
    [
        (range(-30, 30), ["-30 to -16", "-15 to -1", "0 to 14", "15 to 29"]),
        (np.arange(40) / 2, ["0 to 4.5", "5 to 9.5", "10 to 14.5", "15 to 19.5"]),
        (
            np.arange(40) + 1_600_000_000.5,
            [f"16000000{10 * q:02}.5 to 16000000{10 * q + 9:02}.5" for q in range(4)],
        ),
        (
            range(1_000_000, 1_000_040),
            [f"10000{10 * q:02} to 10000{10 * q + 9:02}" for q in range(4)],
        ),
    ],
)
def test_quarters_stand_by_size_whatever_the_numbers(numbers, names):
    about = [{"yaw": str(number), "hat": "a"} for number in numbers]
    plain, crossed = groups_of([True] * len(about), about, "yaw", "yaw+hat")
    assert [group.name for group in plain.groups] == names
    assert [group.name for group in crossed.groups] == [f"{name} + a" for name in names]


def test_too_many_groups_and_unknown_columns_are_refused():
    with pytest.raises(ValueError, match="'name' has 61 different values"):
        groups_of([True] * 61, [{"name": f"n{i}"} for i in range(61)], "name")
    example = Example(Path("a.png"), metadata={"hat": "yes"})
    check_columns(["hat+mood"], [example], [MOOD])
    with pytest.raises(
        ValueError, match=r"group by 'cap'.*There are: hat, mood, near_duplicate, split"
    ):
        check_columns(["hat+cap"], [example], [MOOD])


def test_groups_may_be_given():
    target, said = np.eye(2)[[0, 0, 1]] * [[1], [0], [1]], np.eye(2)[[0, 0, 0]]
    groups = score_named_groups(predictions_for(MOOD, target, said), "in train", ["yes", "no"])
    assert [(group.name, group.n, group.accuracy) for group in groups.groups] == [
        ("no", 1, 0.0),
        ("yes", 1, 1.0),
    ]


def test_a_group_that_shows_more_of_an_easy_class_is_told_by_its_balanced_accuracy():
    truth, said = np.eye(2)[[0, 0, 0, 1]], np.eye(2)[[0, 0, 0, 0]]
    (group,) = score_named_groups(predictions_for(MOOD, truth, said), "all", ["x"] * 4).groups
    assert (group.accuracy, group.balanced) == (0.75, 0.5)


def test_nothing_counted_leaves_everything_open():
    assert wilson(0, 0) == (0.0, 1.0)
