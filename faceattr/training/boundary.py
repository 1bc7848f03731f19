"""Where a network is cut for a phase: what stays as it is below, what learns above."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from faceattr.model.vgg16 import convolutions
from faceattr.training.phases import Phase


@dataclass(frozen=True)
class Split:
    """A network cut in two; both parts share its layers.

    Args:
        settled: From crops to the boundary: nothing in it learns or is left to chance.
        learning: From the boundary to the answers.
    """

    settled: keras.Model
    learning: keras.Model

    @property
    def boundary(self) -> keras.KerasTensor:
        return self.settled.output


def split(network: keras.Model) -> Split | None:
    """Cut a network as high as what learns in it allows.

    Returns:
        None where no single tensor has all that learns above it and a convolution below, as
        when the whole trunk learns or tasks part at the first layer.
    """
    for operation in reversed(network.operations):
        settled = keras.Model(network.input, operation.output)
        if not convolutions(settled):
            return None
        if not all(map(_is_settled, settled.operations)):
            continue
        try:
            return Split(settled, keras.Model(operation.output, network.output))
        except ValueError:  # some head is tapped below: it is not connected to this tensor
            continue
    return None


def _is_settled(operation: keras.Operation) -> bool:
    learns = getattr(operation, "trainable_variables", ())
    return not learns and getattr(operation, "seed_generator", None) is None


def changing(network: keras.Model, phases: Sequence[Phase]) -> list[keras.Variable]:
    """The variables that may change in some of these phases, in the network's order."""
    settled: set[int] | None = None
    for phase in phases:
        phase.open(network)
        cut = split(network)
        own = {id(variable) for variable in cut.settled.variables} if cut else set()
        settled = own if settled is None else settled & own
    return [variable for variable in network.variables if id(variable) not in (settled or ())]


def fingerprint(model: keras.Model) -> str:
    """A hash of what a model computes: its layers, how they are connected, and its weights."""
    text = re.sub('"trainable": (true|false)', "", model.to_json())
    text = text.replace(f'"{model.name}"', '"model"')
    for number, operation in enumerate(model.operations):
        # Keras numbers nameless operations through the whole process.
        text = text.replace(f'"{operation.name}"', f'"{number}"')
    digest = hashlib.sha256(text.encode())
    for variable in model.variables:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    return digest.hexdigest()
