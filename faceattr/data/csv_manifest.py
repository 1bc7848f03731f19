"""Labels in CSV files: manifests in the house form, with votes in columns of their own."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faceattr.data.manifest import SPLIT_NAMES, Example, Label, Source, TasksByName, Votes
from faceattr.images.crop import Box
from faceattr.images.inputs import path_of
from faceattr.tasks import EXPRESSION, TASK_NAME

BOX_COLUMNS = ("x0", "y0", "x1", "y1")
OWN_COLUMNS = ("path", "split", "group", *BOX_COLUMNS)
FEW_EMPTY = 2  # boxes, or a tenth of all: these are slips
MANY_TEXTS = 12  # a bare column with more, most of them different, holds no classes
SEPARATORS = {";": "semicolons", "\t": "tabs"}  # that spreadsheets write in place of commas
# FER+ (Barsoum et al. 2016): what ten people said of a face, under these names.
NO_FACE = "nf"
NO_CLASS = ("unknown", NO_FACE)
EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
FERPLUS = EMOTIONS + NO_CLASS


def read_cells(path: Path) -> pd.DataFrame:
    """All cells as text; the index counts the lines below the header."""
    how: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    try:
        header = pd.read_csv(path, header=None, nrows=1, **how).iloc[0].str.strip()
        _must_have_commas(path, header)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, index_col=False, skipinitialspace=True, skip_blank_lines=False, **how
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        raise ValueError(f"{path} is not a readable CSV file: {reason}") from None
    except UnicodeDecodeError:
        raise ValueError(
            f"{path} is not a CSV file in UTF-8. Save it as such; Excel calls it CSV UTF-8."
        ) from None
    if repeated := sorted(set(header[header.duplicated() & (header != "")])):
        raise ValueError(f"{path} has two columns called {', '.join(repeated)}.")
    table.columns = list(header)
    table = table.loc[:, header.ne("").to_numpy()]
    return table[table.ne("").any(axis=1)]


def _must_have_commas(path: Path, header: pd.Series) -> None:
    for separator, name in SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            raise ValueError(
                f"{path} separates its columns by {name}; expected commas. "
                f"`pandas.read_csv({path.name!r}, sep={separator!r}, decimal=',')` reads it, and "
                f"`to_csv({path.name!r}, index=False)` writes it anew."
            )


def _vote_columns(columns: Iterable[str], task: str) -> dict[str, str]:
    """Columns that hold votes on a task, ``task:class``, with the class each is for; FER+'s may be
    called ``votes_happiness`` and so on as well.
    """
    found = {name: name.split(":", 1)[1].strip() for name in columns if name.startswith(f"{task}:")}
    if task == EXPRESSION.name:
        names = {f"votes_{name}": name for name in FERPLUS}
        found |= {name: names[name.lower()] for name in columns if name.lower() in names}
    return found


def read_votes(path: Path, table: pd.DataFrame, columns: Mapping[str, str]) -> list[Votes]:
    """Votes by class, row by row; ValueError where a cell is no number from 0 on and not empty."""
    if table.empty:
        return []
    cells = table[list(columns)].replace(r"^\s*$", "0", regex=True)
    numbers = cells.apply(pd.to_numeric, errors="coerce")
    wrong = ~(np.isfinite(numbers) & (numbers >= 0)).all(axis=1)
    if wrong.any():
        line = wrong.idxmax()
        raise ValueError(
            f"{path.name} line {line + 2}: votes are numbers from 0 on or empty. "
            f"Received: {', '.join(table.loc[line, list(columns)])}"
        )
    counts = (zip(columns.values(), row, strict=True) for row in numbers.to_numpy().tolist())
    return [{name: count for name, count in row if count > 0} for row in counts]


def read_manifest(
    path: Path, table: pd.DataFrame, wanted: Collection[str] | None, known: TasksByName
) -> Source:
    """Read a manifest: ``path``, optional ``x0,y0,x1,y1``, ``split`` and ``group``, a column per
    task, votes as columns ``task:class``. Its images are relative to it.

    `wanted` are the tasks to take, as far as it has them; None takes every column of class names.
    Those in `known` are taken for classes even where they look like numbers.
    """
    if "path" not in table.columns:
        raise ValueError(
            f"{path} has no column 'path'. Its columns are: {', '.join(table.columns)}"
        )
    names, left_out = _tasks_of(path, table, wanted, known)
    labels = {name: _labels(path, table, name) for name in names}
    votes = {
        name: read_votes(path, table, columns)
        for name in names
        if name in table.columns and (columns := _vote_columns(table.columns, name))
    }
    others = [c for c in table.columns if c not in OWN_COLUMNS and c.split(":")[0] not in names]
    examples = []
    stripped = table.map(str.strip).to_dict("records")
    for row, (index, cells) in enumerate(zip(table.index, stripped, strict=True)):
        answers = {name: labels[name][row] for name in names if labels[name][row]}
        voted = {name: of[row] for name, of in votes.items() if of[row]}
        if not answers and not voted:  # whether votes count is known later
            left_out["no label for any task"] += 1
            continue
        origin, split = f"{path.name} line {index + 2}", cells.get("split", "")
        example = Example(
            path=Path(path_of(str(path.parent / cells["path"]))),
            labels=answers,
            votes=voted,
            box=_box(origin, cells),
            split=SPLIT_NAMES.get(split.lower(), split),
            group=cells.get("group", ""),
            metadata={name: cells[name] for name in others if cells[name]},
            origin=origin,
        )
        examples.append(example)
    _check(path, examples)
    return Source(tuple(names), tuple(examples), left_out)


def _tasks_of(
    path: Path, table: pd.DataFrame, wanted: Collection[str] | None, known: TasksByName
) -> tuple[list[str], Counter[str]]:
    """The tasks to take, and the columns that nobody asked for and that hold no classes."""
    ferplus = {name for name in _vote_columns(table.columns, EXPRESSION.name) if ":" not in name}
    free = [name for name in table.columns if name not in OWN_COLUMNS and name not in ferplus]
    names = dict.fromkeys(name.split(":")[0] for name in free)
    if wanted is not None:
        taken, reasons = [name for name in names if name in wanted], {}
    else:
        reasons = {name: why for name in names if (why := _no_classes(table, name, known))}
        taken = [name for name in names if name not in reasons]
    if not taken:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ValueError(
            f"{path} has no column {' or '.join(sorted(wanted or ())) or 'of class names'}. "
            f"Its columns are: {', '.join(table.columns)}"
            + (f" ({why}; TASK={path} takes a column in any case)" if why else "")
        )
    return taken, Counter(f"column {name}: {why}" for name, why in reasons.items())


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
    """One label a row: a class name, votes by class, or an empty one."""
    if name not in table.columns:
        return list(read_votes(path, table, _vote_columns(table.columns, name)))
    cells = [cell.strip() for cell in table[name]]
    if not any(cells):
        raise ValueError(f"{path}: column {name!r} is empty in every row.")
    return list(cells)


def _box(origin: str, cells: Mapping[Any, str]) -> Box | None:
    corners = [cells.get(column, "") for column in BOX_COLUMNS]
    try:
        return tuple(float(corner) for corner in corners) if any(corners) else None  # type: ignore[return-value]
    except ValueError:
        raise ValueError(
            f"{origin}: a box is four numbers x0,y0,x1,y1 or empty. Received: {','.join(corners)}"
        ) from None


def _check(path: Path, examples: list[Example]) -> None:
    """Refuse images that do not exist, and boxes that are no corners in pixels."""
    missing = [example for example in examples if not example.path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path} names {len(missing)} images of {len(examples)} that do not exist, the first "
            f"in {missing[0].origin}: {missing[0].path}. Paths are relative to the manifest."
        )
    corners = [corner for example in examples for corner in example.box or ()]
    if corners and all(0 <= corner <= 1 for corner in corners):
        raise ValueError(
            f"{path} has boxes from 0 to 1 only: shares of the image, it seems. Expected pixels: "
            "multiply x0 and x1 by its width, y0 and y1 by its height."
        )
    boxes = [example.box for example in examples if example.box]
    empty = sum((x1 < x0 or y1 < y0) and min(x1, y1) > 0 for x0, y0, x1, y1 in boxes)
    if empty > max(FEW_EMPTY, len(boxes) / 10):
        raise ValueError(
            f"{path} has {len(boxes):,} boxes, of which {empty:,} end left of their start or above "
            "it: they are x, y, width and height, it seems. Expected corners: x1 is x0 + width, y1 "
            "is y0 + height."
        )
