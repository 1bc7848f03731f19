"""Heads of a model file shown, removed and renamed."""

import numpy as np
import pytest
from conftest import SHADE, TINT, save_toy

from faceattr import cli
from faceattr.images.crop import CropRule
from faceattr.model import file as model_file
from faceattr.model.build import build
from faceattr.model.file import Description
from faceattr.tasks import Task
from faceattr.training.heads import edit_heads

CROPS = np.random.default_rng(3).integers(0, 255, (9, 48, 48, 3)).astype("uint8")


@pytest.fixture(params=[True, False], ids=["half", "float32"])
def path(tmp_path, request):
    """A model of shade and tint with scores."""
    scores = {
        name: {"task": name, "accuracy": 0.9, "recall": dict.fromkeys(classes, 0.5)}
        for name, classes in ((SHADE.name, SHADE.classes), (TINT.name, TINT.classes))
    }
    scores["forgetting"] = {"tint": {"task": "tint", "n": 9}}
    scores["by_size"] = {"24": {"shade": 0.5, "tint": 0.9}, "48": {"shade": 0.9, "tint": 0.9}}
    about = {"network": {"feature_layers": {"tint": "block2_pool"}}, "scores": scores}
    return save_toy(tmp_path / "old.keras", (SHADE, TINT), seed=2, half=request.param, **about)


def answers(path):
    return model_file.load(path)[0].predict_on_batch(CROPS)


def test_the_heads_that_are_left_answer_as_before_to_the_last_bit(path):
    new = path.with_name("new.keras")
    about = edit_heads(path, new, remove=["shade"])
    assert model_file.describe(new).tasks == about.tasks == (TINT,)
    assert list(answers(new)) == ["tint"]
    np.testing.assert_array_equal(answers(new)["tint"], answers(path)["tint"])
    assert model_file.is_stored_in_half(new) == model_file.is_stored_in_half(path)
    assert about.scores["min_face"] == 24
    assert "shade" not in about.scores
    assert about.provenance["heads_edited"]["removed"] == ["shade"]


def test_heads_and_classes_are_renamed_everywhere_in_the_file(path):
    new = path.with_name("new.keras")
    classes = {"tint": {"red": "crimson"}}
    about = edit_heads(path, new, rename={"tint": "hue"}, rename_classes=classes)
    assert about.tasks == (SHADE, Task("hue", ("blue", "green", "crimson")))
    assert about.scores["hue"]["task"] == "hue"
    assert about.scores["forgetting"] == {"hue": {"task": "hue", "n": 9}}
    assert "crimson" in about.scores["hue"]["recall"]
    assert about.network["feature_layers"] == {"hue": "block2_pool"}
    before, after = answers(path), answers(new)
    np.testing.assert_array_equal(before["tint"], after["hue"])
    np.testing.assert_array_equal(before["shade"], after["shade"])


def test_counts_of_labels_follow_their_heads_also_those_of_the_model_added_to(tmp_path):
    def rows(**labels):
        return [{"split": "train", "rows": 9, "labels": labels, "sha256": ""}]

    origin = {"heads": ["shade"], "data": rows(shade=[2, 7], age=[4, 5]), "provenance": {}}
    about = {"data": tuple(rows(tint=[2, 3, 4])), "provenance": {"added_to": origin}}
    path = save_toy(tmp_path / "old.keras", (SHADE, TINT), **about)
    names = {"tint": "hue", "shade": "tint"}
    edited = edit_heads(path, tmp_path / "new.keras", rename=names)
    assert edited.data[0]["labels"] == {"hue": [2, 3, 4]}
    assert edited.provenance["added_to"]["heads"] == ["tint"]
    assert edited.provenance["added_to"]["data"] == rows(tint=[2, 7])
    left = edit_heads(path, tmp_path / "left.keras", remove="tint")
    assert left.data[0]["labels"] == {}


def test_two_heads_can_swap_their_names(path):
    edit_heads(path, path.with_name("new.keras"), rename={"tint": "shade", "shade": "tint"})
    swapped = answers(path.with_name("new.keras"))
    np.testing.assert_array_equal(swapped["shade"], answers(path)["tint"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--remove age", "no head age in the model. The heads are shade, tint"),
        ("--remove shade,tint", "at least one head"),
        ("--rename shade=tint", "called the same: tint, tint"),
        ("--rename shade=path", "name is made of plain letters"),
        ("--rename-class tint:pink=red", "has no class pink. Its classes are blue, green, red"),
        ("--rename-class tint:blue=red", "each named once"),
        ("--rename-class age:old=new", "no head age"),
        ("--remove shade --remove tint", "at least one head"),
        ("--rename tint=expression", "has the classes angry, disgust"),
    ],
)
def test_what_cannot_be_is_one_sentence(path, refused, options, message):
    new = path.with_name("new.keras")
    assert message in refused(cli.main(["heads", str(path), "-o", str(new), *options.split()]))
    assert not new.exists()


def test_the_command_shows_heads_and_writes_only_to_a_file_of_its_own(path, refused, capsys):
    assert cli.main(["heads", str(path)]) == 0
    shown, engines = capsys.readouterr()
    assert shown == "shade: dark, light\ntint: blue, green, red\n"
    assert engines.startswith("answered by keras") and f"export {path} --embed" in engines
    assert "give -o MODEL" in refused(cli.main(["heads", str(path), "--remove", "shade"]))
    assert cli.main(["heads", str(path), "--remove", "shade", "-o", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_options_that_are_typed_again_add_up(path):
    new = path.with_name("new.keras")
    typed = ["--rename", "tint=colour", "--rename", "shade=light", "--rename", "tint=hue"]
    assert cli.main(["heads", str(path), "-o", str(new), *typed]) == 0
    assert {task.name for task in model_file.describe(new).tasks} == {"hue", "light"}


def test_one_head_may_be_named_without_a_list(path):
    about = edit_heads(path, path.with_name("new.keras"), remove="shade")
    assert [task.name for task in about.tasks] == ["tint"]


def test_spaces_about_a_name_are_no_part_of_it(path):
    new = path.with_name("new.keras")
    typed = ["--remove", " shade", "--rename", "tint = hue", "--rename-class", " tint:red= crimson"]
    assert cli.main(["heads", str(path), "-o", str(new), *typed]) == 0
    assert model_file.describe(new).tasks == (Task("hue", ("blue", "green", "crimson")),)


def test_a_renamed_task_keeps_the_backbone_that_it_has_for_itself(tmp_path):
    how = {"backbone": "vgg16-slim", "sharing": "soft", "feature_layers": {"tint": "block2_pool"}}
    about = Description((SHADE, TINT), CropRule(48), network=how)
    old = build((SHADE, TINT), weights=None, **how)
    model_file.save(old, about, tmp_path / "own.keras")
    edited = edit_heads(tmp_path / "own.keras", tmp_path / "new.keras", rename={"tint": "hue"})
    renamed = model_file.load(tmp_path / "new.keras")[0]
    expected = build(edited.tasks, weights=None, **edited.network)
    assert [layer.name for layer in renamed.layers] == [layer.name for layer in expected.layers]
