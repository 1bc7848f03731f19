"""What learns in a phase, by which optimiser, and what acts on the weights between its steps."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import keras
from keras import ops

from faceattr.model.vgg16 import LAYERS, convolutions, split_layer_name
from faceattr.tasks import refuse_unknown
from faceattr.training.config import Phase

BACKBONE = "backbone"
AVERAGED_EVERY = 4  # steps: the same average for a quarter of the work


def unfreeze(network: keras.Model, phase: Phase) -> None:
    """Let that part of a network learn which a phase names, and nothing else.

    Compile the network again afterwards, or nothing changes.
    """
    first, heads = phase.unfreeze_from, phase.heads
    _check(network, first, heads)
    starts = {None: len(LAYERS), BACKBONE: 0} | {name: at for at, name in enumerate(LAYERS)}
    learning = LAYERS[starts[first] :]
    for layer in network.layers:
        base, _ = split_layer_name(layer.name)
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        base = base.removesuffix("_norm") if is_norm else base
        layer.trainable = base in learning and (phase.norm_learns or not is_norm)
    for name in network.output:
        network.get_layer(name).trainable = heads is None or name in heads


def _check(network: keras.Model, first: str | None, heads: Collection[str] | None) -> None:
    refuse_unknown("head", heads or (), network.output, "to train")
    names = sorted({split_layer_name(layer.name)[0] for layer in convolutions(network)})
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


def make_optimizer(
    phase: Phase,
    steps_per_epoch: int,
    others: Mapping[str, keras.optimizers.Optimizer] | None = None,
) -> keras.optimizers.Optimizer:
    """A new optimiser for a phase, with one inside for every branch that has its own rate.

    `others` are optimisers of variables outside the network, by a pattern for their paths.
    """
    steps = phase.epochs * steps_per_epoch
    everything = _one_optimizer(phase, phase.learning_rate, steps)
    if not (phase.branch_rates or others):
        return everything
    branches = {
        branch_pattern(name, phase.branch_rates): _one_optimizer(phase, rate, steps)
        for name, rate in phase.branch_rates.items()
    }
    branches |= others or {}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(everything, branches))


def learning_rates(
    phase: Phase, highest_rate: float, steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The rate by step, for a phase of so many steps: it rises, then falls along half a cosine."""
    warmup = max(1, round(phase.warmup * steps))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=highest_rate / (warmup + 1),
        warmup_target=highest_rate,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
    )


def _one_optimizer(phase: Phase, highest_rate: float, steps: int) -> keras.optimizers.Optimizer:
    rate = learning_rates(phase, highest_rate, steps)
    if phase.optimizer == "adam":
        # A decay of 0 would cost a step per variable all the same.
        return keras.optimizers.Adam(rate, weight_decay=phase.weight_decay or None)
    # Rates of methods that were measured side by side: Adam gets a thirtieth of Muon's.
    return ConvolutionMuon(
        rate,
        weight_decay=phase.weight_decay,
        adam_weight_decay=None,
        adam_lr_ratio=1 / 30,
        momentum=0.9,
        ns_steps=4,
    )


@keras.saving.register_keras_serializable(package="faceattr")
class ConvolutionMuon(keras.optimizers.Muon):
    """Keras' Muon (Jordan et al. 2024) with its step for 4-D kernels, and Adam for the rest.

    Keras' own class takes the Muon step for 2-D variables only and gives convolutions AdamW
    without a word. Here a kernel ``(height, width, in, out)`` is the matrix
    ``(height * width * in, out)``; heads, biases and norms get Adam. The update is scaled by
    ``sqrt(max(1, rows / columns))`` as Jordan et al. do, and by Keras' ``rms_rate`` (0.2), which
    only says what a rate of 1 means.
    """

    def _should_use_adamw(self, variable) -> bool:
        return len(variable.shape) != 4

    def zeropower_via_newtonschulz5(self, x, steps: int):
        """Keras' iteration on the small Gram matrix: the same result for less than half the work.

        Every step multiplies the matrix from one side with a polynomial of its Gram matrix, so
        the polynomials are collected first and meet the matrix once.
        """
        matrix = ops.reshape(x, (-1, x.shape[-1]))
        is_wide = matrix.shape[0] < matrix.shape[1]
        tall = ops.transpose(matrix) if is_wide else matrix
        tall = tall / (ops.norm(tall) + 1e-7)
        gram = ops.matmul(ops.transpose(tall), tall)
        whitening = unit = ops.eye(gram.shape[0], dtype=gram.dtype)
        for _ in range(steps):
            squared = ops.matmul(gram, gram)
            factor = self.muon_a * unit + self.muon_b * gram + self.muon_c * squared
            whitening = ops.matmul(whitening, factor)
            gram = ops.matmul(factor, ops.matmul(gram, factor))
        white = ops.matmul(tall, whitening)
        return ops.reshape(ops.transpose(white) if is_wide else white, x.shape)

    def lr_adjust(self, x):
        height, width, n_in, n_out = x.shape
        return x * (self.rms_rate * max(1.0, height * width * n_in / n_out) ** 0.5)


def _sync_jax_state(model: keras.Model) -> None:
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
        if steps % AVERAGED_EVERY:
            return
        _sync_jax_state(self.model)
        kept = min(self._decay, (1 + steps) / (10 + steps)) ** AVERAGED_EVERY
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
        _sync_jax_state(self.model)
        share = self._rate_share(self._step)
        self._step += 1
        if share > 0:
            for variables in self._places:
                proximal_step(variables, self._strength * share)

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        if self._places and logs is not None:
            logs["backbones_apart"] = divergence(self._places)
