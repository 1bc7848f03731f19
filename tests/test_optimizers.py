import re

import keras
import numpy as np
import pytest
from conftest import SHADE, toy_network

from faceattr.tasks import Task
from faceattr.training.optimizers import ConvolutionMuon, branch_pattern, check_branches


def test_convolutions_get_muon_and_everything_else_adam():
    network = toy_network()
    optimizer = ConvolutionMuon(0.01)
    optimizer.build(network.trainable_variables)
    rules = {
        variable.path: "muon" if optimizer.adam_velocities[i] is None else "adam"
        for i, variable in enumerate(network.trainable_variables)
    }
    assert rules == {
        "block1_conv1/kernel": "muon",
        "block1_conv1/bias": "adam",
        "block4_conv1/kernel": "muon",
        "block4_conv1/bias": "adam",
        "expression/kernel": "adam",
        "expression/bias": "adam",
        "gender/kernel": "adam",
        "gender/bias": "adam",
    }


def test_keras_own_muon_would_give_convolutions_adam():
    kernel = keras.Variable(np.zeros((3, 3, 4, 8)))
    stock = keras.optimizers.Muon(0.01)
    stock.build([kernel])
    assert stock.adam_velocities[0] is not None


@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (3, 3, 2, 64)])
def test_the_step_of_a_kernel_is_nearly_orthogonal_as_a_matrix(shape):
    gradient = np.random.default_rng(0).normal(size=shape).astype("float32")
    kernel = keras.Variable(np.zeros(shape, "float32"))
    ConvolutionMuon(0.5, weight_decay=None, nesterov=False, ns_steps=5).apply([gradient], [kernel])
    rows, columns = np.prod(shape[:3]), shape[3]
    step = -kernel.numpy().reshape(rows, columns) / (0.5 * 0.2 * max(1, rows / columns) ** 0.5)
    singular = np.linalg.svd(step, compute_uv=False)
    assert singular.min() > 0.6 and singular.max() < 1.3
    # ... and it goes down the gradient.
    assert np.vdot(step, gradient) > 0


@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (3, 3, 2, 64), (1, 1, 4, 4)])
def test_it_is_keras_own_iteration_on_the_kernel_as_a_matrix(shape):
    gradient = np.random.default_rng(1).normal(size=shape).astype("float32")
    matrix = keras.ops.convert_to_tensor(gradient.reshape(-1, shape[-1]))
    expected = keras.optimizers.Muon().zeropower_via_newtonschulz5(matrix, 4)
    ours = ConvolutionMuon().zeropower_via_newtonschulz5(keras.ops.convert_to_tensor(gradient), 4)
    assert ours.shape == shape
    np.testing.assert_allclose(np.reshape(ours, matrix.shape), expected, atol=1e-4)


def test_it_is_saved_and_loaded_like_any_optimiser():
    config = ConvolutionMuon(0.03, momentum=0.9).get_config()
    assert ConvolutionMuon.from_config(config).momentum == 0.9


PATHS = [
    "block1_conv1/kernel",
    "block5_conv1/kernel",
    "block5_conv1_norm/gamma",
    "block5_conv2_of_gender/bias",
    "gender/kernel",
    "block4_pool_for_gender/kernel",
    "gender_fine/kernel",
]


@pytest.mark.parametrize(
    ("branch", "others", "expected"),
    [
        ("backbone", [], PATHS[:4]),
        ("block5", [], PATHS[1:4]),
        ("block5_conv1", [], PATHS[1:3]),
        ("backbone", ["block5"], PATHS[:1]),
        ("backbone", ["gender"], PATHS[:4]),
        ("block5", ["backbone", "block5_conv1"], PATHS[3:4]),
        ("gender", ["backbone"], PATHS[4:6]),
        ("gender_fine", ["gender"], PATHS[6:]),
    ],
)
def test_a_branch_has_its_own_variables_and_the_narrowest_counts(branch, others, expected):
    pattern = branch_pattern(branch, [branch, *others])
    assert [path for path in PATHS if re.fullmatch(pattern, path)] == expected


def test_a_branch_that_does_not_exist_is_told():
    network = toy_network((SHADE, Task("tint", ("a", "b"))))
    check_branches(network, ["backbone", "block4", "block4_conv1", "tint"])
    for wrong in ("block5", "mood", "head", "(", "block(", "t.nt"):
        with pytest.raises(ValueError, match=f"shade, tint. Received: '{re.escape(wrong)}'"):
            check_branches(network, [wrong])
