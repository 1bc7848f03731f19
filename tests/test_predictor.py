"""A detector and a model together: described faces out of an image."""

import json
import re
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
from conftest import toy_network
from use_toys import MOOD, SHADE, ColourModel, GreenSquares, attributes, draw

from faceattr.detection.base import Face
from faceattr.exporting import formats
from faceattr.images.crop import CropRule
from faceattr.inference.metadata import settings_of
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.samples import checked_interval
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.build import build
from faceattr.model.file import Description
from faceattr.tasks import EXPRESSION, GENDER


def test_an_image_without_a_face_gives_none_and_asks_nothing():
    describe = attributes()
    assert describe(draw(0)) == []
    assert describe.model.shapes == []


def test_faces_come_from_left_to_right_with_an_answer_to_every_task():
    faces = attributes()(draw(3))
    assert [face.box[0] for face in faces] == [10, 58, 106]
    for face in faces:
        assert set(face.predictions) == {"mood", "shade"}
        mood = face["mood"]
        assert mood.label in MOOD.classes and mood.probability == max(mood.probabilities.values())
        assert list(mood.probabilities) == list(MOOD.classes)
        assert sum(mood.probabilities.values()) == pytest.approx(1)


def test_the_probabilities_are_those_of_the_crop():
    describe, image = attributes(), draw(1, tint=50)
    (face,) = describe(image)
    crop = image[20:60, 10:50].mean((0, 1), keepdims=True).astype(np.uint8)
    expected = ColourModel().predict_on_batch(crop[None])["mood"][0]
    assert list(face["mood"].probabilities.values()) == pytest.approx(expected.tolist(), abs=0.01)


def test_a_list_of_images_is_asked_about_in_one_batch_and_answered_image_by_image():
    images = [draw(2), draw(0), draw(1, tint=50)]
    describe = attributes()
    found = describe(images)
    assert [len(faces) for faces in found] == [2, 0, 1]
    assert len(describe.model.shapes) == 1  # the model was called once
    for faces, image in zip(found, images, strict=True):
        alone = attributes()(image)
        assert [face.box for face in faces] == [face.box for face in alone]
        for one, other in zip(faces, alone, strict=True):
            assert one["mood"].probabilities == pytest.approx(other["mood"].probabilities)
    assert describe([]) == []


def test_an_unknown_task_is_named():
    (face,) = attributes()(draw(1))
    with pytest.raises(KeyError, match=r"no task 'age'; it knows mood, shade"):
        face["age"]


def test_a_face_that_is_too_small_gets_no_answer():
    (face,) = attributes(min_face=41)(draw(1, side=40))
    assert face.too_small and face["mood"].label is None and face["mood"].probabilities == {}
    (face,) = attributes(min_face=40)(draw(1, side=40))
    assert not face.too_small and face["mood"].label is not None


def test_a_face_that_is_answered_otherwise_than_the_filter_asks_is_rejected_with_all_its_answers():
    (face,) = attributes()(draw(1))
    answer, others = face["shade"].label, {"dark", "light"} - {face["shade"].label}
    (kept,) = attributes(filter={"shade": answer.upper()})(draw(1))
    (gone,) = attributes(filter={"shade": others.pop()})(draw(1))
    assert not kept.rejected and gone.rejected
    assert gone.predictions == face.predictions


@pytest.mark.parametrize(
    ("filter", "told"),
    [
        ({"age": "old"}, "no task age to filter by"),
        ({"shade": "grey"}, "not a class of task 'shade'"),
    ],
)
def test_only_what_the_model_knows_can_be_filtered_by(filter, told):
    with pytest.raises(ValueError, match=told):
        attributes(filter=filter)


def test_the_smallest_face_comes_from_the_models_own_scores():
    assert attributes().min_face == 12
    assert attributes(scores={"min_face": 24}).min_face == 24
    assert attributes(scores={"min_face": 24}, min_face=5).min_face == 5


