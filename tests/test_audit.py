"""`faceattr audit` on drawn faces whose faults are known, and on FER2013's known ones."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_near_duplicates import brighter, portraits
from use_toys import GreenSquares, draw

from faceattr import cli
from faceattr.auditing import audit as audit_module
from faceattr.auditing import checks, label_permutation
from faceattr.auditing.audit import audit
from faceattr.auditing.label_permutation import find_permutation
from faceattr.data.dataset import DatasetSummary
from faceattr.images.crop import CropRule
from faceattr.model import file as model_file
from faceattr.tasks import EXPRESSION, GENDER, Task

FER2013 = Path("/root/data/fer2013/manifest.csv")


@pytest.fixture
def data(tmp_path):
    """Twelve portraits in train and val; the faults are put in by `write`."""
    for number, face in enumerate(portraits(12)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), face)
    return tmp_path


def write(folder, **faults):
    """A manifest of the portraits: rows to add or to change by number."""
    rows = [
        {"path": f"{i}.png", "split": "val" if i > 8 else "train", "mood": "ab"[i % 2], "group": ""}
        for i in range(12)
    ]
    for name, change in faults.items():
        number = int(name.removeprefix("row"))
        rows += [{}] * (number + 1 - len(rows))
        rows[number] = {**rows[number], **change}
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return [str(folder)]


def found_in(folder, sources, **how):
    found = audit(sources, model=None, cache=folder / "cache", **how)
    return {key: n for key, n in found.totals.items() if key[0] != checks.FEW_ROWS}, found


def save(folder, name, face):
    cv2.imwrite(str(folder / name), face)
    return {"path": name}


def test_sound_faces_have_nothing_but_being_few(data):
    totals, found = found_in(data, write(data))
    assert not totals
    assert {one.kind for one in found.findings} == {checks.FEW_ROWS}
    assert found.summary.classes["mood"] == {"train": {"a": 5, "b": 4}, "val": {"a": 1, "b": 2}}
    assert not found.is_serious


def test_names_that_may_be_one_class_or_none_are_told(data):
    moods = {"row0": "A", "row1": "nan", "row2": "1", "row4": "1.0"}
    moods |= {"row6": "surprise", "row7": "suprise", "row8": "20-29", "row9": "20-39"}
    totals, found = found_in(data, write(data, **{row: {"mood": m} for row, m in moods.items()}))
    assert totals == {(checks.NAMES_ALIKE, "mood"): 3, (checks.NAMES_UNKNOWN, "mood"): 1}
    words = [one.words for one in found.findings if one.kind in checks.IN_WORDS]
    assert any("'A' and 'a'; `--map a=A`" in one for one in words)
    assert any("'1' and '1.0'" in one for one in words)
    assert any("'suprise' and 'surprise'" in one for one in words)
    assert any("'nan'; `--map nan=`" in one for one in words)


@pytest.mark.parametrize(("size", "told"), [((400, 600), True), ((400, 440), False)])
def test_images_that_are_no_cropped_faces_are_told(data, size, told):
    for file in data.glob("*.png"):
        Image.open(file).resize(size).save(file)
    totals, _ = found_in(data, write(data))
    assert ((checks.PHOTOGRAPHS, "images") in totals) == told


def test_copies_across_and_within_splits_are_told_apart(data):
    faces = portraits(12)
    exact = save(data, "12.png", faces[0]) | {"split": "val", "mood": "a"}
    near = save(data, "13.png", brighter(faces[2])) | {"split": "val", "mood": "a"}
    again = save(data, "14.png", faces[1]) | {"split": "train", "mood": "b"}
    totals, found = found_in(data, write(data, row12=exact, row13=near, row14=again))
    assert totals == {
        (checks.EXACT_ACROSS, "val, also train"): 1,
        (checks.NEAR_ACROSS, "val, also train"): 1,
        (checks.EXACT_WITHIN, "train"): 1,
    }
    assert found.is_serious
    pairs = {f.example.path.name: f.other.path.name for f in found.findings if f.other}
    assert pairs == {"12.png": "0.png", "13.png": "2.png", "14.png": "1.png"}


def test_labels_that_contradict_each_other_are_found(data):
    faces = portraits(12)
    same = save(data, "12.png", faces[0]) | {"split": "train", "mood": "b"}
    near = save(data, "13.png", brighter(faces[2])) | {"split": "train", "mood": "b"}
    unknown = save(data, "14.png", faces[3]) | {"split": "train", "mood": "", "other": "x"}
    known = {"other": "y"}
    totals, found = found_in(data, write(data, row0=known, row12=same, row13=near, row14=unknown))
    assert totals[checks.EXACT_OTHERWISE, "mood"] == 1
    assert totals[checks.NEAR_OTHERWISE, "mood"] == 1
    words = [one.words for one in found.findings if one.kind == checks.EXACT_OTHERWISE]
    assert words == ["a and b"]


def test_an_identity_on_both_sides_is_found(data):
    totals, _ = found_in(data, write(data, row0={"group": "ann"}, row10={"group": "ann"}))
    assert totals == {(checks.GROUP_ACROSS, "train and val"): 1}


def test_an_identity_on_both_sides_is_found_whichever_sources_it_came_from(data, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for number, face in enumerate(portraits(24)[12:]):
        cv2.imwrite(str(other / f"{number}.png"), face)
    sources = write(data, row0={"group": "1"}) + write(other, row10={"group": "1"})
    assert found_in(data, sources)[0] == {(checks.GROUP_ACROSS, "train and val"): 1}


def test_unreadable_images_are_named(data):
    (data / "3.png").write_text("no picture")
    totals, found = found_in(data, write(data))
    assert totals == {(checks.UNREADABLE, "images"): 1}
    assert found.findings[0].example.path.name == "3.png"


def test_images_without_a_face_are_named(tmp_path):
    for number in range(6):
        folder = tmp_path / "photos" / ("one" if number % 2 else "two")
        folder.mkdir(parents=True, exist_ok=True)
        image = draw(0 if number == 4 else 1, tint=number * 13)
        Image.fromarray(image).save(folder / f"{number}.png")
    totals, found = found_in(tmp_path, [f"mood={tmp_path / 'photos'}"], detector=GreenSquares())
    assert totals[checks.NO_FACE, "images"] == 1
    assert next(f for f in found.findings if f.kind == checks.NO_FACE).example.path.name == "4.png"


def test_without_splits_copies_are_told_as_unsplit(data):
    rows = [{"path": f"{i}.png", "mood": "ab"[i % 2]} for i in range(12)]
    rows.append(save(data, "12.png", portraits(1)[0]) | {"mood": "a"})
    pd.DataFrame(rows).to_csv(data / "manifest.csv", index=False)
    assert found_in(data, [str(data)])[0] == {(checks.EXACT_WITHIN, checks.UNSPLIT): 1}


def test_the_findings_are_written_and_printed(data, capsys):
    exact = save(data, "12.png", portraits(1)[0]) | {"split": "val", "mood": "b"}
    sources = write(data, row12=exact)
    options = ["--model", "none", "--cache", str(data / "cache"), "-o", str(data / "out")]
    assert cli.main(["audit", *sources, *options]) == 0
    assert cli.main(["audit", *sources, *options, "--strict"]) == 2
    printed, said = capsys.readouterr()
    assert "findings.csv exists already" in said and "--overwrite" in said
    assert cli.main(["audit", *sources, *options, "--strict", "--overwrite"]) == 1
    for told in ("exact copies in", "val, also train", "same pixels, two labels", "mood"):
        assert told in printed
    table = pd.read_csv(data / "out/findings.csv")
    row = table[table.finding == checks.EXACT_ACROSS].iloc[0]
    assert (Path(row.path).name, row.split, row.labels) == ("12.png", "val", "mood b")
    assert (Path(row.other_path).name, row.other_split, row.similarity) == ("0.png", "train", 1)
    about = json.loads((data / "out/audit.json").read_text())
    assert about["faces"] == 13
    assert about["serious"]
    sheets = {path.name for path in (data / "out").glob("*.png")}
    assert sheets == {"copies_across_splits.png", "contradictions.png"}


def test_sound_faces_pass_a_strict_audit(data):
    options = ["--model", "none", "--cache", str(data / "cache"), "--strict"]
    assert cli.main(["audit", *write(data), *options]) == 0


def test_names_that_were_exchanged_are_told():
    confusion = np.array([[5.0, 55, 0], [50, 10, 0], [2, 3, 55]])
    swap = find_permutation("mood", ("a", "b", "c"), confusion)
    assert swap.names == {"a": "b", "b": "a"}
    assert swap.as_labelled == pytest.approx(15 / 120)
    assert swap.exchanged == pytest.approx(105 / 120)


@pytest.mark.parametrize(
    "doubtful",
    [
        [[8, 4, 26, 22], [8, 4, 31, 17]],  # together with a and b it spoilt their test
        [[8, 4, 22, 26], [8, 4, 26, 22]],  # together with a and b it passed it
    ],
)
def test_each_exchange_is_judged_alone(doubtful):
    confusion = np.array([[3, 55, 1, 1], [55, 3, 1, 1], *doubtful], float)
    swap = find_permutation("mood", ("a", "b", "c", "d"), confusion)
    assert swap.names == {"a": "b", "b": "a"}
    assert (swap.as_labelled, swap.exchanged, swap.faces) == (6 / 120, 110 / 120, 120)


def test_several_exchanges_are_told_together():
    confusion = np.eye(5)[[1, 0, 3, 4, 2]] * 50 + 2
    swap = find_permutation("mood", tuple("abcde"), confusion)
    assert swap.names == {"a": "b", "b": "a", "c": "d", "d": "e", "e": "c"}
    assert swap.faces == 300 and swap.exchanged == 52 / 60


@pytest.mark.parametrize(
    "confusion",
    [
        [[50, 10], [20, 40]],  # a good model
        [[30, 30], [30, 30]],  # a model that knows nothing
        [[25, 35], [33, 27]],  # one that knows nothing and had bad luck
        [[0, 60], [5, 3]],  # too few of a class
        [[1, 9], [5, 5]],  # one class would be right no more often
        [[2, 8], [6, 4]],  # few: chance does as much
    ],
)
def test_names_are_not_suspected_without_reason(confusion):
    assert find_permutation("mood", ("a", "b"), np.array(confusion, float)) is None


def test_the_model_tells_exchanged_names_whatever_the_task_is_called(tmp_path, monkeypatch):
    task = Task("sex", GENDER.classes)
    rows = []
    for number in range(60):
        face = np.full((48, 48, 3), 40 + 150 * (number % 2), "uint8")
        face[:8, :8] = number
        rows.append(save(tmp_path, f"{number}.png", face) | {"sex": task.classes[1 - number % 2]})
    pd.DataFrame(rows).to_csv(tmp_path / "manifest.csv", index=False)
    description = model_file.Description((EXPRESSION, GENDER), CropRule())
    monkeypatch.setattr(model_file, "describe", lambda path: description)
    monkeypatch.setattr(model_file, "load", lambda path: (None, description))
    monkeypatch.setattr(label_permutation, "predict", bright_is_the_second_class)
    found = audit_module.audit([str(tmp_path)], model="any.keras", cache=tmp_path / "cache")
    (swapped,) = [one for one in found.findings if one.kind == checks.SWAPPED]
    assert swapped.where == "sex"
    assert "male looks like female" in swapped.words


def bright_is_the_second_class(model, rows):
    bright = rows.crops[rows.index].mean(axis=(1, 2, 3)) > 128
    return {"gender": np.eye(2)[bright.astype(int)]}


@pytest.mark.slow
@pytest.mark.skipif(not FER2013.is_file(), reason="FER2013 is not on this machine")
def test_the_known_faults_of_fer2013_are_found(tmp_path):
    """Its PrivateTest, in which ten of the 57 contradicting groups lie, is not in this copy."""
    found = audit([f"expression={FER2013}"], model=None, cache=tmp_path / "cache")
    across = found.totals
    assert across[checks.EXACT_ACROSS, "val, also train"] == 280
    assert across[checks.EXACT_OTHERWISE, "expression"] == 47
    # One of the 280 is blank: equal pixel for pixel, and without a correlation.
    assert across[checks.NEAR_ACROSS, "val, also train"] == 521 - 279


def test_find_faces_from_the_command_line(tmp_path, monkeypatch):
    for number in range(4):
        folder = tmp_path / "photos" / ("one" if number % 2 else "two")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(number, tint=number * 13)).save(folder / f"{number}.png")
    asked = []
    monkeypatch.setattr(
        "faceattr.detection.choose.choose_detector",
        lambda name, **how: asked.append(name) or GreenSquares(),
    )
    always = [f"mood={tmp_path / 'photos'}", "--model", "none", "--cache", str(tmp_path / "cache")]
    for options in ([], ["--find-faces"], ["--detector", "yunet"]):
        out = ["-o", str(tmp_path / "out"), "--overwrite"]
        assert cli.main(["audit", *always, *out, *options]) == 0
        about = json.loads((tmp_path / "out/audit.json").read_text())
        assert about["faces"] == (3 if options else 4)
    assert asked == ["auto", "yunet"]


def test_find_faces_in_some_sources_from_the_command_line(tmp_path, monkeypatch, capsys):
    for place in ("photos", "cut"):
        for number in range(4):
            folder = tmp_path / place / ("one" if number % 2 else "two")
            folder.mkdir(parents=True, exist_ok=True)
            face = draw(number, tint=number * 13 + 60 * (place == "cut"))
            Image.fromarray(face).save(folder / f"{number}.png")
    monkeypatch.setattr(
        "faceattr.detection.choose.choose_detector", lambda name, **how: GreenSquares()
    )
    out = tmp_path / "out"
    sources = [f"mood={tmp_path / 'photos'}", f"mood={tmp_path / 'cut'}"]
    always = [*sources, "--model", "none", "--cache", str(tmp_path / "cache"), "-o", str(out)]
    assert cli.main(["audit", *always, "--find-faces-in", "photos"]) == 0
    assert json.loads((out / "audit.json").read_text())["faces"] == 3 + 4
    assert cli.main(["audit", *always, "--overwrite", "--find-faces-in", "photo"]) == 2
    assert (
        "no source photo to find faces in. The sources are photos, cut" in capsys.readouterr().err
    )


def test_a_row_without_a_split_is_of_its_group_s_or_of_train_where_some_row_is_val(data):
    val, of_val, of_train = {"group": "ann"}, {"split": "", "group": "ann"}, {"split": ""}
    _, found = found_in(data, write(data, row11=val, row0=of_val, row1=of_train))
    splits = {one.path.name: one.split for one in found.rows.examples}
    assert (splits["11.png"], splits["0.png"], splits["1.png"]) == ("val", "val", "train")


def test_near_copies_with_two_labels_are_named_once_and_not_by_every_pair(tmp_path, monkeypatch):
    looked_at = []
    detail = checks.detail
    monkeypatch.setattr(checks, "detail", lambda *ends: looked_at.append(1) or detail(*ends))
    one, generator = portraits(1)[0], np.random.default_rng(0)
    noise = (generator.integers(-3, 4, one.shape) for _ in range(20))
    frames = [np.clip(one + some, 0, 255).astype("uint8") for some in noise]
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"{number}.png"), frame)
    moods = [{"path": f"{n}.png", "split": "train", "mood": "ab"[n % 2]} for n in range(20)]
    pd.DataFrame(moods).to_csv(tmp_path / "manifest.csv", index=False)
    totals, found = found_in(tmp_path, [str(tmp_path)])
    near = [one for one in found.findings if one.kind == checks.NEAR_OTHERWISE]
    assert {row for one in near for row in one.rows} == set(range(20))
    assert 10 <= totals[checks.NEAR_OTHERWISE, "mood"] < 20
    assert len(looked_at) < 40


def test_votes_for_a_class_are_counted_in_tenths():
    classes = {"mood": {"train": {"calm": 6.678372859954834}}}
    (few,) = checks.few_rows(DatasetSummary({"train": 9}, {"mood": {"train": 9}}, classes))
    assert few.words == "6.7 in train"
