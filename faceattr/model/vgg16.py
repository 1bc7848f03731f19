"""The 13 convolutions of VGG16: Keras' own, or with fewer channels; one trunk or one per task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np


@keras.saving.register_keras_serializable(package="faceattr")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation, computed by ``FusedBatchNormV3`` where TensorFlow trains.

    Keras' own layer does not use the fused kernel under ``mixed_bfloat16`` and costs a
    quarter to two fifths of VGG16's training speed. Scale, offset and statistics stay in
    float32; the input keeps its dtype. With another backend this is Keras' layer.
    """

    def __init__(self, **kwargs) -> None:
        kwargs.update(dtype="float32", autocast=False)
        super().__init__(**kwargs)

    def call(self, inputs, training=None, mask=None):
        learning = training and self.trainable
        if keras.backend.backend() != "tensorflow" or not learning:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        output, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=self.moving_mean,
            variance=self.moving_variance,
            epsilon=self.epsilon,
            is_training=True,
        )
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return output


TRUNKS = {"vgg16": 1, "vgg16-slim": 4}  # what the channels are divided by
LAST = "block5_pool"
OF = "_of_"


def add_trunk(
    prepared: keras.KerasTensor,
    like: keras.Model,
    divide_channels: int = 1,
    *,
    norm: bool = False,
    owner: str | None = None,
) -> dict[str, keras.KerasTensor]:
    """Put the layers of a VGG16 behind prepared crops.

    Args:
        prepared: Crops as VGG16 wants them, ``(n, height, width, 3)``.
        like: What `vgg16` gave; its layers and, where the channels stay, its weights are copied.
        divide_channels: How many times fewer channels every convolution has.
        norm: Put batch normalisation between each convolution and its relu.
        owner: The task that has this trunk for itself; None for a shared one.

    Returns:
        By the name of a layer in Keras' VGG16, what it puts out.
    """
    outputs, x = {}, prepared
    for layer in like.layers[1:]:
        is_convolution = isinstance(layer, keras.layers.Conv2D)
        config = layer.get_config() | {"name": owned(layer.name, owner)}
        if is_convolution:
            config["filters"] //= divide_channels
            if norm:
                config.update(activation="linear", use_bias=False)
        copy = type(layer).from_config(config)
        x = copy(x)
        if is_convolution and divide_channels == 1 and not norm:
            copy.set_weights(layer.get_weights())
        if is_convolution and norm:
            x = _norm_and_relu(x, copy.name)
        outputs[layer.name] = x
    return outputs


def _norm_and_relu(x: keras.KerasTensor, convolution: str) -> keras.KerasTensor:
    pass

    x = FusedBatchNormalization(name=norm_name(convolution))(x)
    return keras.layers.ReLU(name=f"{norm_name(convolution)}_relu")(x)


def owned(name: str, owner: str | None) -> str:
    """What a layer is called in the trunk of one task: ``block1_conv1_of_gender``."""
    return name if owner is None else f"{name}{OF}{owner}"


def shared_name(name: str) -> str:
    """What the same layer is called in a trunk that all tasks share."""
    return name.partition(OF)[0]


def with_owner_renamed(name: str, names: Mapping[str, str]) -> str:
    """What a layer is called after tasks were renamed."""
    base, of, owner = name.partition(OF)
    return f"{base}{of}{names.get(owner, owner)}"


def norm_name(convolution: str) -> str:
    """What the batch normalisation behind a convolution is called."""
    name, of, owner = convolution.partition(OF)
    return f"{name}_norm{of}{owner}"


def vgg16(weights: str | Path | None) -> keras.Model:
    """Keras' VGG16 without its top.

    Raises:
        OSError: The weights cannot be had.
    """
    start = None if weights is None else str(weights)
    try:
        return keras.applications.VGG16(include_top=False, weights=start)
    except Exception as error:
        if weights is None:
            raise
        # A failed download is a bare Exception in Keras.
        reason = str(error).strip().split("\n")[0]
        raise OSError(f"VGG16's weights {start!r} cannot be had: {reason}") from error


def start_near_identity(model: keras.Model, seed: int) -> None:
    """Let each convolution begin as an almost linear copy of its input, alike in every trunk.

    A centre tap carries each channel on and He noise of a tenth of the variance breaks the
    symmetry. Thirteen plain layers do not start to learn from He or Glorot noise alone
    (the idea of Dirac and delta-orthogonal initialisation, Xiao et al. 2018).
    """
    generator, drawn = np.random.default_rng(seed), {}
    for layer in convolutions(model):
        base = shared_name(layer.name)
        if base not in drawn:
            drawn[base] = _near_identity(layer.kernel.shape, generator)
        layer.kernel.assign(drawn[base])


def _near_identity(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    height, width, n_in, n_out = shape
    noise_scale = math.sqrt(0.1 * 2 / (height * width * n_in))
    kernel = generator.normal(0, noise_scale, shape)
    channels = np.arange(n_out)
    kernel[height // 2, width // 2, channels % n_in, channels] += math.sqrt(2 * 0.9)
    return kernel.astype("float32")


def convolutions(model: keras.Model) -> list[keras.layers.Conv2D]:
    """The convolutions, first to last; where each task has a trunk, trunk by trunk."""
    found = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    # Keras sorts layers by their distance to an output; VGG16's names sort as data flow.
    return sorted(found, key=lambda layer: layer.name.partition(OF)[::-1])
