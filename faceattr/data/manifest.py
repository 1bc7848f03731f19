"""Labelled images as checked records, whatever layout they came in.

An `Example` is one image (or one face of it) with the labels that are known, a `Source` is
what one file or folder holds, and a `Manifest` is any number of sources in one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from faceattr.files import spelled
from faceattr.images.crop import Box, Landmarks
from faceattr.tasks import KNOWN_TASKS, Task

SPLITS = ("train", "val", "test")
OTHER_NAMES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
SPLIT_NAMES = OTHER_NAMES | {name: name for name in SPLITS}
NAMED = 20  # images in a line for people
Votes = Mapping[str, float]  # by class, how many people said so
Label = str | Votes
TasksByName = Mapping[str, Task]


@dataclass(frozen=True)
class Example:
    """One labelled face.

    Args:
        path: The image's file, or a name for it where `pixels` holds the image.
        labels: By task, a class name, or votes. A task that is not in it, or has an empty label,
            is unknown.
        votes: By task, what several people said beside the label; it counts where that is asked
            for, see `faceattr.data.label_map.count_votes`.
        box: ``(x0, y0, x1, y1)`` in pixels of the upright image; None: it is the face.
        landmarks: Points ``(x, y)`` that level the face, the eyes first, as `crop` takes them.
        split: ``"train"``, ``"val"``, ``"test"``, or ``""`` where nobody has said.
        group: Whatever must not sit in two splits, for example an identity.
        metadata: What else is known of it, by column; nothing learns from it, reports group by it.
        pixels: The image itself, RGB ``uint8`` ``(height, width, 3)``, or None.
        origin: Where the row came from, for messages.
        source: The data set that it came from, by its short name.
    """

    path: Path
    labels: Mapping[str, Label] = field(default_factory=dict)
    votes: Mapping[str, Votes] = field(default_factory=dict)
    box: Box | None = None
    landmarks: Landmarks | None = None
    split: str = ""
    group: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    pixels: np.ndarray | None = None
    origin: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.split not in ("", *SPLITS):
            raise ValueError(
                f"{self.origin}: a split is one of {', '.join(SPLITS)} or empty. "
                f"Received: {self.split!r}"
            )
        if self.box is not None and len(self.box) != 4:
            raise ValueError(f"{self.origin}: a box is x0, y0, x1, y1. Received: {self.box}")
        pixels = self.pixels
        if pixels is not None and (pixels.dtype != "uint8" or pixels.shape[2:] != (3,)):
            raise ValueError(
                f"{self.origin}: pixels are RGB uint8 of shape (height, width, 3). "
                f"Received: {pixels.dtype} of shape {pixels.shape}"
            )

    @property
    def name(self) -> str:
        """The image's path as valid text."""
        return spelled(self.path)


def listed(examples: Sequence[Example]) -> str:
    """The images of some examples in a line for people, who see the first ones."""
    names = ", ".join(example.name for example in examples[:NAMED])
    more = len(examples) - NAMED
    return f"{names} and {more:,} more" if more > 0 else names


