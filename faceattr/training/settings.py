"""Everything that decides a training run apart from its rows and its network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from faceattr.data.balance import BALANCES
from faceattr.model_file import plain
from faceattr.training.augment import Augmentation
from faceattr.training.auxiliary import Auxiliary
from faceattr.training.combine import COMBINATIONS
from faceattr.training.dataset import Mix
from faceattr.training.phases import FROZEN, Phase

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
            ``"sampling"``, see `faceattr.data.balance`.
        label_smoothing: Share of each known target that is spread over the classes.
        priors: By task, how frequent the saved head takes the classes to be: ``"uniform"``,
            ``"natural"`` (as frequent as in all training rows) or the name of a source. Such a
            head learns with the class shares of each row's source taken into account, see
            `faceattr.data.balance.log_priors`. A task without one learns them from its rows.
        ema: Decay per step of the running average of the weights, which is judged and saved in
            place of the weights themselves (Polyak and Juditsky 1992); 0 keeps no average.
        loss_weights: By task, the weight of its loss; 1 where not given.
        schedule: ``"joint"``, all tasks in every step, or ``"alternating"``, one task at a time.
        combine: How the losses of a joint step become one: ``"sum"``, ``"log"``,
            ``"uncertainty"`` or ``"random"``, see `faceattr.training.combine`.
        auxiliary: Losses of tasks read at earlier layers as well, while training.
        tie: How strongly the trunks of soft sharing are drawn together after every step, from 0
            (independent) to infinity (equal), see `faceattr.training.sharing.pull`.
        copies: Augmented copies of each face whose features are kept while what lies below them
            does not learn; 0 computes every crop anew.
        seed: Decides order, augmentation, dropout and the start of the network.
    """

    phases: tuple[Phase, ...]
    batch_size: int = 64
    mix: Mix = field(default_factory=Mix)
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
        written: Out of JSON, as `faceattr.model_file.plain` made it.
    """
    return _completed(written, plain(asdict(Settings(phases=(FROZEN,)))))


def _completed(written: Any, default: Any) -> Any:
    if not isinstance(written, Mapping) or not isinstance(default, Mapping):
        return written
    return {**default, **{name: _completed(of, default.get(name)) for name, of in written.items()}}
