"""A dataset checks itself: shapes, types and lengths fit."""

import numpy as np
import pytest

from faceattr.data.dataset import LabeledDataset
from faceattr.data.manifest import Example

CROPS, TWO = np.zeros((3, 8, 8, 3), "uint8"), np.eye(2, dtype="float32")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"crops": np.zeros((3, 8, 8), "uint8")}, r"RGB \(n, size, size, 3\)"),
        ({"index": np.array([0, 3])}, "its place among 3 crops"),
        ({"targets": {"mood": np.eye(3)}}, r"mood: .* shape \(2, classes\). Received: float64"),
        ({"targets": {"mood": np.eye(2, dtype=int)}}, "are floats"),
        ({"examples": [Example("a.png")]}, "2 rows have as many examples. Received: 1"),
        ({"balance": "even"}, "balance is one of none, weights, sampling. Received: 'even'"),
    ],
)
def test_a_dataset_whose_parts_do_not_fit_is_refused(wrong, message):
    right = {"crops": CROPS, "index": np.array([0, 2]), "targets": {"mood": TWO}}
    assert len(LabeledDataset(**right)) == 2
    with pytest.raises(ValueError, match=message):
        LabeledDataset(**right | wrong)
