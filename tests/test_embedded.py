"""The LiteRT copy inside a model file: used where it is of these weights, by nobody else."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import SHADE, TINT, save_toy, shaded
from PIL import Image
from skimage import data
from use_toys import OnEach

from faceattr.cli import main
from faceattr.exporting import export as embedding
from faceattr.exporting import formats
from faceattr.exporting.export import add_copy, embed
from faceattr.exporting.parity import synthetic_crops
from faceattr.files import install_command
from faceattr.images.crop import CropRule
from faceattr.inference.predictor import FaceAttributes
from faceattr.model import embedded, runtime
from faceattr.model import file as model_file
from faceattr.model.file import Description
from faceattr.training.heads import edit_heads

SIDE = 32


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model file with a copy inside."""
    path = save_toy(tmp_path_factory.mktemp("made") / "faces.keras", (SHADE, TINT), CropRule(SIDE))
    embed(path)
    return path


@pytest.fixture
def path(made, tmp_path):
    """A file of one's own with a copy inside."""
    return Path(shutil.copy(made, tmp_path / "faces.keras"))


def crops(count):
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype="uint8")


def with_member(path, name, change):
    """The file with one member changed."""
    with zipfile.ZipFile(path) as archive:
        content = change(archive.read(name))
    model_file.replace_members(path, {name: content})


def test_the_copy_answers_like_the_network_and_says_what_it_is(path):
    about = embedded.describe_copy(path)
    assert about.precision in embedded.PRECISIONS
    assert set(about.parity["heads"]) == {"shade", "tint"} and about.provenance["with"]
    copy, description = runtime.load(path, "auto")
    assert isinstance(copy, runtime.ExportedModel) and copy.engine == "litert"
    assert description == model_file.describe(path)
    ours, network = (m.predict_on_batch(crops(5)) for m in (copy, runtime.load(path)[0]))
    for task in ours:
        np.testing.assert_allclose(ours[task], network[task], atol=0.02)


