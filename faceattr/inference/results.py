"""What the model says of a face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from faceattr.detection.base import Face
from faceattr.images.crop import Box, Landmarks


@dataclass(frozen=True)
class Prediction:
    """One task's answer for one face.

    Args:
        label: The most probable class, or None where the answer is withheld: the face is
            too small or no class reaches the confidence that was asked for.
        probability: Of the most probable class, 0-1; None for a face that is too small, or in
            `live` has not been asked about yet.
        probabilities: Of every class by name; empty for such a face.
    """

    label: str | None
    probability: float | None
    probabilities: Mapping[str, float]


NO_ANSWER = Prediction(None, None, {})


@dataclass(frozen=True)
class DescribedFace:
    """A face and what the model says of it: ``face["gender"].label``.

    Args:
        face: Where it is.
        predictions: By task name.
        too_small: Whether it was too small to be asked about.
        rejected: Whether the model's answer is not the one that was required of a face.
    """

    face: Face
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    too_small: bool = False
    rejected: bool = False

    def __getitem__(self, task: str) -> Prediction:
        if task not in self.predictions:
            known = ", ".join(self.predictions)
            raise KeyError(f"The model has no task {task!r}; it knows {known}.")
        return self.predictions[task]

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON can hold it: where the face is, and a dict by task."""
        return {
            "box": list(self.box),
            "landmarks": None if self.landmarks is None else [list(at) for at in self.landmarks],
            "score": self.score,
            "rotation": self.face.rotation,
            "too_small": self.too_small,
            "rejected": self.rejected,
            **{task: asdict(found) for task, found in self.predictions.items()},
        }

    @property
    def box(self) -> Box:
        """``(x0, y0, x1, y1)`` in pixels of the upright image."""
        return self.face.box

    @property
    def landmarks(self) -> Landmarks | None:
        """Five ``(x, y)`` or None."""
        return self.face.landmarks

    @property
    def score(self) -> float:
        return self.face.score
