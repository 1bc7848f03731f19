"""Labels that are spelt otherwise, and numbers that mean nothing by themselves."""

from pathlib import Path

import pytest

from faceattr.data.label_map import LabelMap, normalize_labels
from faceattr.data.manifest import Example, Source
from faceattr.tasks import EXPRESSION, KNOWN_TASKS, ORDERS, Task


def source(*labels, task="expression"):
    return Source((task,), tuple(Example(f"{i}.png", {task: x}) for i, x in enumerate(labels)))


def read(labels, known=KNOWN_TASKS, task="expression", **label_map):
    (found,), notes = normalize_labels([source(*labels, task=task)], LabelMap(**label_map), known)
    return [example.labels[task] for example in found.examples], notes


def test_nothing_is_changed_that_nobody_asked_to_change():
    assert read(["happy", "Sadness"]) == (["happy", "Sadness"], ())
    assert read([]) == ([], ())


def test_the_same_number_is_another_class_in_another_data_set():
    assert read(["3", "3.0"], orders={"expression": "fer2013"})[0] == ["happy", "happy"]
    assert read(["3"], orders={"expression": "raf-db"})[0] == ["disgust"]
    assert read(["0"], task="gender", orders={"gender": "imdb-wiki"})[0] == ["female"]


@pytest.mark.parametrize("labels", [["0", "6"], ["happy", "4"], [{"1": 2.0, "3": 1.0}]])
def test_numbers_are_refused_until_somebody_says_what_they_mean(labels):
    with pytest.raises(ValueError, match=r"fer2013: 0 angry.*raf-db: 1 surprise.*--order exp"):
        read(labels)


def test_numbers_are_classes_where_no_data_set_numbers_the_task_or_the_model_has_them():
    assert read(["1", "2"], task="stars")[0] == ["1", "2"]
    own = {"expression": Task("expression", ("0", "1"))}
    assert read(["1"], known=own)[0] == ["1"]


def test_a_number_outside_the_order_is_told_with_the_order():
    with pytest.raises(ValueError, match=r"0\.png: 0 is no number of this order: 1 surprise"):
        read(["0"], orders={"expression": "raf-db"})


def test_an_order_that_nobody_knows_is_told_with_those_that_are():
    with pytest.raises(ValueError, match=r"no order 'rafdb'.*expression: fer2013.*gender: utkface"):
        LabelMap(orders={"expression": "rafdb"})


def test_classes_are_renamed_for_one_task_or_for_all():
    assert read(["joy", "sad"], renamed={"": {"joy": "happy"}})[0] == ["happy", "sad"]
    assert read(["joy"], renamed={"expression": {"joy": "happy"}})[0] == ["happy"]


def test_merging_two_classes_is_told_with_their_rows():
    found, notes = read(["fear", "fear", "surprise"], renamed={"": {"fear": "surprise"}})
    assert found == ["surprise"] * 3
    assert notes == ("expression: fear (2) and surprise (1) count as surprise",)


def test_a_class_can_be_left_out_and_its_votes_with_it():
    order = {"expression": "affectnet"}
    found, notes = read(["7", "1"], orders=order, renamed={"": {"contempt": ""}})
    assert found == ["happy"]
    assert notes == ("expression: contempt (1) counts as unknown",)
    votes, _ = read([{"contempt": 3.0, "happy": 1.0}], renamed={"": {"contempt": ""}})
    assert votes == [{"happy": 1.0}]


def test_a_name_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(ValueError, match=r"no label hapiness of task expression.*are: happiness"):
        read(["happiness"], renamed={"expression": {"hapiness": "happy"}})


def test_every_known_order_names_the_classes_of_its_task_each_once():
    for name, orders in ORDERS.items():
        for order in orders.values():
            assert set(KNOWN_TASKS[name].classes) == set(order.classes) - {"contempt"}
            assert len(set(order.classes)) == len(order.classes)
    assert ORDERS["expression"]["imagefolder"].classes == tuple(sorted(EXPRESSION.classes))


def test_the_documentation_shows_the_orders_as_they_are():
    page = (Path(__file__).parents[1] / "docs/data.md").read_text()
    for task, orders in ORDERS.items():
        for name, order in orders.items():
            assert f"| `{task}={name}` | {order} |" in page