def test_evaluate_scores_the_copy_where_that_is_asked_for(path, tmp_path, capsys):
    rows = ["path,split,shade"]
    for number in range(6):
        Image.fromarray(shaded(60 + 120 * (number % 2), number)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,val,{('dark', 'light')[number % 2]}")
    (tmp_path / "faces.csv").write_text("\n".join(rows))
    seen = []
    for how in ([], ["--runtime", "keras"], ["--runtime", "litert"], ["--runtime", "auto"]):
        out = tmp_path / f"report-{len(seen)}"
        words = ["evaluate", str(path), str(tmp_path / "faces.csv"), "-o", str(out), *how]
        assert main(words) == 0
        engine = json.loads((out / "about.json").read_text())["engine"]
        seen.append((engine, "--runtime litert" in (out / "report.html").read_text()))
    assert seen == [("keras", False)] * 2 + [("litert", True)] * 2
    with_member(path, embedded.ABOUT_MEMBER, lambda _: b"{}")
    capsys.readouterr()
    assert main(["evaluate", str(path), str(tmp_path / "faces.csv"), "--runtime", "litert"]) == 2
    assert "carries no LiteRT copy" in capsys.readouterr().err


def test_plain_keras_opens_the_file(path):
    network = keras.saving.load_model(path, compile=False)
    assert set(network.output) == {"shade", "tint"}


def test_auto_is_keras_without_a_copy_and_litert_is_refused(toy_model_path):
    attributes = FaceAttributes.load(toy_model_path, "none")
    assert attributes.engine == "keras" and isinstance(attributes.model, keras.Model)
    with pytest.raises(ValueError, match=r"carries no LiteRT copy .* --embed"):
        FaceAttributes.load(toy_model_path, "none", engine="litert")


def test_the_engine_and_the_precision_can_be_chosen(path):
    load = FaceAttributes.load
    auto, network = load(path, "none"), load(path, "none", engine="keras")
    precision = embedded.describe_copy(path).precision
    assert (auto.engine, auto.precision) == ("litert", precision)
    assert (network.engine, network.precision) == ("keras", "float32")
    assert load(path, "none", precision="float32").engine == "keras"
    with pytest.raises(ValueError, match="An engine is one of auto, keras, litert"):
        load(path, "none", engine="lite")
    with pytest.raises(ValueError, match="computes as it was exported"):
        load(path, "none", engine="litert", precision="bfloat16")


def test_an_exported_file_has_one_engine_and_the_option_is_named():
    runtime.check_engine("faces.onnx", "auto")
    with pytest.raises(ValueError, match=r"model for onnx: leave --runtime \(in Python: engine\)"):
        runtime.check_engine("faces.onnx", "keras")


def test_a_copy_of_other_weights_is_not_used(path):
    with_member(path, model_file.WEIGHTS_MEMBER, lambda weights: weights + b" ")
    assert embedded.describe_copy(path) is None
    assert FaceAttributes.load(path, "none").engine == "keras"
    with pytest.raises(ValueError, match="network as it is now"):
        FaceAttributes.load(path, "none", engine="litert")


def test_a_copy_that_was_changed_is_told(path):
    with_member(path, model_file.COPY_MEMBER, lambda copy: copy + b" ")
    with pytest.raises(ValueError, match="is not the one that was checked"):
        FaceAttributes.load(path, "none")
    assert FaceAttributes.load(path, "none", engine="keras").engine == "keras"


@pytest.mark.parametrize("text", [b"{}", b"[", b'{"precision": "int2", "sha256": 1, "network": 2}'])
def test_a_description_that_is_not_understood_counts_as_none(path, text):
    with_member(path, embedded.ABOUT_MEMBER, lambda _: text)
    assert embedded.describe_copy(path) is None


def test_a_changed_head_leaves_no_old_copy_behind(path, tmp_path):
    edit_heads(path, tmp_path / "fewer.keras", remove=["shade"])
    assert embedded.describe_copy(tmp_path / "fewer.keras") is None
    with zipfile.ZipFile(tmp_path / "fewer.keras") as archive:
        assert model_file.COPY_MEMBER not in archive.namelist()


def test_a_new_description_keeps_the_copy(path):
    model_file.describe_anew(path, Description((SHADE, TINT), CropRule(SIDE), licence="MIT"))
    assert embedded.describe_copy(path) and model_file.describe(path).licence == "MIT"


@pytest.mark.parametrize("size", [1, 7, 64])
def test_answers_do_not_depend_on_the_batch(path, size):
    whole = FaceAttributes.load(path, "none", batch_size=100).predict(crops(64))
    parts = FaceAttributes.load(path, "none", batch_size=size).predict(crops(64), full_batches=True)
    for one, other in zip(whole, parts, strict=True):
        for task in one:
            np.testing.assert_array_equal(one[task], other[task])


def test_labelling_and_watching_import_neither_tensorflow_nor_keras(path, tmp_path):
    Image.fromarray(data.astronaut()).save(tmp_path / "one.png")
    program = f"""
import sys
from faceattr.cli import main
from faceattr.inference.predictor import FaceAttributes
how = "--model {path} --detector centerface --quiet".split()
assert main(["label", "{tmp_path}/one.png", "-o", "{tmp_path}/t.csv", *how]) == 0
assert main(["live", "{tmp_path}/one.png", "--headless", "-o", "{tmp_path}/t.mp4", *how]) in (0, 2)
attributes = FaceAttributes.load("{path}", "centerface")
import skimage.data
assert attributes(skimage.data.astronaut())
import faceattr.live.stream, faceattr.live.face_tracker
print(sorted({{"tensorflow", "keras", "jax", "torch"}} & set(sys.modules)), attributes.engine)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "[] litert\n", run.stderr
    settings = json.loads((tmp_path / "t.csv.about.json").read_text())["settings"]
    assert settings["engine"] == "litert"


def test_explaining_takes_the_network_and_the_copy_s_answers(path, tmp_path):
    Image.fromarray(shaded(90)).save(tmp_path / "face.png")
    sheet = tmp_path / "sheet.png"
    how = ["--detector", "none", "--runtime", "litert"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faceattr.inference.explain.FEWEST_CELLS", 1)
        assert main(["explain", str(path), str(tmp_path / "face.png"), "-o", str(sheet), *how]) == 0
    assert sheet.exists()


def test_threads_are_the_object_s_own(path, monkeypatch):
    seen = []
    import ai_edge_litert.interpreter as litert

    class Spy(litert.Interpreter):
        def __init__(self, *given, num_threads=None, **more):
            seen.append(num_threads)
            super().__init__(*given, num_threads=num_threads, **more)

    monkeypatch.setattr(litert, "Interpreter", Spy)
    assert FaceAttributes.load(path, "none", threads=3).threads == 3 and seen == [3]
    with pytest.raises(ValueError, match="At least 1 thread computes"):
        FaceAttributes.load(path, "none", threads=0)


def test_without_litert_installed_auto_is_keras_and_litert_names_the_cure(path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert FaceAttributes.load(path, "none").engine == "keras"
    with pytest.raises(ValueError) as told:
        FaceAttributes.load(path, "none", engine="litert")
    assert "ai_edge_litert" in str(told.value) and install_command("litert") in str(told.value)


def test_the_first_precision_that_answers_alike_is_kept(toy_model_path, monkeypatch):
    real, tried = embedding.check_parity, []

    def strict(network, copy, *given):
        tried.append(copy.precision)
        report = real(network, copy, *given)
        if copy.precision == "int8":
            monkeypatch.setattr(type(report), "failures", lambda report: ["shade: far off"])
        else:
            monkeypatch.setattr(type(report), "failures", lambda report: [])
        return report

    monkeypatch.setattr(embedding, "check_parity", strict)
    assert embed(toy_model_path).precision == "float16" and tried == ["int8", "float16"]


def test_a_copy_that_cannot_be_made_is_a_note_and_the_model_stays(toy_model_path, monkeypatch):
    said, before = [], toy_model_path.read_bytes()

    def broken(*given):
        raise RuntimeError("the converter gave up.\nmore")

    monkeypatch.setattr(formats, "write_copy", broken)
    add_copy(toy_model_path, synthetic_crops(48), OnEach(said.append, object))
    assert toy_model_path.read_bytes() == before
    (note,) = said
    assert note.startswith("note: ") and note.count("\n") == 0
    assert "as before: the converter gave up. `faceattr export" in note


def test_a_training_s_end_adds_a_copy_compared_on_val(toy_model_path):
    add_copy(toy_model_path, synthetic_crops(48))
    assert "val faces" in embedded.describe_copy(toy_model_path).parity["crops"]


@pytest.mark.usefixtures("as_on_windows")
def test_the_command_embeds_into_another_file_and_shows_it(toy_model_path, tmp_path, capsys):
    new = tmp_path / "new.keras"
    assert main(["export", str(toy_model_path), "--embed", "-o", str(new)]) == 0
    assert embedded.describe_copy(new) and embedded.describe_copy(toy_model_path) is None
    assert "with a LiteRT copy in" in capsys.readouterr().out
    assert main(["heads", str(new)]) == 0
    assert "answered by litert" in capsys.readouterr().err
    assert main(["export", str(toy_model_path), "--embed", "-o", str(new)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["export", str(toy_model_path), "--embed", "--int8"]) == 2
    assert "leave --int8 away" in capsys.readouterr().err


def test_weights_that_are_damaged_are_told_before_images_are_read(
    toy_model_path, monkeypatch, capsys
):
    with_member(toy_model_path, "model.weights.h5", lambda weights: weights[:999])
    monkeypatch.setattr("faceattr.exporting.export.choose_crops", None)
    assert main(["export", str(toy_model_path), "--embed"]) == 2
    assert toy_model_path.name in capsys.readouterr().err


def test_a_copy_is_compared_on_a_row_or_more(toy_model_path):
    before = toy_model_path.read_bytes()
    with pytest.raises(ValueError, match="1 row or more"):
        embed(toy_model_path, rows=0)
    assert toy_model_path.read_bytes() == before
