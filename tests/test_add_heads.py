"""A head is added to a model: the old ones stay, or it is told what they lost."""

import json
from dataclasses import replace

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from conftest import interrupt, only_scores, save_toy, shaded, toy_network

from faceattr import cli
from faceattr.data.dataset import LabeledDataset
from faceattr.evaluation.report import write_report
from faceattr.images.crop import CropRule
from faceattr.model import file as model_file
from faceattr.model.file import Description
from faceattr.tasks import Task
from faceattr.training import network as network_module
from faceattr.training.config import Network
from faceattr.training.new_heads import ExistingHeads, NewHeads, compare_heads

SHADE = Task("shade", ("light", "dark"))  # not the order of the alphabet
HUE = Task("hue", ("blue", "green", "red"))
OPEN = ["--unfreeze-from", "finetune=block4_conv1"]  # the toy network has no block 5
CROPS = np.random.default_rng(3).integers(0, 255, (40, 48, 48, 3)).astype("uint8")


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """The toy network in place of VGG16; what `Network` does with it is real."""

    def build(tasks, dtype="float32", seed=0, **architecture):
        keras.utils.set_random_seed(seed)
        return toy_network(tasks, dtype)

    monkeypatch.setattr(network_module, "build", build)
    monkeypatch.setattr("faceattr.training.package.write_report", only_scores)


@pytest.fixture(params=[True, False], ids=["half", "float32"])
def old(tmp_path, request):
    """A model file of shade and hue, its weights stored in half precision or in full."""
    return save(tmp_path, half=request.param)


def save(folder, half=True):
    keras.utils.set_random_seed(7)
    model = toy_network((SHADE, HUE))
    for layer in model.layers:
        shapes = [weights.shape for weights in layer.get_weights()]
        layer.set_weights([np.random.default_rng(1).normal(0, 0.3, shape) for shape in shapes])
    scores = {
        "shade": {"split": "val", "accuracy": 0.8},
        "by_size": {"24": {"shade": 0.7}, "48": {"shade": 0.8}},
    }
    about = Description(
        (SHADE, HUE), CropRule(48), {"pooling": "max"}, scores=scores, licence="not for trade"
    )
    model_file.save(model, about, folder / "old.keras", half=half)
    return folder / "old.keras"


@pytest.fixture
def data(tmp_path):
    """Class folders for a new head, and a manifest that knows an old one."""
    rows = []
    for i in range(60):
        name = "warm" if i % 3 else "cold"
        path = tmp_path / "feel" / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), shaded(60 + 60 * (i % 3), seed=i))
        rows.append({"path": f"feel/{name}/{i}.png", "shade": "light" if i % 3 else "dark"})
    pd.DataFrame(rows).to_csv(tmp_path / "shades.csv", index=False)
    return tmp_path


def add(data, *options, name="more.keras", weights="old.keras", epochs="frozen=1"):
    always = f"train --add feel={data / 'feel'} -o {data / name} --cache {data / 'cache'}".split()
    start = f"--weights {data / weights} --batch-size 8 --epochs {epochs}".split()
    return cli.main([*always, *start, *options])


def answers(path):
    return model_file.load(path)[0].predict_on_batch(CROPS)


def test_with_the_backbone_frozen_old_heads_answer_the_same_to_the_last_bit(old, data, capsys):
    assert add(data) == 0
    before, after = answers(old), answers(data / "more.keras")
    assert list(after) == ["shade", "hue", "feel"]
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    assert model_file.is_stored_in_half(data / "more.keras") == model_file.is_stored_in_half(old)
    assert "shade answers as before, to the last bit" in capsys.readouterr().out


def test_also_next_to_rows_with_labels_of_an_old_head(data):
    old = save(data)
    assert add(data, str(data / "shades.csv")) == 0
    np.testing.assert_array_equal(answers(old)["shade"], answers(data / "more.keras")["shade"])


def test_the_new_head_learns(data):
    save(data)
    assert (
        add(data, "--epochs", "frozen=6", "--learning-rate", "frozen=0.05", "--augment", "none")
        == 0
    )
    assert model_file.describe(data / "more.keras").scores["feel"]["accuracy"] > 0.8


