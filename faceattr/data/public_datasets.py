"""Public data sets as their makers hand them out: FER2013, FER+, CelebA and ExpW."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faceattr.data.csv_manifest import FERPLUS, read_cells, read_votes
from faceattr.data.manifest import SPLITS, Example, Source, Votes
from faceattr.tasks import EXPRESSION, GENDER, ORDERS

FER2013_FILE = "fer2013.csv"
FER2013_USAGES = {"": "", "training": "train", "publictest": "val", "privatetest": "test"}
FER2013_SIDE = 48
FERPLUS_FILE = "fer2013new.csv"  # beside FER2013's, with a row for each of its rows
FER2013_ORDER = ORDERS[EXPRESSION.name]["fer2013"]


def read_fer2013(path: Path, table: pd.DataFrame) -> Source:
    """Read FER2013's ``emotion,pixels,Usage`` (Goodfellow et al. 2013), with FER+'s votes (Barsoum
    et al. 2016) if its file lies in the same folder.
    """
    usage = table.get("Usage", pd.Series("", index=table.index)).str.strip().str.lower()
    beside = path.with_name(FERPLUS_FILE)
    votes = _read_ferplus(beside, path, len(table)) if beside.is_file() else [{}] * len(table)
    rows = zip(table.index, table["emotion"], table["pixels"], usage, votes, strict=True)
    return Source((EXPRESSION.name,), tuple(_fer2013_face(path, *row) for row in rows))


def _read_ferplus(beside: Path, path: Path, rows: int) -> list[Votes]:
    table = read_cells(beside)
    if len(table) != rows:
        raise ValueError(
            f"{beside} has {len(table)} rows and {path.name} {rows}. Expected FER+'s file, a row "
            "for each of FER2013's in the same order; move it away if it is another one."
        )
    columns = {name: name.lower() for name in table.columns if name.lower() in FERPLUS}
    return read_votes(beside, table, columns)


def _fer2013_face(
    path: Path, index: int, emotion: str, text: str, usage: str, votes: Votes
) -> Example:
    origin = f"{path.name} line {index + 2}"
    numbers, count = text.split(), FER2013_SIDE**2
    is_grey = all(number.isdigit() and int(number) < 256 for number in numbers)
    if len(numbers) != count or not is_grey or emotion.strip() not in tuple("0123456"):
        raise ValueError(
            f"{origin}: expected an emotion of 0-6 and {count} grey values of 0-255. "
            f"Received: emotion {emotion!r} and {len(numbers)} values"
        )
    if usage not in FER2013_USAGES:
        raise ValueError(
            f"{origin}: a Usage is Training, PublicTest or PrivateTest. Received: {usage!r}"
        )
    pixels = np.array(numbers, dtype="uint8").reshape(FER2013_SIDE, FER2013_SIDE, 1)
    return Example(
        path=Path(f"{path}#{index}"),
        labels={EXPRESSION.name: FER2013_ORDER.name_of(int(emotion))},
        votes={EXPRESSION.name: votes} if votes else {},
        split=FER2013_USAGES[usage],
        pixels=np.repeat(pixels, 3, axis=2),
        origin=origin,
    )


CELEBA_FILES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
CELEBA_SPLITS = ("", ".txt"), ("", ".csv"), ("../Eval/", ".txt")  # places and endings
MALE = "male"  # the only attribute of CelebA that is one of our tasks
EXPW_FILE = "label.lst"
# Where the images lie, seen from the folder of the list.
CELEBA_IMAGES = ("img_align_celeba", "img_align_celeba/img_align_celeba", "../Img/img_align_celeba")
EXPW_IMAGES = ("origin", "image/origin", "../image/origin", "image", ".")
EXPW_COLUMNS = ("name", "face", "top", "left", "right", "bottom", "detection", "label")


def read_listing(folder: Path, task: str) -> Source | None:
    """Read a task off the list of labels of CelebA (Liu et al. 2015) or ExpW (Zhang et al. 2018).

    CelebA's ``list_attr_celeba.txt`` (or Kaggle's ``.csv``) has ``gender`` and attributes, in lower
    case, with the classes no and yes; ExpW's ``label.lst`` has ``expression``. None without a list.
    """
    for name in (*CELEBA_FILES, EXPW_FILE):
        if (folder / name).is_file():
            return (_read_expw if name == EXPW_FILE else _read_celeba)(folder / name, task)
    return None


def _read_celeba(path: Path, task: str) -> Source:
    table = _read_table(path, skip=1)
    names = {column.lower(): column for column in table.columns}
    attribute = MALE if task == GENDER.name else task
    if attribute not in names:
        raise ValueError(
            f"{path}: there is no {task!r}. Expected gender, or one of: "
            f"{', '.join(name for name in names if name != MALE)}"
        )
    classes = ("female", "male") if task == GENDER.name else ("no", "yes")
    values = pd.to_numeric(table[names[attribute]], errors="coerce")
    if not values.isin((-1, 1)).all():
        raise ValueError(f"{path}: attributes are -1 or 1. Received others for {attribute!r}.")
    folder, splits = _images_of(path, CELEBA_IMAGES, str(table.index[0])), _celeba_splits(path)
    examples = []
    for name, value in zip(map(str, values.index), values, strict=True):
        labels, split = {task: classes[value > 0]}, splits.get(name, "")
        origin = f"{path.name} {name}"
        examples.append(Example(folder / name, labels, split=split, origin=origin))
    return Source((task,), tuple(examples))


def _celeba_splits(path: Path) -> dict[str, str]:
    """The splits by image; none where CelebA's list of them is not there."""
    for place, ending in CELEBA_SPLITS:
        file = path.parent / f"{place}list_eval_partition{ending}"
        if file.is_file():
            table = _read_table(file, header=None if file.suffix == ".txt" else 0)
            numbers = table.iloc[:, 0]
            _must_be_below(len(SPLITS), numbers, file, "partitions")
            return {str(name): SPLITS[int(n)] for name, n in numbers.items()}
    return {}


