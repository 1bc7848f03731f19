"""`faceattr train` and `faceattr evaluate` from the command line, on drawn pictures."""

import importlib.metadata
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from conftest import SHADE, interrupt, only_scores, save_classes, save_toy, shaded, toy_network

import faceattr
from faceattr import cli
from faceattr.cli.train import network_of
from faceattr.data.dataset import LabeledDataset
from faceattr.data.manifest import merge_sources
from faceattr.data.sources import read_labels
from faceattr.data.splits import assign_splits
from faceattr.evaluation.report import write_report
from faceattr.images.crop import CropRule
from faceattr.model import file as model_file
from faceattr.model.build import build
from faceattr.model.embedded import describe_copy
from faceattr.model.file import Description
from faceattr.progress import Bar
from faceattr.tasks import GENDER
from faceattr.training import config, devices, trainer
from faceattr.training import network as network_module
from faceattr.training.config import FINETUNE, Network
from faceattr.training.train import _doubts_of_val


@pytest.fixture
def data(tmp_path):
    """Two disjoint sets: class folders of light and dark, a manifest of blue, green and red."""
    dark, light = ([shaded(level, seed) for seed in range(10)] for level in (60, 190))
    save_classes(tmp_path / "shades", dark=dark, light=light)
    rows = []
    for i in range(30):
        picture = shaded(200, seed=i)
        picture[..., 2 - i % 3] //= 4  # cv2 writes BGR
        cv2.imwrite(str(tmp_path / f"tint{i}.png"), picture)
        rows.append({"path": f"tint{i}.png", "tint": ("red", "green", "blue")[i % 3], "age": i})
    pd.DataFrame(rows).to_csv(tmp_path / "tints.csv", index=False)
    return tmp_path


def built(network, tasks, seed=0):
    keras.utils.set_random_seed(seed)
    return toy_network(tasks)


@pytest.fixture
def toy(monkeypatch):
    """Train the toy network in place of VGG16."""
    # The toy's last block is its fourth.
    opened = replace(FINETUNE, unfreeze_from="block4_conv1")
    monkeypatch.setattr(config, "FINETUNE", opened)
    monkeypatch.setattr(network_module, "new_model", built)
    monkeypatch.setattr(network_module, "finished_model", lambda network, trained, tasks: trained)
    monkeypatch.setattr("faceattr.training.distill.in_bfloat16", lambda toy, *about: toy)
    monkeypatch.setattr("faceattr.training.package.write_report", only_scores)


@pytest.fixture
def untrained(toy, monkeypatch):
    """Runs without their epochs: what a test is about lies before or behind them."""
    monkeypatch.setattr("faceattr.training.train.fit", lambda *given, **how: None)


@pytest.fixture
def whole_report(toy, monkeypatch):
    monkeypatch.setattr("faceattr.training.package.write_report", write_report)


def train(data, *options, sources=None):
    sources = sources or [f"shade={data / 'shades'}", str(data / "tints.csv")]
    always = f"-o {data / 'my.keras'} --cache {data / 'cache'} --batch-size 8".split()
    return cli.main(["train", *sources, *always, *options])


def test_disjoint_sets_make_one_self_describing_model(data, whole_report, capsys):
    assert (
        train(data, "--epochs", "frozen=2,finetune=1", "--unfreeze-from", "finetune=block4_conv1")
        == 0
    )
    printed = capsys.readouterr().out
    left_out = "left out: 1 (column age: numbers, not class names)"
    written = f"  -> {data / 'my.keras'}\n  -> {data / 'my.training/report.html'}\n"
    assert printed.endswith(written)
    for told in ("50 faces: 40 train, 10 val", "shade", "blue", "frozen", "finetune", left_out):
        assert told in printed
    model, description = model_file.load(data / "my.keras")
    assert [task.name for task in description.tasks] == ["shade", "tint"]
    assert list(model.output) == ["shade", "tint"]
    assert description.scores["shade"]["n"] + description.scores["tint"]["n"] == 10
    assert description.data[0]["rows"] == 40
    assert description.provenance["settings"]["batch_size"] == 8
    made = {path.name for path in (data / "my.training").iterdir()}
    kept = {"log.csv", "settings.json", "scores.json"}
    pictures = {"confusions.png", "curves.png", "calibration.png", "mistakes.png"}
    assert made == kept | pictures | {"report.html", "card.md", "mistakes.csv"}


