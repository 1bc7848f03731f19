"""What `faceattr evaluate -o` and every training write down."""

import csv
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import save_classes, shaded
from use_toys import OnEach

import faceattr
from faceattr import cli
from faceattr.data.dataset import LabeledDataset
from faceattr.data.manifest import Example
from faceattr.data.near_duplicates import (
    IN_TRAIN,
    NEAR_DUPLICATE,
    NOT_IN_TRAIN,
    mark_near_duplicates,
)
from faceattr.evaluation import plots
from faceattr.evaluation.calibration import unseen
from faceattr.evaluation.groups import near_duplicate_groups, score_groups
from faceattr.evaluation.metrics import ClassScore
from faceattr.evaluation.report import Evaluation, _few_rows, write_report
from faceattr.files import write_json
from faceattr.images.crop import CropRule
from faceattr.model import file as model_file
from faceattr.model.file import Description
from faceattr.tasks import Task

NASTY = '<script>alert("x")</script> & $a$ | b'
MOOD = Task("mood", ("calm", NASTY))
TINT = Task("tint", ("blue", "red", "green"))


@pytest.fixture(scope="module")
def findings():
    """Sixty rows of two tasks; a class of two rows, one without any, texts that bite."""
    generator = np.random.default_rng(0)
    crops = generator.integers(0, 256, (60, 32, 32, 3), dtype="uint8")
    mood = np.eye(2)[[0] * 58 + [1] * 2]
    tint = np.eye(3)[[0, 1] * 30] * (np.arange(60) < 50)[:, None]
    said = {
        "mood": generator.dirichlet([4, 1], 60).astype("float32"),
        "tint": generator.dirichlet([1, 1, 1], 60).astype("float32"),
    }
    examples = [
        Example(Path(f"{i} <b>.png"), metadata={"hat": "<i>yes</i>" if i % 2 else "no"})
        for i in range(60)
    ]
    rows = LabeledDataset(crops, np.arange(60)[::-1], {"mood": mood, "tint": tint}, examples)
    data = ({"split": "train", "rows": 300, "sha256": "abc123"},)
    made = {"by": "faceattr 9", "settings": {"batch_size": 64}, "sources": ["mood=<x>"]}
    sizes = {"by_size": {"16": {"mood": 0.5}, "32": {"mood": 0.75, "tint": 0.5}}, "min_face": 32}
    tuned = {"mood": {"calibrated": {"temperature": 1.25, "held_out_error": None}}}
    known = {"network": {"backbone": "vgg16-slim"}, "scores": sizes | tuned, "licence": "mine"}
    about = Description((MOOD, TINT), CropRule(32), data=data, provenance=made, **known)
    groups = score_groups(about.tasks, rows, said, ["hat", "mood"])
    return Evaluation("m.keras", about, "val", ("mood=x",), rows, said, groups, ("Mind the gap.",))


