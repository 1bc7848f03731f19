import cv2
import numpy as np
import pytest
from conftest import shaded
from PIL import Image

from faceattr.data.class_folders import age_group
from faceattr.data.manifest import merge_sources, strongest
from faceattr.data.sources import (
    names_of,
    read_for_model,
    read_labels,
    read_source,
    unite,
    without_folders,
)
from faceattr.images.load import as_paths
from faceattr.tasks import EXPRESSION, GENDER, KNOWN_TASKS, Task


def draw(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), shaded(128))


def labels(manifest, task):
    return [example.labels.get(task, "") for example in manifest.examples]


def write(path, text, pictures=()):
    draw(*(path.parent / picture for picture in pictures))
    path.write_text(text)
    return str(path)


def test_a_manifest_gives_every_column_of_class_names(tmp_path):
    text = "path,split,glasses,gender,age\na.png,train,yes,male,31\nb.png,val,no,,45\n"
    read = read_source(write(tmp_path / "m.csv", text, ["a.png", "b.png"]))
    assert read.tasks == ("glasses", "gender")
    assert labels(read, "gender") == ["male", ""]
    assert [example.split for example in read.examples] == ["train", "val"]
    assert "column age: numbers, not class names" in read.left_out


def test_one_source_alone_and_paths_are_taken_too(tmp_path):
    assert as_paths("mood=faces") == ["mood=faces"]
    assert as_paths(tmp_path) == as_paths([tmp_path]) == [str(tmp_path)]


@pytest.mark.parametrize(
    ("column", "why"),
    [("my mood", "its name cannot be a task's"), ("glasses", "numbers, not class")],
)
def test_why_no_column_is_taken_is_told(tmp_path, column, why):
    path = write(tmp_path / "m.csv", f"path,{column}\na.png,1\n", ["a.png"])
    with pytest.raises(
        ValueError, match=rf"has no column of class names.*\({column}: {why}.*TASK="
    ):
        read_source(path)


def test_numbers_are_classes_when_they_are_asked_for(tmp_path):
    path = write(tmp_path / "m.csv", "path,stars\na.png,1\nb.png,2\n", ["a.png", "b.png"])
    assert labels(read_source(f"stars={path}"), "stars") == ["1", "2"]


def test_a_source_takes_one_task_and_leaves_rows_without_it_out(tmp_path):
    text = "path,expression,gender\na.png,happy,male\nb.png,,female\n"
    path = write(tmp_path / "m.csv", text, ["a.png", "b.png"])
    read = read_source(f"expression={path}")
    assert read.tasks == ("expression",)
    assert len(read.examples) == 1
    assert read.left_out == {"no label for any task": 1}


def test_boxes_groups_and_votes_are_read(tmp_path):
    text = (
        "path,x0,y0,x1,y1,group,gender:male,gender:female\n"
        "a.png,1,2,11,12.5,ann,1,3\nb.png,,,,,,0,0\nc.png,,,,,,,2\n"
    )
    read = read_source(write(tmp_path / "m.csv", text, ["a.png", "b.png", "c.png"]))
    first, last = read.examples
    assert first.box == (1, 2, 11, 12.5)
    assert first.group == "ann"
    assert first.labels == {"gender": {"male": 1, "female": 3}}
    assert last.box is None
    assert last.labels == {"gender": {"female": 2}}


def test_a_folder_with_a_manifest_is_read_through_it(tmp_path):
    write(tmp_path / "manifest.csv", "path,gender\na.png,male\n", ["a.png"])
    assert labels(read_source(f"gender={tmp_path}"), "gender") == ["male"]


def test_a_folder_beside_the_splits_is_no_class(tmp_path):
    places = ["train/a", "train/b", "valid/a", "dev/b"]
    draw(*(tmp_path / place / "1.png" for place in places))
    with pytest.raises(ValueError, match=r"has splits \(train, valid\) and beside them dev"):
        read_source(f"mood={tmp_path}")


def tree(root, *paths):
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / path), shaded(100, number))
    return root


@pytest.mark.parametrize(
    ("paths", "task", "either", "other"),
    [
        (["all/cat/a.png", "all/dog/a.png"], "pet", "pet is all", "cat, dog"),
        (["1/cat/a.png", "1/dog/a.png", "2/cat/a.png", "2/dog/a.png"], "pet", "1, 2", "cat, dog"),
        (["all/happy/a.png", "all/sad/a.png"], "expression", "expression is all", "happy, sad"),
        (["data/train/cat/a.png", "data/val/cat/a.png"], "pet", "pet is data", "train, val"),
    ],
)
def test_a_class_tree_that_is_one_level_too_deep_is_refused_with_both_readings(
    tmp_path, paths, task, either, other
):
    with pytest.raises(ValueError, match="two ways") as refused:
        read_source(f"{task}={tree(tmp_path, *paths)}")
    assert either in str(refused.value) and f"or {other}, after" in str(refused.value)