def test_the_file_keeps_what_was_known_of_the_old_heads(data, monkeypatch):
    save(data)
    monkeypatch.setattr("faceattr.training.train.fit", lambda *given, **how: None)
    add(data)
    about = model_file.describe(data / "more.keras")
    assert about.tasks == (SHADE, HUE, Task("feel", ("cold", "warm")))
    assert about.licence == "not for trade"
    assert about.scores["shade"] == {"split": "val", "accuracy": 0.8}
    assert about.scores["feel"]["n"] == 12
    assert about.scores["by_size"]["24"].keys() == {"shade", "feel"}
    assert about.provenance["added_to"]["heads"] == ["shade", "hue"]


def test_one_source_may_stand_without_a_list():
    assert NewHeads("glasses=x.csv", "y.csv") == NewHeads(("glasses=x.csv",), ("y.csv",))


UNEVEN = {"light": 0.8, "dark": 0.2}


def with_prior(old):
    about = model_file.describe(old)
    made = {"priors": {"shade": UNEVEN}, "class_shares": {"shade": {"uniform": [0.5, 0.5]}}}
    model_file.describe_anew(old, replace(about, provenance=made))
    return old


@pytest.mark.parametrize(
    ("changed", "labels", "options", "prior"),
    [
        ("", True, [], UNEVEN),
        ("shade", False, [], UNEVEN),
        ("shade", True, [], None),
        ("shade", False, ["--teacher", "old.keras", "--dtype", "float32"], None),
        ("shade", False, ["--teacher", "hue.keras", "--dtype", "float32"], UNEVEN),
        ("shade", True, ["--prior", "shade=uniform"], "uniform"),
    ],
)
def test_an_old_head_that_learns_again_without_a_prior_has_none(
    data, monkeypatch, capsys, changed, labels, options, prior
):
    def fit(model, *given, **how):
        for name in filter(None, [changed]):
            layer = model.get_layer(name)
            layer.set_weights([weights + 1 for weights in layer.get_weights()])

    with_prior(save(data))
    save_toy(data / "hue.keras", (HUE,), CropRule(48))
    monkeypatch.chdir(data)
    monkeypatch.setattr("faceattr.training.train.fit", fit)
    assert add(data, *(["shades.csv"] if labels else []), *options) == 0
    about = model_file.describe("more.keras").provenance
    assert about.get("priors", {}).get("shade") == prior
    assert ("shade" in about.get("class_shares", {})) == (prior is not None)
    said = "note: shade learnt again without --prior" in capsys.readouterr().out
    assert said == (prior is None)


def test_an_old_head_that_learns_with_a_prior_is_held_to_even_answers(data):
    old = ExistingHeads.of(Network(weights=str(with_prior(save(data)))))
    unknown = {"shade": np.zeros((40, 2), "float32")}
    rows = LabeledDataset(CROPS, np.arange(40), unknown, [None] * 40)
    plain = old.soft_labelled(rows).targets["shade"]
    shares = {"shade": np.log(np.full((40, 2), 0.5, "float32"))}
    even = old.soft_labelled(replace(rows, log_priors=shares)).targets["shade"]
    expected = plain / [0.8, 0.2]
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(even, expected, rtol=1e-4)


@pytest.mark.slow
def test_fine_tuning_tells_what_the_old_heads_lost_and_drops_their_old_scores(
    data, capsys, monkeypatch
):
    save(data)
    monkeypatch.setattr("faceattr.training.package.write_report", write_report)
    epochs = ["--epochs", "frozen=1,finetune=2", "--learning-rate", "finetune=0.01", *OPEN]
    epochs += ["--unfreeze-from", "finetune=block4_conv1"]
    assert (
        add(data, *epochs, "--patience", "finetune=9", "--evaluate-on", str(data / "shades.csv"))
        == 0
    )
    changed = json.loads((data / "more.training/forgetting.json").read_text())
    assert changed["shade"]["n"] == 60
    assert changed["hue"]["n"] == 0
    assert changed["shade"]["largest"] > 0
    printed = capsys.readouterr().out
    for told in ("old head", "shade: accuracy", "hue: nobody gave labels to judge it by"):
        assert told in printed
    assert "shade" not in model_file.describe(data / "more.keras").scores
    assert "shade: accuracy" in (data / "more.training/report.html").read_text()