def test_a_weak_answer_is_withheld_and_its_probabilities_are_kept():
    (sure,) = attributes()(draw(1))
    limit = sure["mood"].probability + 0.001
    (face,) = attributes(min_confidence=limit)(draw(1))
    assert face["mood"].label is None
    assert face["mood"].probabilities == sure["mood"].probabilities


def test_a_long_list_of_images_holds_no_more_crops_than_a_batch():
    class Watched(GreenSquares):
        def __call__(self, image):
            asked.append(len(describe.model.shapes))
            return super().__call__(image)

    asked = []
    describe = attributes(detector=Watched(), batch_size=4)
    assert [len(faces) for faces in describe([draw(2)] * 5)] == [2] * 5
    assert asked == [0, 0, 1, 1, 2]


def test_faces_go_through_the_model_in_batches_of_few_shapes():
    describe = attributes(batch_size=4)
    answers = describe.predict([np.zeros((32, 32, 3), np.uint8)] * 11)
    assert len(answers) == 11
    assert [shape[0] for shape in describe.model.shapes] == [4, 4, 4]
    describe.predict([np.zeros((32, 32, 3), np.uint8)] * 5)
    assert [shape[0] for shape in describe.model.shapes[3:]] == [4, 1]
    describe.predict([np.zeros((32, 32, 3), np.uint8)], full_batches=True)
    assert describe.model.shapes[-1][0] == 4


@pytest.mark.parametrize(("faces", "rows"), [(1, 8), (9, 16), (30, 32)])
def test_a_last_batch_is_no_larger_than_tensorflow_needs_for_the_same_answers(
    faces, rows, monkeypatch
):
    describe = FaceAttributes(
        toy_network(), Description((EXPRESSION, GENDER), CropRule(32)), GreenSquares()
    )
    if runtime.min_stable_batch(describe.model) is None:
        pytest.skip("this TensorFlow computes on a GPU, where batches stay full")
    ask, seen = describe.model.predict_on_batch, []
    monkeypatch.setattr(
        describe.model, "predict_on_batch", lambda crops: seen.append(len(crops)) or ask(crops)
    )
    crops = [np.zeros((32, 32, 3), np.uint8)] * faces
    assert len(describe.predict(crops, full_batches=True)) == faces and seen == [rows]
    describe.batch_size = 4
    describe.predict(crops[:1], full_batches=True)
    assert seen[-1] == 4


def test_one_face_is_one_row_for_an_exported_file():
    seen = []

    def answer(crops):
        seen.append(len(crops))
        return {task.name: np.ones((len(crops), len(task.classes))) for task in (MOOD, SHADE)}

    describe = attributes(batch_size=32)
    describe.model = runtime.ExportedModel(answer, min_batch=1)
    describe.predict([np.zeros((32, 32, 3), np.uint8)], full_batches=True)
    describe.model = runtime.ExportedModel(answer)
    describe.predict([np.zeros((32, 32, 3), np.uint8)], full_batches=True)
    assert seen == [1, 32]


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, *formats.TARGETS])
def test_an_answer_does_not_depend_on_how_many_others_came_with_it(name, tmp_path):
    """Up to the last bits, in which a place in a full batch matters on some processors as well."""
    network, description = runtime.load(model_file.path_of(model_file.SHIPPED))
    side = description.crop.size
    if name is not None:
        target = formats.TARGETS[name]
        if missing := [package for package in target.packages if not find_spec(package)]:
            pytest.skip(f"needs the packages {missing}")
        formats.write(name, network, tmp_path / f"faces{target.ending}", side)
        network = runtime.open_exported(tmp_path / f"faces{target.ending}")
    crops = np.random.default_rng(0).integers(0, 256, (32, side, side, 3), dtype="uint8")
    whole = network.predict_on_batch(crops)
    min_batch = runtime.min_stable_batch(network) or 32
    few = network.predict_on_batch(crops[:min_batch])
    for task in description.tasks:
        np.testing.assert_allclose(few[task.name], whole[task.name][:min_batch], rtol=0, atol=1e-6)


