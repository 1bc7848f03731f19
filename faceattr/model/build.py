"""Build the network: preprocessing, one backbone or one per task, one softmax head per task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import keras

from faceattr.model.vgg16 import (
    BACKBONES,
    LAST,
    LAYERS,
    add_backbone,
    layer_name,
    norm_name,
    split_layer_name,
    start_near_identity,
    vgg16,
)
from faceattr.tasks import Task, refuse_unknown

POOLINGS = ("max", "avg")


def pool(output: keras.KerasTensor, pooling: str, layer: str) -> keras.KerasTensor:
    """A feature map ``(n, height, width, channels)`` as one vector per crop; `pooling` is ``"max"``
    or ``"avg"``, `layer` the name of the layer that the new ones are called after."""
    base, owner = split_layer_name(layer)
    kind = {"max": keras.layers.GlobalMaxPooling2D, "avg": keras.layers.GlobalAveragePooling2D}
    pooled = kind[pooling](name=layer_name(base, owner, "_pooled"))(output)
    if base.startswith(LAST):
        return pooled
    # VGG16's early activations are in the hundreds, too steep for a head's usual rate.
    scaled = keras.layers.LayerNormalization(
        center=False, scale=False, dtype="float32", name=layer_name(base, owner, "_scaled")
    )
    return scaled(pooled)


def feature_map(model: keras.Model, layer: str, task: str) -> keras.KerasTensor:
    """What a layer of VGG16 puts out in a model of `build`; in the task's own backbone, if any."""
    _check_layers([layer])
    outputs = {part.name: part.output for part in model.layers}
    for name in (layer_name(layer, task), layer):
        for last in (f"{norm_name(name)}_relu", name):
            if last in outputs:
                return outputs[last]
    raise ValueError(f"The network has no layer {layer}; no head reads as high as that.")


def head(name: str, classes: int) -> keras.layers.Dense:
    """A softmax head."""
    # Zeros start every head at the loss of chance, so no first jolt reaches the backbone.
    return keras.layers.Dense(
        classes, activation="softmax", kernel_initializer="zeros", dtype="float32", name=name
    )


def _check_layers(names: Iterable[str]) -> None:
    """Raise ValueError for a name that is no convolution or pooling layer of VGG16."""
    if strangers := sorted(set(names) - set(LAYERS)):
        raise ValueError(
            "A head reads a layer of VGG16 such as block2_pool or block4_conv3. "
            f"Received: {', '.join(map(repr, strangers))}"
        )


SHARINGS = ("hard", "soft")


def build(
    tasks: Sequence[Task],
    *,
    backbone: str = "vgg16",
    sharing: str = "hard",
    feature_layers: Mapping[str, str] | None = None,
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
        backbone: ``"vgg16"``, or ``"vgg16-slim"`` with a quarter of the channels, for quick
            experiments; it starts from nothing.
        sharing: ``"hard"``, one backbone for all tasks, or ``"soft"``, one for each task, their
            layers called like ``"block1_conv1_of_gender"``.
        feature_layers: By task, the layer whose features its head reads if not the last one, for
            example ``{"colour": "block2_pool"}``.
        weights: Where the 13 convolutions start: ``"imagenet"`` (Keras downloads them),
            a file that ``keras.applications.VGG16(include_top=False)`` loads, or None for a
            start near the identity.
        pooling: ``"max"`` or ``"avg"`` over the feature map that a head reads.
        dropout: Share of the pooled features that is dropped while training.
        norm: Put batch normalisation behind every convolution while training from nothing;
            `transfer` folds it away again.
        dtype: ``"float32"`` or ``"mixed_bfloat16"``; the heads compute in float32 either way.
        seed: For the start near the identity and for dropout.

    Returns:
        A model from RGB ``uint8`` crops of shape ``(n, height, width, 3)``, each side at
        least 32, to a dict of ``float32`` probabilities of shape ``(n, classes)`` by task name.

    Raises:
        ValueError: An argument is none of those above.
        OSError: The weights cannot be had.

    Source: Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale
    Image Recognition".
    """
    feature_layers = dict(feature_layers or {})
    _check(tasks, backbone, sharing, feature_layers, weights, pooling)
    with _dtype_policy(dtype):
        crops = keras.Input((None, None, 3), dtype="uint8", name="crops")
        # Whole numbers up to 255 stay exact in float32; VGG's BGR order and means follow.
        floats = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(crops)
        prepared = keras.applications.vgg16.preprocess_input(floats)
        like = vgg16(weights)

        @cache
        def backbone_of(owner: str | None) -> dict[str, keras.KerasTensor]:
            return add_backbone(prepared, like, BACKBONES[backbone], norm=norm, owner=owner)

        @cache
        def features(owner: str | None, layer: str) -> keras.KerasTensor:
            pooled = pool(backbone_of(owner)[layer], pooling, layer_name(layer, owner))
            name = layer_name(layer, owner, "_dropout")
            return keras.layers.Dropout(dropout, seed=seed, name=name)(pooled)

        heads = {}
        for task in tasks:
            owner = task.name if sharing == "soft" else None
            read = features(owner, feature_layers.get(task.name, LAST))
            heads[task.name] = head(task.name, len(task.classes))(read)
        model = keras.Model(crops, heads, name="faceattr")
    if weights is None:
        start_near_identity(model, seed)
    return model


@contextmanager
def _dtype_policy(dtype: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _check(tasks, backbone, sharing, feature_layers, weights, pooling) -> None:
    if not tasks:
        raise ValueError("A model needs at least one task. Received: none")
    for what, given, known in (
        ("backbone", backbone, BACKBONES),
        ("sharing", sharing, SHARINGS),
        ("pooling", pooling, POOLINGS),
    ):
        if given not in known:
            raise ValueError(f"{what} is one of {', '.join(known)}. Received: {given!r}")
    names = [task.name for task in tasks]
    refuse_unknown("task", feature_layers, names, "to read a feature layer")
    _check_layers(feature_layers.values())
    if weights is not None and BACKBONES[backbone] != 1:
        raise ValueError(f"{backbone} starts from nothing (weights None). Received: {weights}")
