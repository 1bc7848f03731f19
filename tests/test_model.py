from functools import partial

import keras
import numpy as np
import pytest

from faceattr.model.build import build
from faceattr.model.vgg16 import convolutions
from faceattr.model.weights import measure_norms, transfer, vgg16_of
from faceattr.tasks import EXPRESSION, GENDER
from faceattr.training.config import Phase
from faceattr.training.optimizers import unfreeze

CROPS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype="uint8")


@pytest.fixture(scope="module")
def plain():
    return with_lively_weights(build([EXPRESSION, GENDER], weights=None))


@pytest.fixture(scope="module")
def normed():
    return with_lively_weights(build([EXPRESSION, GENDER], weights=None, norm=True))


def with_lively_weights(model):
    """Heads and norms away from their start, so that no comparison is of zeros."""
    generator = np.random.default_rng(1)
    for name in model.output:
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([generator.normal(0, 1e-3, kernel.shape), bias])
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            draw = [generator.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()]
            layer.set_weights([draw[0], draw[1] - 1, draw[2] - 1, draw[3]])
    return model


def unfreeze_from(model, first, **how):
    unfreeze(model, Phase("opened", 1, 0.1, first, **how))


def largest_difference(one, other):
    return max(np.abs(one[name] - other[name]).max() for name in one)


def test_one_softmax_head_per_task_and_uint8_crops_in(plain):
    answers = plain.predict(CROPS, verbose=0)
    assert {name: answer.shape for name, answer in answers.items()} == {
        "expression": (4, 7),
        "gender": (4, 2),
    }
    for answer in answers.values():
        np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-5)
    assert plain.input.dtype == "uint8"


def test_the_backbone_is_keras_own_vgg16(plain):
    reference = keras.applications.VGG16(include_top=False, weights=None)
    ours = [(layer.name, layer.kernel.shape) for layer in convolutions(plain)]
    assert ours == [(layer.name, layer.kernel.shape) for layer in convolutions(reference)]
    assert len(ours) == 13


def test_preprocessing_is_vgg_s_own_and_inside(plain):
    first = keras.Model(plain.input, plain.get_layer("block1_conv1").output)
    reference = keras.applications.vgg16.preprocess_input(CROPS.astype("float32"))
    expected = plain.get_layer("block1_conv1")(reference)
    np.testing.assert_allclose(first.predict(CROPS, verbose=0), expected, rtol=1e-4, atol=1e-3)


def test_a_new_network_answers_chance_for_everything():
    answers = build([GENDER], backbone="vgg16-slim", weights=None).predict(CROPS, verbose=0)
    np.testing.assert_array_equal(answers["gender"], 0.5)


def test_folding_batch_normalisation_changes_predictions_by_less_than_a_thousandth(normed):
    folded = build([EXPRESSION, GENDER], weights=None)
    transfer(normed, folded)
    before, after = (model.predict(CROPS, verbose=0) for model in (normed, folded))
    assert np.abs(before["expression"] - 1 / 7).max() > 0.05
    assert largest_difference(before, after) < 1e-3
    assert not any("norm" in layer.name for layer in folded.layers)


def test_normalisation_comes_back_without_changing_an_answer():
    slim = partial(build, [EXPRESSION, GENDER], backbone="vgg16-slim", weights=None)
    plain, model = with_lively_weights(slim()), slim(norm=True, dropout=0.0)
    transfer(plain, model)
    expected = plain.predict(CROPS, verbose=0)
    assert largest_difference(model.predict(CROPS, verbose=0), expected) < 1e-5
    measure_norms(model, CROPS)
    assert largest_difference(model.predict(CROPS, verbose=0), expected) < 1e-5
    # ... and it learns from where it stood: normalised by the batch itself, it answers alike.
    learning = {name: np.asarray(a) for name, a in model(CROPS, training=True).items()}
    assert largest_difference(learning, expected) < 1e-4
    back = slim()
    transfer(model, back)
    assert largest_difference(back.predict(CROPS, verbose=0), expected) < 1e-3


