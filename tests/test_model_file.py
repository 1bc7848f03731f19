import errno
import json
import os
import re
import subprocess
import sys
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest
from conftest import toy_network

from faceattr.images.crop import CropRule
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.build import build
from faceattr.model.file import Description
from faceattr.tasks import EXPRESSION, GENDER

CROPS = np.random.default_rng(0).integers(0, 256, (6, 48, 48, 3), dtype="uint8")
DESCRIPTION = Description(
    tasks=(EXPRESSION, GENDER),
    crop=CropRule(64, 0.2),
    network={"pooling": "avg"},
    data=({"split": "train", "rows": 3},),
    scores={"gender": {"accuracy": 0.9, "interval": [0.8, float("nan")]}},
    licence="research",
)


def test_what_is_saved_is_loaded(tmp_path):
    network = toy_network()
    model_file.save(network, DESCRIPTION, tmp_path / "a.keras")
    loaded, description = model_file.load(tmp_path / "a.keras")
    assert description.tasks == DESCRIPTION.tasks
    assert description.crop == DESCRIPTION.crop
    assert description.scores["gender"]["interval"] == [0.8, None]
    before, after = network.predict(CROPS, verbose=0), loaded.predict(CROPS, verbose=0)
    for name in before:
        np.testing.assert_allclose(before[name], after[name], atol=1e-2)


def test_weights_are_stored_in_half_precision_and_compute_in_float32(toy_model_path):
    with zipfile.ZipFile(toy_model_path) as archive, archive.open("model.weights.h5") as file:
        stored = []
        h5py.File(file).visititems(
            lambda _, item: stored.append(item.dtype) if isinstance(item, h5py.Dataset) else None
        )
    assert "float16" in stored
    assert "float32" not in stored
    model, _ = model_file.load(toy_model_path)
    assert model.get_layer("gender").kernel.dtype == "float32"


def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path):
    network = toy_network([GENDER])
    network.get_layer("gender").bias.assign([1e6, 0])
    description = Description((GENDER,), CropRule())
    with pytest.raises(ValueError, match="not finite numbers in float16"):
        model_file.save(network, description, tmp_path / "a.keras")
    model_file.save(network, description, tmp_path / "a.keras", half=False)
    assert model_file.load(tmp_path / "a.keras")[0].get_layer("gender").bias[0] == 1e6


