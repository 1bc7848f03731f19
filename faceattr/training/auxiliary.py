"""Auxiliary losses: a task read at an earlier layer as well, while it trains and no longer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from faceattr.model.heads import feature_map, head, pool


@dataclass(frozen=True)
class Auxiliary:
    """One more loss of a task (Szegedy et al. 2014, "Going deeper with convolutions").

    Args:
        task: Whose labels teach it.
        layer: The layer of the trunk that its head reads, for example ``"block4_pool"``.
        weight: Of its loss beside that of the task's own head.
    """

    task: str
    layer: str
    weight: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(
                "An auxiliary loss has a finite weight above 0. "
                f"Received: {self.weight} for {self.task} at {self.layer}"
            )

    @property
    def head(self) -> str:
        """What its head is called."""
        return f"{self.layer}_for_{self.task}"


def with_auxiliary(network: keras.Model, auxiliary: Sequence[Auxiliary]) -> keras.Model:
    """The network with the heads of auxiliary losses beside its own; its layers are shared.

    Whoever saves `network` leaves them behind.

    Args:
        network: A model of `faceattr.model.build`.
        auxiliary: What to add; nothing gives back `network` itself.

    Raises:
        ValueError: There is no such task or layer.
    """
    outputs = dict(network.output)
    for extra in auxiliary:
        if extra.task not in network.output:
            raise ValueError(
                f"There is no task {extra.task} for an auxiliary loss. "
                f"The tasks are {', '.join(network.output)}."
            )
        pooled = pool(feature_map(network, extra.layer, extra.task), "avg", extra.head)
        classes = network.output[extra.task].shape[-1]
        outputs[extra.head] = head(extra.head, classes)(pooled)
    return keras.Model(network.input, outputs) if auxiliary else network
