"""Which part of a network learns."""

from __future__ import annotations

from collections.abc import Collection

import keras

from faceattr.model.vgg16 import convolutions, shared_name

TRUNK = "trunk"


def head_names(model: keras.Model) -> list[str]:
    """The names of the model's heads, in the order in which they were built."""
    return list(model.output)


def unfreeze_from(
    model: keras.Model,
    first: str | None,
    *,
    heads: Collection[str] | None = None,
    norm_learns: bool = False,
) -> None:
    """Say what learns: the heads, and of the trunk what begins at layer `first`.

    Args:
        model: A model of `build`. Compile it again afterwards, or nothing changes.
        first: A layer's name such as ``"block5_conv1"``, ``"trunk"`` for all of it, None for
            the heads alone.
        heads: Names of the heads that learn; None for all.
        norm_learns: Let batch normalisation learn and follow the batches, as training from
            nothing needs; otherwise it stays in inference mode.
    """
    names = sorted({shared_name(layer.name) for layer in convolutions(model)})
    if strangers := sorted(set(heads or ()) - set(head_names(model))):
        raise ValueError(
            f"There is no head {', '.join(strangers)} to train. "
            f"The heads are {', '.join(head_names(model))}."
        )
    if first not in (None, TRUNK, *names):
        raise ValueError(
            f"Fine-tuning begins at 'trunk' or at one of {', '.join(names)}. Received: {first!r}"
        )
    for layer in model.layers:
        # VGG16's names sort as the data flow.
        learns = first is not None and (first == TRUNK or layer.name >= first)
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = learns and (norm_learns or not is_norm)
    for name in head_names(model):
        model.get_layer(name).trainable = heads is None or name in heads
