"""A teacher's answers as labels: where a row knows none, and on request beside those it knows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import keras
import numpy as np

from faceattr import engines
from faceattr.data.rows import Rows, mask
from faceattr.judging.calibrate import tempered
from faceattr.judging.evaluate import predict
from faceattr.model_file import path_of
from faceattr.tasks import Task

SURE = 0.8


@dataclass(frozen=True)
class Distillation:
    """What teachers say counts as a label (Hinton et al. 2015; Xie et al. 2020, arXiv 1911.04252).

    Args:
        teachers: Model files; the mean of their probabilities is the teacher's answer.
        thresholds: By task, how sure the teacher must be of an unlabelled row, 0.8 where not
            given; the row's target is then the whole answer. A row of which it is less sure stays
            unlabelled.
        shares: By task, how much the answer counts beside a label that is known, of 1; 0 where
            not given.
        temperature: Above 1 the answers become softer before they are used.
    """

    teachers: tuple[str, ...]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0

    def __post_init__(self) -> None:
        amounts = [*self.thresholds.values(), *self.shares.values()]
        if not all(0 <= amount <= 1 for amount in amounts) or not 0 < self.temperature < np.inf:
            raise ValueError(
                "Thresholds and shares of a teacher are from 0 to 1, and its temperature is above "
                f"0. Received: {dict(self.thresholds)}, {dict(self.shares)}, {self.temperature}"
            )
        if not self.teachers:
            raise ValueError("Thresholds and shares go with --teacher MODEL, and there is none.")

    def check(self, tasks: Sequence[Task]) -> None:
        """Refuse teachers that have other classes, and amounts for what no teacher answers."""
        own = {task.name: task for task in tasks}
        answered = set()
        for teacher in self.teachers:
            for task in engines.describe(path_of(teacher)).tasks:
                if task.name in own and task.classes != own[task.name].classes:
                    raise ValueError(
                        f"{teacher} answers {task.name} with the classes {', '.join(task.classes)},"
                        f" and here they are {', '.join(own[task.name].classes)}."
                    )
                answered.add(task.name)
        if strangers := sorted({*self.thresholds, *self.shares} - (answered & set(own))):
            raise ValueError(
                f"No teacher answers {', '.join(strangers)} here. They answer "
                f"{', '.join(sorted(answered & set(own))) or 'nothing that is trained'}."
            )


def distilled(rows: Rows, how: Distillation) -> tuple[Rows, Iterator[str]]:
    """Training rows with the teacher's answers among their targets.

    Args:
        rows: Training rows, never those of val.
        how: What counts.

    Returns:
        The rows, and a line for each task: how many rows got a label.
    """
    answers = _mean([engines.load(path_of(name))[0] for name in how.teachers], rows)
    soft = {name: tempered(of, how.temperature) for name, of in answers.items()}
    taught = with_answers(rows, soft, how.thresholds, how.shares, sure_of=answers)
    return taught, _lines(rows, taught, soft)


def with_answers(
    rows: Rows,
    answers: Mapping[str, np.ndarray],
    thresholds: Mapping[str, float],
    shares: Mapping[str, float],
    sure_of: Mapping[str, np.ndarray] | None = None,
) -> Rows:
    """Rows with answers as targets where a task is unknown, and beside what is known.

    Args:
        rows: The rows.
        answers: By task, probabilities ``(n, classes)``.
        thresholds: By task, the least probability of the likeliest class; 0.8 where not given.
        shares: By task, the answers' share of a known target; 0 where not given.
        sure_of: What the thresholds are held against; the answers themselves unless given.
    """
    targets = dict(rows.targets)
    for name in answers.keys() & targets.keys():
        target, answer = targets[name], answers[name]
        known = mask(target)[:, None] > 0
        share = shares.get(name, 0.0)
        sure = (sure_of or answers)[name].max(axis=1, keepdims=True) >= thresholds.get(name, SURE)
        found = np.where(known, (1 - share) * target + share * answer, answer * sure)
        targets[name] = found.astype("float32")
    return replace(rows, targets=targets, soft=tuple(sorted(answers.keys() & targets.keys())))


def _mean(models: Collection[keras.Model], rows: Rows) -> dict[str, np.ndarray]:
    said = [predict(model, rows) for model in models]
    names = dict.fromkeys(name for answers in said for name in answers)
    return {
        name: np.mean([answers[name] for answers in said if name in answers], axis=0)
        for name in names
    }


def _lines(before: Rows, after: Rows, answered: Collection[str]) -> Iterator[str]:
    for name in before.targets:
        if name in answered:
            unknown = mask(before.targets[name]) == 0
            got = int((mask(after.targets[name])[unknown] > 0).sum())
            yield f"teacher: {name}: {got:,} of {int(unknown.sum()):,} unlabelled faces"
