"""The network: Keras' own VGG16, its preprocessing inside, one softmax head per task.

`build` makes it, `transfer` moves weights between two of them and folds batch
normalisation on the way, `open_from` says which part of it learns.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import keras
import numpy as np

from faceattr.tasks import Task

POOLINGS = ("max", "avg")
TRUNK = "trunk"


def build(
    tasks: Sequence[Task],
    *,
    weights: str | Path | None = "imagenet",
    pooling: str = "max",
    dropout: float = 0.5,
    norm: bool = False,
    dtype: str = "float32",
    seed: int = 0,
) -> keras.Model:
    """Build VGG16 with one softmax head per task.

    Args:
        tasks: One ``Dense`` softmax head each, named after the task.
        weights: Where the 13 convolutions start: ``"imagenet"`` (Keras downloads them),
            a file that ``keras.applications.VGG16(include_top=False)`` loads, or None for a
            start near the identity.
        pooling: ``"max"`` or ``"avg"`` over the last feature map.
        dropout: Share of the pooled features that is dropped while training.
        norm: Put batch normalisation behind every convolution while training from nothing;
            `transfer` folds it away again.
        dtype: ``"float32"`` or ``"mixed_bfloat16"``; the heads compute in float32 either way.
        seed: For the start near the identity and for dropout.

    Returns:
        A model from RGB ``uint8`` crops of shape ``(n, height, width, 3)``, each side at
        least 32, to a dict of ``float32`` probabilities of shape ``(n, classes)`` by task name.

    Source: Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale
    Image Recognition".
    """
    if not tasks:
        raise ValueError("A model needs at least one task. Received: none")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is one of {', '.join(POOLINGS)}. Received: {pooling!r}")
    policy_before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        trunk = _trunk(weights, pooling)
        if norm:
            trunk = _with_norm(trunk)
        features = keras.layers.Dropout(dropout, seed=seed, name="dropout")(trunk.output)
        heads = {task.name: _head(task)(features) for task in tasks}
        model = keras.Model(trunk.inputs[0], heads, name="faceattr")
    finally:
        keras.config.set_dtype_policy(policy_before)
    if weights is None:
        _start_near_identity(model, seed)
    return model


def _trunk(weights: str | Path | None, pooling: str) -> keras.Model:
    pixels = keras.Input((None, None, 3), dtype="uint8", name="crops")
    # Whole numbers up to 255 stay exact in float32; VGG's BGR order and means follow.
    floats = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(pixels)
    prepared = keras.applications.vgg16.preprocess_input(floats)
    start = None if weights is None else str(weights)
    try:
        return keras.applications.VGG16(
            include_top=False, weights=start, input_tensor=prepared, pooling=pooling
        )
    except Exception as error:
        if weights is None:
            raise
        # A failed download is a bare Exception in Keras.
        reason = str(error).strip().split("\n")[0]
        raise OSError(f"VGG16's weights {start!r} cannot be had: {reason}") from error


def _head(task: Task) -> keras.layers.Layer:
    # Zeros start every head at the loss of chance, so no first jolt reaches the trunk.
    return keras.layers.Dense(
        len(task.classes),
        activation="softmax",
        kernel_initializer="zeros",
        dtype="float32",
        name=task.name,
    )


def _with_norm(trunk: keras.Model) -> keras.Model:
    """The same trunk with batch normalisation between each convolution and its relu."""
    from faceattr.norm import FusedBatchNormalization

    def without_bias_and_relu(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D):
            config.update(activation="linear", use_bias=False)
        return type(layer).from_config(config)

    def then_norm_and_relu(layer, *args, **kwargs):
        output = layer(*args, **kwargs)
        if isinstance(layer, keras.layers.Conv2D):
            output = FusedBatchNormalization(name=f"{layer.name}_norm")(output)
            output = keras.layers.ReLU(name=f"{layer.name}_relu")(output)
        return output

    return keras.models.clone_model(
        trunk, clone_function=without_bias_and_relu, call_function=then_norm_and_relu
    )


def _start_near_identity(model: keras.Model, seed: int) -> None:
    """Let each convolution begin as an almost linear copy of its input.

    A centre tap carries each channel on and He noise of a tenth of the variance breaks the
    symmetry. Thirteen plain layers do not start to learn from He or Glorot noise alone
    (the idea of Dirac and delta-orthogonal initialisation, Xiao et al. 2018).
    """
    generator = np.random.default_rng(seed)
    for layer in convolutions(model):
        height, width, n_in, n_out = layer.kernel.shape
        noise_scale = math.sqrt(0.1 * 2 / (height * width * n_in))
        kernel = generator.normal(0, noise_scale, layer.kernel.shape)
        channels = np.arange(n_out)
        kernel[height // 2, width // 2, channels % n_in, channels] += math.sqrt(2 * 0.9)
        layer.kernel.assign(kernel.astype("float32"))


def convolutions(model: keras.Model) -> list[keras.layers.Conv2D]:
    """The trunk's convolutions, first to last."""
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def head_names(model: keras.Model) -> list[str]:
    """The names of the model's heads, in the order in which they were built."""
    return list(model.output)


def transfer(
    source: keras.Model, target: keras.Model, heads: Collection[str] | None = None
) -> None:
    """Copy the weights of `source` into `target`, folding batch normalisation on the way.

    Args:
        source: A model of `build`, with or without normalisation.
        target: A model of `build` without normalisation.
        heads: Names of the heads to copy; None for all that both have.

    With kernel W, scale g, offset b, mean m and variance v, the folded convolution is
    ``W * g / sqrt(v + eps)`` with bias ``b - m * g / sqrt(v + eps)``.
    """
    for layer in convolutions(target):
        layer.set_weights(_folded(source, layer.name))
    common = set(head_names(source)) & set(head_names(target))
    for name in common if heads is None else heads:
        target.get_layer(name).set_weights(source.get_layer(name).get_weights())


def _folded(source: keras.Model, name: str) -> list[np.ndarray]:
    weights = source.get_layer(name).get_weights()
    if len(weights) == 2:
        return weights
    norm = source.get_layer(f"{name}_norm")
    gamma, beta, mean, variance = (np.float64(w) for w in norm.get_weights())
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return [weights[0] * scale, beta - mean * scale]


def vgg16_of(model: keras.Model) -> keras.Model:
    """The trunk of `model` as ``keras.applications.VGG16(include_top=False)`` builds it.

    Its ``save_weights("trunk.weights.h5")`` writes a file that Keras' VGG16 and `build`
    take as ``weights=``.
    """
    trunk = keras.applications.VGG16(include_top=False, weights=None)
    for layer in convolutions(trunk):
        layer.set_weights(_folded(model, layer.name))
    return trunk


def open_from(model: keras.Model, first: str | None, *, norm_learns: bool = False) -> None:
    """Say what learns: the heads always, of the trunk what begins at layer `first`.

    Args:
        model: A model of `build`. Compile it again afterwards, or nothing changes.
        first: A layer's name such as ``"block5_conv1"``, ``"trunk"`` for all of it, None for
            the heads alone.
        norm_learns: Let batch normalisation learn and follow the batches, as training from
            nothing needs; otherwise it stays in inference mode.
    """
    names = [layer.name for layer in convolutions(model)]
    if first not in (None, TRUNK, *names):
        raise ValueError(
            f"Fine-tuning begins at 'trunk' or at one of {', '.join(names)}. Received: {first!r}"
        )
    learns = first == TRUNK
    for layer in model.layers:
        learns = learns or layer.name == first
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = learns and (norm_learns or not is_norm)
    for name in head_names(model):
        model.get_layer(name).trainable = True
