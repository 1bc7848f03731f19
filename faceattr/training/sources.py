"""The layouts in which labelled pictures come, each read into a `Manifest`.

``TASK=PATH`` takes one task from PATH, ``PATH`` alone must be a manifest CSV and gives every
task in it. PATH is a manifest CSV, a folder with a ``manifest.csv``, FER2013's own CSV, a
tree of class folders, or a folder of UTKFace's file names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faceattr.tasks import AGE_GROUP, EXPRESSION, GENDER, KNOWN_TASKS, Task
from faceattr.training.manifest import SPLITS, Example, Label, Manifest, join

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
BOX_COLUMNS = ("x0", "y0", "x1", "y1")
OWN_COLUMNS = ("path", "split", "group", *BOX_COLUMNS)

# FER2013 (Goodfellow et al. 2013) numbers its classes in this order.
FER2013_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
FER2013_SPLITS = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
# UTKFace (Zhang et al. 2017): age_gender_race_date.jpg, gender 0 male and 1 female.
UTKFACE_NAME = re.compile(r"^(?P<age>\d{1,3})_(?P<gender>[01])_\d_\d{8,}")
GENDER_FROM_AGE = 6  # younger faces do not show it


Known = Mapping[str, Task]


def read_sources(
    specs: Sequence[str], columns: Collection[str] | None = None, known: Known = KNOWN_TASKS
) -> Manifest:
    """Read and join any number of sources.

    Args:
        specs: ``"task=path"`` or ``"path"`` each.
        columns: What bare manifest CSVs contribute, as far as they have it; None for every
            column whose values are class names rather than numbers.
        known: Tasks whose classes are fixed; others take theirs from the data.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: A source cannot be read as any known layout.
    """
    return join([read_source(spec, columns, known) for spec in specs])


def read_source(
    spec: str, columns: Collection[str] | None = None, known: Known = KNOWN_TASKS
) -> Manifest:
    """Read one source, see `read_sources`."""
    name, equals, rest = spec.partition("=")
    if not equals or Path(spec).exists():
        name, rest = "", spec
    path = Path(rest)
    if not path.exists():
        raise FileNotFoundError(
            f"There is nothing at {path}. Expected a manifest CSV or a folder, "
            "as PATH or TASK=PATH."
        )
    if path.is_dir() and (path / "manifest.csv").is_file():
        path = path / "manifest.csv"
    if path.is_file():
        return _read_csv(path, {name} if name else columns, known)
    if not name:
        raise ValueError(f"{path} is a folder, so say what its labels are: TASK={path}")
    return _read_folder(path, name, known)


# CSV files


def _read_csv(path: Path, wanted: Collection[str] | None, known: Known) -> Manifest:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable CSV file: {error}") from None
    table.columns = [column.strip() for column in table.columns]
    if {"emotion", "pixels"} <= set(table.columns):
        return _read_fer2013(path, table)
    return _read_manifest(path, table, wanted, known)


def _read_fer2013(path: Path, table: pd.DataFrame) -> Manifest:
    """FER2013's own file: ``emotion`` 0-6, ``pixels`` 48*48 grey values, ``Usage``."""
    examples = []
    usage = table.get("Usage", pd.Series([""] * len(table)))
    for index, (emotion, text, use) in enumerate(
        zip(table["emotion"], table["pixels"], usage, strict=True)
    ):
        origin = f"{path.name} line {index + 2}"
        pixels = np.fromstring(text, dtype="uint8", sep=" ")
        if pixels.size != 48 * 48 or emotion not in tuple("0123456"):
            raise ValueError(
                f"{origin}: expected an emotion of 0-6 and {48 * 48} pixels. "
                f"Received: {emotion!r} and {pixels.size} pixels"
            )
        examples.append(
            Example(
                path=Path(f"{path}#{index}"),
                labels={EXPRESSION.name: FER2013_CLASSES[int(emotion)]},
                split=FER2013_SPLITS.get(use.strip(), ""),
                pixels=np.repeat(pixels.reshape(48, 48, 1), 3, axis=2),
                origin=origin,
            )
        )
    return Manifest((EXPRESSION,), tuple(examples))


def _read_manifest(
    path: Path, table: pd.DataFrame, wanted: Collection[str] | None, known: Known
) -> Manifest:
    """The house form: ``path``, optional box, split and group, one column a task.

    Votes are given as columns ``task:class``.
    """
    if "path" not in table.columns:
        raise ValueError(
            f"{path} has no column 'path'. Its columns are: {', '.join(table.columns)}"
        )
    numbers = _number_columns(table, known) if wanted is None else []
    columns = [c for c in table.columns if c not in (*OWN_COLUMNS, *numbers)]
    names = list(dict.fromkeys(column.split(":")[0] for column in columns))
    names = [name for name in names if wanted is None or name in wanted]
    if not names:
        raise ValueError(
            f"{path} has no column {' or '.join(sorted(wanted or ())) or 'of class names'}. "
            f"Its columns are: {', '.join(table.columns)}"
        )
    labels = {name: _labels(table, name) for name in names}
    tasks = tuple(_task(path, name, labels[name], known) for name in names)
    examples = []
    left_out = Counter({f"column {name} of numbers, not of class names": 1 for name in numbers})
    for index, row in enumerate(table.to_dict("records")):
        answers = {name: labels[name][index] for name in names if labels[name][index]}
        if answers:
            examples.append(_example(path, index, row, answers))
        else:
            left_out["no label for any task"] += 1
    _check_files(path, examples)
    return Manifest(tasks, tuple(examples), left_out)