def test_evaluate_scores_a_file_and_writes_what_it_found(data, untrained, capsys):
    train(data, "--epochs", "frozen=1,finetune=0")
    capsys.readouterr()
    places = f"{data / 'my.keras'} {data / 'tints.csv'} --cache {data / 'cache'}".split()
    assert cli.main(["evaluate", *places, "-o", str(data / "report")]) == 0
    printed = capsys.readouterr().out
    assert "tint" in printed and printed.endswith(f"  -> {data / 'report/report.html'}\n")
    scores = json.loads((data / "report/scores.json").read_text())
    assert list(scores) == ["tint"]
    assert scores["tint"]["n"] == 30  # no row says of which split it is, so all are scored


def test_any_build_of_opencv_will_do(data, untrained, monkeypatch):
    def version(name, known=importlib.metadata.version):
        if name == "opencv-python":
            raise importlib.metadata.PackageNotFoundError(name)
        return "5.0" if name == "opencv-python-headless" else known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert train(data, "--epochs", "frozen=1,finetune=0") == 0
    made_with = model_file.describe(data / "my.keras").provenance["with"]
    assert made_with["opencv-python-headless"] == "5.0" and "opencv-python" not in made_with


def test_an_interrupted_run_says_how_to_go_on(data, toy, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("faceattr.training.train.fit", interrupt)
        assert train(data) == 130
    assert "--resume goes on" in capsys.readouterr().err
    assert train(data, "--epochs", "frozen=1,finetune=0", "--resume") == 0


@pytest.mark.makes_copies
def test_the_library_prints_nothing_and_returns_what_was_measured(data, toy, capsys):
    phases = (replace(config.FROZEN, epochs=1),)
    result = faceattr.train(
        f"shade={data / 'shades'}",
        data / "my.keras",
        settings=faceattr.Settings(phases, batch_size=8),
        cache=data / "cache",
    )
    assert capsys.readouterr().out == ""
    assert result.model == data / "my.keras"
    assert result.scores["shade"].n == 4 and set(result.half_precision) == {"shade"}
    assert "val faces of the training" in describe_copy(result.model).parity["crops"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--epochs", "scratch=1"],
            "no phase scratch in this run. The phases are frozen, finetune",
        ),
        (["--unfreeze-from", "finetune=block9"], "Received: 'block9'"),
        (["--loss-weights", "age=2"], "no task age to weigh"),
        (["--mix", "shade=1"], "given for every task"),
        (["--mix", "shade=1,age=2"], "no task or source age to mix"),
        (["--batch-size", "0"], "batch_size is a number from 1 on"),
        (["--label-smoothing", "2"], "label_smoothing is a number from 0 to below 1"),
        (["--mix", "0"], "above 0"),
        (["--size", "16"], "at least 32 pixels"),
        (["--epochs", "frozen=0,finetune=0"], "Every phase has 0 epochs"),
        (["--seed", "99999999999"], "seed is a number from 0 to below 4294967296"),
        (["--resume", "--overwrite"], "choose one"),
        (["-o", "."], "name ends in .keras"),
        (["--dropout", "1"], "from 0 to below 1"),
        (["--tasks", "shade, tnt"], "no column shade or tnt"),
        (["--weights", "missing.keras"], "no model file missing.keras"),
        (["--schedule", "alternating", "--combine", "log"], "nothing to combine"),
        (["--weights", "missing.h5"], "no weights file missing.h5"),
    ],
)
def test_wrong_options_are_one_sentence_and_exit_code_2(data, request, capsys, options, message):
    if "--weights" not in options:
        request.getfixturevalue("toy")
    assert train(data, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--learning-rate", "finetun=1e-5"], "Received: 'finetun'"),
        (["--mix", "shades=1"], "given for every task"),
        (["--mix", "shade=1"], "given for every task"),
        (["--prior", "tint=tintz"], "Received: tintz"),
    ],
)
def test_a_mistyped_name_is_told_before_any_image_is_read(
    data, toy, monkeypatch, refused, options, message
):
    monkeypatch.setattr("faceattr.training.train.unite", pytest.fail)
    assert message in refused(train(data, *options))


