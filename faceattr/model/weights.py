"""Weights from one network to another, batch normalisation folded on the way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from faceattr.model.build import build
from faceattr.model.vgg16 import convolutions, layer_name, norm_name, split_layer_name, vgg16
from faceattr.tasks import Task


def in_bfloat16(
    model: keras.Model, tasks: Sequence[Task], network: Mapping[str, Any]
) -> keras.Model:
    """The same network with its convolutions in half the bits; the heads stay in float32.

    `tasks` and `network` are those of its description.
    """
    halved = build(tasks, weights=None, dtype="mixed_bfloat16", **network)
    transfer(model, halved)
    return halved


def transfer(
    source: keras.Model, target: keras.Model, heads: Collection[str] | None = None
) -> None:
    """Copy the weights of `source` into `target`, folding batch normalisation on the way.

    Both are models of `build`, with or without normalisation. A backbone that the tasks of `source`
    share goes into every backbone of `target`. A target with normalisation answers alike once
    `measure_norms` has seen crops. `heads` are those to copy; None for all that both have.

    With kernel W, scale g, offset b, mean m and variance v, the folded convolution is ``W * g /
    sqrt(v + eps)`` with bias ``b - m * g / sqrt(v + eps)``.
    """
    norms = {layer.name: layer for layer in _norms_of(target)}
    for layer in convolutions(target):
        kernel, bias = _folded(source, layer.name, layer.kernel.shape)
        if norm := norms.get(norm_name(layer.name)):
            _set_normed(layer, norm, kernel, bias)
        else:
            layer.set_weights([kernel, bias])
    common = source.output.keys() & target.output.keys()
    for name in common if heads is None else heads:
        target.get_layer(name).set_weights(source.get_layer(name).get_weights())


def _folded(source: keras.Model, name: str, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Kernel and bias of a convolution, from the task's own backbone or from the shared one."""
    layers = {layer.name: layer for layer in source.layers}
    name = name if name in layers else split_layer_name(name)[0]
    if name not in layers:
        raise ValueError(
            f"There is no {name} to take over: the network's convolutions are "
            f"{', '.join(layer.name for layer in convolutions(source))}."
        )
    weights = layers[name].get_weights()
    if weights[0].shape != shape:
        raise ValueError(
            f"A backbone with other channels cannot be taken over: {name} has a kernel of "
            f"{weights[0].shape}. Expected: {shape}."
        )
    if len(weights) == 2:
        return weights
    scale, offset = _scale_and_offset(layers[norm_name(name)])
    return [weights[0] * scale, offset]


def _scale_and_offset(norm: keras.layers.Layer) -> tuple[np.ndarray, np.ndarray]:
    """What a normalisation does to a channel in inference: times the one, plus the other."""
    gamma, beta, mean, variance = (np.float64(w) for w in norm.get_weights())
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


def _set_normed(
    layer: keras.layers.Conv2D, norm: keras.layers.Layer, kernel: np.ndarray, bias: np.ndarray
) -> None:
    """The kernel with the length of a start near identity; the norm carries the rest."""
    lengths = np.maximum(np.sqrt((kernel**2).sum(axis=(0, 1, 2)) / 2), 1e-6)
    layer.set_weights([kernel / lengths])
    gamma = lengths * np.sqrt(1 + norm.epsilon)
    norm.set_weights([gamma, bias, np.zeros_like(bias), np.ones_like(bias)])


def _norms_of(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The batch normalisations of a model of `build`."""
    return [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]


def measure_norms(model: keras.Model, crops: np.ndarray, batch_size: int = 16) -> None:
    """Give batch normalisations the statistics of `crops`, a few hundred RGB ``uint8`` ``(n, side,
    side, 3)``; what the model answers stays.

    A network that got its weights from one without normalisation has none yet, and would answer
    otherwise as soon as it learns, when every batch is normalised by its own.
    """
    for norm in _norms_of(model):
        beta, spread = _moments(keras.Model(model.input, norm.output), crops, batch_size)
        scale, offset = _scale_and_offset(norm)
        variance = spread / scale**2
        gamma = scale * np.sqrt(variance + norm.epsilon)
        norm.set_weights([gamma, beta, (beta - offset) / scale, variance])


def _moments(model: keras.Model, crops: np.ndarray, batch_size: int) -> tuple[np.ndarray, ...]:
    """Mean and variance of each channel of what a model answers, ``float64`` ``(channels,)``.

    One batch of one map is in memory at a time: at 224 pixels a first map has 13 MB a crop.
    """
    sums, squares, count = 0.0, 0.0, 0
    for start in range(0, len(crops), batch_size):
        output = model(crops[start : start + batch_size], training=False)
        found = keras.ops.convert_to_numpy(keras.ops.cast(output, "float32")).astype("float64")
        found = found.reshape(-1, found.shape[-1])
        sums, squares = sums + found.sum(axis=0), squares + np.square(found).sum(axis=0)
        count += len(found)
    mean = np.asarray(sums / count)
    return mean, np.maximum(squares / count - mean**2, 0)


def vgg16_of(model: keras.Model, task: str | None = None) -> keras.Model:
    """The backbone of `model` as ``keras.applications.VGG16(include_top=False)`` builds it.

    Its ``save_weights("backbone.weights.h5")`` writes a file that Keras' VGG16 and `build`
    take as ``weights=``. `task` says whose backbone, where every task has one.
    """
    backbone = vgg16(None)
    for layer in convolutions(backbone):
        layer.set_weights(_folded(model, layer_name(layer.name, task), layer.kernel.shape))
    return backbone
