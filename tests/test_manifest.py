from pathlib import Path

import numpy as np
import pytest

from faceattr.tasks import EXPRESSION, GENDER, Task
from faceattr.training.manifest import Example, Manifest, join, target, targets


def manifest(task, *rows):
    return Manifest(
        (task,),
        tuple(Example(Path(path), {task.name: label}, origin=path) for path, label in rows),
    )


def test_a_manifest_without_rows_is_refused():
    with pytest.raises(ValueError, match="without a single row"):
        Manifest((GENDER,), ())


def test_unknown_classes_stop_with_their_rows():
    with pytest.raises(ValueError, match=r"b.jpg: 'robot' is not a class of task 'gender'"):
        manifest(GENDER, ("a.jpg", "male"), ("b.jpg", "robot"))


def test_a_split_is_train_val_or_test():
    with pytest.raises(ValueError, match="Received: 'dev'"):
        Example(Path("a.jpg"), split="dev")


def test_joined_manifests_have_the_tasks_of_both_and_one_row_per_face():
    both = join(
        [
            manifest(EXPRESSION, ("a.jpg", "happy"), ("b.jpg", "sad")),
            manifest(GENDER, ("b.jpg", "male"), ("c.jpg", "female")),
        ]
    )
    assert both.tasks == (EXPRESSION, GENDER)
    assert [dict(example.labels) for example in both.examples] == [
        {"expression": "happy"},
        {"expression": "sad", "gender": "male"},
        {"gender": "female"},
    ]


def test_one_face_with_two_labels_is_refused():
    with pytest.raises(ValueError, match=r"a.jpg has two values for 'gender': male .* female"):
        join([manifest(GENDER, ("a.jpg", "male")), manifest(GENDER, ("a.jpg", "female"))])


def test_one_task_with_two_class_lists_is_refused():
    one, other = Task("mood", ("good", "bad")), Task("mood", ("good", "ugly"))
    with pytest.raises(ValueError, match="good, bad in one data set and good, ugly"):
        join([manifest(one, ("a.jpg", "good")), manifest(other, ("b.jpg", "ugly"))])


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