@pytest.mark.parametrize(
    ("paths", "task", "classes"),
    [
        (["cat/a/1.png", "cat/b/1.png", "dog/c/1.png", "dog/d/1.png"], "pet", {"cat", "dog"}),
        (["cat/1.png", "cat/a/1.png", "dog/a/1.png"], "pet", {"cat", "dog"}),
        (["train/cat/a/1.png", "train/dog/a/1.png"], "pet", {"cat", "dog"}),
        (
            ["happy/ann/1.png", "happy/ben/1.png", "sad/ann/1.png", "sad/ben/1.png"],
            "expression",
            {"happy", "sad"},
        ),
    ],
)
def test_folders_in_class_folders_are_fine_where_they_cannot_be_classes(
    tmp_path, paths, task, classes
):
    source = read_source(f"{task}={tree(tmp_path, *paths)}")
    assert {example.labels[task] for example in source.examples} == classes


def test_class_folders_also_under_splits(tmp_path):
    for place in ("train/cute/a.png", "train/crying/b.png", "val/cute/c.jpg"):
        draw(tmp_path / place)
    read = read_source(f"mood={tmp_path}")
    assert read.tasks == ("mood",)
    assert sorted((e.split, e.labels["mood"]) for e in read.examples) == [
        ("train", "crying"),
        ("train", "cute"),
        ("val", "cute"),
    ]


def test_fer2013_s_own_csv(tmp_path):
    pixels = " ".join(str(i % 256) for i in range(48 * 48))
    rows = [f"0,{pixels},Training", f"6,{pixels},PublicTest", f"4,{pixels},PrivateTest"]
    text = "\n".join(["emotion,pixels,Usage", *rows])
    read = read_source(f"expression={write(tmp_path / 'fer2013.csv', text)}")
    assert labels(read, "expression") == ["angry", "neutral", "sad"]
    assert [example.split for example in read.examples] == ["train", "val", "test"]
    face = read.examples[0].pixels
    assert face.shape == (48, 48, 3)
    np.testing.assert_array_equal(face[0, :3, 0], [0, 1, 2])


def test_utkface_s_file_names(tmp_path):
    names = ["34_1_2_20170109150557335.jpg.chip.jpg", "3_0_0_20170109150557336.jpg", "holiday.jpg"]
    draw(*(tmp_path / name for name in names))
    gender = read_source(f"gender={tmp_path}")
    assert labels(gender, "gender") == ["female"]
    assert gender.left_out == {
        "gender is not read off faces under 6": 1,
        "not one of UTKFace's file names": 1,
    }
    ages = read_source(f"age_group={tmp_path}")
    assert sorted(labels(ages, "age_group")) == ["0-5", "30-39"]


@pytest.mark.parametrize(
    ("age", "group"), [(0, "0-5"), (5, "0-5"), (6, "6-12"), (69, "60-69"), (116, "70+")]
)
def test_age_groups_begin_where_their_names_say(age, group):
    assert age_group(age) == group


def test_sources_without_shared_labels_are_put_together(tmp_path):
    for i in range(5):
        draw(tmp_path / f"fer/happy/{i}.png", tmp_path / f"people/female/{i}.png")
    draw(tmp_path / "people/male/c.png")
    both = unite(
        read_labels([f"expression={tmp_path / 'fer'}", f"gender={tmp_path / 'people'}"])[0]
    )
    assert both.tasks == (EXPRESSION, GENDER)
    assert len(both.examples) == 11
    assert {next(iter(e.labels)) for e in both.only("val")} == {"expression", "gender"}


def test_rows_to_score_stay_as_they_are_and_follow_the_model_s_classes(tmp_path):
    draw(tmp_path / "cute/a.png")
    mood = Task("mood", ("laughing", "cute"))
    read = read_for_model([f"mood={tmp_path}"], {"mood": mood})
    assert read.tasks == (mood,)
    assert read.examples[0].split == ""


def test_hidden_and_foreign_things_do_not_count_and_links_are_followed(tmp_path):
    draw(tmp_path / "far/a.png", tmp_path / "root/cute/b.png", tmp_path / "root/.git/c.png")
    draw(tmp_path / "root/__MACOSX/._b.png")
    (tmp_path / "root/cute/notes.txt").write_text("hello")
    (tmp_path / "root/crying").symlink_to(tmp_path / "far")
    assert sorted(labels(read_source(f"mood={tmp_path / 'root'}"), "mood")) == ["crying", "cute"]