def test_a_face_and_its_mirror_image_are_asked_about_and_averaged():
    crop = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype="uint8")
    network = toy_network()
    description = Description((EXPRESSION, GENDER), CropRule(32))
    (straight,), (mirrored,), (both,) = (
        FaceAttributes(network, description, GreenSquares(), flip=flip).predict([face])
        for face, flip in ((crop, False), (crop[:, ::-1], False), (crop, True))
    )
    assert not np.allclose(straight["gender"], mirrored["gender"], atol=1e-4)
    assert both["gender"] == pytest.approx((straight["gender"] + mirrored["gender"]) / 2)


class Places:
    """Answers where a crop is bright: how far to the right, and how far down."""

    def __init__(self):
        self.asked = 0

    def predict_on_batch(self, crops):
        self.asked += 1
        bright = crops[..., 0].astype(float) / crops[..., 0].sum((1, 2), keepdims=True)
        places = [(bright.sum(axis) * np.arange(48)).sum(1) for axis in (1, 2)]
        return {"place": np.stack(places, axis=1)}


def test_shifted_crops_are_asked_about_and_averaged():
    crop = np.zeros((1, 48, 48, 3), np.uint8)
    crop[0, 20, 10] = 255
    found = []
    for shifts in (1, 2, 3, 4, 5):
        model = Places()
        found.append(runtime.TestTimeAveraging(model, shifts=shifts).predict_on_batch(crop))
        assert model.asked == shifts
    right = [of["place"][0].tolist() for of in found]
    # 2 pixels to the right, to the left, down and up.
    expected = [(10, 20), (11, 20), (10, 20), (10, 20.5), (10, 20)]
    assert right == [pytest.approx(place) for place in expected]
    mirrored = runtime.TestTimeAveraging(Places(), flip=True).predict_on_batch(crop)["place"][0]
    assert mirrored == pytest.approx([(10 + 37) / 2, 20])


@pytest.mark.parametrize("shifts", [0, 6])
def test_more_views_than_there_are_are_refused(shifts):
    with pytest.raises(ValueError, match=f"1 to 5 views .--tta.. Received: {shifts}"):
        attributes(tta=shifts)


GOOD = np.zeros((40, 40, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "received"),
    [
        (GOOD / 255, r"float64 \(40, 40, 3\)"),
        (GOOD.astype(np.uint16), "uint16"),
        (GOOD.astype(bool), "bool"),
        (GOOD[..., 0], r"uint8 \(40, 40\)"),
        (GOOD.transpose(2, 0, 1), r"uint8 \(3, 40, 40\)"),
        (np.zeros((40, 40, 4), np.uint8), r"\(40, 40, 4\)"),
        (GOOD[None], r"\(1, 40, 40, 3\)"),
        (GOOD[:0], r"\(0, 40, 3\)"),
        ("face.jpg", "str"),
        (GOOD.tolist(), "list"),
    ],
)
def test_what_is_no_image_is_refused_and_not_answered(image, received):
    describe = attributes()
    asked = (
        lambda: describe.find(image),
        lambda: describe.cut(image, Face((0, 0, 9, 9), None, 1)),
        lambda: describe.predict([image]),
    )
    for ask in asked:
        with pytest.raises(ValueError, match=f"An image is an RGB uint8 array.*{received}"):
            ask()


def test_no_crops_are_no_call():
    describe = attributes()
    assert describe.predict([]) == [] and describe.model.shapes == []


