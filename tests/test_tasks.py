import pytest

from faceattr.tasks import EXPRESSION, GENDER, KNOWN_TASKS, Task


@pytest.mark.parametrize("classes", [(), ("one",), ("a", "b", "a")])
def test_a_task_needs_two_classes_each_named_once(classes):
    with pytest.raises(ValueError, match="at least two classes"):
        Task("mood", classes)


@pytest.mark.parametrize(
    "name", ["", "my mood", "a=b", "a:b", "a/b", "größe", "path", "x0", "block5", "1st"]
)
def test_a_task_name_must_serve_as_column_and_layer(name):
    with pytest.raises(ValueError, match="Received"):
        Task(name, ("a", "b"))


def test_names_that_merely_contain_a_taken_one_are_free():
    assert Task("faceted", ("a", "b")).name == "faceted"
    assert Task("age_group-2", ("a", "b")).name == "age_group-2"


def test_the_class_orders_are_these():
    assert EXPRESSION.classes == (
        "angry",
        "disgust",
        "fear",
        "happy",
        "neutral",
        "sad",
        "surprise",
    )
    assert GENDER.classes == ("male", "female")
    assert [task.name for task in KNOWN_TASKS.values()] == list(KNOWN_TASKS)


@pytest.mark.parametrize(
    ("task", "label", "index"),
    [
        (EXPRESSION, "Happiness", 3),
        (EXPRESSION, " SAD ", 5),
        (GENDER, "Woman", 1),
        (GENDER, "m", 0),
    ],
)
def test_other_spellings_are_understood(task, label, index):
    assert task.index(label) == index


def test_an_unknown_label_names_the_classes():
    with pytest.raises(ValueError, match=r"'contempt' is not a class.*angry, disgust"):
        EXPRESSION.index("contempt")
