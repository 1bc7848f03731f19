"""Every option of a training run, declared once: the command line reads fields and defaults here.

This module imports nothing heavy, so that ``faceattr train --help`` answers at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from faceattr.compatibility import renamed_arguments

if TYPE_CHECKING:
    from faceattr.images.crop import CropRule

IMAGENET, NOTHING = "imagenet", "none"  # starts of a backbone that are no files
UNIFORM, NATURAL = "uniform", "natural"  # priors that are no sources
SMALLEST = 32  # pixels: VGG16 halves a crop five times
# What fields were called until version 0.1; checkpoints still say so.
OLD_NAMES = {
    "trunk": "backbone",
    "taps": "feature_layers",
    "first": "unfreeze_from",
    "rates": "branch_rates",
    "mix": "task_sampling",
    "tie": "sharing_strength",
    "copies": "augment_repeats",
    "level": "align",
}


def _refuse(is_wrong: bool, message: str) -> None:
    if is_wrong:
        raise ValueError(message)


def _check_range(record: Any, low: float, high: float, *names: str, closed: bool = False) -> None:
    """Raise ValueError where a field, or a value in it, is not from `low` to below `high`.

    Args:
        closed: `high` itself will do as well.
    """
    end = f"to {high}" if closed else f"to below {high}" if math.isfinite(high) else "on"
    for name in names:
        given = getattr(record, name)
        for value in given.values() if isinstance(given, Mapping) else [given]:
            right = low <= value < high or (closed and value == high)
            _refuse(not right, f"{name} is a number from {low} {end}. Received: {given}")


def _check_types(record: Any) -> None:
    """Raise ValueError where a field has none of the values that its type lists, or is no whole
    number where its type is one."""
    for name, hint in get_type_hints(type(record), None, {"CropRule": Any}).items():
        choices, value = choices_of(hint), getattr(record, name)
        if choices and value not in (*choices, None):
            raise ValueError(f"{name} is one of {', '.join(choices)}. Received: {value!r}")
        kinds = (hint, *get_args(hint))
        may_lack = value is None and type(None) in kinds
        if int in kinds and not (may_lack or isinstance(value, Integral)):
            raise ValueError(f"{name} is a whole number. Received: {value!r}")


def choices_of(hint: Any) -> tuple[str, ...]:
    """The values of a ``Literal``, or of one that may be None; none of another type."""
    literals = [part for part in (hint, *get_args(hint)) if get_origin(part) is Literal]
    return get_args(literals[0]) if literals else ()


@renamed_arguments(trunk="backbone", taps="feature_layers")
@dataclass(frozen=True)
class Network:
    """What is trained.

    Args:
        weights: Where the backbone starts: ``shipped`` (the model that comes with the package),
            ``shipped-slim`` (the small one), ``imagenet``, ``none``, a model file, one of the hub
            (``hf://user/model``), or a weights file of Keras' VGG16.
        crop: How faces are cropped; None for as the model file says that the run starts from.
        backbone: ``vgg16``, or ``vgg16-slim`` with a quarter of the channels.
        sharing: One backbone for all tasks (``hard``), or one for each (``soft``).
        pooling: How the features that a head reads are pooled over the image. None, like None of
            backbone and sharing, stands for what the model file has that the run starts from, else
            for the first choice.
        feature_layers: By task, the layer that its head reads if not the last one: ``block2_pool``.
        dropout: Share of the pooled features that is dropped while training.
        norm: Batch normalisation while training, folded away when saved; by default where the
            backbone starts from nothing. With a backbone that has learnt already, all of it learns.
        dtype: What it and its teachers compute in; by default the faster one on this machine.
    """

    weights: str = "shipped"
    crop: CropRule | None = None
    backbone: Literal["vgg16", "vgg16-slim"] | None = None
    sharing: Literal["hard", "soft"] | None = None
    pooling: Literal["max", "avg"] | None = None
    feature_layers: Mapping[str, str] = field(default_factory=dict)
    dropout: float = 0.5
    norm: bool | None = None
    dtype: Literal["float32", "mixed_bfloat16"] | None = None

    def __post_init__(self) -> None:
        _check_types(self)
        _check_range(self, 0, 1, "dropout")

    @property
    def is_normalised_again(self) -> bool:
        """Whether a backbone that has learnt gets batch normalisation back."""
        return bool(self.norm) and self.weights != NOTHING

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases that suit the start."""
        if self.weights == NOTHING:
            return (SCRATCH,)
        return (WHOLE,) if self.is_normalised_again else (FROZEN, FINETUNE)


@renamed_arguments(first="unfreeze_from", rates="branch_rates")
@dataclass(frozen=True)
class Phase:
    """A part of the training with its own optimiser.

    Args:
        name: What logs and messages call it.
        epochs: How many: ``frozen=5,finetune=5``; ``scratch=10``; ``whole=10``. An epoch draws as
            many rows as the training set has, and at least twenty batches.
        learning_rate: The highest learning rate of a phase, or of a branch. It rises over the
            first `warmup` of the phase and falls to 0 along half a cosine.
        unfreeze_from: First layer of the backbone that learns. ``"backbone"`` stands for all of
            it, None for the heads alone.
        heads: Names of the heads that learn, None for all; the others stay as they are to the
            last bit.
        optimizer: ``"adam"``, or ``"muon"`` for convolutions that start from nothing.
        norm_learns: Batch normalisation follows the batches; otherwise it is in inference mode.
        sizes: Crop sizes as shares of the model's own, each for an equal part of the epochs.
            Smaller crops are cheaper and teach most of it.
        warmup: Share of the phase's steps.
        weight_decay: Decoupled, times the rate.
        patience: Epochs without a new best that end a phase. None never does.
        branch_rates: By branch another highest rate than `learning_rate`: a task,
            ``"backbone"``, a block of it (``"block5"``) or a layer; the narrowest counts. Each
            branch has an optimiser of its own.
    """

    name: str
    epochs: int
    learning_rate: float
    unfreeze_from: str | None = None
    heads: tuple[str, ...] | None = None
    optimizer: Literal["adam", "muon"] = "adam"
    norm_learns: bool = False
    sizes: tuple[float, ...] = (1.0,)
    warmup: float = 0.03
    weight_decay: float = 0.0
    patience: int | None = None
    branch_rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_types(self)
        rates = (self.learning_rate, *self.branch_rates.values())
        if self.epochs < 1 or not all(0 < rate < math.inf for rate in rates):
            raise ValueError(
                f"Phase {self.name!r} needs at least one epoch and a rate above 0. "
                f"Received: {self.epochs} epochs at {', '.join(map(str, rates))}"
            )
        if self.patience is not None:
            _check_range(self, 1, math.inf, "patience")

    def size_of(self, epoch: int, model_size: int) -> int:
        """The crop size of an epoch of this phase, counted from 0."""
        share = self.sizes[epoch * len(self.sizes) // self.epochs]
        return max(SMALLEST, round(model_size * share))

    def size_stages(self, model_size: int, first_epoch: int = 0) -> Iterator[tuple[int, int, int]]:
        """Runs of epochs with one crop size: ``(start, end, size)``, from `first_epoch` on."""
        epochs = range(first_epoch, self.epochs)
        for size, run in groupby(epochs, lambda epoch: self.size_of(epoch, model_size)):
            start, *others = run
            yield start, start + 1 + len(others), size


# Defaults for a backbone that has already learnt something (ImageNet, or faces).
FROZEN = Phase("frozen", epochs=5, learning_rate=1e-3, patience=3)
FINETUNE = Phase("finetune", epochs=5, learning_rate=5e-5, unfreeze_from="block5_conv1", patience=3)
# For a backbone that starts from nothing; many more epochs make a good one.
SCRATCH = Phase(
    "scratch",
    epochs=10,
    learning_rate=0.06,
    unfreeze_from="backbone",
    optimizer="muon",
    norm_learns=True,
    sizes=(2 / 3, 2 / 3, 5 / 6, 1),
    weight_decay=0.05,
)
# For a backbone that has learnt, normalised again. Above this rate little is left of the start
# after an epoch, and weight decay would raise the rate of normalised kernels by shrinking them.
WHOLE = replace(SCRATCH, name="whole", learning_rate=0.015, sizes=(1.0,), weight_decay=0.0)


@dataclass(frozen=True)
class TaskSampling:
    """How much of a batch each task gets.

    Each task is given a share of the rows, drawn from those that know it. A row that knows
    several tasks counts for each of them.

    Args:
        temperature: Shares grow with the labelled rows to the power ``1 / temperature``:
            infinity (the default) gives every task the same number of labelled rows per
            batch, 1 the natural proportions.
        shares: By task, used instead, for example ``{"expression": 3, "gender": 1}``; or by the
            name of a source, for example ``{"fer2013": 3, "affectnet": 2}``: each source then
            gets that part of every batch.
    """

    temperature: float = math.inf
    shares: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        shares = (self.shares or {}).values()
        _refuse(
            not self.temperature > 0 or not all(0 < share < math.inf for share in shares),
            "Task sampling has a temperature above 0, or shares above 0 by task or source. "
            f"Received: {self.shares or self.temperature}",
        )


@dataclass(frozen=True)
class Augmentation:
    """How far a training crop is changed; every amount is drawn anew for every row.

    Args:
        flip: Probability of mirroring left and right.
        turn: Largest turn in degrees, either way.
        shift: Largest shift as a share of the side, either way.
        zoom: Largest change of scale, either way: 0.2 shows 0.8 to 1.2 times the side.
        grey: Probability of taking the colour away.
        blur: Probability of shrinking the crop to between `smallest` and its size, and back.
        smallest: Side in pixels to which `blur` may shrink.
        light: Largest change of contrast and of brightness as a share, either way.
        erase: Probability of covering a rectangle with noise (Zhong et al. 2017).
        fill: Probability of filling a black surrounding, as of faces that were cut out along their
            outline, with noise or with what surrounds another face.
        dark: Probability of taking 30 to 85 % of the light away.
        jpeg: Probability of saving the crop as a JPEG of quality 10 to 70.
        yaw: Largest narrowing of one side, as of a head that is turned away, as a share.
    """

    flip: float = 0.5
    turn: float = 12.0
    shift: float = 0.08
    zoom: float = 0.15
    grey: float = 0.5
    blur: float = 0.25
    smallest: int = 16
    light: float = 0.25
    erase: float = 0.25
    fill: float = 0.0
    dark: float = 0.0
    jpeg: float = 0.0
    yaw: float = 0.0

    def __post_init__(self) -> None:
        chances = ("flip", "grey", "blur", "erase", "fill", "dark", "jpeg")
        _check_range(self, 0, 1, *chances, closed=True)
        _check_range(self, 0, 1, "zoom", "yaw")
        _check_range(self, 0, math.inf, "turn", "shift", "light")
        _check_range(self, 1, math.inf, "smallest")


NO_AUGMENTATION = Augmentation(0, 0, 0, 0, 0, 0, 16, 0, 0)


def augmentation_with(amounts: Mapping[str, float]) -> Augmentation:
    """The usual augmentation with other amounts of some changes."""
    names = [field.name for field in fields(Augmentation)]
    if strangers := sorted(set(amounts) - set(names)):
        raise ValueError(
            f"There is no augmentation {', '.join(strangers)}; there are {', '.join(names)}."
        )
    return replace(Augmentation(), **amounts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Auxiliary:
    """One more loss of a task (Szegedy et al. 2014, "Going deeper with convolutions").

    Args:
        task: Whose labels teach it.
        layer: The layer of the backbone that its head reads, for example ``"block4_pool"``.
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


@renamed_arguments(mix="task_sampling", tie="sharing_strength", copies="augment_repeats")
@dataclass(frozen=True)
class Settings:
    """Everything that decides a training run apart from its rows and its network.

    Args:
        phases: One after the other.
        batch_size: Rows in a batch.
        task_sampling: How much of a batch each task gets.
        augmentation: What happens to training crops.
        mixup: Parameter of the Beta distribution that mixes two crops and labels: 0.2; 0: never.
        cutmix: The same for a rectangle of one crop in another: 1; 0: never. Both see crops alone:
            they do nothing in a phase that trains on features.
        balance: What is done about rare classes. They weigh more in the loss (``weights``) or are
            shown more often (``sampling``), see `faceattr.data.dataset`.
        label_smoothing: Share of each known target that is spread over the classes.
        source_smoothing: By source, another share than `label_smoothing`: more where more labels
            are wrong.
        source_weights: By source, what a row counts in the losses; 1 where not given.
        priors: By task, how frequent the saved head takes the classes to be: ``uniform``,
            ``natural`` (as in all training rows), the name of a source, or shares of all classes.
            Such a head learns with the class shares of each row's source taken into account, see
            `faceattr.data.dataset.log_priors_of`. A task without one learns them from its rows.
        ema: Decay per step of an average of the weights, which is scored and saved in place of
            the weights themselves: 0.998; 0 keeps none (Polyak and Juditsky 1992).
        loss_weights: By task, the weight of its loss; 1 where not given.
        schedule: All tasks in every step (``joint``), or one task at a time (``alternating``).
        combine: How the losses of a joint step become one, see `faceattr.training.losses`.
        auxiliary: Losses of tasks read at earlier layers as well, while training.
        sharing_strength: How strongly soft sharing draws the backbones together after every step:
            0 (independent) to inf (equal), see `faceattr.training.optimizers.proximal_step`.
        augment_repeats: Augmented copies of each face whose features are kept while what lies
            below them does not learn; 0 computes every crop anew.
        seed: Decides order, augmentation, dropout and the start of the network.
    """

    phases: tuple[Phase, ...]
    batch_size: int = 64
    task_sampling: TaskSampling = field(default_factory=TaskSampling)
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixup: float = 0.0
    cutmix: float = 0.0
    balance: Literal["none", "weights", "sampling"] = "none"
    label_smoothing: float = 0.0
    source_smoothing: Mapping[str, float] = field(default_factory=dict)
    source_weights: Mapping[str, float] = field(default_factory=dict)
    priors: Mapping[str, str | Mapping[str, float]] = field(default_factory=dict)
    ema: float = 0.0
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    schedule: Literal["joint", "alternating"] = "joint"
    combine: Literal["sum", "log", "uncertainty", "random"] = "sum"
    auxiliary: tuple[Auxiliary, ...] = ()
    sharing_strength: float = 0.01
    augment_repeats: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        _check_types(self)
        _check_range(self, 1, math.inf, "batch_size")
        _check_range(self, 0, 2**32, "seed")
        _check_range(self, 0, 1, "label_smoothing", "source_smoothing", "ema")
        _check_range(self, 0, math.inf, "mixup", "cutmix", "augment_repeats", "source_weights")
        _check_range(self, 0, math.inf, "sharing_strength", closed=True)
        _refuse(
            not all(0 < weight < math.inf for weight in self.loss_weights.values()),
            "A task has a weight above 0 (--weight), or its head never learns; --tasks leaves "
            f"labels away. Received: {dict(self.loss_weights)}",
        )
        _refuse(not self.phases, "Every phase has 0 epochs, so nothing would be learnt.")
        _refuse(
            self.balance != "none" and bool(self.priors),
            "--balance and --prior both make up for rare classes: choose one.",
        )
        _refuse(
            self.balance != "none" and bool(self.source_smoothing),
            "--balance counts whole labels, which --source-smoothing spreads: choose one.",
        )
        _refuse(
            self.schedule == "alternating" and self.combine != "sum",
            "A step of one task has one loss: there is nothing to combine.",
        )

    @property
    def chosen_by_balanced(self) -> bool:
        """Whether the best epoch is that of the highest balanced accuracy: who wants classes to
        count alike, or to be equally frequent, is not served by one that is best at frequent ones.
        """
        return self.balance != "none" or bool(self.priors)

    @property
    def loss_smoothing(self) -> float:
        """What the losses smooth: nothing where the targets are smoothed by source."""
        return 0.0 if self.source_smoothing else self.label_smoothing

    def epochs_before(self, number: int) -> int:
        """Epochs of the phases before phase `number`, from 0."""
        return sum(phase.epochs for phase in self.phases[:number])
