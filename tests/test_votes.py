"""Votes beside a label: whose columns they are, and how much they count."""

import cv2
import pandas as pd
import pytest
from conftest import shaded

from faceattr.data.label_map import LabelMap, count_votes
from faceattr.data.manifest import Example, Source, target
from faceattr.data.sources import read_for_model, read_labels, unite
from faceattr.tasks import EXPRESSION, KNOWN_TASKS

HALF = LabelMap(votes={"expression": 0.5})


def counted(label, votes, share, task="expression"):
    source = Source((task,), (Example("a.png", {task: label}, {task: votes}),))
    return count_votes(source, {task: share}, KNOWN_TASKS)


def targets_of(label, votes, share):
    (example,) = counted(label, votes, share).examples
    return target(EXPRESSION, example.labels["expression"]).round(3).tolist()


def test_label_and_votes_count_in_the_stated_shares():
    votes = {"sadness": 3, "neutral": 1}
    assert targets_of("fear", votes, 0.0) == [0, 0, 1, 0, 0, 0, 0]
    assert targets_of("fear", votes, 0.5) == [0, 0, 0.5, 0, 0.125, 0.375, 0]
    assert targets_of("fear", votes, 1.0) == [0, 0, 0, 0, 0.25, 0.75, 0]
    assert targets_of("sad", votes, 0.5) == [0, 0, 0, 0, 0.125, 0.875, 0]


def test_votes_for_no_class_do_not_count_and_alone_leave_the_label_as_it_is():
    assert targets_of("fear", {"happiness": 1, "contempt": 7, "unknown": 2}, 1.0)[3] == 1
    assert targets_of("fear", {"contempt": 7, "unknown": 3}, 1.0) == [0, 0, 1, 0, 0, 0, 0]


def test_what_half_of_the_people_took_for_no_face_is_left_out():
    assert counted("fear", {"nf": 4, "fear": 6}, 0.5).examples
    found = counted("fear", {"nf": 5, "fear": 5}, 0.5)
    assert (found.examples, found.left_out) == ((), {"no face, by its votes": 1})


def test_a_task_of_ones_own_has_votes_too():
    (example,) = counted("cute", {"cute": 1, "laughing": 3}, 0.5, task="mood").examples
    assert example.labels["mood"] == {"cute": 0.625, "laughing": 0.375}


@pytest.fixture
def fer2013(tmp_path):
    """Three faces labelled happy in FER2013's own form."""
    pixels = " ".join(["7"] * 48 * 48)
    path = tmp_path / "fer2013.csv"
    table = {"emotion": [3, 3, 3], "pixels": [pixels] * 3, "Usage": ["Training", "PublicTest", ""]}
    pd.DataFrame(table).to_csv(path, index=False)
    return path


FERPLUS = """\
Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF
Training,fer0000000.png,6,2,0,0,0,0,0,1,1,0
PublicTest,,0,0,0,0,0,0,0,0,0,10
PrivateTest,fer0000002.png,0,10,0,0,0,0,0,0,0,0
"""


def test_ferplus_beside_fer2013_is_read_where_votes_are_asked_for(fer2013):
    (fer2013.parent / "fer2013new.csv").write_text(FERPLUS)
    plain = read_for_model([f"expression={fer2013.parent}"], KNOWN_TASKS)
    assert [example.labels["expression"] for example in plain.examples] == ["happy"] * 3
    manifest = read_for_model([str(fer2013)], KNOWN_TASKS, HALF)
    assert manifest.left_out == {"no face, by its votes": 1}
    assert manifest.notes == ("expression: votes count 50% on 2 faces",)
    first, last = (e.labels["expression"] for e in manifest.examples)
    assert first == pytest.approx({"neutral": 0.375, "happy": 0.625})
    assert last == pytest.approx({"happy": 1.0})


def test_a_file_that_is_not_about_these_rows_is_refused(fer2013):
    (fer2013.parent / "fer2013new.csv").write_text("".join(FERPLUS.splitlines(True)[:3]))
    with pytest.raises(ValueError, match=r"has 2 rows and fer2013\.csv 3.*move it away"):
        read_for_model([str(fer2013)], KNOWN_TASKS)


@pytest.mark.parametrize(
    "columns", ["expression:happy,expression:fear", "votes_happiness,votes_Fear"]
)
def test_a_manifest_has_votes_beside_its_label(tmp_path, columns):
    for level, name in enumerate("abc"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), shaded(100 * level))
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        f"path,split,expression,{columns}\na.png,train,sad,1,1\nb.png,val,sad,,\nc.png,val,sad,4,0\n"
    )
    read = unite(read_labels([str(manifest)], label_map=HALF)[0])
    assert [task.name for task in read.tasks] == ["expression"]
    found = [target(EXPRESSION, e.labels["expression"]).round(2).tolist() for e in read.examples]
    assert found == [
        [0, 0, 0.25, 0.25, 0, 0.5, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0.5, 0, 0.5, 0],
    ]
    assert unite(read_labels([str(manifest)])[0]).examples[0].labels["expression"] == "sad"


@pytest.mark.parametrize(
    ("label_map", "labels", "left_out"),
    [
        (LabelMap(), ["sad", "sad"], {"no label for any task": 2}),
        (LabelMap(votes={"mood": 0}), ["sad", {"sad": 1}], {"no label for any task": 2}),
        (
            LabelMap(votes={"mood": 0.5}),
            [{"glad": 1}, "sad", {"glad": 0.5, "sad": 0.5}],
            {"no label for any task": 1},
        ),
        (
            LabelMap(renamed={"mood": {"sad": ""}}, votes={"mood": 1}),
            [{"glad": 1}, {"glad": 2}],
            {"no label for any task": 1, "label that stands for no class": 1},
        ),
    ],
)
def test_votes_count_alone_beside_an_empty_label(tmp_path, label_map, labels, left_out):
    for name in "abcd":
        cv2.imwrite(str(tmp_path / f"{name}.png"), shaded(100))
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,mood,mood:glad\na.png,,1\nb.png,,\nc.png,sad,\nd.png,sad,2\n")
    (source,) = read_labels([str(manifest)], label_map=label_map)[0]
    found = [example.labels["mood"] for example in source.examples]
    assert (found, source.left_out) == (labels, left_out)


def test_votes_that_do_not_count_add_no_class_and_their_names_may_be_mapped(tmp_path):
    for level, name in enumerate("ab"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), shaded(100 * level))
    manifest = tmp_path / "m.csv"
    rows = "a.png,train,glad,1,1\nb.png,val,sad,,\n"
    manifest.write_text(f"path,split,mood,mood:sad,mood:bored\n{rows}")
    none = unite(read_labels([str(manifest)], label_map=LabelMap(votes={"mood": 0}))[0])
    assert none.tasks[0].classes == ("glad", "sad")
    mapped = LabelMap(renamed={"mood": {"bored": ""}}, votes={"mood": 0.5})
    some = unite(read_labels([str(manifest)], label_map=mapped)[0])
    assert some.tasks[0].classes == ("glad", "sad")
    with pytest.raises(ValueError, match=r"no task moood in the sources. The tasks are mood"):
        read_labels([str(manifest)], ["mood", "moood"])


def test_votes_that_are_nowhere_and_shares_that_are_none_are_refused(fer2013):
    with pytest.raises(ValueError, match=r"no votes on expression.*expression:CLASS.*fer2013new"):
        read_for_model([str(fer2013)], KNOWN_TASKS, HALF)
    with pytest.raises(ValueError, match=r"from 0 to 1.*2"):
        LabelMap(votes={"expression": 2})