def test_a_class_without_a_training_row_stops_before_training(data, toy, refused):
    (data / "people").mkdir()
    rows = [{"path": f"../tint{i}.png", "gender": "male"} for i in range(6)]
    pd.DataFrame(rows).to_csv(data / "people/manifest.csv", index=False)
    assert "no training row of female" in refused(train(data, sources=[str(data / "people")]))
    others = [{"path": f"tint{i}.png", "gender": "female"} for i in range(6, 30)]
    pd.DataFrame(others).to_csv(data / "others.csv", index=False)
    both = [str(data / "people"), str(data / "others.csv")]
    weightless = train(data, "--source-weight", "others=0", sources=both)
    assert "no training row of female" in refused(weightless)


def test_nothing_that_is_there_is_overwritten_unless_asked(data, untrained, refused):
    (data / "my.keras").write_text("precious")
    assert "exists already" in refused(train(data))
    assert (data / "my.keras").read_text() == "precious"
    assert train(data, "--epochs", "frozen=1,finetune=0", "--overwrite") == 0
    assert "is finished" in refused(train(data, "--resume"))


def test_a_place_that_cannot_be_written_is_told_before_any_work(data, capsys):
    (data / "file").write_text("")
    code = cli.main(["train", str(data / "tints.csv"), "-o", str(data / "file/my.keras")])
    assert code == 2
    assert "file is not a folder that takes files" in capsys.readouterr().err


def test_training_starts_from_the_backbone_of_a_model_and_takes_over_its_equal_heads(tmp_path):
    keras.utils.set_random_seed(0)
    slim = {"backbone": "vgg16-slim"}
    source = build([GENDER], weights=None, **slim)
    head = source.get_layer("gender")
    head.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in head.get_weights()])
    path = tmp_path / "faces.keras"
    model_file.save(source, Description((GENDER,), CropRule(), slim), path)
    started = network_module.new_model(Network(str(path), dtype="float32", **slim), [GENDER])
    for name in ("block3_conv2", "gender"):
        np.testing.assert_allclose(
            started.get_layer(name).kernel, source.get_layer(name).kernel, rtol=1e-3, atol=1e-6
        )


def test_a_run_that_goes_on_sees_other_batches_than_the_one_before(data, toy, monkeypatch):
    """With the seed alone it would see the very crops again that the start knows by heart."""
    seeds = []

    class Spy(trainer.MaskedBatches):
        def __init__(self, *args, seed, **more):
            seeds.append(seed)
            super().__init__(*args, seed=seed, **more)

    monkeypatch.setattr(trainer, "MaskedBatches", Spy)
    short = ["--epochs", "frozen=1,finetune=0"]
    go_on = [*short, "--weights", str(data / "my.keras"), "-o"]
    assert train(data, *short) == 0
    assert train(data, *go_on, str(data / "second.keras")) == 0
    first, second = seeds
    assert first == (0, *network_module.seed_salt(Network())) != second
    assert second == (0, *network_module.seed_salt(Network(weights=str(data / "my.keras"))))


def test_what_is_left_open_is_as_the_model_file_has_it_that_a_run_starts_from(tmp_path):
    rule, network = CropRule(64, 0.3, align=False), {"backbone": "vgg16-slim", "pooling": "avg"}
    slim = build([GENDER], weights=None, backbone="vgg16-slim", pooling="avg")
    model_file.save(slim, Description((GENDER,), rule, network), tmp_path / "slim.keras")
    given = {"weights": str(tmp_path / "slim.keras")}
    resolved = network_module.resolved(network_of(dict(given)))
    assert (resolved.backbone, resolved.sharing, resolved.pooling) == ("vgg16-slim", "hard", "avg")
    assert resolved.crop == rule
    with pytest.raises(ValueError, match=r"has the backbone vgg16-slim.*With --weights none"):
        other = network_module.resolved(network_of({**given, "backbone": "vgg16"}))
        network_module.new_model(other, [GENDER])
    assert network_of({**given, "margin": 0.1}).crop == CropRule(64, 0.1, align=False)
    assert network_of({"weights": "none", "size": 32}).crop == CropRule(32)


