"""Exported files: one input, heads by name, answers alike, and nothing kept that fails."""

import json
import sys
import types
from dataclasses import replace
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from conftest import save_classes, shaded
from use_toys import GreenSquares, draw, encoded

from faceattr.cli import main
from faceattr.data.sources import ReadingConfig, read_labels, unite
from faceattr.evaluation.evaluate import evaluate
from faceattr.evaluation.metrics import paired_accuracy_loss
from faceattr.exporting import formats
from faceattr.exporting.export import export
from faceattr.exporting.parity import FLOAT, INT8, Agreement, LabeledAgreement, choose_crops
from faceattr.files import install_command
from faceattr.images.crop import CropRule
from faceattr.inference.explain import Heat
from faceattr.inference.predictor import FaceAttributes
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.file import Description
from faceattr.tasks import Task

SHADE = Task("shade", ("dark", "light"))
TINT = Task("a_tint", ("blue", "green", "red"))
SIZE = 32
ENDINGS = {name: target.ending for name, target in formats.TARGETS.items()}


INTEGER_LAYERS = {"CONV_2D", "FULLY_CONNECTED"}


def missing(name):
    return [package for package in formats.TARGETS[name].packages if not find_spec(package)]


def needs(name):
    return pytest.mark.skipif(bool(missing(name)), reason=f"needs the packages {missing(name)}")


ALL = [pytest.param(name, marks=needs(name)) for name in ENDINGS]
INTEGER = [pytest.param(n, marks=needs(n)) for n in ENDINGS if formats.TARGETS[n].write_int8]


def small_vgg(tasks):
    """VGG16's own preprocessing, whose means an exporter captures, before a toy of a backbone."""
    crops = keras.Input((None, None, 3), dtype="uint8")
    floats = keras.layers.Rescaling(1.0, dtype="float32")(crops)
    prepared = keras.applications.vgg16.preprocess_input(floats)
    x = keras.layers.Conv2D(8, 3, strides=4, activation="relu")(prepared)
    x = keras.layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    x = keras.layers.GlobalMaxPooling2D()(keras.layers.Rescaling(0.002)(x))
    heads = {
        t.name: keras.layers.Dense(len(t.classes), activation="softmax", name=t.name)(x)
        for t in tasks
    }
    return keras.Model(crops, heads)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved model; its head that comes first by name was built last."""
    keras.utils.set_random_seed(1)
    path = tmp_path_factory.mktemp("model") / "toy.keras"
    description = Description((SHADE, TINT), CropRule(SIZE), licence="research")
    model_file.save(small_vgg((SHADE, TINT)), description, path, half=False)
    return path


@pytest.fixture(scope="module")
def shades(tmp_path_factory):
    """120 pictures to calibrate on and 120 to prove on, each grey of its class."""
    folder = tmp_path_factory.mktemp("shades")
    dark, light = ([shaded(m + seed % 50 - 25, seed) for seed in range(60)] for m in (60, 190))
    for split in ("train", "val"):
        save_classes(folder / split, dark=dark, light=light)
    return f"shade={folder}"


CROPS = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype="uint8")


@pytest.mark.usefixtures("as_on_windows")
@pytest.mark.parametrize("name", ALL)
def test_a_file_answers_like_its_model_and_says_what_it_is(name, model, tmp_path):
    path = tmp_path / f"faces{ENDINGS[name]}"
    parity = export(model, name, path)
    assert parity.heads["shade"].crops == 256 and not parity.failures()
    assert set(parity.milliseconds) == {1, 32}
    network, description = model_file.load(model)
    file, same = runtime.load(path)
    assert same == description
    before, after = network.predict_on_batch(CROPS), file.predict_on_batch(CROPS)
    assert before["shade"].shape == (5, 2) and before["a_tint"].shape == (5, 3)
    for task in before:
        np.testing.assert_allclose(after[task], before[task], atol=1e-4)
    page = json.loads((tmp_path / f"{path.name}.json").read_text())
    assert page["description"]["licence"] == "research"
    assert page["provenance"]["from"]["sha256"] == runtime.sha256_of(model)
    assert page["parity"]["heads"]["shade"]["labelled"] is None
    assert {p.name for p in tmp_path.iterdir()} <= {path.name, f"{path.name}.json", "faces.bin"}
    if name == "onnx":
        _has_one_input(path)


def _has_one_input(path):
    """tf2onnx makes VGG16's means a second one unless they are constants."""
    import onnx

    graph = onnx.load(path).graph
    assert [given.name for given in graph.input] == ["crops"]
    assert {head.name for head in graph.output} == {"shade", "a_tint"}


