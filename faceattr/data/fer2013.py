"""FER2013's own file (Goodfellow et al. 2013), and FER+'s beside it (Barsoum et al. 2016)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from faceattr.data.manifest import Example, Source, Votes, read_cells
from faceattr.data.votes import FERPLUS, FERPLUS_FILE, read_votes
from faceattr.tasks import EXPRESSION, ORDERS

FER2013_FILE = "fer2013.csv"
SPLITS = {"": "", "training": "train", "publictest": "val", "privatetest": "test"}
PIXELS = 48 * 48


def read_fer2013(path: Path, table: pd.DataFrame) -> Source:
    """Read ``emotion,pixels,Usage``; with FER+'s votes if its file lies in the same folder.

    Args:
        path: The file, for messages and to find FER+'s.
        table: Its cells as text.

    Raises:
        ValueError: A row is not of this form, or FER+'s file is not about these rows.
    """
    usage = table.get("Usage", pd.Series("", index=table.index))
    votes = _ferplus_beside(path, len(table))
    rows = zip(table.index, table["emotion"], table["pixels"], usage, votes, strict=True)
    return Source((EXPRESSION.name,), tuple(_example(path, *row) for row in rows))


def _ferplus_beside(path: Path, rows: int) -> list[Votes]:
    """FER+'s votes on the rows of FER2013's file, if its file lies beside it; else empty ones."""
    beside = path.with_name(FERPLUS_FILE)
    if not beside.is_file():
        return [{}] * rows
    table = read_cells(beside)
    columns = [name for name in table.columns if name.lower() in FERPLUS]
    if len(table) != rows:
        raise ValueError(
            f"{beside} has {len(table)} rows and {path.name} {rows}. Expected FER+'s file, a row "
            "for each of FER2013's in the same order; move it away if it is another one."
        )
    return read_votes(beside, table, {name: name.lower() for name in columns})


def _example(path: Path, index: int, emotion: str, text: str, usage: str, votes: Votes) -> Example:
    origin = f"{path.name} line {index + 2}"
    numbers = text.split()
    is_grey = all(number.isdigit() and int(number) < 256 for number in numbers)
    if len(numbers) != PIXELS or not is_grey or emotion.strip() not in tuple("0123456"):
        raise ValueError(
            f"{origin}: expected an emotion of 0-6 and {PIXELS} grey values of 0-255. "
            f"Received: emotion {emotion!r} and {len(numbers)} values"
        )
    if usage.strip().lower() not in SPLITS:
        raise ValueError(
            f"{origin}: a Usage is Training, PublicTest or PrivateTest. Received: {usage!r}"
        )
    pixels = np.array(numbers, dtype="uint8").reshape(48, 48, 1)
    return Example(
        path=Path(f"{path}#{index}"),
        labels={EXPRESSION.name: ORDERS[EXPRESSION.name]["fer2013"].name_of(int(emotion))},
        votes={EXPRESSION.name: votes} if votes else {},
        split=SPLITS[usage.strip().lower()],
        pixels=np.repeat(pixels, 3, axis=2),
        origin=origin,
    )
