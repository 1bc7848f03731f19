import numpy as np
import pytest

from faceattr.evaluation.calibration import coverage_curve, operating_points, reliability
from faceattr.evaluation.metrics import calibration_error, predictions_for
from faceattr.tasks import GENDER


def answered(right, confidence):
    """Answers of a confidence, right or wrong."""
    confidence = np.array(confidence, float)
    said = np.stack([confidence, 1 - confidence], axis=1)
    return predictions_for(GENDER, np.eye(2)[np.where(right, 0, 1)], said)


FOUR = answered([True, False, True, True], [0.95, 0.75, 0.78, 0.55])


def test_bins_hold_answers_of_about_the_same_confidence():
    low, middle, high = reliability(FOUR)
    assert (low.n, low.accuracy, low.confidence) == (1, 1.0, pytest.approx(0.55))
    assert (middle.n, middle.accuracy, middle.confidence) == (2, 0.5, pytest.approx(0.765))
    assert high.interval == pytest.approx((0.2065, 1.0), abs=1e-4)


def test_the_calibration_error_can_be_worked_out_from_the_bins():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 400)
    answers = answered(rng.uniform(size=400) < confidence**2, confidence)
    gaps = sum(one.n * abs(one.accuracy - one.confidence) for one in reliability(answers)) / 400
    assert gaps > 0.05
    assert calibration_error(answers.correct, answers.confidence) == pytest.approx(gaps)


def test_a_smallest_confidence_buys_accuracy_with_coverage():
    everything, some, none = operating_points(FOUR, (0.0, 0.76, 0.99))
    assert (everything.coverage, everything.accuracy) == (1.0, 0.75)
    assert (some.n, some.coverage, some.accuracy) == (2, 0.5, 1.0)
    assert none.n == 0 and np.isnan(none.accuracy) and none.interval == (0, 1)


def test_the_threshold_itself_is_answered_as_label_does():
    assert operating_points(answered([True], [0.75]), (0.75,))[0].n == 1


def test_the_curve_goes_from_the_surest_answer_to_all():
    coverage, accuracy = coverage_curve(FOUR)
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(accuracy, [1, 1, 2 / 3, 3 / 4])


def test_answers_of_one_confidence_come_together():
    coverage, accuracy = coverage_curve(answered([True, False, False], [0.75, 0.75, 0.75]))
    np.testing.assert_allclose(coverage, [1])
    np.testing.assert_allclose(accuracy, [1 / 3])