@pytest.mark.parametrize("name", INTEGER)
def test_int8_is_measured_on_real_crops_and_proved_on_others(name, model, shades, tmp_path):
    path = tmp_path / f"small{ENDINGS[name]}"
    parity = export(model, name, path, on=[shades], int8=True, cache=tmp_path / "cache")
    assert parity.limits == INT8 and parity.heads["shade"].labelled.n == 120
    assert 0 < parity.heads["shade"].difference < 0.2
    assert parity.heads["a_tint"].labelled is None and parity.heads["a_tint"].mean_change > 0
    assert runtime.load(path)[0].precision == "int8"


@needs("litert")
def test_int8_of_litert_computes_in_8_bits(model, shades, tmp_path):
    """Weights of 8 bits alone would leave the activations float and the crops unused."""
    from ai_edge_litert.interpreter import Interpreter

    path = tmp_path / "small.tflite"
    export(model, "litert", path, on=[shades], int8=True, cache=tmp_path / "cache")
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    kinds = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    layers = [op for op in interpreter._get_ops_details() if op["op_name"] in INTEGER_LAYERS]
    assert {op["op_name"] for op in layers} == INTEGER_LAYERS
    assert {kinds[number] for op in layers for number in op["inputs"][:2]} == {np.int8}
    assert interpreter.get_input_details()[0]["dtype"] == np.uint8
    assert {head["dtype"] for head in interpreter.get_output_details()} == {np.float32}


def test_openvino_computes_in_the_precision_that_was_asked_for(monkeypatch, tmp_path):
    """On processors with bfloat16 it would take that by itself."""
    openvino, asked = types.ModuleType("openvino"), []

    class Core:
        def compile_model(self, path, device, properties):
            asked.append(properties["INFERENCE_PRECISION_HINT"])
            return types.SimpleNamespace(outputs=[])

    openvino.Core = Core
    monkeypatch.setitem(sys.modules, "openvino", openvino)
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: True)
    for precision in ("float32", "int8"):
        runtime.open_exported(tmp_path / "faces.xml", precision)
    assert asked == ["f32", "f32"]


def test_what_a_broken_converter_wrote_is_not_kept(model, tmp_path, monkeypatch):
    def with_another_weight(*args):
        network = args[0]
        kernel = network.get_layer("shade").kernel
        kernel.assign(-kernel)
        target.write(*args)
        kernel.assign(-kernel)

    target = formats.TARGETS["saved_model"]
    broken = replace(target, write=with_another_weight)
    monkeypatch.setitem(formats.TARGETS, "saved_model", broken)
    with pytest.raises(ValueError, match="was not kept: shade: a probability changes by"):
        export(model, "saved_model", tmp_path / "faces")
    assert not list(tmp_path.iterdir())


def agreement(mean=0.0, of_99=0.0, labelled=None, same=1.0):
    return Agreement(1000, mean, of_99, 0.9, same, labelled)


def labelled(before, after, lost=(0.001, 0.009), calibration=(0.03, 0.03), chance=0.02):
    return LabeledAgreement(1000, before, after, lost, *calibration, chance)


@pytest.mark.parametrize(
    ("agreement", "limits", "failures"),
    [
        (agreement(), FLOAT, []),
        (agreement(mean=1e-3), FLOAT, ["changes by 0.001 on average"]),
        (agreement(of_99=2e-3), FLOAT, ["of one crop in a hundred changes by 0.002"]),
        (agreement(mean=1e-3, of_99=2e-3), INT8, []),
        (agreement(mean=np.nan), INT8, ["changes by nan"]),
        (agreement(of_99=0.2), INT8, ["of one crop in a hundred"]),
        (agreement(same=0.97), INT8, []),
        (agreement(labelled=labelled(0.951, 0.948)), INT8, []),
        (agreement(labelled=labelled(0.951, 0.947)), INT8, ["from 95.1% to 94.7%"]),
        (agreement(labelled=labelled(0.951, 0.947, lost=(-0.001, 0.009))), INT8, []),
        (agreement(labelled=labelled(0.7, 0.7, calibration=(0.03, 0.041))), INT8, ["calibration"]),
        (agreement(labelled=labelled(0.7, 0.7, calibration=(0.03, 0.039))), INT8, []),
        (agreement(labelled=labelled(0.7, 0.7, calibration=(0.001, 0.029))), INT8, []),
    ],
)
def test_limits_of_a_proof(agreement, limits, failures):
    found = agreement.failures(limits)
    assert len(found) == len(failures)
    assert all(words in failure for words, failure in zip(failures, found, strict=True))


