from pathlib import Path

import numpy as np
import pytest

from faceattr.data.manifest import Example, Manifest, Source, merge_sources, target, targets
from faceattr.tasks import EXPRESSION, GENDER, Task


def source(task, *rows):
    return Source(
        (task,), tuple(Example(Path(path), {task: label}, origin=path) for path, label in rows)
    )


def test_a_manifest_without_rows_is_refused():
    with pytest.raises(ValueError, match="not a single labelled image"):
        Manifest((GENDER,), ())


def test_unknown_classes_stop_with_their_rows():
    with pytest.raises(ValueError, match=r"b.jpg: 'robot' is not a class of task 'gender'"):
        merge_sources([source("gender", ("a.jpg", "male"), ("b.jpg", "robot"))])


def test_a_split_is_train_val_or_test():
    with pytest.raises(ValueError, match="Received: 'dev'"):
        Example(Path("a.jpg"), split="dev")


def test_united_sources_have_the_tasks_of_all_and_one_row_per_face():
    both = merge_sources(
        [
            source("expression", ("a.jpg", "happy"), ("b.jpg", "sad")),
            source("gender", ("./b.jpg", "male"), ("c.jpg", "female")),
        ]
    )
    assert both.tasks == (EXPRESSION, GENDER)
    assert [dict(example.labels) for example in both.examples] == [
        {"expression": "happy"},
        {"expression": "sad", "gender": "male"},
        {"gender": "female"},
    ]


def test_one_face_with_two_labels_is_refused_but_not_with_two_spellings():
    with pytest.raises(ValueError, match=r"a.jpg has two values for 'gender': male .* female"):
        merge_sources([source("gender", ("a.jpg", "male")), source("gender", ("a.jpg", "female"))])
    assert merge_sources([source("gender", ("a.jpg", "male"), ("a.jpg", "M"))]).examples


def test_classes_of_an_own_task_are_those_of_all_sources():
    united = merge_sources([source("mood", ("a.jpg", "good")), source("mood", ("b.jpg", "bad"))])
    assert united.tasks == (Task("mood", ("bad", "good")),)
    with pytest.raises(ValueError, match=r"at least two classes.*\['good'\]"):
        merge_sources([source("mood", ("a.jpg", "good"))])


def test_the_classes_of_a_known_task_hold():
    mood = Task("mood", ("laughing", "cute"))
    assert merge_sources([source("mood", ("a.jpg", "cute"))], {"mood": mood}).tasks == (mood,)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (None, [0, 0]),
        ("", [0, 0]),
        ("female", [0, 1]),
        ({"male": 1, "female": 3}, [0.25, 0.75]),
        ({"male": 0}, [0, 0]),
    ],
)
def test_a_target_is_one_hot_votes_or_zeros(label, expected):
    row = target(GENDER, label)
    assert row.dtype == np.float32
    np.testing.assert_array_equal(row, expected)


def test_targets_of_no_examples_are_empty():
    assert targets([EXPRESSION], [])["expression"].shape == (0, 7)


def test_pixels_are_rgb_and_a_box_has_four_corners():
    with pytest.raises(ValueError, match=r"RGB uint8 .* float64 of shape \(4, 4, 3\)"):
        Example(Path("a.jpg"), pixels=np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="a box is x0, y0, x1, y1"):
        Example(Path("a.jpg"), box=(1, 2, 3))