@pytest.mark.slow
def test_a_whole_backbone_goes_on_learning_with_normalisation(data, tmp_path, capsys):
    slim = build([GENDER], weights=None, backbone="vgg16-slim")
    about = Description((GENDER,), CropRule(32), {"backbone": "vgg16-slim"})
    model_file.save(slim, about, tmp_path / "slim.keras")
    start = ["--weights", str(tmp_path / "slim.keras"), "--norm", "batch"]
    assert train(data, *start, "--epochs", "whole=2", "--batch-size", "8") == 0
    model, description = model_file.load(data / "my.keras")
    assert description.network["backbone"] == "vgg16-slim"
    assert not [layer.name for layer in model.layers if "norm" in layer.name]
    log = pd.read_csv(data / "my.training/log.csv")
    assert list(log["phase"]) == ["whole", "whole"]
    moved = np.abs(model.get_layer("block1_conv1").kernel - slim.get_layer("block1_conv1").kernel)
    assert moved.max() > 1e-3
    assert train(data, *start, "--epochs", "finetune=1", "--overwrite") == 2
    assert "no phase finetune in this run. The phases are whole." in capsys.readouterr().err


def test_half_precision_is_used_where_the_processor_has_it(tmp_path, monkeypatch):
    flags = tmp_path / "cpuinfo"
    monkeypatch.setattr(devices, "CPUINFO", flags)
    assert devices.fastest_dtype() == "float32"
    flags.write_text("flags: fpu avx2")
    assert devices.fastest_dtype() == "float32"
    flags.write_text("flags: fpu avx512_bf16")
    assert devices.fastest_dtype() == "mixed_bfloat16"


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
@pytest.mark.parametrize(
    ("gpus", "dtype"),
    [
        (["7.5"], "float32"),
        (["7.0"], "float32"),
        (["8.0"], "mixed_bfloat16"),
        (["12.1"], "mixed_bfloat16"),
        (["9.0", "7.5"], "float32"),
        ([None], "float32"),
    ],
)
def test_half_precision_is_used_where_every_gpu_has_it(backend, gpus, dtype, monkeypatch):
    monkeypatch.setattr(devices.keras.backend, "backend", lambda: backend)
    numbers = [tuple(map(int, gpu.split("."))) if gpu else () for gpu in gpus]
    if backend == "tensorflow":
        import tensorflow as tf

        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: numbers)
        monkeypatch.setattr(
            tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": gpu}
        )
    else:
        jax_gpus = [SimpleNamespace(platform="gpu", compute_capability=gpu or "") for gpu in gpus]
        cuda = SimpleNamespace(
            device_count=lambda: len(gpus), get_device_capability=numbers.__getitem__
        )
        fake = SimpleNamespace(devices=lambda: jax_gpus, cuda=cuda)
        monkeypatch.setitem(sys.modules, backend, fake)
    monkeypatch.setattr(devices.keras.distribution, "list_devices", lambda: ["gpu:0"])
    assert devices.fastest_dtype() == dtype


def test_a_run_goes_on_with_its_own_network_and_a_whole_checkpoint_alone(
    data, toy, monkeypatch, refused
):
    few = ["--epochs", "frozen=1,finetune=0"]
    with monkeypatch.context() as patch:
        patch.setattr("faceattr.training.train.package", interrupt)
        assert train(data, *few) == 130
    assert "another network" in refused(train(data, *few, "--resume", "--pooling", "avg"))
    checkpoint = data / "my.training/checkpoint.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    assert "is damaged (it is no archive of arrays)" in refused(train(data, *few, "--resume"))


def test_a_damaged_log_is_told_and_a_deleted_one_begins_anew(data, toy, monkeypatch, refused):
    few = ["--epochs", "frozen=1,finetune=0"]
    with monkeypatch.context() as patch:
        patch.setattr("faceattr.training.train.package", interrupt)
        train(data, *few)
    log = data / "my.training/log.csv"
    for text in ("epoch,phase\nx,frozen\n", "phase\nfrozen\n", 'phase,epoch\nfrozen,"1\n', ""):
        log.write_text(text)
        assert "log.csv is damaged (" in refused(train(data, *few, "--resume"))
    log.unlink()
    assert train(data, *few, "--resume") == 0


