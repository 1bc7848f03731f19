"""Data sets that list their labels in a file of their own: CelebA (Liu et al. 2015) and ExpW
(Zhang et al. 2018), as their makers hand them out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from faceattr.data.manifest import Example, Source
from faceattr.tasks import EXPRESSION, GENDER, ORDERS

CELEBA_FILES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
CELEBA_SPLITS = "list_eval_partition"
EXPW_FILE = "label.lst"
MALE = "male"  # the only attribute of CelebA that is one of our tasks
SPLIT_NAMES = ("train", "val", "test")
# Where the pictures lie, seen from the folder of the list.
CELEBA_PICTURES = (
    "img_align_celeba",
    "img_align_celeba/img_align_celeba",
    "../Img/img_align_celeba",
)
EXPW_PICTURES = ("origin", "image/origin", "../image/origin", "image", ".")
EXPW_COLUMNS = ("name", "face", "top", "left", "right", "bottom", "detection", "label")


def listing_in(folder: Path) -> Path | None:
    """The list of labels that lies in a folder, if there is one."""
    return next(
        (folder / name for name in (*CELEBA_FILES, EXPW_FILE) if (folder / name).is_file()), None
    )


def read_listing(path: Path, task: str) -> Source:
    """Read one task from a list of labels.

    Args:
        path: ``list_attr_celeba.txt`` (or Kaggle's ``.csv``) or ExpW's ``label.lst``.
        task: For CelebA ``gender`` or the name of an attribute in lower case, such as
            ``eyeglasses``, with the classes no and yes; for ExpW ``expression``.

    Raises:
        FileNotFoundError: The pictures are not where they are expected.
        ValueError: The file is not of its form, or has no such task.
    """
    return (_read_expw if path.name == EXPW_FILE else _read_celeba)(path, task)


def _read_celeba(path: Path, task: str) -> Source:
    table = _table(path, skip=1) if path.suffix == ".txt" else pd.read_csv(path, index_col=0)
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
    folder, splits = _pictures(path, CELEBA_PICTURES, str(table.index[0])), _celeba_splits(path)
    return Source(
        (task,),
        tuple(
            Example(
                folder / name,
                {task: classes[value > 0]},
                split=splits(name),
                origin=f"{path.name} {name}",
            )
            for name, value in zip(map(str, values.index), values, strict=True)
        ),
    )


def _celeba_splits(path: Path) -> Callable[[str], str]:
    beside = [path.with_name(CELEBA_SPLITS + ending) for ending in (".txt", ".csv")]
    beside.append(path.parent / "../Eval" / f"{CELEBA_SPLITS}.txt")
    found = next((file for file in beside if file.is_file()), None)
    if found is None:
        return lambda name: ""
    table = (
        _table(found, header=None) if found.suffix == ".txt" else pd.read_csv(found, index_col=0)
    )
    numbers = table.iloc[:, 0].to_dict()
    return lambda name: SPLIT_NAMES[int(numbers[name])] if name in numbers else ""


def _read_expw(path: Path, task: str) -> Source:
    if task != EXPRESSION.name:
        raise ValueError(f"{path} tells the expression and nothing else. Received: {task!r}")
    table = _table(path, header=None)
    if table.shape[1] != len(EXPW_COLUMNS) - 1:
        raise ValueError(
            f"{path}: expected rows of {' '.join(EXPW_COLUMNS)}. "
            f"Received {table.shape[1] + 1} columns."
        )
    table.columns = pd.Index(EXPW_COLUMNS[1:])
    folder, order = _pictures(path, EXPW_PICTURES, str(table.index[0])), ORDERS[task]["fer2013"]
    boxes = table[["left", "top", "right", "bottom"]].astype(float).to_numpy()
    rows = zip(table.index, boxes, table["label"], strict=True)
    return Source(
        (task,),
        tuple(
            Example(
                folder / name,
                {task: order.name_of(int(label))},
                box=tuple(box.tolist()),
                group=name,
                origin=f"{path.name} {name}",
            )
            for name, box, label in rows
        ),
    )


def _table(path: Path, skip: int = 0, header: int | None = 0) -> pd.DataFrame:
    """A table of words between spaces, its first column as the index."""
    try:
        return pd.read_csv(path, sep=r"\s+", skiprows=skip, header=header, index_col=0)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path} is not a list of labels: {error}") from None


def _pictures(path: Path, places: Sequence[str], first: str) -> Path:
    """The folder of the pictures, of which one is called `first`."""
    for place in places:
        if (path.parent / place / first).is_file():
            return (path.parent / place).resolve()
    raise FileNotFoundError(
        f"There is no picture {first} of {path} in one of {', '.join(places)} beside it."
    )