def test_loss_of_accuracy_has_the_interval_of_rows_answered_twice():
    before = np.arange(1000) < 700
    after = before.copy()
    assert (
        paired_accuracy_loss(before, after)[0] < 0 < paired_accuracy_loss(before, after)[1] < 0.005
    )
    after[:20] = False
    low, high = paired_accuracy_loss(before, after)
    assert 0.01 < low < 0.02 < high < 0.03
    assert paired_accuracy_loss(after, before) == pytest.approx((-high, -low))


def test_accuracy_is_compared_on_the_rows_that_know_the_task(model, shades, tmp_path):
    parity = export(
        model, "saved_model", tmp_path / "a", on=[shades], rows=50, cache=tmp_path / "c"
    )
    shade = parity.heads["shade"].labelled
    assert shade.n == 50 and parity.heads["a_tint"].labelled is None
    assert shade.accuracy_before == shade.accuracy_after


def test_labelling_and_evaluating_take_the_file(model, shades, tmp_path):
    path = tmp_path / "faces"
    export(model, "saved_model", path)
    image = shaded(60)
    (before,), (after,) = (FaceAttributes.load(p, "none")(image) for p in (model, path))
    assert after["shade"].label == before["shade"].label
    assert after["shade"].probability == pytest.approx(before["shade"].probability, abs=1e-4)
    with pytest.raises(ValueError, match="computes as it was exported, in float32"):
        FaceAttributes.load(path, "none", precision="bfloat16")
    scores = [evaluate(p, [shades], cache=tmp_path / "c")["shade"] for p in (model, path)]
    assert scores[0].accuracy == scores[1].accuracy and scores[1].n == 120


def test_a_file_that_was_changed_or_left_alone_is_refused(model, tmp_path):
    path = tmp_path / "faces"
    export(model, "saved_model", path)
    with pytest.raises(FileExistsError, match="--overwrite"):
        export(model, "saved_model", path)
    with pytest.raises(ValueError, match="is an exported model"):
        model_file.load(path)
    with pytest.raises(ValueError, match=r"give the .keras file"):
        Heat(runtime.load(path)[0], SIZE)
    (path / "more").write_text("x")
    with pytest.raises(ValueError, match="was changed since it was exported"):
        runtime.load(path)
    export(model, "saved_model", path, overwrite=True)
    assert runtime.load(path)[1].crop.size == SIZE
    page = json.loads(runtime.description_path(path).read_text())
    for field, value in (("precision", "float33"), ("sha256", 5)):
        runtime.description_path(path).write_text(json.dumps(page | {field: value}))
        with pytest.raises(ValueError, match="json does not describe faces"):
            runtime.load(path)
    runtime.description_path(path).unlink()
    with pytest.raises(FileNotFoundError, match=r"needs everything.*faces.json"):
        runtime.load(path)


def test_an_output_that_no_folder_can_take_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"a.onnx cannot be written: .*file is not a folder"):
        export("shipped", "onnx", tmp_path / "file/a.onnx")


def test_labels_that_are_spelt_otherwise_are_understood(model, shades, tmp_path, refused):
    folder = tmp_path / "other"
    folder.mkdir()
    for name, other in (("dark", "dim"), ("light", "light")):
        (folder / other).symlink_to(f"{shades.partition('=')[2]}/val/{name}")
    how = ["--to", "saved_model", "--rows", "5", "--cache", str(tmp_path / "c")]
    typed = ["export", str(model), "-o", str(tmp_path / "a"), *how]
    on = ["--on", f"shade={folder}"]
    assert main([*typed, *on]) == 2
    assert "give some by --on" in refused(main([*typed, "--map", "dim=dark"]))
    assert main([*typed, *on, "--map", "dim=dark"]) == 0
    page = json.loads((tmp_path / "a.json").read_text())
    assert page["parity"]["heads"]["shade"]["labelled"]["n"] == 5


def test_an_export_is_compared_on_the_faces_of_whole_photographs(model, tmp_path):
    """As `evaluate` would score it; only the rows that are compared are looked at."""
    for number in range(8):
        photo = tmp_path / f"photos/val/{('dark', 'light')[number % 2]}/{number}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(encoded(draw(1, tint=number * 13)))
    found = []

    class Watched(GreenSquares):
        def __call__(self, image):
            found.append(super().__call__(image))
            return found[-1]

    on, cache = [f"shade={tmp_path / 'photos'}"], tmp_path / "c"
    how = {"on": on, "cache": cache, "detector": Watched()}
    report = export(model, "saved_model", tmp_path / "a", rows=2, **how)
    assert len(found) == 2 and report.heads["shade"].labelled.n == 2
    with pytest.raises(ValueError, match="give some by --on"):
        export(model, "saved_model", tmp_path / "b", detector=Watched())