def test_validation_pictures_that_cannot_be_read_stop_before_training(data, toy, refused):
    for picture in (data / "shades").rglob("*.png"):
        split = "val" if picture.stem in ("0", "1") else "train"
        target = data / "split" / split / picture.parent.name / picture.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"no picture" if split == "val" else picture.read_bytes())
    assert "no usable validation row" in refused(train(data, sources=[f"shade={data / 'split'}"]))


def test_copies_are_told_and_sit_on_one_side(data, untrained, capsys):
    copy = data / "shades/dark/0.png"
    for name in ("dark/copy1.png", "dark/copy2.png", "dark/copy3.png", "light/copy4.png"):
        (data / "shades" / name).write_bytes(copy.read_bytes())
    assert train(data, "--epochs", "frozen=1,finetune=0") == 0
    printed = capsys.readouterr().out
    assert re.search(r"note: exact copies in one split: 4 \((train|val)\)", printed)
    assert "note: same pixels, two labels: 1 (shade)" in printed
    assert "in another split" not in printed


@pytest.mark.slow
def test_vgg16_itself_trains_from_nothing_to_a_plain_half_precision_file(data, capsys):
    assert train(data, "--weights", "none", "--epochs", "scratch=1", "--size", "32") == 0
    model, description = model_file.load(data / "my.keras")
    assert not [layer.name for layer in model.layers if "norm" in layer.name]
    assert description.network["backbone"] == "vgg16"
    assert 28e6 < (data / "my.keras").stat().st_size < 32e6
    own_backbone = ["--weights", str(data / "my.keras"), "--overwrite"]
    assert train(data, *own_backbone, "--epochs", "frozen=1,finetune=1") == 0


def test_balanced_classes_and_renamed_labels_are_told_in_the_report(data, whole_report, capsys):
    options = "--epochs frozen=1,finetune=0 --balance sampling --map tint:blue=cold"
    assert train(data, *options.split(), "--map", "red=warm") == 0
    assert "note: tint: blue (10) counts as cold" in capsys.readouterr().out
    page = (data / "my.training/report.html").read_text()
    for told in ("Rare classes were shown more often", "tint: red (10) counts as warm"):
        assert told in page
    made = model_file.describe(data / "my.keras").provenance
    assert made["settings"]["balance"] == "sampling"
    parts = model_file.describe(data / "my.keras").data
    assert sum(sum(part["labels"]["shade"]) for part in parts) == 20
    where = [str(data / "tints.csv"), "--cache", str(data / "cache")]
    assert cli.main(["evaluate", str(data / "my.keras"), *where]) == 2
    assert "'blue' is not a class" in capsys.readouterr().err
    renamed = ["--map", "blue=cold", "--map", "red=warm"]
    assert cli.main(["evaluate", str(data / "my.keras"), *where, *renamed]) == 0


def test_norms_are_measured_on_training_rows_alone(monkeypatch):
    measured = []
    monkeypatch.setattr(
        network_module, "measure_norms", lambda model, crops: measured.append(crops)
    )
    crops = np.arange(10, dtype="uint8")[:, None, None, None] * np.ones((1, 2, 2, 3), "uint8")
    train = LabeledDataset(crops, np.array([7, 2, 5]), {})
    network_module.measure_norm_statistics(Network(weights="shipped", norm=True), None, train)
    assert measured[0][:, 0, 0, 0].tolist() == [7, 2, 5]


def test_near_duplicates_of_val_leave_train_on_request(data, untrained, capsys):
    for i in range(3):  # faces of train again in val, saved otherwise
        picture = cv2.imread(str(data / f"tint{i}.png"))
        cv2.imwrite(str(data / f"again{i}.png"), picture[:, ::-1])
    rows = pd.read_csv(data / "tints.csv").assign(split="train")
    rows.loc[24:, "split"] = "val"
    again = [{"path": f"again{i}.png", "tint": rows.tint[i], "split": "val"} for i in range(3)]
    pd.concat([rows, pd.DataFrame(again)]).to_csv(data / "tints.csv", index=False)
    options = ["--tasks", "tint", "--epochs", "frozen=1,finetune=0", "--drop-near-duplicates"]
    assert train(data, *options, sources=[str(data / "tints.csv")]) == 0
    assert "left out: 3 (train rows that val or test repeats)" in capsys.readouterr().out


