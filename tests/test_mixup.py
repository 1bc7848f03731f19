import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import toy_network

from faceattr.data.dataset import class_prior, mask, row_weights
from faceattr.training.augment import mix_batch
from faceattr.training.losses import compile_masked

CROPS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype="uint8")
EXPRESSION = np.eye(7, dtype="float32")[np.arange(8) % 7] * (np.arange(8) < 5)[:, None]
GENDER = np.eye(2, dtype="float32")[np.arange(8) % 2] * (np.arange(8) >= 5)[:, None]
TARGETS = {"expression": EXPRESSION.astype("float32"), "gender": GENDER.astype("float32")}


def batch():
    return CROPS, TARGETS, {name: mask(target) for name, target in TARGETS.items()}


def drawn(mixup=0.0, cutmix=0.0, seed=0):
    return mix_batch(batch(), mixup, cutmix, np.random.default_rng(seed))


def test_without_a_parameter_nothing_is_mixed():
    crops, targets, _ = drawn()
    assert crops is CROPS and targets is TARGETS


@pytest.mark.parametrize("way", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_rows_are_mixed_with_rows_that_know_the_same(way):
    for seed in range(5):
        crops, targets, masks = drawn(**way, seed=seed)
        assert (crops.shape, crops.dtype) == (CROPS.shape, CROPS.dtype)
        np.testing.assert_array_equal(masks["expression"], np.arange(8) < 5)
        np.testing.assert_array_equal(masks["gender"], np.arange(8) >= 5)
        for name, target in targets.items():
            np.testing.assert_allclose(target.sum(axis=1), masks[name], rtol=1e-6)


def test_mixup_is_the_mean_of_two_crops_and_their_labels():
    crops, targets, _ = drawn(mixup=1.0, seed=3)
    row = next(i for i in range(5) if np.count_nonzero(targets["expression"][i]) == 2)
    own = targets["expression"][row, row % 7]
    other = next(i for i in range(5) if targets["expression"][row, i % 7] and i != row)
    expected = own * CROPS[row].astype(float) + (1 - own) * CROPS[other]
    np.testing.assert_allclose(crops[row], expected, atol=0.51)


def test_a_rare_class_keeps_its_weight_in_a_mixed_batch():
    """With --balance weights both classes have half of the loss, mixed or not."""
    rare = np.eye(2, dtype="float32")[(np.arange(400) % 20 == 0).astype(int)]
    weights, crops = row_weights(rare), np.zeros((400, 8, 8, 3), "uint8")
    for way in ((1.0, 0.0), (0.0, 1.0)):
        shares = np.zeros(2)
        for seed in range(10):
            batch = crops, {"shade": rare}, {"shade": weights}
            _, targets, masks = mix_batch(batch, *way, np.random.default_rng(seed))
            shares += (masks["shade"][:, None] * targets["shade"]).sum(axis=0)
        np.testing.assert_allclose(shares / shares.sum(), [0.5, 0.5], atol=1e-3)


def test_class_shares_follow_the_weights_of_the_rows_as_labels_do():
    labels, shares = np.eye(2, dtype="float32"), np.float32([[0.9, 0.1], [0.1, 0.9]])
    prior = {class_prior("shade"): np.log(shares)}
    weights = {"shade": np.float32([1, 0.01])}
    batch = np.zeros((2, 8, 8, 3), "uint8"), {"shade": labels, **prior}, weights
    for seed in range(6):
        _, targets, _ = mix_batch(batch, 1.0, 0.0, np.random.default_rng(seed))
        expected = targets["shade"] @ shares
        np.testing.assert_allclose(np.exp(targets[class_prior("shade")]), expected, rtol=1e-4)


def test_a_patch_counts_as_much_as_it_covers():
    crops, targets, _ = drawn(cutmix=1.0, seed=1)
    row = next(i for i in range(5) if np.count_nonzero(targets["expression"][i]) == 2)
    left = (crops[row] == CROPS[row]).all(axis=2).mean()
    assert targets["expression"][row, row % 7] == pytest.approx(left, abs=0.02)


def test_a_mixed_batch_without_a_label_moves_no_head():
    """The gradient parity: nobody in the batch knows the gender."""
    network = toy_network(seed=0)
    compile_masked(network, keras.optimizers.SGD(), label_smoothing=0.1)
    unknown = {**TARGETS, "gender": np.zeros((8, 2), "float32")}
    known = {name: mask(target) for name, target in unknown.items()}
    crops, targets, masks = mix_batch((CROPS, unknown, known), 0.4, 1.0, np.random.default_rng(0))
    with tf.GradientTape() as tape:
        loss = network.compute_loss(crops, targets, network(crops), masks)
    head = network.get_layer("gender")
    assert float(loss) > 0
    for gradient in tape.gradient(loss, [weight.value for weight in head.weights]):
        assert not np.any(gradient)


def test_class_shares_are_mixed_as_labels_are():
    shares = np.where(np.arange(8)[:, None] % 2, [0.98, 0.02], [0.5, 0.5]).astype("float32")
    crops, targets, masks = batch()
    targets = {**targets, class_prior("gender"): np.log(shares)}
    _, mixed_targets, _ = mix_batch((crops, targets, masks), 1.0, 0, np.random.default_rng(3))
    found = np.exp(mixed_targets[class_prior("gender")])
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert ((found[:, 1] > 0.021) & (found[:, 1] < 0.499)).any()