def test_no_optimiser_is_in_the_file(tmp_path):
    network = toy_network([GENDER])
    network.compile("adam", "categorical_crossentropy")
    network.fit(CROPS, np.eye(2)[[0, 1] * 3], verbose=0)
    model_file.save(network, DESCRIPTION, tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        assert b"adam" not in archive.read("model.weights.h5").lower()


@pytest.mark.slow
def test_plain_keras_opens_it_without_this_package(toy_model_path):
    code = (
        "import sys, keras\n"
        f"model = keras.saving.load_model({str(toy_model_path)!r})\n"
        "print(sorted(model.output), 'faceattr' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['expression', 'gender'] False"


def test_renaming_changes_nothing(toy_model_path):
    before, description = model_file.load(toy_model_path)
    renamed = toy_model_path.rename(toy_model_path.with_name("gender_only_v2.bin"))
    after, same = model_file.load(renamed)
    assert same == description
    assert list(after.output) == list(before.output)
    np.testing.assert_array_equal(
        after.predict(CROPS, verbose=0)["gender"], before.predict(CROPS, verbose=0)["gender"]
    )


def test_a_new_description_leaves_the_network_as_it_is(toy_model_path):
    before = model_file.load(toy_model_path)[0].predict(CROPS, verbose=0)
    model_file.describe_anew(toy_model_path, DESCRIPTION)
    after, description = model_file.load(toy_model_path)
    assert description.licence == "research"
    np.testing.assert_array_equal(before["gender"], after.predict(CROPS, verbose=0)["gender"])


def test_a_failed_save_leaves_the_old_file(toy_model_path, monkeypatch):
    before = toy_model_path.read_bytes()
    monkeypatch.setattr(model_file, "_convert", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model_file.save(toy_network(), DESCRIPTION, toy_model_path)
    assert toy_model_path.read_bytes() == before
    assert [path.name for path in toy_model_path.parent.iterdir()] == ["toy.keras"]


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no model file"):
        model_file.load(tmp_path / "none.keras")


def test_the_models_that_ship_are_opened_by_their_names():
    network, about = model_file.load("shipped-slim")
    assert about == model_file.describe(model_file.shipped_model("shipped-slim"))
    assert list(network.output) == [task.name for task in about.tasks]


def test_a_backend_that_is_missing_does_no_damage(toy_model_path, monkeypatch):
    def load(path):
        raise ModuleNotFoundError("No module named 'jax'", name="jax")

    monkeypatch.setattr(model_file, "_load_network", load)
    with pytest.raises(ModuleNotFoundError, match="jax"):
        model_file.load(toy_model_path)


def test_a_slip_in_a_model_s_name_is_understood(tmp_path, toy_model_path, monkeypatch):
    monkeypatch.chdir(toy_model_path.parent)
    for name, meant in (("toy", "mean toy.keras?"), ("shiped", "mean shipped?")):
        with pytest.raises(FileNotFoundError, match=re.escape(meant)):
            runtime.describe(name)
    with pytest.raises(FileNotFoundError, match=r"-o mood.keras` makes one"):
        runtime.describe("mood")


def test_a_folder_of_images_or_of_a_run_is_no_model(tmp_path):
    for name in ("photos", "mood.training"):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.jpg").write_bytes(b"")
        with pytest.raises(ValueError, match=rf"{name} is a folder and no model") as told:
            runtime.describe(tmp_path / name)
        assert ".jpg" not in str(told.value)


def test_a_text_file_is_no_model(tmp_path):
    (tmp_path / "a.keras").write_text("hello")
    with pytest.raises(ValueError, match=r"is not a whole \.keras model file"):
        model_file.load(tmp_path / "a.keras")


def test_a_model_that_keras_saved_does_not_say_what_it_is(tmp_path):
    toy_network().save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match="does not say what it is"):
        model_file.load(tmp_path / "a.keras")


def test_another_format_is_told_apart(toy_model_path):
    with zipfile.ZipFile(toy_model_path, "a") as archive:
        newer = {**json.loads(DESCRIPTION.to_json()), "format": 9}
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("faceattr.json", json.dumps(newer))
    with pytest.raises(ValueError, match="format 9, and this faceattr reads format 1"):
        model_file.load(toy_model_path)


def test_a_truncated_network_is_called_damaged(toy_model_path, tmp_path):
    damaged = tmp_path / "damaged.keras"
    with zipfile.ZipFile(toy_model_path) as source, zipfile.ZipFile(damaged, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name)[: None if name.endswith("json") else 100])
    with pytest.raises(ValueError, match="damaged or of another Keras"):
        model_file.load(damaged)


def test_a_full_folder_for_temporary_files_is_no_damage(toy_model_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("keras.saving.load_model", full)
    with pytest.raises(OSError, match=r"cannot be opened: .* is full"):
        model_file.load(toy_model_path)


def with_member(path, name, content, compression=zipfile.ZIP_DEFLATED):
    """The same archive with other content of one member."""
    with zipfile.ZipFile(path) as source:
        members = {member: source.read(member) for member in source.namelist()} | {name: content}
    with zipfile.ZipFile(path, "w", compression) as target:
        for member, bytes_of_it in members.items():
            target.writestr(member, bytes_of_it)


def described(**changes):
    return json.dumps(json.loads(DESCRIPTION.to_json()) | changes)


EXPRESSION_AS_JSON = {"name": "expression", "classes": list(EXPRESSION.classes)}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([EXPRESSION_AS_JSON, {"name": "gender", "classes": ["a", "b", "c"]}], "gender with 3 cl"),
        ([EXPRESSION_AS_JSON], "network has expression with 7 classes, gender with 2 classes"),
        ([EXPRESSION_AS_JSON, {"name": "age", "classes": ["a", "b"]}], "age with 2 classes"),
    ],
)
def test_heads_that_the_network_does_not_have_are_refused(toy_model_path, tasks, message):
    with_member(toy_model_path, "faceattr.json", described(tasks=tasks))
    with pytest.raises(ValueError, match=message):
        model_file.load(toy_model_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (described(tasks=[{"name": "gender", "classes": "xy"}]), "a sequence of names"),
        (described(tasks=[{"name": "gender", "classes": ["x", 1]}]), "a sequence of names"),
        (described(tasks=[{"name": 3, "classes": ["x", "y"]}]), "Received: 3"),
        (described(tasks=[{"name": "gender"}]), "a task says classes, name and nothing but"),
        (described(tasks="gender"), "tasks is a list"),
        (described(tasks=[]), "one or more tasks"),
        (described(tasks=[EXPRESSION_AS_JSON] * 2), "each named once"),
        (described(crop={"size": 10**9}), "at most 1024. Received: 1000000000"),
        (described(crop={"size": "48"}), "Received: '48'"),
        (described(crop={"margin": None}), "Received: None"),
        (described(crop={"align": "yes"}), "Received: 'yes'"),
        (described(crop=[48]), "the crop says"),
        (described(scores=[]), "scores is a mapping"),
        (described(data=[1]), "data is a sequence of mappings"),
        (described(licence=None), "licence is a text"),
        (described(author="me"), "the description says crop, tasks and nothing but"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("x" * (17 << 20), "unpacks to more than a model can hold"),
    ],
    ids=range(18),
)
def test_a_description_that_is_none_is_one_sentence(toy_model_path, content, message):
    with_member(toy_model_path, "faceattr.json", content)
    for ask in (model_file.describe, model_file.load):
        with pytest.raises(ValueError, match=message):
            ask(toy_model_path)


