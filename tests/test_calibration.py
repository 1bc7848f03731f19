from dataclasses import replace

import numpy as np
import pytest
from conftest import toy_network

from faceattr.data.dataset import LabeledDataset
from faceattr.evaluation.calibration import (
    COLDEST,
    HOTTEST,
    Calibration,
    apply_temperature,
    calibrate,
    cross_calibrated,
    fit_temperature,
)
from faceattr.evaluation.metrics import calibration_error, predict
from faceattr.model.priors import set_prior

GENERATOR = np.random.default_rng(0)
CHANCES = GENERATOR.dirichlet(np.ones(4), 4000)
TRUTH = np.eye(4)[[GENERATOR.choice(4, p=p) for p in CHANCES]]


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_a_sharpening_or_a_flattening(factor):
    wrong = apply_temperature(CHANCES, factor)
    assert fit_temperature(TRUTH, wrong) == pytest.approx(1 / factor, rel=0.05)


def test_a_tempered_answer_is_calibrated_and_keeps_its_order():
    wrong = apply_temperature(CHANCES, 0.4)
    mended = apply_temperature(wrong, fit_temperature(TRUTH, wrong))
    right = TRUTH.argmax(axis=1) == wrong.argmax(axis=1)
    assert calibration_error(right, wrong.max(axis=1)) > 0.1
    assert calibration_error(right, mended.max(axis=1)) < 0.03
    np.testing.assert_array_equal(mended.argmax(axis=1), wrong.argmax(axis=1))


def test_votes_count_as_the_class_that_has_most():
    # Three of ten saw something else each time; still the class that most saw is what is right.
    votes = 0.7 * TRUTH + 0.3 * np.roll(TRUTH, 1, axis=1)
    wrong = apply_temperature(CHANCES, 0.4)
    assert fit_temperature(votes, wrong) == pytest.approx(fit_temperature(TRUTH, wrong))


def test_unlabelled_rows_do_not_count_and_few_rows_say_nothing():
    half = TRUTH * (np.arange(4000) % 2)[:, None]
    wrong = apply_temperature(CHANCES, 2.0)
    assert fit_temperature(half, wrong) == pytest.approx(fit_temperature(TRUTH[1::2], wrong[1::2]))
    assert fit_temperature(TRUTH[:19], wrong[:19]) == 1.0


def test_held_out_rows_are_calibrated_when_one_temperature_mends_all():
    right, confidence = cross_calibrated(TRUTH, apply_temperature(CHANCES, 0.4))
    assert calibration_error(right, confidence) < 0.03
    noise = np.eye(4)[GENERATOR.integers(4, size=30)]
    assert calibration_error(*cross_calibrated(noise, apply_temperature(CHANCES[:30], 0.2))) > 0.05


@pytest.mark.parametrize("rows", [20, 39])
def test_wherever_a_head_is_calibrated_the_held_out_rows_are(rows):
    unsure = apply_temperature(CHANCES[:rows], 3.0)
    always_right = np.eye(4)[unsure.argmax(axis=1)]
    error = 1 - unsure.max(axis=1).mean()
    assert calibration_error(*cross_calibrated(always_right, unsure)) < error / 2


@pytest.mark.parametrize("rows", [40, 400])
@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_no_mistake_on_few_rows_makes_no_head_certain(rows, factor):
    answers = apply_temperature(CHANCES[:rows], factor)
    right = np.eye(4)[answers.argmax(axis=1)]
    temperature = fit_temperature(right, answers)
    assert 1.01 * COLDEST < temperature < 0.99 * HOTTEST
    sure = apply_temperature(answers, temperature).max(axis=1)
    assert 0.6 * (1 - 1 / (rows + 2)) < sure.mean() < 1 - 1 / (rows + 2) + 1e-3


def test_a_head_that_knows_nothing_is_said_to():
    noise = np.eye(4)[np.random.default_rng(0).integers(4, size=400)]
    known = Calibration(fit_temperature(noise, apply_temperature(CHANCES[:400], 0.05)), True, 0, 0)
    assert str(known).endswith("hardly better than chance")
    assert "chance alone" in str(Calibration(2.0, True, 0.01, 0.01))


def test_a_head_that_was_hardly_trained_becomes_as_sure_as_it_is_right():
    hardly = apply_temperature(CHANCES, 200.0)
    right = TRUTH.argmax(axis=1) == hardly.argmax(axis=1)
    assert hardly.max() < 0.3 < right.mean()
    temperature = fit_temperature(TRUTH, hardly)
    assert temperature == pytest.approx(1 / 200, rel=0.05)
    mended = apply_temperature(hardly, temperature).max(axis=1)
    assert calibration_error(right, mended) < 0.03
    assert "temperature 0.00492," in str(Calibration(temperature, True, 0.01, 0.01))


def test_a_head_whose_scores_hardly_differ_is_said_to():
    nothing = apply_temperature(CHANCES, 1e5)
    known = Calibration(fit_temperature(TRUTH, nothing), True, 0, 0)
    assert "the lowest temperature, 0.001, and still less sure" in str(known)