@pytest.mark.parametrize("name", ["Train", "training", "TRAIN"])
def test_usual_spellings_of_splits_are_understood(tmp_path, name):
    draw(tmp_path / name / "cute/a.png", tmp_path / "Validation/crying/b.png")
    read = read_source(f"mood={tmp_path}")
    assert sorted(example.split for example in read.examples) == ["train", "val"]


def test_odd_but_honest_csv_files_are_read(tmp_path):
    text = "\ufeff,path , gender,\r\n0, a.png, Woman,\r\n\r\n1,b.png,m,\r\n"
    read = read_source(write(tmp_path / "m.csv", text, ["a.png", "b.png"]))
    assert read.tasks == ("gender",)
    assert labels(read, "gender") == ["Woman", "m"]
    assert [example.origin for example in read.examples] == ["m.csv line 2", "m.csv line 4"]


def test_boxes_that_are_empty_are_no_boxes_of_width_and_height(tmp_path):
    Image.new("RGB", (80, 80)).save(tmp_path / "a.png")
    rows = "".join(f"a.png,0,0,0,0,male\na.png,{n},5,60,60,male\n" for n in range(6))
    (tmp_path / "m.csv").write_text(f"path,x0,y0,x1,y1,gender\n{rows}")
    assert len(read_source(str(tmp_path / "m.csv")).examples) == 12


def test_labels_are_spelled_as_classes_and_votes_stand_in_their_order(tmp_path):
    """So that a face is in the group whose class it counts as, whatever its data call it."""
    for name in "abcdef":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    text = "path,expression:sad,expression:anger\na.png,5,5\nb.png,3,2\n"
    (tmp_path / "votes.csv").write_text(text)
    (tmp_path / "names.csv").write_text(
        "path,expression\nc.png,anger\nc.png,angry\nd.png,sad\ne.png,sad\n"
    )
    read = unite(read_labels([str(tmp_path / "votes.csv"), str(tmp_path / "names.csv")])[0])
    labels = [strongest(example.labels["expression"]) for example in read.examples]
    assert labels == ["angry", "sad", "angry", "sad", "sad"]
    assert read.left_out == {"the same image once more": 1}
    two = "path,mood,tint\n" + "".join(f"{name}.png,calm,red\n" for name in "abcdef")
    (tmp_path / "two.csv").write_text(two)
    both = merge_sources(
        [read_source(f"{task}={tmp_path / 'two.csv'}") for task in ("mood", "tint")],
        {"mood": Task("mood", ("calm", "wild")), "tint": Task("tint", ("blue", "red"))},
    )
    assert both.left_out == {} and len(both.examples) == 6  # two tasks of one file are united


def test_columns_that_hold_no_classes_are_left_out_of_a_bare_manifest(tmp_path):
    pictures = [f"{i}.png" for i in range(30)]
    rows = [f"{name},male,remark {i},,x" for i, name in enumerate(pictures)]
    text = "\n".join(["path,gender,notes,later,hair colour", *rows])
    read = read_source(write(tmp_path / "m.csv", text, pictures))
    assert read.tasks == ("gender",)
    assert set(read.left_out) == {
        "column notes: texts, not class names",
        "column later: empty",
        "column hair colour: its name cannot be a task's",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,gender\na.png,male\n", "has no column 'path'"),
        ("path,split\na.png,train\n", "has no column age_group or expression or gender"),
        ("path,gender:male,gender:female\na.png,,\n", "single labelled image"),
        ("path,gender:male,gender:female\n", "single labelled image"),
        ("path,mood\na.png,good\n", "needs at least two classes"),
        ("path;gender\na.png;male\n", "by semicolons; expected commas"),
        (
            "path;x0;gender\na.png;174,7;male\n",
            r"by semicolons; expected commas. `pandas.read_csv\(",
        ),
        ("path\tgender\na.png\tmale\n", "by tabs; expected commas"),
        ("path,gender\na.png,male\nb.png,male,9,9\n", r"CSV file: Expected 2 fields.*saw 4$"),
        ("path,gender,gender\na.png,male,male\n", "two columns called gender"),
        ("path,gender\na.png,male,9,9\n", "not a readable CSV"),
        ("path,gender:male,gender:female\na.png,1,x\n", "line 2: votes are numbers"),
        ("path,gender:male,gender:female\na.png,inf,1\n", "line 2: votes are numbers"),
        ("emotion,pixels\n0,1 2 3\n", "line 2: expected an emotion of 0-6 and 2304"),
        ("path,gender\na.png,robot\n", r"m.csv line 2: 'robot' is not a class"),
        ("path,gender\nnone.png,male\n", r"1 images of 1 that do not exist.*line 2.*none.png"),
        ("path,x0,y0,x1,y1,gender\na.png,1,2,x,4,male\n", "line 2: a box is four numbers"),
        ("path,x0,y0,x1,y1,gender\na.png,0.1,0,0.9,1,male\n", "shares of the image, it seems"),
        (
            "path,x0,y0,x1,y1,gender\n" + "a.png,50,50,20,20,male\na.png,5,5,9,9,male\n" * 3,
            "6 boxes, of which 3 end .* are x, y, width and height",
        ),
        ("path,split,gender\na.png,dev,male\n", "line 2: a split is one of"),
        ("path,gender\na.png,male\na.png,female\n", "has two values for 'gender'"),
        ("", "not a readable CSV"),
    ],
)
def test_a_wrong_manifest_is_told_what_was_expected(tmp_path, text, message):
    path = write(tmp_path / "m.csv", text, ["a.png"])
    with pytest.raises((ValueError, OSError), match=message):
        read_for_model([path], KNOWN_TASKS) if "mood" not in text else merge_sources(
            [read_source(path)]
        )


