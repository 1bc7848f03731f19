"""The table's schema: every input has its row, every column its meaning."""

import pytest
from use_toys import MOOD, SHADE, attributes, draw

from faceattr.images.inputs import InputFile
from faceattr.inference.samples import Sample
from faceattr.inference.schema import ImageResult, columns, to_rows
from faceattr.tasks import Task

TASKS = (MOOD, SHADE)


def rows(faces, **how):
    described = tuple(attributes(**how)(draw(faces)))
    return to_rows(ImageResult(Sample(InputFile("a.jpg")), described), TASKS)


def test_the_columns_are_these_in_this_order():
    # fmt: off
    assert list(columns(TASKS)) == [
        "path", "status", "face", "faces", "x0", "y0", "x1", "y1", "detection",
        "mood", "mood_prob", "mood:calm", "mood:wild", "mood:odd",
        "shade", "shade_prob", "shade:dark", "shade:light",
        "turn", "time", "reason",
    ]
    # fmt: on


def test_a_picture_without_a_face_has_a_row():
    (row,) = rows(0)
    assert row["status"] == "no_face" and row["faces"] == 0 and row["face"] is None
    assert row["mood"] is None and list(row) == list(columns(TASKS))


def test_an_unreadable_file_has_a_row_with_the_reason():
    (row,) = to_rows(ImageResult(Sample(InputFile("a.jpg"), reason="empty file")), TASKS)
    assert (row["path"], row["status"], row["reason"]) == ("a.jpg", "unreadable", "empty file")
    assert row["faces"] is None


def test_each_face_has_a_row_that_knows_how_many_there_are():
    found = rows(3)
    assert [(row["face"], row["faces"], row["status"]) for row in found] == [
        (0, 3, "ok"),
        (1, 3, "ok"),
        (2, 3, "ok"),
    ]
    assert (found[1]["x0"], found[1]["y0"], found[1]["x1"], found[1]["y1"]) == (58, 20, 98, 60)
    assert found[0]["mood_prob"] == max(found[0][f"mood:{name}"] for name in MOOD.classes)


def test_a_face_that_is_too_small_keeps_its_place_but_has_no_answer():
    (row,) = rows(1, min_face=50)
    assert row["status"] == "too_small" and row["x0"] == 10 and row["mood"] is None
    assert row["mood_prob"] is None and row["mood:calm"] is None


def test_a_rejected_face_keeps_its_place_and_its_answers():
    (face,) = rows(1)
    other = next(name for name in MOOD.classes if name != face["mood"])
    (row,) = rows(1, filter={"mood": other})
    assert row == face | {"status": "rejected"}


def test_an_unsure_answer_is_empty_beside_its_probabilities():
    (row,) = rows(1, min_confidence=1.0)
    assert row["status"] == "ok" and row["mood"] is None and row["mood_prob"] > 0.3


def test_two_tasks_must_not_share_a_column():
    with pytest.raises(ValueError, match="rename that task"):
        columns([MOOD, Task("mood_prob", ("a", "b"))])