def _read_expw(path: Path, task: str) -> Source:
    if task != EXPRESSION.name:
        raise ValueError(f"{path} tells the expression and nothing else. Received: {task!r}")
    table = _read_table(path, header=None)
    if table.shape[1] != len(EXPW_COLUMNS) - 1:
        raise ValueError(
            f"{path}: expected rows of {' '.join(EXPW_COLUMNS)}. "
            f"Received {table.shape[1] + 1} columns."
        )
    table.columns = pd.Index(EXPW_COLUMNS[1:])
    folder = _images_of(path, EXPW_IMAGES, str(table.index[0]))
    _must_be_below(len(FER2013_ORDER.classes), table["label"], path, "labels")
    boxes = _numbers(table[["left", "top", "right", "bottom"]], path).to_numpy().tolist()
    examples = []
    for name, box, label in zip(table.index, map(tuple, boxes), table["label"], strict=True):
        labels, origin = {task: FER2013_ORDER.name_of(int(label))}, f"{path.name} {name}"
        examples.append(Example(folder / name, labels, box=box, group=name, origin=origin))
    return Source((task,), tuple(examples))


def _read_table(path: Path, skip: int = 0, header: int | None = 0) -> pd.DataFrame:
    """A table with its first column as the index: of commas, or, `skip` lines below, of spaces."""
    form: dict[str, Any] = {"sep": r"\s+", "skiprows": skip, "header": header}
    try:
        table = pd.read_csv(path, index_col=0, **({} if path.suffix == ".csv" else form))
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path} is not a list of labels: {error}") from None
    if table.empty:
        raise ValueError(f"{path} is not a list of labels: it names no image.")
    return table


def _numbers(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    try:
        return table.astype(float)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _must_be_below(end: int, values: pd.Series, path: Path, what: str) -> None:
    known = pd.to_numeric(values, errors="coerce").isin(range(end))
    if not known.all():
        first = values[~known].iloc[0]
        raise ValueError(f"{path}: {what} are whole numbers from 0 to {end - 1}. Received: {first}")


def _images_of(path: Path, places: Sequence[str], first: str) -> Path:
    """The folder of the images, of which one is called `first`."""
    for place in places:
        if (path.parent / place / first).is_file():
            return (path.parent / place).resolve()
    raise FileNotFoundError(
        f"There is no image {first} of {path} in one of {', '.join(places)} beside it."
    )
