"""The backbone: Keras' VGG16 without its top, with all channels or a quarter of them.

Layers are called as in Keras' VGG16. A backbone that belongs to one task adds its name:
``block1_conv1_of_gender``. The functions of this module make and read such names; no other
module does.
"""

from __future__ import annotations

import math
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


BACKBONES = {"vgg16": 1.0, "vgg16-slim": 0.25}  # by name the width: the share of VGG16's channels
CONVOLUTIONS = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}  # by block
LAYERS = tuple(
    f"block{block}_{layer}"
    for block, count in CONVOLUTIONS.items()
    for layer in (*(f"conv{number}" for number in range(1, count + 1)), "pool")
)
LAST = LAYERS[-1]
OF = "_of_"


def layer_name(name: str, owner: str | None, suffix: str = "") -> str:
    """The name of a layer in the backbone of one task: ``block1_conv1_norm_of_gender``."""
    return f"{name}{suffix}" if owner is None else f"{name}{suffix}{OF}{owner}"


def split_layer_name(name: str) -> tuple[str, str | None]:
    """What `layer_name` was given; None for a layer of a backbone that all tasks share."""
    base, _, owner = name.partition(OF)
    return base, owner or None


def norm_name(convolution: str) -> str:
    """The name of the batch normalisation behind a convolution."""
    return layer_name(*split_layer_name(convolution), suffix="_norm")


def add_backbone(
    prepared: keras.KerasTensor,
    like: keras.Model,
    width: float = 1.0,
    *,
    norm: bool = False,
    owner: str | None = None,
) -> dict[str, keras.KerasTensor]:
    """Put the layers of a VGG16 behind prepared crops.

    Args:
        prepared: Crops as VGG16 wants them, ``(n, height, width, 3)``.
        like: What `vgg16` gave; its layers and, where the channels stay, its weights are copied.
        width: Share of VGG16's channels that every convolution has.
        norm: Put batch normalisation between each convolution and its relu.
        owner: The task that has this backbone for itself; None for a shared one.

    Returns:
        By the name of a layer in Keras' VGG16, what it puts out.
    """
    outputs, x = {}, prepared
    for layer in like.layers[1:]:
        is_convolution = isinstance(layer, keras.layers.Conv2D)
        config = layer.get_config() | {"name": layer_name(layer.name, owner)}
        if is_convolution:
            config["filters"] = int(config["filters"] * width)
            if norm:
                config.update(activation="linear", use_bias=False)
        copy = type(layer).from_config(config)
        x = copy(x)
        if is_convolution and width == 1 and not norm:
            copy.set_weights(layer.get_weights())
        if is_convolution and norm:
            x = FusedBatchNormalization(name=norm_name(copy.name))(x)
            x = keras.layers.ReLU(name=f"{norm_name(copy.name)}_relu")(x)
        outputs[layer.name] = x
    return outputs


def vgg16(weights: str | Path | None) -> keras.Model:
    """Keras' VGG16 without its top."""
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
    """Let each convolution begin as an almost linear copy of its input, alike in every backbone.

    The kernel's centre carries each channel on and He noise of a tenth of the variance breaks the
    symmetry. Thirteen plain layers do not start to learn from He or Glorot noise alone
    (the idea of Dirac and delta-orthogonal initialisation, Xiao et al. 2018).
    """
    generator, drawn = np.random.default_rng(seed), {}
    for layer in convolutions(model):
        base, _ = split_layer_name(layer.name)
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
    """The convolutions, first to last; where each task has a backbone, one after the other."""

    def place(layer: keras.layers.Layer) -> tuple[str, int]:
        base, owner = split_layer_name(layer.name)
        return owner or "", LAYERS.index(base)

    # Keras sorts layers by their distance to an output.
    return sorted((x for x in model.layers if isinstance(x, keras.layers.Conv2D)), key=place)
