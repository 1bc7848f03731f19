"""What acts on the weights between steps, as Keras callbacks: an average, soft sharing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import keras
from keras import ops

from faceattr.model.vgg16 import split_layer_name

EVERY = 4  # steps between two updates: the same average for a quarter of the work


def sync_jax_state(model: keras.Model) -> None:
    """Give variables their values within an epoch: JAX keeps them in its compiled step."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


class WeightAverage(keras.callbacks.Callback):
    """Averages weights exponentially while they learn (Polyak and Juditsky 1992).

    Unlike Keras' `SwapEMAWeights` it averages the statistics of batch normalisation too, works with
    several optimisers, and leaves the weights that learn as they are at the end of `fit`. A step
    leaves `decay` of the average, the first steps less, so that the start is soon forgotten.
    """

    def __init__(self, weights: Sequence[keras.Variable], decay: float) -> None:
        super().__init__()
        self._weights, self._decay = list(weights), decay
        self._averages = [
            keras.Variable(ops.convert_to_numpy(weight), dtype=weight.dtype, trainable=False)
            for weight in self._weights
        ]
        self._steps = keras.Variable(0, dtype="int32", trainable=False)

    @property
    def state(self) -> list[keras.Variable]:
        """What a checkpoint needs."""
        return [*self._averages, self._steps]

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self._steps.assign_add(1)
        steps = int(self._steps)
        if steps % EVERY:
            return
        sync_jax_state(self.model)
        kept = min(self._decay, (1 + steps) / (10 + steps)) ** EVERY
        for average, weight in zip(self._averages, self._weights, strict=True):
            # In this form what does not learn stays as it is to the last bit.
            average.assign(average + (1 - kept) * (weight - average))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The weights are the average meanwhile, and what they were afterwards."""
        learnt = [ops.convert_to_numpy(weight).copy() for weight in self._weights]
        for weight, average in zip(self._weights, self._averages, strict=True):
            weight.assign(average)
        try:
            yield
        finally:
            for weight, values in zip(self._weights, learnt, strict=True):
                weight.assign(values)


def corresponding_variables(network: keras.Model) -> list[list[keras.Variable]]:
    """The variables that have the same place in the tasks' backbones and learn, by place."""
    by_place = defaultdict(list)
    for layer in network.layers:
        base, owner = split_layer_name(layer.name)
        for variable in layer.trainable_variables if owner else ():
            by_place[base, variable.name].append(variable)
    return list(by_place.values())


def proximal_step(variables: list[keras.Variable], strength: float) -> None:
    """Draw corresponding variables towards their mean, which stays where it is.

    Each becomes the W that minimises ``|W - now|^2 + strength * |W - mean|^2``: a strength of 0
    changes nothing, infinity makes them equal to the bit.
    """
    mean = ops.mean(ops.stack([variable.value for variable in variables]), axis=0)
    share_left = 1 / (1 + strength)
    for variable in variables:
        variable.assign(mean + share_left * (variable - mean))


def divergence(places: list[list[keras.Variable]]) -> float:
    """How far the backbones are from their mean, relative to their size."""
    distance = size = 0.0
    for variables in places:
        stacked = ops.stack([variable.value for variable in variables])
        distance += float(ops.sum((stacked - ops.mean(stacked, axis=0)) ** 2))
        size += float(ops.sum(stacked**2))
    return math.sqrt(distance / size)


class SoftSharing(keras.callbacks.Callback):
    """Takes a proximal step after every step and logs how far apart an epoch leaves the backbones.

    The strength falls with the learning rate: `rate_share` gives, by step of the phase, the rate's
    share of its highest value.
    """

    def __init__(
        self, network: keras.Model, strength: float, rate_share: Callable[[int], float], steps: int
    ) -> None:
        super().__init__()
        self._places, self._strength = corresponding_variables(network), strength
        self._rate_share, self._steps = rate_share, steps
        self._step = 0

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        self._step = epoch * self._steps

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        sync_jax_state(self.model)
        share = self._rate_share(self._step)
        self._step += 1
        if share > 0:
            for variables in self._places:
                proximal_step(variables, self._strength * share)

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        if self._places and logs is not None:
            logs["backbones_apart"] = divergence(self._places)
