"""Public data sets as their makers hand them out: FER2013, FER+, UTKFace, CelebA and ExpW."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from faceattr.data.csv_manifest import FERPLUS, read_cells, read_votes
from faceattr.data.manifest import SPLITS, Example, Source, Votes
from faceattr.tasks import AGE_GROUP, EXPRESSION, GENDER, ORDERS

FER2013_FILE = "fer2013.csv"
FER2013_USAGES = {"": "", "training": "train", "publictest": "val", "privatetest": "test"}
FER2013_SIDE = 48
FERPLUS_FILE = "fer2013new.csv"  # beside FER2013's, with a row for each of its rows


def is_fer2013(table: pd.DataFrame) -> bool:
    """Whether a CSV file is FER2013's own."""
    return {"emotion", "pixels"} <= set(table.columns)


def read_fer2013(path: Path, table: pd.DataFrame) -> Source:
    """Read FER2013's ``emotion,pixels,Usage`` (Goodfellow et al. 2013), with FER+'s votes (Barsoum
    et al. 2016) if its file lies in the same folder.

    Raises:
        ValueError: A row is not of this form, or FER+'s file is not about these rows.
    """
    usage = table.get("Usage", pd.Series("", index=table.index))
    votes = _ferplus_beside(path, len(table))
    rows = zip(table.index, table["emotion"], table["pixels"], usage, votes, strict=True)
    return Source((EXPRESSION.name,), tuple(_fer2013_face(path, *row) for row in rows))


def _ferplus_beside(path: Path, rows: int) -> list[Votes]:
    """FER+'s votes on the rows of FER2013's file, if its file lies beside it; else empty ones."""
    beside = path.with_name(FERPLUS_FILE)
    if not beside.is_file():
        return [{}] * rows
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
    if usage.strip().lower() not in FER2013_USAGES:
        raise ValueError(
            f"{origin}: a Usage is Training, PublicTest or PrivateTest. Received: {usage!r}"
        )
    pixels = np.array(numbers, dtype="uint8").reshape(FER2013_SIDE, FER2013_SIDE, 1)
    return Example(
        path=Path(f"{path}#{index}"),
        labels={EXPRESSION.name: ORDERS[EXPRESSION.name]["fer2013"].name_of(int(emotion))},
        votes={EXPRESSION.name: votes} if votes else {},
        split=FER2013_USAGES[usage.strip().lower()],
        pixels=np.repeat(pixels, 3, axis=2),
        origin=origin,
    )


# UTKFace (Zhang et al. 2017): age_gender_race_date.jpg, gender 0 male and 1 female.
UTKFACE_NAME = re.compile(r"^(?P<age>\d{1,3})_(?P<gender>[01])_(?P<ethnicity>\d)_\d{8,}")
UTKFACE_ETHNICITIES = ("white", "black", "asian", "indian", "others")
GENDER_FROM_AGE = 6  # younger faces do not show it


def is_utkface(path: Path) -> bool:
    """Whether a file is called as UTKFace's are."""
    return UTKFACE_NAME.match(path.name) is not None


def read_utkface(
    root: Path, pictures: Sequence[Path], task: str, split_of: Callable[[Path], str]
) -> Source:
    """Read ``gender`` or ``age_group`` off UTKFace's file names.

    `split_of` says to which split a path, relative to the folder, belongs.
    """
    examples, left_out = [], Counter[str]()
    for path in pictures:
        told = _utkface_columns(path)
        if label := told.pop(task, ""):
            relative = path.relative_to(root)
            examples.append(
                Example(
                    path,
                    {task: label},
                    split=split_of(relative),
                    metadata=told,
                    origin=str(relative),
                )
            )
        elif told:
            left_out[f"{task} is not read off faces under {GENDER_FROM_AGE}"] += 1
        else:
            left_out["not one of UTKFace's file names"] += 1
    if not examples:
        raise ValueError(f"{root}: no picture tells its {task}: {', '.join(left_out)}.")
    return Source((task,), tuple(examples), left_out)