@pytest.mark.parametrize(
    "how",
    [{"min_confidence": 1.2}, {"batch_size": 0}, {"min_face": float("nan")}, {"min_face": -3}],
)
def test_impossible_settings_are_refused(how):
    with pytest.raises(ValueError, match="Received"):
        attributes(**how)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"threads": "2"}, "threads is a whole number, such as 2. Received: '2'"),
        ({"threads": 2.5}, "threads is a whole number"),
        ({"threads": True}, "threads is a whole number"),
        ({"batch_size": 1.5}, "batch_size is a whole number"),
        ({"batch_size": None}, "batch_size is a whole number"),
        ({"tta": 2.5}, "tta is a whole number from 1 to 5"),
        ({"min_face": "a"}, "min_face is a number of pixels"),
        ({"min_confidence": "x"}, "min_confidence is a number from 0 to 1"),
        ({"flip": "no"}, "flip is True or False. Received: 'no'"),
        ({"auto_rotate": "yes"}, "auto_rotate is True or False"),
        ({"filter": "gender=female"}, 'filter is a dict such as {"gender": "female"}. Received'),
        ({"priors": "uniform"}, 'priors is a dict such as {"expression": "uniform"}. Received'),
    ],
)
def test_settings_of_another_kind_are_told_with_an_example(how, told):
    for make in (attributes, partial(FaceAttributes.load, "gone.keras")):
        with pytest.raises(ValueError, match=re.escape(told)):
            make(**how)


def test_numbers_of_numpy_are_numbers_and_reach_the_page_of_a_table(toy_model_path):
    numbers = {"min_face": np.int16(20), "min_confidence": np.float32(0.5), "tta": np.int64(2)}
    how = {"batch_size": np.uint8(100), "threads": np.int32(1), "flip": np.True_}
    ours = FaceAttributes.load(toy_model_path, GreenSquares(), **numbers, **how)
    page = json.loads(json.dumps(settings_of(ours, checked_interval(np.float32(1)))))
    assert page["flip"] is True
    assert {name: page[name] for name in numbers} == numbers
    assert len(ours([draw(3)] * 90)[-1]) == 3


@pytest.mark.parametrize(("option", "name"), [("runtime", "engine"), ("prior", "priors")])
def test_names_of_the_command_line_are_told_those_of_python(option, name):
    with pytest.raises(TypeError, match=f"the option --{option} is called {name}=, not {option}="):
        FaceAttributes.load("gone.keras", **{option: "keras"})


def test_a_model_file_is_opened_and_used(toy_model_path):
    describe = FaceAttributes.load(toy_model_path, GreenSquares())
    faces = describe(draw(2))
    assert len(faces) == 2 and faces[0]["gender"].label in GENDER.classes
    assert describe.path == toy_model_path


def test_a_wrong_model_file_is_told_before_anything_slow(tmp_path):
    (tmp_path / "x.keras").write_text("no model")
    with pytest.raises(ValueError, match=r"\.keras model file"):
        FaceAttributes.load(tmp_path / "x.keras")
    with pytest.raises(FileNotFoundError, match="no model file"):
        FaceAttributes.load(tmp_path / "y.keras")


@pytest.mark.slow
def test_bfloat16_gives_the_same_answers_to_within_a_hundredth(tmp_path):
    network = build((EXPRESSION, GENDER), weights=None)
    for task in (EXPRESSION, GENDER):
        kernel, bias = network.get_layer(task.name).get_weights()
        generator = np.random.default_rng(0)
        kernel = generator.normal(0, 0.001, kernel.shape)
        network.get_layer(task.name).set_weights([kernel, bias])
    description = Description((EXPRESSION, GENDER), CropRule(), network={"pooling": "max"})
    model_file.save(network, description, tmp_path / "m.keras")
    crops = list(np.random.default_rng(1).integers(0, 255, (8, 48, 48, 3), dtype=np.uint8))
    answers = [
        FaceAttributes.load(tmp_path / "m.keras", "none", precision=precision).predict(crops)
        for precision in ("float32", "bfloat16")
    ]
    for exact, rough in zip(*answers, strict=True):
        assert np.ptp(exact["expression"]) > 0.02
        assert rough["expression"] == pytest.approx(exact["expression"], abs=0.01)
    with pytest.raises(ValueError, match="precision is one of"):
        FaceAttributes.load(tmp_path / "m.keras", "none", precision="int4")