def test_a_small_file_cannot_take_much_memory(toy_model_path):
    """Zeros deflate to a thousandth."""
    with_member(toy_model_path, "model.weights.h5", bytes(64 << 20))
    assert toy_model_path.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(ValueError, match="unpacks to more than a model can hold"):
        model_file.load(toy_model_path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["faceattr.json", "config.json", "model.weights.h5"])
def test_a_corrupt_stream_is_called_damaged(toy_model_path, name):
    with zipfile.ZipFile(toy_model_path) as archive:
        content = archive.read(name)
    with_member(toy_model_path, name, content)
    with zipfile.ZipFile(toy_model_path) as archive:
        start = archive.getinfo(name).header_offset + 30 + len(name)
    damaged = bytearray(toy_model_path.read_bytes())
    damaged[start : start + 20] = b"\xff" * 20
    toy_model_path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"is not a whole \.keras model file|is damaged"):
        model_file.load(toy_model_path)


@pytest.mark.parametrize("name", ["faceattr.json", "config.json"])
def test_an_encrypted_member_is_one_sentence(toy_model_path, name):
    with_member(toy_model_path, name, DESCRIPTION.to_json())
    content = bytearray(toy_model_path.read_bytes())
    central = content.rindex(b"PK\x01\x02", 0, content.rindex(name.encode()))
    local = int.from_bytes(content[central + 42 : central + 46], "little")
    content[central + 8] |= 1
    content[local + 6] |= 1
    toy_model_path.write_bytes(content)
    with pytest.raises(ValueError, match="encrypted"):
        model_file.load(toy_model_path)


def test_a_network_nested_too_deeply_is_called_damaged(toy_model_path):
    with_member(toy_model_path, "config.json", '{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(ValueError, match="is damaged or of another Keras"):
        model_file.load(toy_model_path)


def test_a_model_file_ends_in_keras(tmp_path):
    with pytest.raises(ValueError, match=r"ends in .keras"):
        model_file.save(keras.Sequential(), DESCRIPTION, tmp_path / "a.h5")


def test_a_model_of_own_backbones_and_a_tap_is_a_file_like_any_other(tmp_path):
    how = {"backbone": "vgg16-slim", "sharing": "soft", "feature_layers": {"gender": "block2_pool"}}
    model = build([EXPRESSION, GENDER], weights=None, **how)
    for name in model.output:
        kernel = model.get_layer(name).kernel
        kernel.assign(np.random.default_rng(0).normal(size=kernel.shape) / 1e4)
    about = Description((EXPRESSION, GENDER), CropRule(), network=how)
    model_file.save(model, about, tmp_path / "own.keras")
    opened = keras.saving.load_model(tmp_path / "own.keras")
    before = model.predict(CROPS, verbose=0)
    for name, answer in opened.predict(CROPS, verbose=0).items():
        np.testing.assert_allclose(answer, before[name], atol=0.01)
    described = model_file.describe(tmp_path / "own.keras").network
    rebuilt = build([EXPRESSION, GENDER], weights=None, **described)
    assert [layer.name for layer in rebuilt.layers] == [layer.name for layer in opened.layers]
