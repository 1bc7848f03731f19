"""Answers under other class shares than those that a head takes for granted."""

from dataclasses import replace
from types import NoneType
from typing import get_args, get_type_hints

import numpy as np
import pytest
from use_toys import MOOD, SHADE, GreenSquares, attributes

from faceattr.inference.predictor import FaceAttributes, Settings
from faceattr.model.priors import change_prior, class_shares, log_ratios
from faceattr.model.runtime import InferenceConfig, WithPriors

CROP = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype="uint8")
KNOWN = {"uniform": [0.5, 0.5], "natural": [0.2, 0.8]}


def described(prior="natural"):
    """The description of a toy whose head `shade` was trained with a prior."""
    about = attributes().description
    made = {"priors": {"shade": prior}, "class_shares": {"shade": KNOWN}}
    return replace(about, provenance=made)


def asked(**how):
    model = attributes().model
    return FaceAttributes(model, described(), GreenSquares(), **how).predict([CROP])[0]


def test_none_may_be_passed_on_for_what_nobody_gave():
    nothing = {"min_face": None, "filter": None, "priors": None}
    assert all(NoneType in get_args(get_type_hints(Settings)[name]) for name in nothing)
    found = FaceAttributes(attributes().model, described(), GreenSquares(), **nothing)
    assert (found.filter, found.priors) == ({}, {}) and found.min_face > 0
    assert InferenceConfig(priors=None) == InferenceConfig()


def test_shares_are_named_or_told_by_class_in_any_order():
    np.testing.assert_array_equal(class_shares("natural", KNOWN, SHADE.classes), [0.2, 0.8])
    told = dict(zip(SHADE.classes[::-1], (3, 1), strict=True))
    np.testing.assert_array_equal(class_shares(told, {}, SHADE.classes), [0.25, 0.75])


@pytest.mark.parametrize("prior", ["sunday", {SHADE.classes[0]: 1}, {"x": 1, "y": 1}])
def test_shares_that_are_not_known_or_not_of_all_classes_are_refused(prior):
    with pytest.raises(ValueError, match=r"A prior is uniform|numbers above 0 for each"):
        class_shares(prior, KNOWN, SHADE.classes)


def test_answers_under_another_prior_are_those_times_the_shares_ratio():
    plain, even = asked(), asked(priors={"shade": "uniform"})
    expected = plain["shade"] * [0.5 / 0.2, 0.5 / 0.8]
    np.testing.assert_allclose(even["shade"], expected / expected.sum(), rtol=1e-5)
    np.testing.assert_array_equal(even["mood"], plain["mood"])


def test_the_prior_that_a_head_has_changes_nothing():
    same = asked(priors={"shade": dict(zip(SHADE.classes, (1, 4), strict=True))})
    np.testing.assert_allclose(same["shade"], asked()["shade"], rtol=1e-6)


def test_a_head_without_a_prior_is_refused():
    with pytest.raises(ValueError, match=r"'mood' was not trained with --prior.*were: shade"):
        asked(priors={"mood": dict.fromkeys(MOOD.classes, 1)})


def test_a_change_of_the_prior_there_and_back_is_none():
    answers, ratio = np.array([[0.9, 0.1], [0.3, 0.7]], "float32"), np.log([0.2, 3.0])
    there = change_prior(answers, ratio)
    assert np.abs(there - answers).max() > 0.1
    np.testing.assert_allclose(change_prior(there, -ratio), answers, atol=1e-6)


def test_many_crops_are_put_to_a_prior_one_by_one():
    model = attributes().model
    ratios = log_ratios(described(), {"shade": "uniform"})
    crops = np.stack([CROP, CROP[::-1], 255 - CROP])
    together = WithPriors(model, ratios).predict_on_batch(crops)["shade"]
    single = [WithPriors(model, ratios).predict_on_batch(crops[i : i + 1])["shade"] for i in (0, 1)]
    np.testing.assert_allclose(together[:2], np.concatenate(single), rtol=1e-5)
