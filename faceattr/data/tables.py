"""Labels in CSV files: manifests in the house form, and FER2013's own file."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faceattr.data.manifest import SPLIT_NAMES, Example, Known, Label, Source
from faceattr.tasks import EXPRESSION, ORDERS, TASK_NAME

BOX_COLUMNS = ("x0", "y0", "x1", "y1")
OWN_COLUMNS = ("path", "split", "group", *BOX_COLUMNS)
MANY_TEXTS = 12  # a bare column with more, most of them different, holds no classes

FER2013_SPLITS = {"": "", "training": "train", "publictest": "val", "privatetest": "test"}
FER2013_PIXELS = 48 * 48


def read_csv(path: Path, wanted: Collection[str] | None, known: Known) -> Source:
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
    table = _table(path)
    if {"emotion", "pixels"} <= set(table.columns):
        if wanted is not None and EXPRESSION.name not in wanted:
            raise ValueError(f"{path} is FER2013's file: its task is expression, not {wanted}.")
        return _read_fer2013(path, table)
    return _read_manifest(path, table, wanted, known)


def _table(path: Path) -> pd.DataFrame:
    """All cells as text; the index counts the lines below the header."""
    how: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    try:
        header = pd.read_csv(path, header=None, nrows=1, **how).iloc[0].str.strip()
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, index_col=False, skipinitialspace=True, skip_blank_lines=False, **how
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path} is not a readable CSV file: {error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a CSV file in UTF-8.") from None
    if len(header) == 1 and ";" in header[0]:
        raise ValueError(f"{path} separates its columns by semicolons; expected commas.")
    if repeated := sorted(set(header[header.duplicated() & (header != "")])):
        raise ValueError(f"{path} has two columns called {', '.join(repeated)}.")
    table.columns = list(header)
    table = table.loc[:, header.ne("").to_numpy()]
    return table[table.ne("").any(axis=1)]


def _read_fer2013(path: Path, table: pd.DataFrame) -> Source:
    usage = table.get("Usage", pd.Series("", index=table.index))
    rows = zip(table.index, table["emotion"], table["pixels"], usage, strict=True)
    return Source((EXPRESSION.name,), tuple(_fer2013_example(path, *row) for row in rows))


def _fer2013_example(path: Path, index: int, emotion: str, text: str, usage: str) -> Example:
    origin = f"{path.name} line {index + 2}"
    numbers = text.split()
    is_grey = all(number.isdigit() and int(number) < 256 for number in numbers)
    if len(numbers) != FER2013_PIXELS or not is_grey or emotion.strip() not in tuple("0123456"):
        raise ValueError(
            f"{origin}: expected an emotion of 0-6 and {FER2013_PIXELS} grey values of 0-255. "
            f"Received: emotion {emotion!r} and {len(numbers)} values"
        )
    if usage.strip().lower() not in FER2013_SPLITS:
        raise ValueError(
            f"{origin}: a Usage is Training, PublicTest or PrivateTest. Received: {usage!r}"
        )
    pixels = np.array(numbers, dtype="uint8").reshape(48, 48, 1)
    return Example(
        path=Path(f"{path}#{index}"),
        labels={EXPRESSION.name: ORDERS[EXPRESSION.name]["fer2013"].name_of(int(emotion))},
        split=FER2013_SPLITS[usage.strip().lower()],
        pixels=np.repeat(pixels, 3, axis=2),
        origin=origin,
    )


def _read_manifest(
    path: Path, table: pd.DataFrame, wanted: Collection[str] | None, known: Known
) -> Source:
    if "path" not in table.columns:
        raise ValueError(
            f"{path} has no column 'path'. Its columns are: {', '.join(table.columns)}"
        )
    left_out: Counter[str] = Counter()
    names = list(dict.fromkeys(c.split(":")[0] for c in table.columns if c not in OWN_COLUMNS))
    if wanted is None:
        reasons = {name: _no_classes(table, name, known) for name in names}
        left_out.update(f"column {name}: {why}" for name, why in reasons.items() if why)
    else:
        reasons = {name: "" if name in wanted else "not asked for" for name in names}
    names = [name for name in names if not reasons[name]]
    if not names:
        raise ValueError(
            f"{path} has no column {' or '.join(sorted(wanted or ())) or 'of class names'}. "
            f"Its columns are: {', '.join(table.columns)}"
        )
    labels = {name: _labels(path, table, name) for name in names}
    others = [c for c in table.columns if c not in OWN_COLUMNS and c.split(":")[0] not in names]
    examples = []
    for row, (index, cells) in enumerate(zip(table.index, table.to_dict("records"), strict=True)):
        answers = {name: labels[name][row] for name in names if labels[name][row]}
        if answers:
            about = {name: cells[name].strip() for name in others if cells[name].strip()}
            examples.append(_example(path, index, cells, answers, about))
        else:
            left_out["no label for any task"] += 1
    _check_files(path, examples)
    return Source(tuple(names), tuple(examples), left_out)


def _no_classes(table: pd.DataFrame, name: str, known: Known) -> str:
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
    columns = [column for column in table.columns if column.startswith(f"{name}:")]
    votes = table[columns].replace(r"^\s*$", "0", regex=True)
    numbers = votes.apply(pd.to_numeric, errors="coerce")
    wrong = ~(np.isfinite(numbers) & (numbers >= 0)).all(axis=1)
    if wrong.any():
        line = wrong.idxmax()
        raise ValueError(
            f"{path.name} line {line + 2}: votes are numbers from 0 on or empty. "
            f"Received: {', '.join(table.loc[line, columns])}"
        )
    classes = [column.split(":", 1)[1].strip() for column in columns]
    return [
        {label: share for label, share in zip(classes, row, strict=True) if share > 0}
        for row in numbers.to_numpy().tolist()
    ]


def _example(
    path: Path,
    index: int,
    cells: Mapping[Any, str],
    labels: Mapping[str, Label],
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
        box=box,  # type: ignore[arg-type]
        split=SPLIT_NAMES.get(split.lower(), split),
        group=cells.get("group", "").strip(),
        about=about,
        origin=origin,
    )


def _check_files(path: Path, examples: list[Example]) -> None:
    missing = [example for example in examples if not example.path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path} names {len(missing)} pictures of {len(examples)} that do not exist, the first "
            f"in {missing[0].origin}: {missing[0].path}. Paths are relative to the manifest."
        )