def test_priors_and_sources_that_are_not_there_are_told(data, toy, refused, capsys):
    assert train(data, "--prior", "tint=somewhere") == 2
    assert (
        "name of a source (shades, tints) or shares by class. Received: somewhere"
        in capsys.readouterr().err
    )
    assert "No training row of shades knows tint" in refused(train(data, "--prior", "tint=shades"))
    assert train(data, "--prior", "tint=uniform", "--balance", "weights") == 2
    assert "both make up for rare classes: choose one" in capsys.readouterr().err
    mix = ["--mix", "shades=1,tints=3", "--schedule", "alternating"]
    assert "its --mix is by task" in refused(train(data, *mix))
    assert "no task age to give a prior" in refused(train(data, "--prior", "age=uniform"))
    assert train(data, "--find-faces-in", "elsewhere") == 2
    assert "no source elsewhere to find faces in" in capsys.readouterr().err


def test_a_mix_by_source_with_priors_and_an_average_trains(data, toy, capsys):
    mix = ["--mix", "shades=1,tints=3", "--prior", "tint=uniform,shade=shades", "--ema", "0.9"]
    assert train(data, *mix, "--epochs", "frozen=1,finetune=1") == 0
    _, description = model_file.load(data / "my.keras")
    assert description.provenance["settings"]["priors"] == {"tint": "uniform", "shade": "shades"}
    assert description.provenance["settings"]["ema"] == 0.9


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 elsewhere")
def test_names_that_are_no_utf_8_cost_no_training(data, whole_report, capsys):
    """Of images and of class folders, in train, evaluate and audit."""
    folder = os.fsencode(data / "shades")
    os.rename(folder + b"/dark", folder + b"/d\xfcster")
    for name in os.listdir(folder + b"/d\xfcster"):
        os.rename(folder + b"/d\xfcster/" + name, folder + b"/d\xfcster/\xe9 " + name)
    with open(folder + b"/light/\xfc.png", "wb") as broken:
        broken.write(b"no")
    source = [f"shade={data / 'shades'}"]
    assert train(data, "--epochs", "frozen=1,finetune=0", sources=source) == 0
    assert r"unreadable image: " in (printed := capsys.readouterr().out) and r"\xfc.png" in printed
    assert r"d\xfcster" in (data / "my.training/card.md").read_text()
    with_cache = [*source, "--cache", str(data / "cache"), "-o"]
    assert cli.main(["evaluate", str(data / "my.keras"), *with_cache, str(data / "r")]) == 0
    assert cli.main(["audit", "--model", "none", *with_cache, str(data / "a")]) == 0
    assert r"\xfc.png" in (data / "a/findings.csv").read_text()


def test_what_chooses_the_epoch_is_printed_and_logged(data, toy, capsys):
    few = ["--epochs", "frozen=2,finetune=0"]
    assert train(data, *few, "--prior", "tint=uniform") == 0
    printed = capsys.readouterr().out
    assert "bal: balanced accuracy on val" in printed and "loss   acc    bal" in printed
    log = pd.read_csv(data / "my.training/log.csv")
    chosen = log[["val_shade_balanced", "val_tint_balanced"]].mean(axis=1)
    shown = re.findall(r"^ +\d frozen .*$", printed, re.MULTILINE)
    assert ["best" in line for line in shown] == [True, bool(chosen[1] > chosen[0])]
    tint = f"{log['val_tint_balanced'][0]:.1%}"
    assert tint in shown[0]
    assert train(data, *few, "--overwrite") == 0
    assert "loss   acc    val" in capsys.readouterr().out


