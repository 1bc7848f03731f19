"""The table's schema: one row a face, and at least one row an input."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from faceattr.images.inputs import InputFile
from faceattr.inference.predictor import DescribedFace
from faceattr.tasks import Task

STATUSES = ("ok", "no_face", "unreadable", "too_small", "dropped")
OK, NO_FACE, UNREADABLE, TOO_SMALL, DROPPED = STATUSES
Row = dict[str, Any]

PLACE: dict[str, type] = {
    "path": str,
    "status": str,
    "face": int,
    "faces": int,
    "x0": float,
    "y0": float,
    "x1": float,
    "y1": float,
    "detection": float,
}
REMARKS: dict[str, type] = {"turn": int, "time": float, "reason": str}


@dataclass(frozen=True)
class Labelled:
    """One input and what was found in it.

    Args:
        file: The file.
        time: Seconds into a video, None for a picture.
        faces: From left to right; empty without a face and for an unreadable file.
        reason: Why a file could not be read, else None.
    """

    file: InputFile
    time: float | None
    faces: tuple[DescribedFace, ...] = ()
    reason: str | None = None


def columns(tasks: Sequence[Task]) -> dict[str, type]:
    """The columns of a table about `tasks`, in order, with the type of what stands in them.

    ``path, status, face, faces, x0, y0, x1, y1, detection``, for every task its answer
    ``<task>``, that answer's ``<task>_prob`` and every class' ``<task>:<class>``, then
    ``turn`` (quarter turns counter-clockwise that set the face upright), ``time`` (seconds
    into a video) and ``reason`` (why a file could not be read).

    Raises:
        ValueError: A task is called like another column.
    """
    names: dict[str, type] = dict(PLACE)
    for task in tasks:
        own: dict[str, type] = {task.name: str, f"{task.name}_prob": float}
        own |= {f"{task.name}:{name}": float for name in task.classes}
        if taken := own.keys() & (names.keys() | REMARKS.keys()):
            raise ValueError(f"The table has a column {taken.pop()!r} already; rename that task.")
        names |= own
    return names | REMARKS


def withheld_name(classes: Container[str]) -> str:
    """What withheld answers are called where they are counted: "unsure", unless a class is."""
    name = "unsure"
    while name in classes:
        name = f"{name} (withheld)"
    return name


def rows_of(labelled: Labelled, tasks: Sequence[Task]) -> list[Row]:
    """The rows of one input: dicts with every column; None is an empty cell."""
    blank: Row = dict.fromkeys(columns(tasks))
    blank.update(path=labelled.file.name, time=labelled.time, reason=labelled.reason)
    if labelled.reason is not None:
        return [blank | {"status": UNREADABLE}]
    if not labelled.faces:
        return [blank | {"status": NO_FACE, "faces": 0}]
    blank["faces"] = len(labelled.faces)
    return [
        blank | {"face": number} | _cells_of(face) for number, face in enumerate(labelled.faces)
    ]


def _cells_of(face: DescribedFace) -> Row:
    cells: Row = {"status": TOO_SMALL if face.too_small else DROPPED if face.dropped else OK}
    cells |= {name: round(v, 1) for name, v in zip(("x0", "y0", "x1", "y1"), face.box, strict=True)}
    cells |= {"detection": round(face.score, 4), "turn": face.face.turn}
    for task, prediction in face.predictions.items():
        if prediction.probability is not None:
            cells[task] = prediction.label
            cells[f"{task}_prob"] = round(prediction.probability, 4)
        # Four decimals hide the last bits, which depend on the processor.
        cells |= {f"{task}:{name}": round(p, 4) for name, p in prediction.probabilities.items()}
    return cells