def test_a_normed_kernel_has_the_length_of_a_start_near_identity(plain):
    model = build([EXPRESSION, GENDER], weights=None, norm=True)
    transfer(plain, model)
    for layer in convolutions(model):
        lengths = np.sqrt((np.asarray(layer.kernel) ** 2).sum(axis=(0, 1, 2)))
        np.testing.assert_allclose(lengths, np.sqrt(2), rtol=1e-4)


def test_the_folded_backbone_loads_as_weights_of_keras_vgg16(normed, tmp_path):
    path = tmp_path / "backbone.weights.h5"
    vgg16_of(normed).save_weights(path)
    reference = keras.applications.VGG16(include_top=False, weights=str(path))
    started = build([GENDER], weights=path)
    folded = build([GENDER], weights=None)
    transfer(normed, folded)
    for layer in convolutions(reference):
        for one, other in zip(
            layer.get_weights(), started.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(layer.kernel, folded.get_layer(layer.name).kernel)


def test_transfer_takes_over_the_heads_that_are_asked_for(plain):
    target = build([EXPRESSION, GENDER], weights=None)
    transfer(plain, target, heads=["gender"])
    assert not target.get_layer("expression").kernel.numpy().any()
    np.testing.assert_array_equal(
        target.get_layer("gender").kernel, plain.get_layer("gender").kernel
    )


@pytest.mark.parametrize(
    ("first", "learning"), [(None, 0), ("block5_conv1", 3), ("block1_conv1", 13), ("backbone", 13)]
)
def test_open_from_says_what_learns(plain, first, learning):
    unfreeze_from(plain, first)
    assert sum(layer.trainable for layer in convolutions(plain)) == learning
    assert all(plain.get_layer(name).trainable for name in plain.output)


def test_batch_normalisation_stays_in_inference_mode_unless_it_shall_learn(normed):
    norms = [x for x in normed.layers if isinstance(x, keras.layers.BatchNormalization)]
    unfreeze_from(normed, "backbone")
    before = norms[0].moving_mean.numpy()
    normed(CROPS, training=True)
    np.testing.assert_array_equal(norms[0].moving_mean, before)
    unfreeze_from(normed, "backbone", norm_learns=True)
    normed(CROPS, training=True)
    assert np.abs(norms[0].moving_mean - before).max() > 0


def test_the_fused_norm_computes_what_keras_norm_computes():
    from faceattr.model.vgg16 import FusedBatchNormalization

    x = np.random.default_rng(0).normal(3, 2, (8, 4, 4, 5)).astype("float32")
    fused, stock = FusedBatchNormalization(), keras.layers.BatchNormalization()
    np.testing.assert_allclose(fused(x, training=True), stock(x, training=True), atol=1e-4)
    np.testing.assert_allclose(fused.moving_mean, stock.moving_mean, rtol=1e-5)
    # The fused kernel remembers the unbiased variance.
    np.testing.assert_allclose(fused.moving_variance, stock.moving_variance, rtol=1e-2)


def test_heads_compute_in_float32_under_half_precision():
    model = build([GENDER], weights=None, dtype="mixed_bfloat16")
    assert model.get_layer("block3_conv1").compute_dtype == "bfloat16"
    assert model.output["gender"].dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": []}, "at least one task"),
        ({"tasks": [GENDER], "pooling": "mean"}, "pooling is one of max, avg"),
    ],
)
def test_wrong_arguments_are_told_what_was_expected(wrong, message):
    with pytest.raises(ValueError, match=message):
        build(**wrong, weights=None)


def test_fine_tuning_begins_at_a_layer_that_exists(plain):
    with pytest.raises(ValueError, match=r"block5_conv3.*Received: 'block6'"):
        unfreeze_from(plain, "block6")


def test_the_slim_backbone_has_a_quarter_of_the_channels_and_starts_from_nothing(plain):
    slim = build([GENDER], backbone="vgg16-slim", weights=None)
    assert [layer.filters * 4 for layer in convolutions(slim)] == [
        layer.filters for layer in convolutions(plain)
    ]
    assert slim.predict(CROPS, verbose=0)["gender"].shape == (4, 2)
    with pytest.raises(ValueError, match="starts from nothing"):
        build([GENDER], backbone="vgg16-slim", weights="imagenet")
    with pytest.raises(ValueError, match="other channels"):
        transfer(plain, slim)


