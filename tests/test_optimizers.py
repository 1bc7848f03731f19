import keras
import numpy as np
import pytest
from conftest import toy_network

from faceattr.training.optimizers import ConvolutionMuon


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
