"""Which part of a network learns, and which variables belong to a part of it."""

from __future__ import annotations

import re
from collections.abc import Collection

import keras

from faceattr.model.vgg16 import LAYERS, convolutions, split_layer_name

BACKBONE = "backbone"


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
    """Let the heads learn, and of the backbone what begins at layer `first`.

    Compile the model again afterwards, or nothing changes.

    Args:
        first: A layer's name such as ``"block5_conv1"``, ``"backbone"`` for all of it, None for
            the heads alone.
        heads: Names of the heads that learn; None for all.
        norm_learns: Batch normalisation learns and follows the batches, as training from nothing
            needs; otherwise it stays in inference mode.
    """
    _check(model, first, heads)
    starts = {None: len(LAYERS), BACKBONE: 0} | {name: at for at, name in enumerate(LAYERS)}
    learning = LAYERS[starts[first] :]
    for layer in model.layers:
        base, _ = split_layer_name(layer.name)
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        base = base.removesuffix("_norm") if is_norm else base
        layer.trainable = base in learning and (norm_learns or not is_norm)
    for name in head_names(model):
        model.get_layer(name).trainable = heads is None or name in heads


def _check(model: keras.Model, first: str | None, heads: Collection[str] | None) -> None:
    names = sorted({split_layer_name(layer.name)[0] for layer in convolutions(model)})
    if strangers := sorted(set(heads or ()) - set(head_names(model))):
        raise ValueError(
            f"There is no head {', '.join(strangers)} to train. "
            f"The heads are {', '.join(head_names(model))}."
        )
    if first not in (None, BACKBONE, *names):
        raise ValueError(
            f"Fine-tuning begins at {BACKBONE!r} or at one of {', '.join(names)}. "
            f"Received: {first!r}"
        )


def _begins(branch: str) -> str:
    """A regular expression for how the paths of a branch's variables begin."""
    if branch == BACKBONE:
        return r"block\d_conv"
    if re.fullmatch(r"block\d", branch):
        return f"{branch}_conv"
    if branch.startswith("block"):
        return f"{re.escape(branch)}[_/]"
    # The heads of auxiliary losses go with their task.
    return rf"(block\d_\w+_for_)?{re.escape(branch)}/"


def branch_pattern(branch: str, branches: Collection[str]) -> str:
    """A regular expression for the paths of a branch's variables.

    A branch is ``"backbone"``, a block such as ``"block5"``, a layer, or a task; the narrower ones
    among `branches` keep their variables.
    """
    wide = "block" if branch == BACKBONE else f"{branch}_"
    narrower = [
        other
        for other in branches
        if other != branch and branch.startswith((BACKBONE, "block")) and other.startswith(wide)
    ]
    return "".join(f"(?!{_begins(other)})" for other in narrower) + _begins(branch) + ".*"


def check_branches(network: keras.Model, branches: Collection[str]) -> None:
    """Raise ValueError for a branch that the network does not have."""
    paths = [variable.path for variable in network.variables]
    for branch in branches:
        if not any(re.match(_begins(branch), path) for path in paths):
            raise ValueError(
                f"A learning rate is for a phase of the run, or for {BACKBONE}, a block such as "
                "block5, a layer such as block5_conv1 or one of the tasks "
                f"{', '.join(network.output)}. Received: {branch!r}"
            )
