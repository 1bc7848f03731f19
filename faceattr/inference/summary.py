"""What a job did, counted as it goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from faceattr.inference.looking import Clock
from faceattr.inference.rows import STATUSES, Labelled, Row, withheld_name


@dataclass
class Summary:
    """What a job did.

    Args:
        inputs: Pictures and frames that were looked at.
        statuses: Rows by status.
        answers: By task, rows by answer; None counts the unsure.
        resumed: Inputs that the table held already.
        seconds: From the first picture to the last row.
        stages: Seconds by stage, summed over threads.
        interrupted: Whether the job was stopped before its end.
    """

    inputs: int = 0
    statuses: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(STATUSES, 0)))
    answers: dict[str, Counter[str | None]] = field(default_factory=dict)
    resumed: int = 0
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    interrupted: bool = False
    _start: float = field(default_factory=perf_counter)

    def add(self, labelled: Labelled, rows: Sequence[Row]) -> None:
        """Count one input."""
        self.inputs += 1
        self.statuses.update(row["status"] for row in rows)
        for face in labelled.faces:
            for task, prediction in face.predictions.items():
                if not (face.too_small or face.dropped):
                    self.answers.setdefault(task, Counter())[prediction.label] += 1

    def end(self, clock: Clock, *, interrupted: bool) -> None:
        """Stop the clock."""
        self.seconds = perf_counter() - self._start
        self.stages, self.interrupted = clock.seconds, interrupted

    def counts(self) -> dict[str, Any]:
        """What the page beside the table keeps."""
        return {
            "interrupted": self.interrupted,
            "looked_at": self.inputs,
            "there_before": self.resumed,
            "rows": dict(self.statuses),
            "answers": {task: named(answers) for task, answers in self.answers.items()},
            "seconds": round(self.seconds, 1),
        }

    @property
    def faces(self) -> int:
        """Faces that were described."""
        return self.statuses["ok"]


def named(answers: Mapping[str | None, int]) -> dict[str, int]:
    """Counts by answer, those of the withheld under a name that no answer has."""
    withheld = withheld_name([name for name in answers if name])
    return {withheld if name is None else name: count for name, count in answers.items()}