@pytest.fixture(scope="module")
def soft():
    return with_lively_weights(
        build(
            [EXPRESSION, GENDER],
            backbone="vgg16-slim",
            sharing="soft",
            feature_layers={"gender": "block2_pool"},
            weights=None,
            norm=True,
        )
    )


def test_with_soft_sharing_each_task_has_a_backbone_and_all_start_alike():
    model = build([EXPRESSION, GENDER], backbone="vgg16-slim", sharing="soft", weights=None)
    found = [layer.name for layer in convolutions(model)]
    assert len(found) == 26
    assert found[0] == "block1_conv1_of_expression"
    for name in ("block1_conv1", "block5_conv3"):
        one, other = (model.get_layer(f"{name}_of_{task}").kernel for task in model.output)
        np.testing.assert_array_equal(one, other)


def test_a_tapped_head_reads_its_layer_and_the_backbone_ends_where_nobody_reads_on(soft):
    names = [layer.name for layer in convolutions(soft)]
    assert [name for name in names if "gender" in name] == [
        f"block{block}_conv{number}_of_gender" for block in (1, 2) for number in (1, 2)
    ]
    assert soft.get_layer("gender").kernel.shape == (32, 2)
    feature = soft.get_layer("block2_pool_scaled_of_gender").output
    scaled = keras.Model(soft.input, feature).predict(CROPS, verbose=0)
    np.testing.assert_allclose(scaled.std(axis=1), 1, rtol=0.01)


def test_own_backbones_and_taps_are_folded_too(soft):
    folded = build(
        [EXPRESSION, GENDER],
        backbone="vgg16-slim",
        sharing="soft",
        feature_layers={"gender": "block2_pool"},
        weights=None,
    )
    transfer(soft, folded)
    before, after = (model.predict(CROPS, verbose=0) for model in (soft, folded))
    assert largest_difference(before, after) < 1e-3


def test_a_shared_backbone_goes_into_every_own_one_and_never_back(soft):
    shared = with_lively_weights(build([GENDER], backbone="vgg16-slim", weights=None))
    own = build([EXPRESSION, GENDER], backbone="vgg16-slim", sharing="soft", weights=None)
    transfer(shared, own)
    for task in own.output:
        np.testing.assert_array_equal(
            own.get_layer(f"block3_conv2_of_{task}").kernel,
            shared.get_layer("block3_conv2").kernel,
        )
    with pytest.raises(ValueError, match="no block1_conv1 to take over"):
        transfer(own, shared)


def test_opening_from_a_layer_opens_it_in_every_backbone(soft):
    unfreeze_from(soft, "block2_conv2")
    learning = [layer.name for layer in convolutions(soft) if layer.trainable]
    assert "block2_conv2_of_gender" in learning and "block2_conv2_of_expression" in learning
    assert "block2_conv1_of_gender" not in learning
    assert len(learning) == 1 + 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backbone": "vgg19"}, "backbone is one of vgg16, vgg16-slim"),
        ({"sharing": "firm"}, "sharing is one of hard, soft"),
        ({"feature_layers": {"age": "block2_pool"}}, "no task age to read a feature layer"),
        ({"feature_layers": {"gender": "block6_pool"}}, "Received: 'block6_pool'"),
    ],
)
def test_wrong_shapes_of_a_network_are_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        build([GENDER], weights=None, **wrong)


def test_statistics_of_norms_do_not_depend_on_how_crops_are_batched():
    def measured(batch_size):
        keras.utils.set_random_seed(0)
        plain = with_lively_weights(build([GENDER], backbone="vgg16-slim", weights=None))
        normed = build([GENDER], backbone="vgg16-slim", weights=None, norm=True)
        transfer(plain, normed)
        measure_norms(normed, CROPS, batch_size)
        return [norm.get_weights() for norm in normed.layers if "_norm" in norm.name]

    for one, other in zip(measured(1), measured(len(CROPS)), strict=True):
        for first, second in zip(one, other, strict=True):
            np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)