def test_val_that_the_start_may_have_learnt_is_told(data, toy, capsys):
    few = ["--epochs", "frozen=1,finetune=0"]
    assert train(data, *few) == 0
    assert "learnt" not in capsys.readouterr().out
    start = ["--weights", str(data / "my.keras"), "-o", str(data / "second.keras")]
    assert train(data, *few, *start) == 0
    told = "val is set aside from shades, tints, and my.keras learnt shade, tint from shade=shades"
    assert told in capsys.readouterr().out
    (remark,) = model_file.describe(data / "second.keras").provenance["remarks"]
    assert remark.startswith(told)
    lines = (data / "tints.csv").read_text().splitlines()
    tested = [f"{line},{'split' if not n else 'test'}" for n, line in enumerate(lines)]
    (data / "tested.csv").write_text("\n".join(tested))
    few, others = (
        lines[:4],
        [f"{line},{'val' if n % 2 else 'train'}" for n, line in enumerate(lines)],
    )
    (data / "few.csv").write_text("\n".join(few))
    (data / "others.csv").write_text("\n".join([f"{lines[0]},split", *others[4:]]))
    # Of a head of its own, of rows for a test, and of rows that all train:
    few_and_others = [str(data / "few.csv"), str(data / "others.csv")]
    for sources in ([f"glasses={data / 'shades'}", str(data / "tested.csv")], few_and_others):
        labelled, _ = read_labels(sources, None)
        examples = assign_splits(merge_sources(labelled).examples)
        manifest = replace(merge_sources(labelled), examples=examples)
        plan = SimpleNamespace(start=data / "my.keras", labelled=labelled)
        assert list(_doubts_of_val(manifest, plan)) == []


def test_a_run_that_is_ended_while_the_copy_is_made_goes_on_with_it(data, toy, monkeypatch):
    few, made = ["--epochs", "frozen=1,finetune=0"], []
    monkeypatch.setattr("faceattr.training.package.add_copy", interrupt)
    assert train(data, *few) == 130
    assert not (data / "my.keras").exists()
    copy = lambda path, *given, name: made.append((path.is_file(), name))  # noqa: E731
    monkeypatch.setattr("faceattr.training.package.add_copy", copy)
    assert train(data, *few, "--resume") == 0
    assert made == [(True, data / "my.keras")]


def test_smoothing_weights_and_a_prior_of_shares_reach_a_run(data, toy, refused, capsys):
    by_source = ["--source-smoothing", "shades=0.3", "--source-weight", "tints=0.5"]
    prior = ["--prior", "shade=uniform", "--prior", "tint:red=2,blue=1,green=1"]
    few = ["--epochs", "frozen=1,finetune=0"]
    assert train(data, *few, *by_source, *prior) == 0
    made = model_file.describe(data / "my.keras").provenance
    assert made["settings"]["source_smoothing"] == {"shades": 0.3}
    assert made["settings"]["source_weights"] == {"tints": 0.5}
    assert made["priors"] == {"shade": "uniform", "tint": {"red": 2, "blue": 1, "green": 1}}
    capsys.readouterr()
    for wrong, said in (
        (["--source-weight", "tints=0"], "Every row of tint weighs 0"),
        (["--source-weight", "tint=2"], "There is no source tint for source_weights"),
        (["--source-smoothing", "shades=2"], "source_smoothing is a number from 0 to below 1"),
        (["--prior", "tint:red=1"], "above 0 for each of"),
        ([*by_source, "--balance", "weights"], "--source-smoothing spreads: choose one"),
    ):
        assert said in refused(train(data, *few, *wrong, "--overwrite"))


def test_a_source_whose_faces_are_all_rows_of_another_cannot_weigh(data, toy, refused):
    tints = pd.read_csv(data / "tints.csv")
    looks = tints[["path"]].assign(look=["up", "down"] * 15)
    looks.to_csv(data / "looks.csv", index=False)
    same = {"sources": [str(data / "tints.csv"), str(data / "looks.csv")]}
    for option in ("--source-weight", "--source-smoothing"):
        said = refused(train(data, option, "looks=0.5", "--epochs", "frozen=1,finetune=0", **same))
        assert "There is no source looks for" in said
        assert "a face of several sources is of the first. The sources are tints." in said


def test_overwriting_keeps_the_finished_run_until_there_is_a_new_model(data, toy, monkeypatch):
    few = ["--epochs", "frozen=1,finetune=0"]
    assert train(data, *few) == 0
    folder = data / "my.training"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = (data / "my.keras").read_bytes()
    # A run that was stopped in its first epoch, and one before its file was written.
    stops = {"trainer.score_model": "--overwrite", "train.package": "--resume"}
    for stop, option in stops.items():
        with monkeypatch.context() as patch:
            patch.setattr(f"faceattr.training.{stop}", interrupt)
            assert train(data, *few, option, "--seed", "5") == 130
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (data / "my.keras").read_bytes() == model
    assert train(data, *few, "--seed", "5") == 2
    assert train(data, *few, "--resume", "--seed", "5") == 0
    assert (data / "my.keras").read_bytes() != model
    assert (folder / "settings.json").read_bytes() != before["settings.json"]
    assert not (data / "my.new.training").exists()


