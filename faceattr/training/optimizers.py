"""What learns in a phase, and by which optimiser: AdamW, or Muon from nothing."""

from __future__ import annotations

from collections.abc import Mapping

import keras
from keras import ops

from faceattr.model.learning import branch_pattern, unfreeze_from
from faceattr.training.config import Phase


def unfreeze(network: keras.Model, phase: Phase) -> None:
    """Let that part of a network learn which a phase names, and nothing else."""
    unfreeze_from(network, phase.unfreeze_from, heads=phase.heads, norm_learns=phase.norm_learns)


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
