from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import SHADE, TINT, toy_network
from PIL import Image
from use_toys import OnEach

from faceattr.data.dataset import LabeledDataset, class_prior, mask
from faceattr.data.manifest import Example
from faceattr.evaluation.metrics import predict
from faceattr.images.crop import CropRule
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.build import build
from faceattr.model.file import Description
from faceattr.tasks import Task
from faceattr.training.augment import mix_batch
from faceattr.training.distill import Distillation, distilled, with_answers

CROPS = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype="uint8")


def rows(known=(1, 1, 0, 0, 0, 0)):
    shade = np.eye(2, dtype="float32")[[0, 1, 0, 1, 0, 1]] * np.array(known)[:, None]
    return LabeledDataset(CROPS, np.arange(6), {"shade": shade.astype("float32")})


def answers(*light):
    light = np.array(light, "float32")
    return {"shade": np.stack([1 - light, light], axis=1)}


@pytest.fixture
def teachers(tmp_path):
    """Two saved toys that answer differently."""
    paths = []
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        network = toy_network((SHADE, TINT))
        for name in ("shade", "tint"):
            kernel, bias = network.get_layer(name).get_weights()
            network.get_layer(name).set_weights([kernel * 9, bias])
        paths.append(str(tmp_path / f"{seed}.keras"))
        model_file.save(network, Description((SHADE, TINT), CropRule(40)), Path(paths[-1]))
    return paths


def test_a_row_without_a_label_gets_an_answer_that_is_sure_enough():
    said = answers(0.1, 0.9, 0.95, 0.6, 0.3, 0.15)
    taught = with_answers(rows(), said, {"shade": 0.85}, {})
    np.testing.assert_array_equal(taught.targets["shade"][:2], rows().targets["shade"][:2])
    assert mask(taught.targets["shade"]).tolist() == [1, 1, 1, 0, 0, 1]
    np.testing.assert_allclose(taught.targets["shade"][[2, 5]], said["shade"][[2, 5]])
    assert taught.soft == ("shade",)


def test_beside_a_label_an_answer_counts_as_much_as_was_asked_for():
    taught = with_answers(rows(), answers(*[0.5] * 6), {"shade": 0.9}, {"shade": 0.4})
    np.testing.assert_allclose(taught.targets["shade"][0], [0.8, 0.2])
    assert not taught.targets["shade"][2:].any()


def test_the_mean_of_several_teachers_counts(teachers):
    taught, lines = distilled(rows(), Distillation(tuple(teachers), {"shade": 0.0}))
    said = [predict(model_file.load(path)[0], rows())["shade"] for path in teachers]
    np.testing.assert_allclose(taught.targets["shade"][2:], np.mean(said, axis=0)[2:], rtol=1e-4)
    assert np.abs(said[0] - said[1]).max() > 0.01
    assert list(lines) == ["teacher: shade: 4 of 4 unlabelled faces"]


def test_a_teacher_computes_as_the_training_does(tmp_path):
    how = {"backbone": "vgg16-slim", "dropout": 0.0}
    network, path = build([SHADE], weights=None, **how), tmp_path / "teacher.keras"
    kernel, bias = network.get_layer("shade").get_weights()
    network.get_layer("shade").set_weights(
        [np.linspace(-0.001, 0.001, kernel.size).reshape(kernel.shape), bias]
    )
    model_file.save(network, Description((SHADE,), CropRule(40), network=how), path)
    asked = Distillation((str(path),), {"shade": 0.0})
    exact, half = (
        distilled(rows(), asked, dtype=dtype)[0].targets["shade"]
        for dtype in ("float32", "mixed_bfloat16")
    )
    assert 0 < np.abs(exact - half).max() < 0.02