@pytest.mark.slow
def test_keeping_holds_the_old_heads_nearer_to_what_they_said(data):
    before = answers(save(data))
    epochs = ["--epochs", "frozen=1,finetune=4", "--learning-rate", "finetune=0.01", *OPEN]
    epochs += ["--unfreeze-from", "finetune=block4_conv1"]
    always = ["--patience", "finetune=9", "--augment", "none"]
    apart = {}
    for name, more in (("free.keras", []), ("kept.keras", ["--distill", "old"])):
        assert add(data, *epochs, *always, *more, name=name) == 0
        after = answers(data / name)
        apart[name] = np.abs(after["shade"] - before["shade"]).mean()
    assert 0 < apart["kept.keras"] < apart["free.keras"]


def test_a_kept_run_resumes(data, monkeypatch):
    save(data)
    with monkeypatch.context() as patch:
        patch.setattr("faceattr.training.train.package", interrupt)
        assert add(data, "--distill", "old") == 130
    assert add(data, "--distill", "old", "--resume") == 0


def test_the_whole_backbone_cannot_go_on_under_old_heads(old, data, capsys):
    assert add(data, "--norm", "batch", epochs="whole=1") == 2
    assert "the whole backbone go on learning, and old heads stay" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--add", "hue=shades.csv"], "has a head hue already"),
        (["mood=shades.csv"], "has no column mood"),
        (["other=feel"], "has no head other: give that data with --add"),
        (["--size", "64"], "crop stays CropRule(size=48"),
        (["--pooling", "avg"], "pooling stays max"),
        (["--backbone", "vgg16-slim"], "backbone stays vgg16. Received: vgg16-slim"),
        (["--sharing", "soft"], "sharing stays hard"),
        (["--feature-layer", "hue=block1_conv1"], "--feature-layer is for new ones. Received: hue"),
        (["--epochs", "frozen=0"], "Every phase has 0 epochs"),
        (["--resume", "--overwrite"], "choose one"),
        (["--weights", "imagenet"], "--weights is 'shipped' or a model file"),
        (["--add", "shades.csv"], "A head is added as TASK=PATH. Received: shades.csv"),
        (
            ["--learning-rate", "finetune=1"],
            "no phase finetune in this run. The phases are frozen.",
        ),
    ],
)
def test_what_would_spoil_the_old_heads_is_refused(data, refused, monkeypatch, options, message):
    save(data)
    if "hue=shades.csv" in options:
        text = (data / "shades.csv").read_text().replace("shade", "hue").replace("light", "red")
        (data / "shades.csv").write_text(text.replace("dark", "blue"))
    monkeypatch.chdir(data)
    assert message in refused(add(data, *options))


def test_keep_and_judge_go_with_a_head_to_add(data, refused, capsys):
    assert cli.main(["train", str(data / "shades.csv"), "-o", "m.keras", "--distill", "old"]) == 2
    assert "no head to add" in capsys.readouterr().err
    assert "nothing to learn from" in refused(cli.main(["train", "-o", "m.keras"]))
    with pytest.raises(ValueError, match="no head to add"):
        NewHeads(())


def test_changes_count_what_was_lost_and_won():
    from faceattr.data.dataset import LabeledDataset

    def said(*answers):
        return {"shade": np.eye(2, dtype="float32")[list(answers)]}

    rows = LabeledDataset(
        CROPS[:4], np.arange(4), {"shade": np.eye(2)[[0, 0, 1, 1]] * [[1], [1], [1], [0]]}
    )
    (found,) = compare_heads([SHADE], [rows], [said(0, 0, 0, 0)], [said(0, 1, 1, 1)])
    assert (found.n, found.lost, found.won, found.seen, found.same) == (3, 1, 1, 4, 0.25)
    assert found.before == found.after == pytest.approx(2 / 3)
    (nothing,) = compare_heads([SHADE], [], [], [])
    assert nothing.n == nothing.seen == 0