def test_the_lowest_temperature_leaves_numbers():
    answers = np.array([[0.35, 0.34, 0.31], [1, 0, 0], [1e-30, 1e-30, 1]], "float32")
    np.testing.assert_allclose(apply_temperature(answers, 1e-3), np.eye(3)[[0, 0, 2]], atol=1e-12)
    evens = apply_temperature(np.full((1, 3), 1 / 3), 1e-3, np.log([0.5, 0.3, 0.2]))
    np.testing.assert_allclose(evens, [[0.5, 0.3, 0.2]], rtol=1e-6)


def test_divided_weights_can_be_stored_in_half_precision():
    network = toy_network(seed=0)
    head = network.get_layer("gender")
    kernel, bias = head.get_weights()
    # Scores that hardly differ, of large weights: both classes have the same ones but for a trace.
    kernel[:] = 300 + 1e-3 * kernel
    head.set_weights([kernel, bias])
    crops = GENERATOR.integers(0, 256, (60, 32, 32, 3), dtype="uint8")
    rows = LabeledDataset(crops, np.arange(60), {"gender": np.zeros((60, 2))})
    rows.targets["gender"][np.arange(60), predict(network, rows)["gender"].argmax(axis=1)] = 1
    found = calibrate(network, rows, ["gender"])["gender"]
    assert found.temperature < 0.1
    for divided, before in zip(head.get_weights(), (kernel, bias), strict=True):
        np.testing.assert_allclose(divided * found.temperature, before, rtol=1e-5)
        assert np.isfinite(divided.astype("float16")).all()


def test_no_row_fits_its_own_temperature():
    # The halves need opposite temperatures, so each must get the other's, and be worse for it.
    halves = np.empty_like(CHANCES)
    halves[::2], halves[1::2] = (
        apply_temperature(CHANCES[::2], 0.5),
        apply_temperature(CHANCES[1::2], 2.0),
    )
    _, confidence = cross_calibrated(TRUTH, halves)
    assert confidence[::2].mean() > halves[::2].max(axis=1).mean()
    assert confidence[1::2].mean() < halves[1::2].max(axis=1).mean()


def test_calibration_goes_into_the_weights_of_the_heads():
    network = toy_network(seed=0)
    head = network.get_layer("gender")
    head.set_weights([weights * 50 for weights in head.get_weights()])
    crops = GENERATOR.integers(0, 256, (60, 32, 32, 3), dtype="uint8")
    labels = np.eye(2)[GENERATOR.integers(2, size=60)].astype("float32")
    rows = LabeledDataset(crops, np.arange(60), {"expression": np.zeros((60, 7)), "gender": labels})
    before = predict(network, rows)
    found = calibrate(network, rows)
    after = predict(network, rows)
    assert found["expression"].temperature == 1.0
    assert np.isnan(found["expression"].held_out_error)
    assert np.isnan(found["expression"].expected_ece)
    assert 0 < found["gender"].expected_ece < 0.2
    assert found["gender"].fitted and not found["expression"].fitted
    assert found["gender"].temperature > 1.2
    assert "sources" not in str(found["gender"])
    shares = calibrate(network, rows, ["gender"], {"gender": np.log(np.full((60, 2), 0.5))})
    assert shares["gender"].put_to_sources and not found["gender"].put_to_sources
    words = str(replace(found["gender"], temperature=1.2, put_to_sources=True))
    assert words.endswith("answers put to the class shares of their sources")
    np.testing.assert_allclose(
        after["gender"], apply_temperature(before["gender"], found["gender"].temperature), atol=1e-4
    )
    np.testing.assert_array_equal(after["expression"], before["expression"])


def test_a_temperature_is_fitted_to_answers_under_the_shares_of_their_source():
    """A head that answers under a uniform prior is right about another one once that is told."""
    generator = np.random.default_rng(1)
    truth = generator.choice(2, 4000, p=[0.9, 0.1])
    mark = generator.random(4000) < np.where(truth, 0.9, 0.4)  # seen in either class so often
    rare = np.where(mark, 0.9 / (0.9 + 0.4), 0.1 / (0.1 + 0.6))  # what Bayes says of even classes
    uniform = np.stack([1 - rare, rare], axis=1)
    target, prior = np.eye(2)[truth], np.tile(np.log([0.9, 0.1]), (4000, 1))
    assert fit_temperature(target, uniform, log_prior=prior) == pytest.approx(1, abs=0.05)
    assert fit_temperature(target, uniform) > 1.15


def test_a_prior_is_set_exactly_and_can_be_set_back():
    network = toy_network(seed=0)
    crops = GENERATOR.integers(0, 256, (20, 32, 32, 3), dtype="uint8")
    before = network.predict(crops, verbose=0)["gender"]
    set_prior(network, "gender", np.log([0.8, 0.2]))
    after = network.predict(crops, verbose=0)["gender"]
    expected = before * [0.8, 0.2]
    np.testing.assert_allclose(after, expected / expected.sum(1, keepdims=True), rtol=1e-5)
    set_prior(network, "gender", -np.log([0.8, 0.2]))
    np.testing.assert_allclose(network.predict(crops, verbose=0)["gender"], before, rtol=1e-5)
