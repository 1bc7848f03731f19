"""Soft sharing: every task has a trunk of its own, drawn towards the mean of all.

The tie is the squared distance between corresponding parameters (Duong et al. 2015). It is
not added to the loss, because Adam and Muon normalise whatever gradient they are given and
would make the same large step of a weak tie as of a strong one. Instead each step is followed
by the exact minimisation of the tie and the distance to where the step led, as AdamW does with
weight decay (Loshchilov and Hutter 2019).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import keras
from keras import ops

from faceattr.model.vgg16 import shared_name
from faceattr.training.averaging import read_back
from faceattr.training.config import Settings
from faceattr.training.phases import Phase


def ties(network: keras.Model) -> list[list[keras.Variable]]:
    """The parameters that correspond to each other in the trunks and learn: a list for each."""
    by_place = defaultdict(list)
    for layer in network.layers:
        if shared_name(layer.name) != layer.name:
            for variable in layer.trainable_variables:
                by_place[shared_name(layer.name), variable.name].append(variable)
    return list(by_place.values())


def ties_of(network: keras.Model, phase: Phase, settings: Settings, steps: int) -> list[Tie]:
    """What ties the trunks in a phase; nothing where tasks share one or it does not learn.

    Args:
        network: What the phase trains, after it was opened.
        phase: The phase.
        settings: Of the run.
        steps: Of an epoch.
    """
    if not (settings.tie and ties(network)):
        return []
    schedule = phase.schedule(1.0, phase.epochs * steps)
    return [Tie(network, settings.tie, lambda step: float(schedule(step)), steps)]


def pull(tied: list[keras.Variable], strength: float) -> None:
    """Draw corresponding parameters towards their mean.

    Each becomes the W that minimises ``|W - now|^2 + strength * |W - mean|^2``, which leaves
    the mean where it is.

    Args:
        tied: Variables of one shape.
        strength: 0 changes nothing, infinity makes them equal to the bit.
    """
    mean = ops.mean(ops.stack([variable.value for variable in tied]), axis=0)
    share_left = 1 / (1 + strength)
    for variable in tied:
        variable.assign(mean + share_left * (variable - mean))


def apart(tied: list[list[keras.Variable]]) -> float:
    """How far the trunks are from their mean, relative to their size."""
    distance = size = 0.0
    for variables in tied:
        stacked = ops.stack([variable.value for variable in variables])
        distance += float(ops.sum((stacked - ops.mean(stacked, axis=0)) ** 2))
        size += float(ops.sum(stacked**2))
    return math.sqrt(distance / size)


class Tie(keras.callbacks.Callback):
    """Pulls the trunks together after every step and logs how far apart an epoch leaves them.

    Args:
        network: The network with a trunk per task.
        strength: See `pull`; it falls with the learning rate.
        rate_share: By step of the phase, the rate's share of its highest value.
        steps: Steps of an epoch.
    """

    def __init__(
        self,
        network: keras.Model,
        strength: float,
        rate_share: Callable[[int], float],
        steps: int,
    ) -> None:
        super().__init__()
        self._tied, self._strength = ties(network), strength
        self._rate_share, self._steps = rate_share, steps
        self._step = 0

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        self._step = epoch * self._steps

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        read_back(self.model)
        share = self._rate_share(self._step)
        self._step += 1
        if share > 0:
            for tied in self._tied:
                pull(tied, self._strength * share)

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        if self._tied and logs is not None:
            logs["trunks_apart"] = apart(self._tied)
