"""Labels in CSV files: manifests in the house form, and whose file else it may be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from faceattr.data.fer2013 import read_fer2013
from faceattr.data.manifest import (
    SPLIT_NAMES,
    Example,
    Label,
    Source,
    TasksByName,
    Votes,
    read_cells,
)
from faceattr.data.votes import read_votes, vote_columns
from faceattr.tasks import EXPRESSION, TASK_NAME

BOX_COLUMNS = ("x0", "y0", "x1", "y1")
OWN_COLUMNS = ("path", "split", "group", *BOX_COLUMNS)
MANY_TEXTS = 12  # a bare column with more, most of them different, holds no classes


def read_csv(path: Path, wanted: Collection[str] | None, known: TasksByName) -> Source:
    """Read a CSV file of labels.

    Args:
        path: A manifest (``path``, optional ``x0,y0,x1,y1``, ``split`` and ``group``, a column
            per task, votes as columns ``task:class``), or FER2013's ``emotion,pixels,Usage``.
        wanted: Tasks to take, as far as it has them; None for every column of class names.
        known: Tasks that are taken for classes even where they look like numbers.

    Raises:
        FileNotFoundError: The manifest names pictures that do not exist.
        ValueError: The file is not of this form; the message names the line.
    """
    table = read_cells(path)
    if {"emotion", "pixels"} <= set(table.columns):
        if wanted is not None and EXPRESSION.name not in wanted:
            raise ValueError(f"{path} is FER2013's file: its task is expression, not {wanted}.")
        return read_fer2013(path, table)
    return _read_manifest(path, table, wanted, known)


def _read_manifest(
    path: Path, table: pd.DataFrame, wanted: Collection[str] | None, known: TasksByName
) -> Source:
    if "path" not in table.columns:
        raise ValueError(
            f"{path} has no column 'path'. Its columns are: {', '.join(table.columns)}"
        )
    left_out: Counter[str] = Counter()
    names = _names_of_tasks(table.columns)
    if wanted is None:
        reasons = {name: _no_classes(table, name, known) for name in names}
        left_out.update(f"column {name}: {why}" for name, why in reasons.items() if why)
    else:
        reasons = {name: "" if name in wanted else "not asked for" for name in names}
    names = [name for name in names if not reasons[name]]
    if not names:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ValueError(
            f"{path} has no column {' or '.join(sorted(wanted or ())) or 'of class names'}. "
            f"Its columns are: {', '.join(table.columns)}"
            + (f" ({why}; TASK={path} takes a column in any case)" if why and not wanted else "")
        )
    labels = {name: _labels(path, table, name) for name in names}
    votes = {
        name: read_votes(path, table, columns)
        for name in names
        if name in table.columns and (columns := vote_columns(table.columns, name))
    }
    others = [c for c in table.columns if c not in OWN_COLUMNS and c.split(":")[0] not in names]
    examples = []
    for row, (index, cells) in enumerate(zip(table.index, table.to_dict("records"), strict=True)):
        answers = {name: labels[name][row] for name in names if labels[name][row]}
        if answers:
            about = {name: cells[name].strip() for name in others if cells[name].strip()}
            seen = {name: counts[row] for name, counts in votes.items() if counts[row]}
            examples.append(_example(path, index, cells, answers, seen, about))
        else:
            left_out["no label for any task"] += 1
    _check_files(path, examples)
    _check_boxes(path, examples)
    return Source(tuple(names), tuple(examples), left_out)


def _names_of_tasks(columns: Iterable[str]) -> list[str]:
    """What may be a task: every column that is nobody's own, and everything that is voted on."""
    ferplus = {name for name in vote_columns(columns, EXPRESSION.name) if ":" not in name}
    free = [name for name in columns if name not in OWN_COLUMNS and name not in ferplus]
    return list(dict.fromkeys(name.split(":")[0] for name in free))


def _no_classes(table: pd.DataFrame, name: str, known: TasksByName) -> str:
    """Why a column that nobody asked for is not taken for a task; empty if it is."""
    if not re.fullmatch(TASK_NAME, name):
        return "its name cannot be a task's"
    if name in known or name not in table.columns:
        return ""
    filled = table[name][table[name].str.strip() != ""]
    if not len(filled):
        return "empty"
    if pd.to_numeric(filled, errors="coerce").notna().all():
        return "numbers, not class names"
    many = filled.nunique() > max(MANY_TEXTS, len(filled) / 2)
    return "texts, not class names" if many else ""


def _labels(path: Path, table: pd.DataFrame, name: str) -> list[Label]:
    """One label a row: a class name, votes by class, or something empty where unknown."""
    if name in table.columns:
        cells = [cell.strip() for cell in table[name]]
        if not any(cells):
            raise ValueError(f"{path}: column {name!r} is empty in every row.")
        return list(cells)
    return list(read_votes(path, table, vote_columns(table.columns, name)))


def _example(
    path: Path,
    index: int,
    cells: Mapping[Any, str],
    labels: Mapping[str, Label],
    votes: Mapping[str, Votes],
    about: Mapping[str, str],
) -> Example:
    origin = f"{path.name} line {index + 2}"
    corners = [cells.get(column, "").strip() for column in BOX_COLUMNS]
    try:
        box = tuple(float(corner) for corner in corners) if any(corners) else None
    except ValueError:
        raise ValueError(
            f"{origin}: a box is four numbers x0,y0,x1,y1 or empty. Received: {','.join(corners)}"
        ) from None
    split = cells.get("split", "").strip()
    return Example(
        path=path.parent / cells["path"].strip(),
        labels=labels,
        votes=votes,
        box=box,  # type: ignore[arg-type]
        split=SPLIT_NAMES.get(split.lower(), split),
        group=cells.get("group", "").strip(),
        metadata=about,
        origin=origin,
    )


def _check_boxes(path: Path, examples: list[Example]) -> None:
    corners = [corner for example in examples for corner in example.box or ()]
    if corners and all(0 <= corner <= 1 for corner in corners):
        raise ValueError(
            f"{path} has boxes from 0 to 1 only: shares of the picture, it seems. Expected pixels: "
            "multiply x0 and x1 by its width, y0 and y1 by its height."
        )


def _check_files(path: Path, examples: list[Example]) -> None:
    missing = [example for example in examples if not example.path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path} names {len(missing)} pictures of {len(examples)} that do not exist, the first "
            f"in {missing[0].origin}: {missing[0].path}. Paths are relative to the manifest."
        )