def test_wrong_places_are_told_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is nothing at"):
        read_source(f"gender={tmp_path / 'nowhere'}")
    with pytest.raises(FileNotFoundError, match="There is nothing at"):
        read_source("gender=")
    with pytest.raises(ValueError, match="holds no images"):
        read_source(f"gender={tmp_path}")
    draw(tmp_path / "a.png")
    with pytest.raises(ValueError, match="no class folders"):
        read_source(f"gender={tmp_path}")
    with pytest.raises(ValueError, match="say what its labels are: TASK="):
        read_source(str(tmp_path))
    draw(tmp_path / "male/a.png")
    (tmp_path / "female").mkdir()
    with pytest.raises(ValueError, match="class folders without an image: female"):
        read_source(f"gender={tmp_path}")


# What is known besides the labels


def test_columns_that_are_no_task_travel_with_the_example(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), "uint8"))
    lines = "path,split,gender,age,ethnicity,mood:calm\na.png,val,male,31,asian,\n"
    (tmp_path / "people.csv").write_text(lines)
    (example,) = read_source(f"gender={tmp_path / 'people.csv'}").examples
    assert example.metadata == {"age": "31", "ethnicity": "asian"}


def test_utkface_file_names_tell_what_reports_group_by(tmp_path):
    for name in ("31_1_2_20170112213500903.jpg", "4_0_9_20170112213500904.jpg"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), "uint8"))
    old, young = read_source(f"age_group={tmp_path}").examples
    assert old.metadata == {"gender": "female", "age": "31", "ethnicity": "asian"}
    assert young.metadata == {"age": "4"}


def test_a_face_in_two_sources_is_set_aside_in_both_or_in_neither(tmp_path):
    pictures = [f"{i}.png" for i in range(20)]
    for name in ("mood", "tint"):
        rows = [f"{picture},{'ab'[i % 2]}" for i, picture in enumerate(pictures)]
        write(tmp_path / f"{name}.csv", "\n".join([f"path,{name}", *rows]), pictures)
    both = unite(read_labels([str(tmp_path / "mood.csv"), str(tmp_path / "tint.csv")])[0])
    assert len(both.examples) == 20
    assert len(both.only("val")) == 4


def test_sources_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for place in ("fer/images/train", "utk/images/train", "other"):
        (tmp_path / place).mkdir(parents=True)
    specs = [f"mood={tmp_path}/fer/images/train", f"tint={tmp_path}/utk/images/train"]
    assert names_of(specs) == ["fer/images/train", "utk/images/train"]
    assert names_of([specs[0], f"tint={tmp_path}/fer/images/train"]) == ["train", "train"]
    assert names_of([specs[0], f"tint={tmp_path}/other"]) == ["train", "other"]


def test_a_source_is_told_without_where_it_lies(tmp_path):
    assert without_folders(f"gender={tmp_path}/people.csv") == "gender=people.csv"
    assert without_folders(f"{tmp_path}/fer2013/manifest.csv") == "fer2013/manifest.csv"
    assert without_folders(f"expression={tmp_path}/fer2013") == "expression=fer2013"
