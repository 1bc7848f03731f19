"""Whether an exported file answers like the network it was made from, and how fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

from faceattr.data import console
from faceattr.engines import Engine
from faceattr.exporting.crops import Shown
from faceattr.judging.evaluate import Score, predict, scores_of
from faceattr.tasks import Task

TOGETHER = 64  # crops asked at once
BATCHES = (1, 32)
ROUNDS = 11


@dataclass(frozen=True)
class Limits:
    """What an exported file must keep to.

    Args:
        difference: Largest difference of a probability.
        same_answer: Smallest share of crops with the same most probable class.
        accuracy_lost: Largest loss of accuracy on labelled crops, as a share of them.
    """

    difference: float
    same_answer: float
    accuracy_lost: float


FLOAT = Limits(difference=1e-3, same_answer=0.999, accuracy_lost=0.003)
INT8 = Limits(difference=1.0, same_answer=0.99, accuracy_lost=0.003)


@dataclass(frozen=True)
class Agreement:
    """How one head of the file compares with the same head of the network.

    Args:
        crops: How many both were asked about.
        difference: Largest difference of a probability.
        same_answer: Share of crops with the same most probable class, 0-1.
        labelled: How many crops know the task.
        accuracy_before: The network's accuracy on them; NaN where there are none.
        accuracy_after: The file's.
    """

    crops: int
    difference: float
    same_answer: float
    labelled: int
    accuracy_before: float
    accuracy_after: float

    def failures(self, limits: Limits) -> list[str]:
        """What is beyond the limits, in words."""
        lost = round(self.accuracy_before - self.accuracy_after, 9)  # 0.951 - 0.948 exceeds 0.003
        found = []
        # Written so that a NaN among the answers fails.
        if not self.difference <= limits.difference:
            found.append(
                f"a probability differs by {self.difference:.2g} (at most {limits.difference:g})"
            )
        if not self.same_answer >= limits.same_answer:
            found.append(
                f"{self.same_answer:.1%} of {self.crops:,} answers are the same "
                f"(at least {limits.same_answer:.1%})"
            )
        if self.labelled and not lost <= limits.accuracy_lost:
            found.append(
                f"accuracy on {self.labelled:,} crops falls from {self.accuracy_before:.1%} to "
                f"{self.accuracy_after:.1%} (by at most {limits.accuracy_lost:.1%})"
            )
        return found


@dataclass(frozen=True)
class Proof:
    """The comparison of an exported file with its network.

    Args:
        crops: What was shown to both, in words.
        heads: By task.
        limits: What was asked of it.
        milliseconds: By batch size, the median time of a call of ``"network"`` and ``"file"``.
    """

    crops: str
    heads: Mapping[str, Agreement]
    limits: Limits
    milliseconds: Mapping[int, Mapping[str, float]]

    def failures(self) -> list[str]:
        """Why the file must not be kept; empty where it may."""
        return [
            f"{task}: {reason}"
            for task, agreement in self.heads.items()
            for reason in agreement.failures(self.limits)
        ]


def prove(network: keras.Model, file: Engine, tasks: Sequence[Task], shown: Shown) -> Proof:
    """Ask both about the same crops and time them side by side.

    Args:
        network: The Keras model.
        file: The exported file.
        tasks: The model's tasks.
        shown: The crops, with whatever labels are known.
    """
    rows = shown.rows
    before, after = (
        predict(model, rows, TOGETHER, partial(console.track, what=f"asking the {name}"))
        for name, model in (("network", network), ("file", file))
    )
    limits = FLOAT if file.precision == "float32" else INT8
    scores = [scores_of(answers, tasks, rows) for answers in (before, after)]
    heads = {
        task.name: _agreement(
            before[task.name], after[task.name], *(score.get(task.name) for score in scores)
        )
        for task in tasks
    }
    return Proof(shown.about, heads, limits, _times(network, file, rows.crops[rows.index[:1]]))


def _agreement(
    before: np.ndarray, after: np.ndarray, score_before: Score | None, score_after: Score | None
) -> Agreement:
    return Agreement(
        crops=len(before),
        difference=float(np.abs(before - after).max()),
        same_answer=float((before.argmax(-1) == after.argmax(-1)).mean()),
        labelled=score_before.n if score_before else 0,
        accuracy_before=score_before.accuracy if score_before else np.nan,
        accuracy_after=score_after.accuracy if score_after else np.nan,
    )


def _times(network: keras.Model, file: Engine, crop: np.ndarray) -> dict[int, dict[str, float]]:
    """Medians of calls in turn, so that whatever else the machine does hits both."""
    found = {}
    for size in console.track(BATCHES, "timing both"):
        batch = np.repeat(crop, size, axis=0)
        seconds = _in_turn((network, file), batch)
        names = ("network", "file")
        found[size] = dict(zip(names, (1000 * statistics.median(s) for s in seconds), strict=True))
    return found


def _in_turn(models: Sequence[keras.Model | Engine], batch: np.ndarray) -> list[list[float]]:
    seconds: list[list[float]] = [[] for _ in models]
    for number in range(ROUNDS + 1):
        for model, spent in zip(models, seconds, strict=True):
            start = time.perf_counter()
            model.predict_on_batch(batch)
            if number:  # the first call compiles
                spent.append(time.perf_counter() - start)
    return seconds
