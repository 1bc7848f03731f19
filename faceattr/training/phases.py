"""Phases of training: what learns, for how long, at which rate, with which optimiser."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import keras

from faceattr.model.learning import TRUNK, open_from
from faceattr.training.branches import branch_pattern
from faceattr.training.optimizers import ConvolutionMuon

OPTIMIZERS = ("adam", "muon")
SMALLEST = 32  # VGG16 halves a crop five times


@dataclass(frozen=True)
class Phase:
    """One stretch of training with its own optimiser.

    Args:
        name: What logs and messages call it.
        epochs: How many; an epoch draws as many rows as the training set has, and at least
            twenty batches.
        learning_rate: The highest rate. It rises over the first `warmup` of the phase and
            falls to 0 along half a cosine.
        first: The first layer of the trunk that learns, ``"trunk"`` for all of it, None for
            the heads alone.
        heads: Names of the heads that learn, None for all; the others stay as they are to the
            last bit.
        optimizer: ``"adam"``, or ``"muon"`` for convolutions that start from nothing.
        norm_learns: Batch normalisation follows the batches; otherwise it is in inference mode.
        sizes: Crop sizes as shares of the model's own, each for an equal part of the epochs.
            Smaller crops are cheaper and teach most of it.
        warmup: Share of the phase's steps.
        weight_decay: Decoupled, times the rate.
        patience: The phase ends after so many epochs without a new best; None never does.
        rates: By branch another highest rate than `learning_rate`: a task, ``"trunk"``, a block
            of it (``"block5"``) or a layer; the narrowest counts. Each branch has an optimiser
            of its own.
    """

    name: str
    epochs: int
    learning_rate: float
    first: str | None = None
    heads: tuple[str, ...] | None = None
    optimizer: str = "adam"
    norm_learns: bool = False
    sizes: tuple[float, ...] = (1.0,)
    warmup: float = 0.03
    weight_decay: float = 0.0
    patience: int | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rates = (self.learning_rate, *self.rates.values())
        if self.epochs < 1 or not all(0 < rate < math.inf for rate in rates):
            raise ValueError(
                f"Phase {self.name!r} needs at least one epoch and a rate above 0. "
                f"Received: {self.epochs} epochs at {', '.join(map(str, rates))}"
            )
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"Patience is at least one epoch. Received: {self.patience}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(
                f"An optimiser is one of {', '.join(OPTIMIZERS)}. Received: {self.optimizer!r}"
            )

    def open(self, network: keras.Model) -> None:
        """Let that part of a network learn which this phase names, and nothing else."""
        open_from(network, self.first, heads=self.heads, norm_learns=self.norm_learns)

    def size_of(self, epoch: int, model_size: int) -> int:
        """The crop size of an epoch of this phase, counted from 0."""
        share = self.sizes[epoch * len(self.sizes) // self.epochs]
        return max(SMALLEST, round(model_size * share))

    def stretches(self, model_size: int, first_epoch: int = 0) -> Iterator[tuple[int, int, int]]:
        """Runs of epochs with one crop size: ``(start, end, size)``, from `first_epoch` on."""
        start = first_epoch
        while start < self.epochs:
            size, end = self.size_of(start, model_size), start + 1
            while end < self.epochs and self.size_of(end, model_size) == size:
                end += 1
            yield start, end, size
            start = end

    def make_optimizer(
        self, steps_per_epoch: int, others: Mapping[str, keras.optimizers.Optimizer] | None = None
    ) -> keras.optimizers.Optimizer:
        """A new optimiser for this phase, with one inside for every branch of `rates`.

        Args:
            steps_per_epoch: Steps of an epoch.
            others: Optimisers of variables outside the network, by a regular expression for their
                paths.
        """
        steps = self.epochs * steps_per_epoch
        everything = self._optimizer(self.learning_rate, steps)
        if not (self.rates or others):
            return everything
        branches = {
            branch_pattern(name, self.rates): self._optimizer(rate, steps)
            for name, rate in self.rates.items()
        }
        branches |= others or {}
        return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(everything, branches))

    def schedule(
        self, highest_rate: float, steps: int
    ) -> keras.optimizers.schedules.LearningRateSchedule:
        """The rate by step, for a phase of so many steps."""
        warmup = max(1, round(self.warmup * steps))
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=highest_rate / (warmup + 1),
            warmup_target=highest_rate,
            warmup_steps=warmup,
            decay_steps=max(1, steps - warmup),
        )

    def _optimizer(self, highest_rate: float, steps: int) -> keras.optimizers.Optimizer:
        rate = self.schedule(highest_rate, steps)
        if self.optimizer == "adam":
            return keras.optimizers.AdamW(rate, weight_decay=self.weight_decay)
        # Rates of methods that were measured side by side: Adam gets a thirtieth of Muon's.
        return ConvolutionMuon(
            rate,
            weight_decay=self.weight_decay,
            adam_weight_decay=None,
            adam_lr_ratio=1 / 30,
            momentum=0.9,
            ns_steps=4,
        )


# Defaults for a trunk that has already learnt something (ImageNet, or faces).
FROZEN = Phase("frozen", epochs=5, learning_rate=1e-3, patience=3)
FINETUNE = Phase("finetune", epochs=5, learning_rate=5e-5, first="block5_conv1", patience=3)
# For a trunk that starts from nothing; many more epochs make a good one.
SCRATCH = Phase(
    "scratch",
    epochs=10,
    learning_rate=0.06,
    first=TRUNK,
    optimizer="muon",
    norm_learns=True,
    sizes=(2 / 3, 2 / 3, 5 / 6, 1),
    weight_decay=0.05,
)
# For a trunk that has learnt, normalised again. Above this rate little is left of the start after
# an epoch, and weight decay would raise the rate of normalised kernels by shrinking them.
WHOLE = replace(SCRATCH, name="whole", learning_rate=0.015, sizes=(1.0,), weight_decay=0.0)