def _number_columns(table: pd.DataFrame, known: Known) -> list[str]:
    """Columns that hold numbers, such as an age: not taken for classes unless asked for."""
    return [
        column
        for column in table.columns
        if column not in OWN_COLUMNS
        and ":" not in column
        and column not in known
        and (filled := table[column][table[column].str.strip() != ""]).size
        and pd.to_numeric(filled, errors="coerce").notna().all()
    ]


def _labels(table: pd.DataFrame, name: str) -> list[Label]:
    """One label a row: a class name, votes by class, or ``""`` where unknown."""
    if name in table.columns:
        return [cell.strip() for cell in table[name]]
    votes = {c.split(":", 1)[1]: c for c in table.columns if c.startswith(f"{name}:")}
    numbers = {label: pd.to_numeric(table[c], errors="coerce") for label, c in votes.items()}
    shares = pd.DataFrame(numbers).fillna(0.0)
    return [
        {str(label): float(share) for label, share in row.items() if share > 0}
        for row in shares.to_dict("records")
    ]


def _task(path: Path, name: str, labels: Sequence[Label], known: Known) -> Task:
    classes: set[str] = set()
    for label in labels:
        classes.update([label] if isinstance(label, str) else label)
    classes.discard("")
    if not classes:
        raise ValueError(f"{path}: column {name!r} is empty in every row, so nothing can learn it.")
    if name in known:
        return known[name]
    if len(classes) < 2:
        raise ValueError(
            f"{path}: task {name!r} needs at least two classes. Received only: {classes.pop()!r}"
        )
    return Task(name, tuple(sorted(classes)))


def _example(path: Path, index: int, row: Mapping[Any, str], labels: dict[str, Label]) -> Example:
    origin = f"{path.name} line {index + 2}"
    cells = [row.get(column, "").strip() for column in BOX_COLUMNS]
    try:
        box = tuple(float(cell) for cell in cells) if any(cells) else None
    except ValueError:
        raise ValueError(
            f"{origin}: a box is four numbers x0,y0,x1,y1 or empty. Received: {','.join(cells)}"
        ) from None
    return Example(
        path=path.parent / row["path"].strip(),
        labels=labels,
        box=box,  # type: ignore[arg-type]
        split=row.get("split", "").strip(),
        group=row.get("group", "").strip(),
        origin=origin,
    )


def _check_files(path: Path, examples: Sequence[Example]) -> None:
    missing = [example for example in examples if not example.path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path} names {len(missing)} pictures of {len(examples)} that do not exist, the first "
            f"in {missing[0].origin}: {missing[0].path}. Paths are relative to the manifest."
        )


# Folders


def _read_folder(root: Path, name: str, known: Known) -> Manifest:
    pictures = sorted(path for path in root.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not pictures:
        raise ValueError(f"{root} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))}).")
    if name in (GENDER.name, AGE_GROUP.name) and any(map(_is_utkface, pictures)):
        return _read_utkface(root, pictures, KNOWN_TASKS[name])
    return _read_class_folders(root, pictures, name, known)


def _is_utkface(path: Path) -> bool:
    return UTKFACE_NAME.match(path.name) is not None


def _split_of(relative: Path) -> str:
    return relative.parts[0] if relative.parts[0] in SPLITS else ""


def _read_class_folders(root: Path, pictures: Sequence[Path], name: str, known: Known) -> Manifest:
    """``root/<class>/…`` or ``root/<split>/<class>/…``."""
    examples, left_out = [], Counter[str]()
    for path in pictures:
        relative = path.relative_to(root)
        split = _split_of(relative)
        folders = relative.parts[1 if split else 0 : -1]
        if not folders:
            left_out["not in a class folder"] += 1
            continue
        examples.append(Example(path, {name: folders[0]}, split=split, origin=str(relative)))
    if not examples:
        raise ValueError(f"{root} has pictures but no class folders: expected {root}/<class>/*.jpg")
    task = _task(root, name, [example.labels[name] for example in examples], known)
    empty = _empty_folders(root, examples, name)
    if empty:
        raise ValueError(f"{root}: class folders without a picture: {', '.join(empty)}.")
    return Manifest((task,), tuple(examples), left_out)


def _empty_folders(root: Path, examples: Sequence[Example], name: str) -> list[str]:
    filled = {example.labels[name] for example in examples}
    tops = [root / s for s in SPLITS if (root / s).is_dir()] or [root]
    folders = {f.name for top in tops for f in top.iterdir() if f.is_dir() and f.name[0] != "."}
    return sorted(folders - filled)


def _read_utkface(root: Path, pictures: Sequence[Path], task: Task) -> Manifest:
    examples, left_out = [], Counter[str]()
    for path, label in _utkface_labels(pictures, task):
        if label:
            relative = path.relative_to(root)
            examples.append(
                Example(path, {task.name: label}, split=_split_of(relative), origin=str(relative))
            )
        elif _is_utkface(path):
            left_out[f"{task.name} is not read off faces under {GENDER_FROM_AGE}"] += 1
        else:
            left_out["not one of UTKFace's file names"] += 1
    return Manifest((task,), tuple(examples), left_out)


def _utkface_labels(pictures: Sequence[Path], task: Task) -> Iterator[tuple[Path, str]]:
    for path in pictures:
        match = UTKFACE_NAME.match(path.name)
        if match is None:
            yield path, ""
        elif task == AGE_GROUP:
            yield path, age_group(int(match["age"]))
        else:
            shown = int(match["age"]) >= GENDER_FROM_AGE
            yield path, GENDER.classes[int(match["gender"])] if shown else ""


def age_group(age: int) -> str:
    """The class of `AGE_GROUP` into which an age in years falls."""
    starts = [int(name.rstrip("+").split("-")[0]) for name in AGE_GROUP.classes]
    return AGE_GROUP.classes[int(np.searchsorted(starts, age, side="right")) - 1]