@pytest.fixture(scope="module")
def folder(findings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(findings, folder)
    return folder


class Page(HTMLParser):
    """The tags of a page, what it would load, and its words."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.words, self._open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._open.append(tag)
        self.loads += [v for k, v in attributes if k in ("src", "href", "data") and v]

    def handle_endtag(self, tag):
        while tag in self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_everything_is_written(folder):
    assert {path.name for path in folder.iterdir()} == {
        *("report.html", "card.md", "scores.json", "mistakes.csv", "mistakes.png"),
        *("confusions.png", "calibration.png"),
    }


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_a_full_disk_is_told_with_the_folder_and_no_scores_say_that_all_is_there(
    findings, tmp_path, monkeypatch
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mistakes.csv").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"/full cannot be written: No space left on device\.$"):
        write_report(findings, tmp_path / "full")
    write_report(findings, tmp_path / "good")
    before = (tmp_path / "good/scores.json").read_text()

    def half(path, text, **how):
        with open(path, "w", **how) as file:
            file.write(text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match=r"scores.json cannot be written: No space.* is whole\.$"):
        write_json({"mood": 1}, tmp_path / "good/scores.json")
    assert (tmp_path / "good/scores.json").read_text() == before


def test_the_page_loads_nothing_and_no_text_becomes_markup(folder):
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert all(source.startswith(("data:image/", "#")) for source in page.loads)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "script" not in page.tags and "i>yes" not in text.replace("&lt;i&gt;yes", "")
    assert NASTY in page.text and "<i>yes</i>" in page.text


def test_the_page_says_what_the_figures_cannot(folder, findings):
    page = Page((folder / "report.html").read_text()).text
    assert "Mind the gap." in page
    assert "has only 2 rows; its recall of" in page
    assert "tint: there is no row of green" in page
    for told in ("abc123", "mine", "temperature 1.25", "By size of the face", "under 30 rows"):
        assert told in page
    low, high = findings.scores["mood"].interval
    assert f"95 % interval {low:.1%} to {high:.1%}" in page


def test_the_card_says_the_same_and_does_not_invent_limits(folder):
    card = (folder / "card.md").read_text()
    for told in (
        "# m.keras",
        "`vgg16-slim`",
        "**mine**",
        "`abc123`",
        "Mind the gap.",
        "has only 2 rows",
        "hat",
    ):
        assert told in card
    assert card.count("not stated._") == 3
    tables = [line for line in card.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    assert "a$ \\| b" in card and "<script" not in card


def test_mistakes_are_listed_surest_first_with_their_pictures(folder, findings):
    with open(folder / "mistakes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(map(len, findings.mistakes.values()))
    of_tint = [row for row in rows if row["task"] == "tint"]
    sure = [float(row["probability"]) for row in of_tint]
    assert sure == sorted(sure, reverse=True)
    first = findings.mistakes["tint"][0]
    assert of_tint[0]["path"] == f"{first.row} <b>.png"
    assert of_tint[0]["true"] == TINT.classes[first.row % 2] != of_tint[0]["answered"]


def test_scores_json_has_all_that_was_counted(folder):
    scores = json.loads((folder / "scores.json").read_text())
    assert [one["n"] for one in scores["mood"]["classes"]] == [58, 2]
    assert [one["by"] for one in scores["mood"]["groups"]] == ["hat", "mood"]
    assert scores["tint"]["min_confidence"][0]["coverage"] == 1.0
    assert sum(one["n"] for one in scores["tint"]["reliability"]) == 50


def evaluate(*given):
    return cli.main(["evaluate", *map(str, given)])


@pytest.fixture
def people(tmp_path):
    """A manifest of grey pictures: the first val picture is the first train picture again."""
    lines = ["path,split,gender,hat"]
    for i in range(12):
        picture = shaded(40 + 10 * (i % 6 if i in (0, 6) else i), seed=i % 6)
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture)
        split, gender, hat = "val" if i < 6 else "train", ("male", "female")[i % 2], "yn"[i % 3 > 0]
        lines.append(f"{i}.png,{split},{gender},{hat}")
    (tmp_path / "people.csv").write_text("\n".join(lines))
    return tmp_path / "people.csv"


def test_fer2013_s_own_test_split_is_scored_from_its_csv(toy_model_path, tmp_path, capsys):
    splits = ["Training"] * 3 + ["PublicTest"] * 4 + ["PrivateTest"] * 5
    faces = np.random.default_rng(0).integers(0, 256, (len(splits), 48 * 48))
    rows = [
        f"{number % 7},{' '.join(map(str, face))},{split}"
        for number, (face, split) in enumerate(zip(faces, splits, strict=True))
    ]
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    out = ["--cache", tmp_path / "cache", "-o", tmp_path / "out"]
    given = [toy_model_path, f"expression={tmp_path}/fer2013.csv", "--split", "test", *out]
    assert evaluate(*given, "--by", "twin") == 0
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert about["split"] == "test"
    assert json.loads((tmp_path / "out/scores.json").read_text())["expression"]["n"] == 5


def test_one_name_may_stand_without_a_list(toy_model_path, people, tmp_path):
    seen, how = [], {"cache": tmp_path / "cache"}
    progress = OnEach(seen.append, Evaluation)
    faceattr.evaluate(toy_model_path, people, tasks="gender", by="hat", progress=progress, **how)
    assert [groups.by for groups in seen[0].groups] == ["hat"]
    with pytest.raises(ValueError, match=r"Priors are given by head.*Received: 'uniform'"):
        faceattr.evaluate(toy_model_path, people, priors="uniform", **how)


def test_a_report_that_is_there_is_replaced_as_a_whole_or_not_at_all(
    toy_model_path, people, tmp_path, capsys
):
    out = ["--cache", tmp_path / "cache", "-o", tmp_path / "out"]
    given = [toy_model_path, people, "--tasks", "gender", *out]
    assert evaluate(*given, "--robust") == 0
    card = tmp_path / "out/card.md"
    card.write_text(card.read_text() + "Who is in the images: colleagues\n")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert evaluate(*given) == 2
    assert "card.md exists already: choose another name, or --overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert evaluate(*given, "--overwrite") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == before.keys() - {
        "robustness.json"
    }


def test_rows_that_chose_the_model_or_that_a_model_labelled_are_told(
    toy_model_path, people, tmp_path, capsys
):
    given = [people, "--tasks", "gender", "--cache", tmp_path / "cache"]
    model, about = model_file.load(toy_model_path)
    made = {"sources": [f"gender={people.name}"]}  # the same source, spelled otherwise
    model_file.save(model, replace(about, provenance=made), tmp_path / "taught.keras")
    for split, told in (("val", "chose its epoch"), ("train", "these faces taught it")):
        assert evaluate(tmp_path / "taught.keras", *given, "--split", split) == 0
        assert told in " ".join(capsys.readouterr().out.split())
    assert evaluate(toy_model_path, *given) == 0
    printed = capsys.readouterr().out
    assert "chose its epoch" not in printed and "no accuracy" not in printed
    lines = people.read_text().splitlines()
    people.write_text(
        "\n".join([f"{lines[0]},gender_prob", *(f"{line},0.9" for line in lines[1:])])
    )
    assert evaluate(toy_model_path, *given) == 0
    assert "agree with a model's answers is no accuracy" in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_card_has_fer2013_s_test_split_and_the_command_that_gives_it():
    card = (Path(__file__).parents[1] / "weights/README.md").read_text()
    assert "PrivateTest" in card
    assert "faceattr evaluate shipped expression=fer2013.csv --split test" in card


def test_evaluate_groups_by_columns_heads_and_near_duplicates(
    toy_model_path, people, tmp_path, capsys
):
    given = [toy_model_path, people, "--cache", tmp_path / "cache", "-o", tmp_path / "out"]
    assert evaluate(*given, "--by", "hat,expression,near_duplicate", "--tasks", "gender") == 0
    printed = capsys.readouterr().out
    for told in ("gender by hat: fewer than", "gender by expression (predicted)", "--min-confid"):
        assert told in printed
    assert "gender: male has only 3 rows; its recall of" in printed
    groups = json.loads((tmp_path / "out/scores.json").read_text())["gender"]["groups"]
    found = {group["name"]: group["n"] for group in groups[2]["groups"]}
    assert found["in train too"] >= 1 and sum(found.values()) == 6
    assert "scored: 6 faces of split val, not 6 of train" in printed
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert about["model"]["sha256"] == hashlib.sha256(toy_model_path.read_bytes()).hexdigest()
    assert (about["split"], about["flip"], about["rows"]["count"]) == ("val", False, 6)
    assert "report.html" in {path.name for path in (tmp_path / "out").iterdir()}


def test_near_duplicates_are_crossed_with_another_column(toy_model_path, people, tmp_path, capsys):
    given = [toy_model_path, people, "--cache", tmp_path / "cache", "--tasks", "gender"]
    assert evaluate(*given, "--by", "hat+near_duplicate") == 0
    assert "+ in train too" in capsys.readouterr().out


def test_an_empty_split_is_train_where_some_row_is_val(toy_model_path, people, tmp_path, capsys):
    people.write_text(people.read_text().replace(",train,", ",,"))
    given = [toy_model_path, people, "--tasks", "gender", "--cache", tmp_path / "cache"]
    assert evaluate(*given, "--by", "near_duplicate", "-o", tmp_path / "out") == 0
    assert "scored: 6 faces of split val, not 6 of train" in capsys.readouterr().out
    (groups,) = json.loads((tmp_path / "out/scores.json").read_text())["gender"]["groups"]
    found = {group["name"]: group["n"] for group in groups["groups"]}
    assert found["in train too"] >= 1 and sum(found.values()) == 6
    assert evaluate(*given, "--split", "train") == 0
    assert "scored: 6 faces of split train, not 6 of val" in capsys.readouterr().out


def test_flipping_and_votes_are_told_in_print_and_on_the_page(
    toy_model_path, people, tmp_path, capsys
):
    pd.read_csv(people).assign(**{"gender:male": 1}).to_csv(people, index=False)
    given = [toy_model_path, people, "--cache", tmp_path / "cache", "-o", tmp_path / "out"]
    assert evaluate(*given, "--flip", "--votes", "gender=1") == 0
    printed, page = capsys.readouterr().out, (tmp_path / "out/report.html").read_text()
    for told in ("a face and its mirror image", "gender: votes count 100% on 12 faces"):
        assert told in printed and told in page


def test_a_prior_changes_the_score_and_is_told_in_print_and_in_the_report(
    toy_model_path, people, tmp_path, capsys
):
    network, about = model_file.load(toy_model_path)
    known = {"uniform": [0.5, 0.5]}
    made = {"priors": {"gender": "uniform"}, "class_shares": {"gender": known}}
    model_file.save(network, replace(about, provenance=made), tmp_path / "prior.keras")
    given = [tmp_path / "prior.keras", people, "--tasks", "gender", "-o", tmp_path / "out"]
    prior = ["--prior", "gender:male=0.999999999,female=0.000000001"]
    assert evaluate(*given, "--cache", tmp_path / "cache", *prior) == 0
    assert "answers of gender are put to other class shares" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/about.json").read_text())["priors"]["gender"]["male"] > 0.9
    recall = json.loads((tmp_path / "out/scores.json").read_text())["gender"]["recall"]
    assert recall == {"male": 1, "female": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "shoe"], "nothing to group by 'shoe'"),
        (
            ["--tasks", "age_group"],
            "toy.keras. The tasks are expression, gender",
        ),
        (["--tasks", "age_group"], "no task age_group in "),
        (["--split", "test"], "no row of split 'test'"),
        (["-o", "{people}"], "people.csv is not a folder that takes files"),
        (["-o", "{people}/report"], "people.csv is not a folder that takes files"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(
    toy_model_path, people, tmp_path, capsys, options, message
):
    options = [option.format(people=people) for option in options]
    assert evaluate(toy_model_path, people, "--cache", tmp_path / "cache", *options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prior", "gender=uniform"], "'gender' was not trained with --prior"),
        (["--tta", "6"], "takes 1 to 5 views (--tta). Received: 6"),
    ],
)
def test_what_the_model_cannot_do_is_told_before_images_are_read(
    toy_model_path, people, monkeypatch, capsys, options, message
):
    monkeypatch.setattr("faceattr.evaluation.evaluate.read_for_model", None)
    assert evaluate(toy_model_path, people, *options) == 2
    assert message in capsys.readouterr().err


def test_a_task_that_was_not_asked_for_is_not_scored(toy_model_path, people, tmp_path, capsys):
    save_classes(tmp_path / "faces", happy=[shaded(90)], sad=[shaded(90)])
    given = [toy_model_path, people, f"expression={tmp_path / 'faces'}", "--split", "all"]
    given += ["--cache", tmp_path / "cache"]
    assert evaluate(*given, "--tasks", "gender", "-o", tmp_path / "out") == 0
    assert set(json.loads((tmp_path / "out/scores.json").read_text())) == {"gender"}
    assert evaluate(*given[:2], "--tasks", "expression") == 2
    assert "No label is of expression; the labels are of gender" in capsys.readouterr().err


def test_labels_of_another_task_are_refused(toy_model_path, people, capsys):
    assert evaluate(toy_model_path, f"hat={people}") == 2
    assert "the labels are of hat: they tell nothing" in capsys.readouterr().err


def test_a_training_s_report_parts_the_faces_that_are_in_train_too():
    crops = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype="uint8")
    examples = [Example(Path(f"{i}.png")) for i in range(4)]
    val = LabeledDataset(crops, np.arange(4), {"mood": np.eye(2)[[0, 0, 1, 1]]}, examples)
    answers = {"mood": np.eye(2)[[0, 0, 0, 1]]}
    marked = mark_near_duplicates(val, LabeledDataset(crops, np.array([1, 5]), {}))
    (groups,) = near_duplicate_groups((MOOD,), marked, answers)
    assert [(group.name, group.n) for group in groups.groups] == [
        ("in train too", 1),
        ("not in train", 3),
    ]
    alone = mark_near_duplicates(val, LabeledDataset(crops, np.array([4, 5]), {}))
    assert near_duplicate_groups((MOOD,), alone, answers) == ()


def test_rows_with_a_near_duplicate_in_train_neither_choose_nor_calibrate():
    count = 30
    examples = [
        Example(Path(f"{i}.png"), metadata={NEAR_DUPLICATE: IN_TRAIN if i < 5 else NOT_IN_TRAIN})
        for i in range(count)
    ]
    mood, tint = np.eye(2)[[0, 1] * 15], np.eye(2)[[0] * count]
    tint[8:] = 0  # three rows that are not in train: too few to go without the others
    rows = LabeledDataset(
        np.zeros((1, 4, 4, 3), "uint8"),
        np.zeros(count, int),
        {"mood": mood, "tint": tint},
        examples,
    )
    fresh = unseen(rows)
    assert [e.path.stem for e in fresh.examples] == [str(i) for i in range(count)]
    assert not fresh.targets["mood"][:5].any()
    assert fresh.targets["mood"][5:].any(axis=1).all()
    assert fresh.targets["tint"][:8].any(axis=1).all()
    alone = unseen(replace(rows, targets={"mood": mood}))
    assert len(alone) == 25


def test_a_confusion_matrix_can_be_read():
    """No title leaves the picture, and no number has the colour of its cell."""
    tasks = [Task("few", ("a", "b")), Task("many", tuple("abcdefghi"))]
    shares = {"few": np.array([[0.6, 0.4], [0.45, 0.55]]), "many": np.full((9, 9), 1 / 9)}
    scores = {name: SimpleNamespace(n=9, accuracy=0.5, shares=of) for name, of in shares.items()}
    figure = plots.confusions(scores, tasks)
    figure.savefig(BytesIO())
    for axis in figure.axes:
        assert axis.title.get_window_extent().y1 <= figure.bbox.y1
        for text in axis.texts:
            assert text.get_color() == ("white" if int(text.get_text()) > 50 else "black")


def test_classes_without_a_row_share_one_sentence():
    classes = [
        ClassScore(name, n, 0.5, (0.4, 0.6), 0.5, 0.5)
        for name, n in zip("abc", (0, 30, 0), strict=True)
    ]
    (said,) = _few_rows(SimpleNamespace(task="age", classes=classes))
    assert said.startswith("age: there is no row of a, c, so nothing is known of them; ")
