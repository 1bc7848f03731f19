"""What learns in a phase, and by which optimiser: AdamW, or Muon from nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import keras
from keras import ops

from faceattr.model.vgg16 import LAYERS, convolutions, split_layer_name
from faceattr.training.config import Phase

BACKBONE = "backbone"


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
    if strangers := sorted(set(heads or ()) - set(network.output)):
        raise ValueError(
            f"There is no head {', '.join(strangers)} to train. "
            f"The heads are {', '.join(network.output)}."
        )
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
        return keras.optimizers.AdamW(rate, weight_decay=phase.weight_decay)
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