def _utkface_columns(path: Path) -> dict[str, str]:
    """All that a file name tells, by column."""
    match = UTKFACE_NAME.match(path.name)
    if match is None:
        return {}
    age, ethnicity = int(match["age"]), int(match["ethnicity"])
    told = {"age": match["age"], AGE_GROUP.name: age_group(age)}
    if age >= GENDER_FROM_AGE:
        told[GENDER.name] = GENDER.classes[int(match["gender"])]
    if ethnicity < len(UTKFACE_ETHNICITIES):
        told["ethnicity"] = UTKFACE_ETHNICITIES[ethnicity]
    return told


def age_group(age: int) -> str:
    """The class of `AGE_GROUP` into which an age in years falls."""
    starts = [int(name.rstrip("+").split("-")[0]) for name in AGE_GROUP.classes]
    return AGE_GROUP.classes[int(np.searchsorted(starts, age, side="right")) - 1]


CELEBA_FILES = ("list_attr_celeba.txt", "list_attr_celeba.csv")
CELEBA_SPLITS = "list_eval_partition"
MALE = "male"  # the only attribute of CelebA that is one of our tasks
EXPW_FILE = "label.lst"
# Where the pictures lie, seen from the folder of the list.
CELEBA_PICTURES = (
    "img_align_celeba",
    "img_align_celeba/img_align_celeba",
    "../Img/img_align_celeba",
)
EXPW_PICTURES = ("origin", "image/origin", "../image/origin", "image", ".")
EXPW_COLUMNS = ("name", "face", "top", "left", "right", "bottom", "detection", "label")


def read_listing(folder: Path, task: str) -> Source | None:
    """Read a task off the list of labels of CelebA (Liu et al. 2015) or ExpW (Zhang et al. 2018).

    Args:
        folder: With ``list_attr_celeba.txt`` (or Kaggle's ``.csv``) or ExpW's ``label.lst``.
        task: For CelebA ``gender`` or the name of an attribute in lower case, such as
            ``eyeglasses``, with the classes no and yes; for ExpW ``expression``.

    Returns:
        None where there is no such list.

    Raises:
        FileNotFoundError: The pictures are not where they are expected.
        ValueError: The list is not of its form, or has no such task.
    """
    for name in (*CELEBA_FILES, EXPW_FILE):
        if (folder / name).is_file():
            return (_read_expw if name == EXPW_FILE else _read_celeba)(folder / name, task)
    return None


def _read_celeba(path: Path, task: str) -> Source:
    table = _words(path, skip=1) if path.suffix == ".txt" else pd.read_csv(path, index_col=0)
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
    examples = (
        Example(
            folder / name,
            {task: classes[value > 0]},
            split=splits.get(name, ""),
            origin=f"{path.name} {name}",
        )
        for name, value in zip(map(str, values.index), values, strict=True)
    )
    return Source((task,), tuple(examples))


def _celeba_splits(path: Path) -> dict[str, str]:
    """The splits by picture; none where CelebA's list of them is not there."""
    beside = [path.with_name(CELEBA_SPLITS + ending) for ending in (".txt", ".csv")]
    for file in (*beside, path.parent / "../Eval" / f"{CELEBA_SPLITS}.txt"):
        if file.is_file():
            is_text = file.suffix == ".txt"
            table = _words(file, header=None) if is_text else pd.read_csv(file, index_col=0)
            return {str(name): SPLITS[int(n)] for name, n in table.iloc[:, 0].items()}
    return {}


def _read_expw(path: Path, task: str) -> Source:
    if task != EXPRESSION.name:
        raise ValueError(f"{path} tells the expression and nothing else. Received: {task!r}")
    table = _words(path, header=None)
    if table.shape[1] != len(EXPW_COLUMNS) - 1:
        raise ValueError(
            f"{path}: expected rows of {' '.join(EXPW_COLUMNS)}. "
            f"Received {table.shape[1] + 1} columns."
        )
    table.columns = pd.Index(EXPW_COLUMNS[1:])
    folder, order = _pictures(path, EXPW_PICTURES, str(table.index[0])), ORDERS[task]["fer2013"]
    boxes = table[["left", "top", "right", "bottom"]].astype(float).to_numpy()
    examples = (
        Example(
            folder / name,
            {task: order.name_of(int(label))},
            box=tuple(box.tolist()),
            group=name,
            origin=f"{path.name} {name}",
        )
        for name, box, label in zip(table.index, boxes, table["label"], strict=True)
    )
    return Source((task,), tuple(examples))


def _words(path: Path, skip: int = 0, header: int | None = 0) -> pd.DataFrame:
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