@pytest.mark.parametrize("detector", [None, GreenSquares()])
def test_val_of_an_export_is_that_of_the_training(detector, tmp_path):
    """Copies, and photographs without a face, decide what a training sets aside."""
    generator = np.random.default_rng(0)
    photos = generator.integers(0, 110, (30, 48, 48, 3), dtype="uint8")
    if detector:
        photos[:25, 8:40, 8:40, 1] += 151
    dark, light = photos[::2], photos[1::2]
    folder = save_classes(tmp_path / "p", dark=[*dark, *dark[:9]], light=[*light, *light[:9]])
    specs, how = [f"shade={folder}"], {"detector": detector, "cache": tmp_path / "c"}
    finder = ReadingConfig(**how).finder(CropRule(SIZE), specs)
    training = unite(read_labels(specs)[0], finder=finder)
    shown = choose_crops(Description((SHADE, TINT), CropRule(SIZE)), specs, 100, **how)
    assert {e.path for e in shown.rows.examples} == {e.path for e in training.only("val")}
    pictures = {e.path.read_bytes() for e in shown.rows.examples}
    assert pictures.isdisjoint(e.path.read_bytes() for e in training.only("train"))


def test_only_exported_models_are_replaced(model, tmp_path):
    photos, text = tmp_path / "photos", tmp_path / "text"
    photos.mkdir()
    (photos / "a.jpg").write_text("mine")
    (tmp_path / "photos.json").write_text("{}")
    text.write_text("mine")
    for output in (photos, text):
        with pytest.raises(FileExistsError, match="is no exported model, so it is not replaced"):
            export(model, "saved_model", output, overwrite=True)
    (tmp_path / "new.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"new.json exists"):
        export(model, "saved_model", tmp_path / "new")
    assert (photos / "a.jpg").read_text() == text.read_text() == "mine"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"to": "coreml"}, "A target is one of onnx"),
        ({"to": "saved_model", "rows": 0}, "1 row or more of each task. Received: 0"),
        ({"to": "saved_model", "rows": -3}, "1 row or more of each task. Received: -3"),
        ({"to": "saved_model", "int8": True}, "saved_model has no int8"),
        ({"to": "saved_model", "output": "faces.onnx"}, "without an ending"),
    ],
)
def test_what_cannot_be_written_is_told_first(how, message, model):
    with pytest.raises(ValueError, match=message):
        export(model, **how)


def test_int8_without_enough_faces_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: True)
    with pytest.raises(ValueError, match="give labelled ones, for example --on shade=FOLDER"):
        export(model, "litert", tmp_path / "a.tflite", int8=True)
    ten = [shaded(90, seed) for seed in range(10)]
    few = save_classes(tmp_path / "few", dark=ten, light=ten)
    how = {"on": [f"shade={few}"], "cache": tmp_path / "cache", "int8": True}
    with pytest.raises(ValueError, match="int8 needs at least 100 faces"):
        export(model, "litert", tmp_path / "a.tflite", **how)


def test_a_missing_package_is_one_sentence_with_its_cure(model, capsys, monkeypatch):
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    assert main(["export", str(model), "--to", "onnx"]) == 2
    assert f"`{install_command('onnx')}` installs it" in capsys.readouterr().err


def test_the_command_says_what_it_proved(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(model), "--to", "saved_model"]) == 0
    said = capsys.readouterr().out
    assert "256 made pictures" in said and "wrote toy_saved_model" in said
    assert "same answer" in said and "accuracy" not in said  # made pictures have no labels
    assert (tmp_path / "toy_saved_model.json").is_file()


@pytest.mark.parametrize("name", ALL)
def test_weights_that_are_damaged_are_told_before_images_are_read(
    name, toy_model_path, tmp_path, monkeypatch, capsys
):
    model_file.replace_members(toy_model_path, {model_file.WEIGHTS_MEMBER: b"not HDF5"})
    monkeypatch.setattr("faceattr.exporting.export.choose_crops", None)
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(toy_model_path), "--to", name]) == 2
    assert toy_model_path.name in capsys.readouterr().err