@dataclass(frozen=True)
class Source:
    """What one file or folder holds: names of tasks, labelled faces, and how many rows were not
    taken, by reason.
    """

    tasks: tuple[str, ...]
    examples: tuple[Example, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Examples and the tasks that their labels answer, how many rows were not taken, by reason, and
    what was changed in reading them, for people.
    """

    tasks: tuple[Task, ...]
    examples: tuple[Example, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.examples:
            raise ValueError("There is not a single labelled image.")
        wrong = list(self._label_errors())
        if wrong:
            more = f" (and {len(wrong) - 5} rows more)" if len(wrong) > 5 else ""
            cure = " Rename such labels with --map NAME=CLASS, or leave them out with --map NAME=."
            raise ValueError("; ".join(wrong[:5]) + more + cure)

    def _label_errors(self) -> Iterator[str]:
        for example, task in itertools.product(self.examples, self.tasks):
            for name in label_names(example.labels.get(task.name)):
                try:
                    task.index(name)
                except ValueError as error:
                    yield f"{example.origin or example.path}: {error}"

    def only(self, split: str) -> tuple[Example, ...]:
        """The examples of one split."""
        return tuple(example for example in self.examples if example.split == split)


def select_split(manifest: Manifest, split: str | None) -> tuple[str, Manifest]:
    """The name and the rows of one split or of ``"all"``; None takes val, or all where no row is of
    val. ValueError where no row is of this split.
    """
    splits = {example.split for example in manifest.examples}
    chosen = split or ("val" if "val" in splits else "all")
    if chosen == "all":
        return chosen, manifest
    if chosen not in splits:
        raise ValueError(
            f"There is no row of split {chosen!r}. The splits are: "
            f"{', '.join(sorted(name or 'none given' for name in splits))}"
        )
    return chosen, replace(manifest, examples=manifest.only(chosen))


def label_names(label: Label | None) -> Iterable[str]:
    """The names of classes in a label: one, those that got votes, or none."""
    return ([label] if isinstance(label, str) else label) if label else ()


def strongest(label: Label) -> str:
    """The class of a label; of votes the one that has most, of a tie the first."""
    return label if isinstance(label, str) else max(label, key=lambda name: label[name])


def merge_sources(sources: Sequence[Source], known: TasksByName = KNOWN_TASKS) -> Manifest:
    """Put sources together: the tasks of all, one row for a face that stands in several.

    The classes of tasks that are not known are the labels that occur in any source, sorted.
    """
    names = dict.fromkeys(name for source in sources for name in source.tasks)
    read = [example for source in sources for example in source.examples]
    tasks = {name: known.get(name) or _own_task(name, read) for name in names}
    examples = [_with_names_of_classes(example, tasks) for example in read]
    left_out = sum((Counter(source.left_out) for source in sources), Counter[str]())
    faces: dict[tuple[str, Box | None], Example] = {}
    for example in examples:
        key = os.path.abspath(example.path), example.box
        first = faces.get(key)
        faces[key] = _merged(first, example, tasks) if first else example
        if first and first.source == example.source and not example.labels.keys() - first.labels:
            left_out["the same image once more"] += 1
    return Manifest(tuple(tasks.values()), tuple(faces.values()), left_out)


def _with_names_of_classes(example: Example, tasks: Mapping[str, Task]) -> Example:
    """The example with its labels spelled as the classes are, votes in the order of these."""
    named: dict[str, Label] = {}
    for name, label in example.labels.items():
        if not label or (task := tasks.get(name)) is None:
            continue
        with contextlib.suppress(ValueError):  # no class: `Manifest` refuses it, with its line
            if isinstance(label, str):
                named[name] = task.classes[task.index(label)]
            else:
                votes = Counter[str]()
                for other in sorted(label, key=task.index):
                    votes[task.classes[task.index(other)]] += label[other]  # type: ignore[assignment]
                named[name] = votes
    return replace(example, labels={**example.labels, **named}) if named else example


def _own_task(name: str, examples: Iterable[Example]) -> Task:
    classes = {label for example in examples for label in label_names(example.labels.get(name))}
    return Task(name, tuple(sorted(classes)))


def _merged(first: Example, second: Example, tasks: Mapping[str, Task]) -> Example:
    for name in first.labels.keys() & second.labels.keys():
        one, other = (target(tasks[name], e.labels[name]) for e in (first, second))
        if one.any() and other.any() and not np.array_equal(one, other):
            _refuse(name, first, first.labels[name], second, second.labels[name])
    if first.split and second.split and first.split != second.split:
        _refuse("split", first, first.split, second, second.split)
    return replace(
        first,
        labels={**second.labels, **{k: v for k, v in first.labels.items() if v}},
        votes={**second.votes, **first.votes},
        split=first.split or second.split,
        group=first.group or second.group,
        metadata={**second.metadata, **first.metadata},
    )


def _refuse(what: str, first: Example, one: Label, second: Example, other: Label) -> None:
    raise ValueError(
        f"{first.path} has two values for {what!r}: {one} ({first.origin}) and "
        f"{other} ({second.origin}). Keep one of the rows."
    )


def target(task: Task, label: Label | None) -> np.ndarray:
    """The target row of one face: one-hot, or votes as shares; all zeros where unknown; ``float32``
    ``(classes,)``, summing to 1 or 0.
    """
    row = np.zeros(len(task.classes), "float32")
    votes = ({label: 1.0} if isinstance(label, str) else label) if label else {}
    for name, weight in votes.items():
        row[task.index(name)] += weight
    return row / row.sum() if row.sum() > 0 else row


def targets(tasks: Iterable[Task], examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """By task, the target rows of all examples: ``float32`` of shape ``(n, classes)``."""
    found = {}
    for task in tasks:
        rows = [target(task, example.labels.get(task.name)) for example in examples]
        found[task.name] = np.array(rows, "float32").reshape(-1, len(task.classes))
    return found
