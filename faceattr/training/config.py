"""Everything that decides a training run apart from its rows and its network."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import keras

from faceattr.data.dataset import BALANCES
from faceattr.model.file import to_jsonable
from faceattr.model.learning import TRUNK, unfreeze_from
from faceattr.training.augment import Augmentation
from faceattr.training.batches import TaskSampling
from faceattr.training.losses import COMBINATIONS, Auxiliary
from faceattr.training.optimizers import ConvolutionMuon


def _begins(branch: str) -> str:
    """A regular expression for how the paths of a branch's variables begin."""
    if branch == TRUNK:
        return r"block\d_conv"
    if re.fullmatch(r"block\d", branch):
        return f"{branch}_conv"
    if branch.startswith("block"):
        return f"{re.escape(branch)}[_/]"
    # The heads of auxiliary losses go with their task.
    return rf"(block\d_\w+_for_)?{re.escape(branch)}/"


def branch_pattern(branch: str, branches: Collection[str]) -> str:
    """A regular expression for the paths of a branch's variables.

    Args:
        branch: ``"trunk"``, a block such as ``"block5"``, a layer, or a task.
        branches: All that are asked for; the narrower ones among them keep their variables.
    """
    wide = "block" if branch == TRUNK else f"{branch}_"
    narrower = [
        other
        for other in branches
        if other != branch and branch.startswith((TRUNK, "block")) and other.startswith(wide)
    ]
    return "".join(f"(?!{_begins(other)})" for other in narrower) + _begins(branch) + ".*"


def check_branches(network: keras.Model, branches: Collection[str]) -> None:
    """Raise ValueError for a branch that the network does not have."""
    paths = [variable.path for variable in network.variables]
    for branch in branches:
        if not any(re.match(_begins(branch), path) for path in paths):
            raise ValueError(
                "A rate is for trunk, a block such as block5, a layer such as block5_conv1 or "
                f"one of the tasks {', '.join(network.output)}. Received: {branch!r}"
            )


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
        unfreeze_from(network, self.first, heads=self.heads, norm_learns=self.norm_learns)

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


SCHEDULES = ("joint", "alternating")
UNIFORM, NATURAL = "uniform", "natural"


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training run apart from its rows and its network.

    Args:
        phases: One after the other.
        batch_size: Rows in a batch.
        mix: How much of a batch each task gets.
        augmentation: What happens to training crops.
        mixup: Parameter of the Beta distribution from which crops and labels are mixed; 0: never.
        cutmix: The same for a rectangle of one crop in another; 0: never. Both see crops alone:
            they do nothing in a phase that trains on features.
        balance: What is done about rare classes: ``"none"``, ``"weights"`` in the loss, or
            ``"sampling"``, see `faceattr.data.dataset`.
        label_smoothing: Share of each known target that is spread over the classes.
        priors: By task, how frequent the saved head takes the classes to be: ``"uniform"``,
            ``"natural"`` (as frequent as in all training rows) or the name of a source. Such a
            head learns with the class shares of each row's source taken into account, see
            `faceattr.data.dataset.log_priors`. A task without one learns them from its rows.
        ema: Decay per step of the running average of the weights, which is judged and saved in
            place of the weights themselves (Polyak and Juditsky 1992); 0 keeps no average.
        loss_weights: By task, the weight of its loss; 1 where not given.
        schedule: ``"joint"``, all tasks in every step, or ``"alternating"``, one task at a time.
        combine: How the losses of a joint step become one: ``"sum"``, ``"log"``,
            ``"uncertainty"`` or ``"random"``, see `faceattr.training.losses`.
        auxiliary: Losses of tasks read at earlier layers as well, while training.
        tie: How strongly the trunks of soft sharing are drawn together after every step, from 0
            (independent) to infinity (equal), see `faceattr.training.schedules.proximal_step`.
        copies: Augmented copies of each face whose features are kept while what lies below them
            does not learn; 0 computes every crop anew.
        seed: Decides order, augmentation, dropout and the start of the network.
    """

    phases: tuple[Phase, ...]
    batch_size: int = 64
    mix: TaskSampling = field(default_factory=TaskSampling)
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixup: float = 0.0
    cutmix: float = 0.0
    balance: str = "none"
    label_smoothing: float = 0.0
    priors: Mapping[str, str] = field(default_factory=dict)
    ema: float = 0.0
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    schedule: str = "joint"
    combine: str = "sum"
    auxiliary: tuple[Auxiliary, ...] = ()
    tie: float = 0.01
    copies: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("Every phase has 0 epochs, so nothing would be learnt.")
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"A schedule is one of {', '.join(SCHEDULES)}. Received: {self.schedule!r}"
            )
        if self.balance not in BALANCES:
            raise ValueError(
                f"Classes are balanced by one of {', '.join(BALANCES)}. Received: {self.balance!r}"
            )
        if self.combine not in COMBINATIONS:
            raise ValueError(
                f"Losses are combined by one of {', '.join(COMBINATIONS)}. "
                f"Received: {self.combine!r}"
            )
        if self.batch_size < 1 or not 0 <= self.seed < 2**32 or not 0 <= self.label_smoothing < 1:
            raise ValueError(
                "A batch has at least one row, a seed is from 0 to 2**32 - 1, and label smoothing "
                f"lies between 0 and 1. Received: batch size {self.batch_size}, seed {self.seed}, "
                f"label smoothing {self.label_smoothing}"
            )
        if self.balance != "none" and self.priors:
            raise ValueError("--balance and --prior both make up for rare classes: choose one.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"The decay of an average is from 0 to below 1. Received: {self.ema}")
        if not all(0 <= amount < math.inf for amount in (self.mixup, self.cutmix)):
            raise ValueError(
                "Mixup and CutMix have a parameter from 0 on. "
                f"Received: {self.mixup}, {self.cutmix}"
            )
        if self.copies < 0:
            raise ValueError(f"There are no fewer than 0 copies. Received: {self.copies}")
        if not all(0 <= weight < math.inf for weight in self.loss_weights.values()):
            raise ValueError(
                f"A weight is a finite number from 0 on. Received: {dict(self.loss_weights)}"
            )
        if not self.tie >= 0:
            raise ValueError(f"A tie has a strength from 0 to inf. Received: {self.tie}")
        if self.schedule == "alternating" and self.combine != "sum":
            raise ValueError("A step of one task has one loss: there is nothing to combine.")


def completed(written: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that an earlier version wrote down, with what it did not know as it is by default.

    Args:
        written: Out of JSON, as `faceattr.model.file.to_jsonable` made it.
    """
    return _completed(written, to_jsonable(asdict(Settings(phases=(FROZEN,)))))


def _completed(written: Any, default: Any) -> Any:
    if not isinstance(written, Mapping) or not isinstance(default, Mapping):
        return written
    return {**default, **{name: _completed(of, default.get(name)) for name, of in written.items()}}
