"""What stands on a layer of the trunk: pooling and a softmax head."""

from __future__ import annotations

import re
from collections.abc import Iterable

import keras

from faceattr.model.vgg16 import LAST, OF, norm_name, owned

POOLINGS = ("max", "avg")


def pool(output: keras.KerasTensor, pooling: str, layer: str) -> keras.KerasTensor:
    """A feature map as one vector per crop.

    Args:
        output: What the layer puts out, ``(n, height, width, channels)``.
        pooling: ``"max"`` or ``"avg"``.
        layer: The layer's name, which the new layers are called after.
    """
    base, of, owner = layer.partition(OF)
    kind = {"max": keras.layers.GlobalMaxPooling2D, "avg": keras.layers.GlobalAveragePooling2D}
    pooled = kind[pooling](name=f"{base}_pooled{of}{owner}")(output)
    if layer.startswith(LAST):
        return pooled
    # VGG16's early activations are in the hundreds, too steep for a head's usual rate.
    scaled = keras.layers.LayerNormalization(
        center=False, scale=False, dtype="float32", name=f"{base}_scaled{of}{owner}"
    )
    return scaled(pooled)


def feature_map(model: keras.Model, layer: str, task: str) -> keras.KerasTensor:
    """What a layer of VGG16 puts out in a model of `build`, in the task's own trunk if it has one.

    Raises:
        ValueError: The model has no such layer.
    """
    check_layers([layer])
    outputs = {part.name: part.output for part in model.layers}
    for name in (owned(layer, task), layer):
        for last in (f"{norm_name(name)}_relu", name):
            if last in outputs:
                return outputs[last]
    raise ValueError(f"The network has no layer {layer}; no head reads as high as that.")


def head(name: str, classes: int) -> keras.layers.Dense:
    """A softmax head."""
    # Zeros start every head at the loss of chance, so no first jolt reaches the trunk.
    return keras.layers.Dense(
        classes, activation="softmax", kernel_initializer="zeros", dtype="float32", name=name
    )


def check_layers(names: Iterable[str]) -> None:
    """Raise ValueError for a name that is no convolution or pooling layer of VGG16."""
    for name in names:
        if not re.fullmatch(r"block([12]_(conv[12]|pool)|[345]_(conv[123]|pool))", name):
            raise ValueError(
                "A head reads a layer of VGG16 such as block2_pool or block4_conv3. "
                f"Received: {name!r}"
            )
