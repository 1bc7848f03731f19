"""CelebA's and ExpW's own files, made small."""

import cv2
import numpy as np
import pytest

from faceattr.data.sources import read_source


def draw(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((8, 8, 3), "uint8"))


@pytest.fixture
def celeba(tmp_path):
    draw(*(tmp_path / f"img_align_celeba/00000{i}.jpg" for i in (1, 2, 3)))
    lines = ["3", "Eyeglasses Male", "000001.jpg -1  1", "000002.jpg  1 -1", "000003.jpg -1 -1"]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines))
    return tmp_path


def told(source, task):
    return [example.labels[task] for example in source.examples]


def test_celeba_tells_gender_and_any_attribute(celeba):
    assert told(read_source(f"gender={celeba}"), "gender") == ["male", "female", "female"]
    assert told(read_source(f"eyeglasses={celeba}"), "eyeglasses") == ["no", "yes", "no"]
    assert [e.split for e in read_source(f"gender={celeba}").examples] == ["", "", ""]


def test_celeba_s_own_splits_are_taken(celeba):
    text = "000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n"
    (celeba / "list_eval_partition.txt").write_text(text)
    splits = [example.split for example in read_source(f"gender={celeba}").examples]
    assert splits == ["train", "val", "test"]


def test_kaggle_s_csv_is_the_same(celeba):
    (celeba / "list_attr_celeba.txt").unlink()
    (celeba / "list_attr_celeba.csv").write_text("image_id,Male\n000001.jpg,1\n000002.jpg,-1\n")
    assert told(read_source(f"gender={celeba}"), "gender") == ["male", "female"]


def test_expw_tells_expressions_with_boxes(tmp_path):
    draw(tmp_path / "origin/angry_dog_1.jpg")
    line = "angry_dog_1.jpg 0 20 10 110 120 53.5 3\nangry_dog_1.jpg 1 2 3 4 5 9.5 6\n"
    (tmp_path / "label.lst").write_text(line)
    read = read_source(f"expression={tmp_path}")
    assert told(read, "expression") == ["happy", "neutral"]
    assert read.examples[0].box == (10, 20, 110, 120)
    assert {example.group for example in read.examples} == {"angry_dog_1.jpg"}


def test_what_is_not_there_is_told(celeba, tmp_path):
    with pytest.raises(ValueError, match=r"no 'mood'. Expected gender, or one of: eyeglasses"):
        read_source(f"mood={celeba}")
    (celeba / "img_align_celeba/000001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"no image 000001.jpg"):
        read_source(f"gender={celeba}")
    other = tmp_path / "expw"
    other.mkdir()
    (other / "label.lst").write_text("a.jpg 1 2\n")
    with pytest.raises(ValueError, match="expected rows of name face top"):
        read_source(f"expression={other}")
    with pytest.raises(ValueError, match="expression and nothing else"):
        read_source(f"gender={other}")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list_attr_celeba.txt", "0\nMale\n", "it names no image"),
        ("list_attr_celeba.csv", "image_id,Male\n", "it names no image"),
        ("list_attr_celeba.csv", "", "is not a list of labels"),
        ("list_eval_partition.txt", "000001.jpg 7\n", "whole numbers from 0 to 2. Received: 7"),
        ("list_eval_partition.txt", "000001.jpg x\n", "whole numbers from 0 to 2. Received: x"),
    ],
)
def test_a_damaged_list_of_celeba_is_one_sentence(celeba, name, text, message):
    if name.endswith(".csv"):
        (celeba / "list_attr_celeba.txt").unlink()
    (celeba / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        read_source(f"gender={celeba}")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "a.jpg 0 20 10 110 120 53.5 happy",
            "labels are .* 0 to 6. Received: happy",
        ),
        ("a.jpg 0 20 10 110 120 53.5 7", "labels are .* 0 to 6. Received: 7"),
        ("a.jpg 0 20 ten 110 120 53.5 3", "could not convert string to float: 'ten'"),
    ],
)
def test_a_damaged_list_of_expw_is_one_sentence(tmp_path, row, message):
    draw(tmp_path / "origin/a.jpg")
    (tmp_path / "label.lst").write_text(f"{row}\n")
    with pytest.raises(ValueError, match=f"label.lst: .*{message}"):
        read_source(f"expression={tmp_path}")
