"""Where in a crop a head finds what it answers: Grad-CAM for one head among several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import keras
import numpy as np

from faceattr.model.vgg16 import convolutions

FEWEST_CELLS = 8  # along a side of a feature map; fewer tell no eye from a mouth
Logit = Callable[[Any], Any]


@dataclass(frozen=True)
class _Halves:
    """A network cut at a feature map, on the way to one head.

    Args:
        lower: Crops to the map.
        upper: The map to what the head reads.
        head: The head's layer.
    """

    lower: keras.Model
    upper: keras.Model
    head: keras.layers.Dense


class Heat:
    """Grad-CAM of a model's heads.

    The gradient of one class' logit, before the softmax, with respect to a feature map below this
    head weighs that map place by place; the positive part of the sum over channels is the heat.
    Source: Selvaraju et al. 2017, "Grad-CAM", in the form of Draelos and Carin 2020, "Use HiResCAM
    instead of Grad-CAM": Grad-CAM averages the gradient over the map, which heats places that
    the head never looked at, and behind global max pooling often leaves nothing.

    Args:
        model: RGB ``uint8`` crops to a dict of probabilities by task, each the output of a
            ``Dense`` softmax layer called after its task.
        size: Side of the crops.

    Raises:
        ValueError: It is an exported model.
    """

    def __init__(self, model: keras.Model, size: int) -> None:
        if not isinstance(model, keras.Model):
            raise ValueError(
                "Where a head looks is found by gradients, and an exported model has none: give "
                "the .keras file that it was made from."
            )
        self._model, self._size = model, size
        self._halves: dict[str, _Halves] = {}

    def __call__(self, crops: np.ndarray, task: str, classes: np.ndarray) -> np.ndarray:
        """The heat of one head.

        Args:
            crops: RGB ``uint8`` ``(n, size, size, 3)``.
            task: The head.
            classes: For each crop the number of the class that is asked about, ``(n,)``.

        Returns:
            ``float32`` ``(n, size, size)``, 0 to 1, where 1 is the hottest spot of each crop; all
            zeros where nothing speaks for the class.

        Raises:
            ValueError: The head reads no feature map of at least 8 by 8 cells.
        """
        if task not in self._halves:
            self._halves[task] = self._cut(task)
        halves = self._halves[task]
        kernel, bias = map(keras.ops.convert_to_numpy, halves.head.get_weights())
        wanted = kernel.T[classes], bias[classes]

        def logits(maps):
            return keras.ops.sum(halves.upper(maps) * wanted[0], axis=-1) + wanted[1]

        maps = keras.ops.convert_to_numpy(halves.lower(crops)).astype("float32")
        return self._spread(np.maximum((_gradient(logits, maps) * maps).sum(axis=-1), 0))

    def _cut(self, task: str) -> _Halves:
        """Cut at the deepest map that still tells places apart and that this head reads."""
        head = self._model.get_layer(task)
        for layer in reversed(convolutions(self._model)):
            lower = keras.Model(self._model.inputs[0], layer.output)
            shape = lower.compute_output_shape((1, self._size, self._size, 3))
            if min(shape[1:3]) < FEWEST_CELLS:
                continue
            try:
                return _Halves(lower, keras.Model(layer.output, head.input), head)
            except ValueError:  # the map is another head's
                continue
        raise ValueError(
            f"Task {task!r} reads no feature map of {FEWEST_CELLS} by {FEWEST_CELLS} cells or more "
            f"of crops of {self._size} pixels, so there is nothing to show."
        )

    def _spread(self, cells: np.ndarray) -> np.ndarray:
        size = (self._size, self._size)
        large = [cv2.resize(cell, size, interpolation=cv2.INTER_CUBIC) for cell in cells]
        heat = np.maximum(np.stack(large), 0)
        hottest = heat.max(axis=(1, 2), keepdims=True)
        return heat / np.where(hottest > 0, hottest, 1)


def _gradient(logits: Logit, maps: np.ndarray) -> np.ndarray:
    """Of the logits, one a row, with respect to the maps; same shape as these."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(lambda given: logits(given).sum())(jax.numpy.asarray(maps)))
    import tensorflow as tf

    given = tf.convert_to_tensor(maps)
    with tf.GradientTape() as tape:
        tape.watch(given)
        total = tf.reduce_sum(logits(given))
    return tape.gradient(total, given).numpy()