def test_a_temperature_softens_what_is_taught_and_not_what_is_asked(teachers):
    hard, _ = distilled(rows(), Distillation((teachers[0],), {"shade": 0.55}))
    soft, _ = distilled(rows(), Distillation((teachers[0],), {"shade": 0.55}, temperature=3))
    np.testing.assert_array_equal(mask(hard.targets["shade"]), mask(soft.targets["shade"]))
    unknown = mask(hard.targets["shade"])[2:] > 0
    assert unknown.any()
    tops = [of.targets["shade"][2:][unknown].max(axis=1) for of in (soft, hard)]
    assert (tops[0] < tops[1]).all()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"thresholds": {"shade": 2}}, "from 0 to 1"),
        ({"temperature": 0}, "temperature is above 0"),
        ({"teachers": ()}, "there is none"),
    ],
)
def test_impossible_amounts_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        Distillation(**{"teachers": ("a.keras",), **how})


def test_a_teacher_with_other_classes_or_another_task_is_refused(teachers):
    how = Distillation(tuple(teachers), {"age": 0.5})
    with pytest.raises(ValueError, match=r"No teacher answers age here. They answer shade."):
        how.check([SHADE], CropRule(40))
    with pytest.raises(ValueError, match="answers shade with the classes dark, light, and here"):
        Distillation(tuple(teachers)).check([Task("shade", ("light", "dark"))], CropRule(40))
    with pytest.raises(ValueError, match=r"sees faces cropped by .*size=40.*, and here .*size=48"):
        Distillation(tuple(teachers)).check([SHADE], CropRule(48))
    with pytest.raises(ValueError, match="No teacher answers mood here"):
        Distillation(tuple(teachers)).check([Task("mood", ("a", "b"))], CropRule(40))


def test_a_teacher_is_described_once(teachers, monkeypatch):
    opened, describe = [], runtime.describe
    monkeypatch.setattr(
        runtime, "describe", lambda path: opened.append(str(path)) or describe(path)
    )
    how = Distillation(tuple(teachers))
    how.check([SHADE], CropRule(40))
    assert how.provenance([SHADE])["answered"] == ["shade"]
    assert opened == teachers


def test_a_teacher_s_own_prior_is_taken_out_before_it_teaches_a_head_with_one(teachers):
    path = Path(teachers[0])
    network, about = model_file.load(path)
    plain = predict(network, rows())["shade"]
    made = {"priors": {"shade": {"light": 0.8, "dark": 0.2}}, "class_shares": {"shade": {}}}
    model_file.describe_anew(path, replace(about, provenance=made))
    how = Distillation((teachers[0],), {"shade": 0.0}, {"shade": 0.5})
    shares = np.tile(np.log([0.9, 0.1]).astype("float32"), (6, 1))
    taught, _ = distilled(replace(rows(), log_priors={"shade": shares}), how, ["shade"])

    def put(answers, by):
        return answers * by / (answers * by).sum(axis=1, keepdims=True)

    even = put(plain, 1 / np.array([0.2, 0.8]))
    np.testing.assert_allclose(taught.targets["shade"][2:], even[2:], rtol=1e-4)
    beside = (rows().targets["shade"] + put(even, np.array([0.9, 0.1]))) / 2
    np.testing.assert_allclose(taught.targets["shade"][:2], beside[:2], rtol=1e-4)
    np.testing.assert_allclose(np.exp(taught.log_priors["shade"][2:]), 0.5, rtol=1e-6)
    np.testing.assert_array_equal(taught.log_priors["shade"][:2], shares[:2])


def counted(**labels):
    return ({"split": "train", "rows": 9, "labels": labels, "sha256": ""},)


def added_to(phases, **labels):
    old = {"heads": ["shade"], "data": counted(shade=[1, 3]), "provenance": {}}
    settings = {"balance": "none", "phases": phases}
    return {"data": counted(**labels), "provenance": {"settings": settings, "added_to": old}}


FROZEN, OPEN = [{"unfreeze_from": None}], [{"unfreeze_from": "backbone"}]