def test_a_prior_is_set_anew_without_training(data, untrained, refused, capsys):
    few = ["--epochs", "frozen=1,finetune=0", "--prior", "tint=uniform"]
    assert train(data, *few) == 0
    even, about = model_file.load(data / "my.keras")
    crops = np.stack([shaded(200, seed=i) for i in range(8)])

    def reset(prior):
        places = [str(data / "my.keras"), "-o", str(data / "other.keras"), "--overwrite"]
        assert cli.main(["heads", *places, "--prior", prior]) == 0
        return model_file.load(data / "other.keras")

    def expected(shares):
        put = even.predict(crops, verbose=0)["tint"] * shares
        return put / put.sum(axis=1, keepdims=True)

    for prior in ("tint=tints", "tint=natural", "tint:blue=1,green=2,red=1"):
        other, described = reset(prior)
        name = described.provenance["priors"]["tint"]
        shares = (
            about.provenance["class_shares"]["tint"][name] if isinstance(name, str) else [1, 2, 1]
        )
        answers = other.predict(crops, verbose=0)["tint"]
        np.testing.assert_allclose(answers, expected(np.array(shares)), atol=2e-3)
    renaming = ["--rename", "tint=hue", "--rename-class", "tint:blue=sea"]
    places = [str(data / "other.keras"), "-o", str(data / "named.keras")]
    assert cli.main(["heads", *places, *renaming]) == 0
    made = model_file.describe(data / "named.keras").provenance
    assert made["priors"] == {"hue": {"sea": 1, "green": 2, "red": 1}}
    assert "tint" not in model_file.describe(data / "other.keras").scores  # they were of others
    capsys.readouterr()
    places = [str(data / "my.keras"), "-o", str(data / "no.keras")]
    assert cli.main(["heads", *places, "--prior", "shade=uniform"]) == 2
    assert "not trained with --prior" in capsys.readouterr().err
    assert "above 0 for each of" in refused(cli.main(["heads", *places, "--prior", "tint:blue=1"]))


def test_a_teacher_labels_what_the_rows_do_not_know(data, toy, capsys, monkeypatch):
    watched, follow = [], Bar.follow

    def watch(bar, items, what):
        watched.append(what)
        return follow(bar, items, what)

    monkeypatch.setattr(Bar, "follow", watch)
    few = ["--epochs", "frozen=1,finetune=0"]
    assert train(data, *few) == 0
    (data / "my.keras").rename(data / "teacher.keras")
    shutil.rmtree(data / "my.training")
    capsys.readouterr()
    taught = [
        "--teacher",
        str(data / "teacher.keras"),
        "--sure",
        "tint=0",
        "--distill",
        "shade=0.3",
    ]
    assert train(data, *few, *taught) == 0
    assert "teacher: tint: 16 of 16 unlabelled faces" in capsys.readouterr().out
    # Each takes minutes for a hundred thousand rows, so somebody watches.
    assert watched.count("asking the teacher") == 1
    assert watched.count("asking the model") == 2 * 3  # to calibrate, score and compare halves
    made = model_file.describe(data / "my.keras").provenance
    assert made["distillation"]["shares"] == {"shade": 0.3}
    assert made["distillation"]["teachers"] == ["teacher.keras"]


def test_a_teacher_that_doubts_every_label_and_is_sure_of_none_is_refused(data, toy, refused):
    save_toy(data / "teacher.keras", (SHADE,), CropRule(64))
    doubting = ["--teacher", str(data / "teacher.keras"), "--doubt", "shade=1", "--sure", "shade=1"]
    for sources in ([f"shade={data / 'shades'}"], None):  # alone, and beside another task
        said = refused(train(data, "--overwrite", *doubting, sources=sources))
        assert "no training row of dark, light for task 'shade'" in said
        assert "Give --doubt shade or --sure shade a smaller number" in said
