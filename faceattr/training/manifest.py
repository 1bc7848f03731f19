"""Labelled pictures as checked records, whatever layout they came in.

An `Example` is one picture (or one face of it) with the labels that are known; a
`Manifest` is a tuple of them with the tasks that they answer. `sources` reads manifests
from files and folders, `join` puts any number of them together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from faceattr.pictures.crop import Box
from faceattr.tasks import Task

SPLITS = ("train", "val", "test")
Label = str | Mapping[str, float]


@dataclass(frozen=True)
class Example:
    """One labelled face.

    Args:
        path: The picture's file, or a name for it where `pixels` holds the picture.
        labels: By task, a class name, or votes (weights by class name) that sum to more
            than 0. A task that is not in it is unknown.
        box: ``(x0, y0, x1, y1)`` in pixels of the upright picture; None: it is the face.
        split: ``"train"``, ``"val"``, ``"test"``, or ``""`` where nobody has said.
        group: Whatever must not sit in two splits, for example an identity.
        pixels: The picture itself, RGB ``uint8`` ``(height, width, 3)``, or None.
        origin: Where the row came from, for messages.
    """

    path: Path
    labels: Mapping[str, Label] = field(default_factory=dict)
    box: Box | None = None
    split: str = ""
    group: str = ""
    pixels: np.ndarray | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        if self.split not in ("", *SPLITS):
            raise ValueError(
                f"{self.origin}: a split is one of {', '.join(SPLITS)} or empty. "
                f"Received: {self.split!r}"
            )


@dataclass(frozen=True)
class Manifest:
    """Examples and the tasks that their labels answer.

    Raises:
        ValueError: A label is no class of its task; every such row is named.
    """

    tasks: tuple[Task, ...]
    examples: tuple[Example, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.examples:
            raise ValueError("A manifest without a single row cannot be used.")
        strangers = [
            f"{example.origin or example.path}: {error}"
            for example in self.examples
            for error in _label_errors(self.tasks, example)
        ]
        if strangers:
            more = f" (and {len(strangers) - 5} rows more)" if len(strangers) > 5 else ""
            raise ValueError("; ".join(strangers[:5]) + more)

    def only(self, split: str) -> tuple[Example, ...]:
        return tuple(example for example in self.examples if example.split == split)


def _label_errors(tasks: Sequence[Task], example: Example) -> list[str]:
    errors = []
    for task in tasks:
        label = example.labels.get(task.name) or ()
        for name in [label] if isinstance(label, str) else label:
            try:
                task.index(name)
            except ValueError as error:
                errors.append(str(error))
    return errors


def join(manifests: Sequence[Manifest]) -> Manifest:
    """Unite manifests: the tasks of all, and one row for a face that stands in several.

    Raises:
        ValueError: A task has different classes in two of them, or one face has two labels
            for the same task.
    """
    tasks: dict[str, Task] = {}
    for task in (task for manifest in manifests for task in manifest.tasks):
        if tasks.setdefault(task.name, task) != task:
            raise ValueError(
                f"Task {task.name!r} has the classes {', '.join(tasks[task.name].classes)} in one "
                f"data set and {', '.join(task.classes)} in another; map them to the same names."
            )
    faces: dict[tuple, Example] = {}
    for example in (example for manifest in manifests for example in manifest.examples):
        key = (example.path, example.box)
        faces[key] = _united(faces[key], example) if key in faces else example
    left_out: Counter[str] = Counter()
    for manifest in manifests:
        left_out.update(manifest.left_out)
    return Manifest(tuple(tasks.values()), tuple(faces.values()), left_out)


def _united(first: Example, second: Example) -> Example:
    """One example with the labels of both."""
    for what, one, other in [
        *((name, label, second.labels.get(name)) for name, label in first.labels.items()),
        ("split", first.split, second.split),
    ]:
        if one and other and one != other:
            raise ValueError(
                f"{first.path} has two values for {what!r}: {one} ({first.origin}) and "
                f"{other} ({second.origin}). Keep one of the rows."
            )
    return replace(
        first,
        labels={**first.labels, **second.labels},
        split=first.split or second.split,
        group=first.group or second.group,
    )


def target(task: Task, label: Label | None) -> np.ndarray:
    """The target row of one face: one-hot, or votes as shares; all zeros where unknown.

    Returns:
        ``float32`` of shape ``(classes,)``, summing to 1 or 0.
    """
    row = np.zeros(len(task.classes), "float32")
    if not label:
        return row
    for name, weight in {label: 1.0}.items() if isinstance(label, str) else label.items():
        row[task.index(name)] += weight
    return row / row.sum() if row.sum() > 0 else row


def targets(tasks: Iterable[Task], examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """By task, the target rows of all examples: ``float32`` of shape ``(n, classes)``."""
    return {
        task.name: np.stack([target(task, example.labels.get(task.name)) for example in examples])
        if examples
        else np.zeros((0, len(task.classes)), "float32")
        for task in tasks
    }