@pytest.mark.parametrize(
    ("about", "shares"),
    [
        ({"data": counted(shade=[1, 3])}, [1.5, 3.5]),
        (added_to(FROZEN, tint=[1, 2, 3]), [1.5, 3.5]),
        (added_to(FROZEN, shade=[9, 0]), [1.5, 3.5]),
        (added_to(OPEN, shade=[9, 0]), [9.5, 0.5]),
        *(
            ({"data": counted(shade=[1, 3]), "provenance": {"settings": {"balance": how}}}, [1, 1])
            for how in ("weights", "sampling")
        ),
        ({}, None),
    ],
)
def test_a_teacher_s_class_shares_are_those_of_the_rows_that_taught_its_head(
    teachers, about, shares
):
    path, shown = Path(teachers[0]), []
    network, described = model_file.load(path)
    plain = predict(network, rows())["shade"]
    model_file.describe_anew(path, replace(described, **about))
    how = Distillation((teachers[0],), {"shade": 0.0})
    taught, _ = distilled(rows(), how, ["shade"], progress=OnEach(shown.append, str))
    even = plain / np.array(shares or [1, 1])
    even /= even.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(taught.targets["shade"][2:], even[2:], rtol=1e-4)
    said = ["0.keras does not say how frequent the classes of shade" in line for line in shown]
    assert said == [True] * (shares is None)


def test_a_taught_row_counts_once_among_the_class_shares_of_a_mixed_batch():
    """Labelled and taught rows in equal parts have the mean of both their class shares."""
    shares = np.tile(np.log([0.9, 0.1]).astype("float32"), (6, 1))
    labelled = replace(rows((1, 1, 1, 0, 0, 0)), log_priors={"shade": shares})
    taught = with_answers(labelled, answers(*[0.5] * 6), {"shade": 0.0}, {})
    total = np.zeros(2)
    for seed in range(40):
        _, mixed, _ = mix_batch(taught.batch(np.arange(6)), 1.0, 0, np.random.default_rng(seed))
        total += np.exp(mixed[class_prior("shade")]).sum(axis=0)
    np.testing.assert_allclose(total / total.sum(), [0.7, 0.3], atol=1e-5)


def test_a_label_that_the_teacher_does_not_believe_is_its_answer_or_none(teachers, tmp_path):
    examples = [Example(Path("a"), source=name) for name in ("clean", "noisy", *"abcd")]
    given = replace(rows(), examples=examples)
    labels = given.targets["shade"]
    said = predict(model_file.load(teachers[0])[0], rows())["shade"]
    beliefs = (said * labels)[:2].sum(axis=1)
    least = {"shade": float(beliefs.mean())}  # one of the two labels is below it
    doubted = int(beliefs.argmin())
    unsure, lines = distilled(
        given, Distillation((teachers[0],), {"shade": 1.0}, doubts=least), (), [SHADE]
    )
    np.testing.assert_array_equal(unsure.targets["shade"][doubted], 0)
    np.testing.assert_array_equal(unsure.targets["shade"][1 - doubted], labels[1 - doubted])
    assert lines[0].startswith("teacher: shade: 1 of 2 labels are not believed (")
    assert f"{('clean', 'noisy')[doubted]} 100.0%" in lines[0]
    assert lines[0].endswith("0 of these rows get its answer")
    sheet = tmp_path / "new" / "doubted.png"
    how = Distillation((teachers[0],), {"shade": 0.0}, doubts=least)
    taught, lines = distilled(given, how, (), [SHADE], sheet)
    np.testing.assert_allclose(taught.targets["shade"][doubted], said[doubted], rtol=1e-4)
    np.testing.assert_array_equal(taught.targets["shade"][1 - doubted], labels[1 - doubted])
    assert lines[0].endswith("1 of these rows get its answer")
    with Image.open(sheet) as drawn:
        assert drawn.size[0] > 100


def test_no_label_is_doubted_without_being_asked(teachers, tmp_path):
    taught, lines = distilled(rows(), Distillation((teachers[0],)), (), [SHADE], tmp_path / "a.png")
    np.testing.assert_array_equal(taught.targets["shade"][:2], rows().targets["shade"][:2])
    assert len(lines) == 1 and not (tmp_path / "a.png").exists()
