"""The mean of several models' weights."""

import numpy as np
import pytest
from conftest import SHADE, TINT, save_toy

from faceattr import cli
from faceattr.images.crop import CropRule
from faceattr.model import file as model_file
from faceattr.training.average import average
from faceattr.training.heads import edit_heads


def with_prior(prior, natural=(0.2, 0.3, 0.5)):
    even = [1 / 3] * 3
    shares = {"tint": {"uniform": even, "natural": list(natural)}}
    return {"priors": {"tint": prior}, "class_shares": shares}


ABOUT = {"scores": {"min_face": 20}, "provenance": with_prior("natural")}


def written(path, seed, half=False, **other):
    return save_toy(path, **{"tasks": (SHADE, TINT), "seed": seed, "half": half, **ABOUT, **other})


@pytest.fixture
def models(tmp_path):
    return [written(tmp_path / f"{name}.keras", seed) for seed, name in enumerate("abc")]


def test_one_model_has_no_average(models):
    with pytest.raises(ValueError, match="two or more models"):
        average(models[:1], models[0].with_name("mean.keras"))


def test_every_weight_is_the_mean_and_the_scores_are_gone(models):
    mean = models[0].with_name("mean.keras")
    about = average(models, mean)
    network, stored = model_file.load(mean)
    every = [model_file.load(path)[0].get_weights() for path in models]
    floats = [i for i, w in enumerate(every[0]) if w.dtype == "float32"]
    assert floats
    for i in floats:
        expected = np.mean([weights[i] for weights in every], axis=0)
        np.testing.assert_allclose(network.get_weights()[i], expected, rtol=1e-6, atol=1e-7)
    assert stored.scores == about.scores == {}
    assert stored.tasks == (SHADE, TINT)
    named = [of["file"] for of in stored.provenance["average_of"]]
    assert named == ["a.keras", "b.keras", "c.keras"]


@pytest.mark.parametrize("halves", [(True, True), (True, False)])
def test_the_mean_is_stored_in_half_where_all_models_are(tmp_path, halves):
    paths = [written(tmp_path / f"{i}.keras", i, half=half) for i, half in enumerate(halves)]
    average(paths, tmp_path / "mean.keras")
    assert model_file.is_stored_in_half(tmp_path / "mean.keras") == all(halves)


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("heads", {"tasks": (SHADE,)}),
        ("crop rule", {"crop": CropRule(48, 0.5)}),
        ("priors", {"provenance": with_prior("uniform")}),
        ("priors", {"provenance": with_prior("natural", (0.5, 0.3, 0.2))}),
        ("network", {"network": {"pooling": "max"}}),
    ],
)
def test_models_that_differ_in_more_than_weights_are_refused(models, what, other):
    strange = written(models[0].with_name("other.keras"), 5, **other)
    with pytest.raises(ValueError, match=f"the same {what}.*a.keras.*other.keras"):
        average([models[0], strange], models[0].with_name("mean.keras"))
    assert not models[0].with_name("mean.keras").exists()


def test_priors_of_other_names_with_the_same_class_shares_are_the_same(models):
    told = {"blue": 2, "green": 3, "red": 5}
    same = written(models[0].with_name("told.keras"), 5, provenance=with_prior(told))
    mean = average([models[0], same], models[0].with_name("mean.keras"))
    assert mean.tasks == model_file.describe(models[0]).tasks


def test_the_command_writes_it_and_keeps_a_file_that_is_there(models, refused, capsys):
    mean = models[0].with_name("mean.keras")
    given = ["average", *map(str, models), "-o", str(mean)]
    assert cli.main(given) == 0
    assert "the mean of 3 models" in capsys.readouterr().out
    before = mean.read_bytes()
    assert "exists already" in refused(cli.main(given))
    assert mean.read_bytes() == before
    assert cli.main([*given, "--overwrite"]) == 0


def test_a_name_that_no_model_can_have_is_refused_before_models_are_opened(models, monkeypatch):
    monkeypatch.setattr(model_file, "load", lambda path: pytest.fail("a model was opened"))
    with pytest.raises(ValueError, match=r"name ends in .keras. Received: .*mean.h5"):
        average(models, models[0].with_name("mean.h5"))
    with pytest.raises(ValueError, match=r"name ends in .keras"):
        edit_heads(models[0], models[0].with_name("new"), remove="shade")
    (folder := models[0].with_name("folder.keras")).mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        average(models, folder, overwrite=True)
