"""The table's schema: one row a face, and at least one row an input."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from faceattr.inference.results import DescribedFace
from faceattr.inference.samples import Sample
from faceattr.tasks import Task

STATUSES = ("ok", "no_face", "unreadable", "too_small", "rejected")
OK, NO_FACE, UNREADABLE, TOO_SMALL, REJECTED = STATUSES
OLD_REJECTED = "dropped"  # in tables of version 0.1.0
OLD_CELLS = (f",{OLD_REJECTED},".encode(), f': "{OLD_REJECTED}"'.encode())  # of CSV and of JSONL
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
class ImageResult:
    """One sample and what the model says of its faces, from left to right; none where there is no
    face, or where it cannot be read.
    """

    sample: Sample
    faces: tuple[DescribedFace, ...] = ()


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
        own: dict[str, type] = {**dict.fromkeys(task.columns, float), task.name: str}
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


def to_rows(result: ImageResult, tasks: Sequence[Task]) -> list[Row]:
    """The rows of one input: dicts with every column; None is an empty cell."""
    blank: Row = dict.fromkeys(columns(tasks))
    sample = result.sample
    blank.update(path=sample.file.name, time=sample.time, reason=sample.reason)
    if sample.reason is not None:
        return [blank | {"status": UNREADABLE}]
    if not result.faces:
        return [blank | {"status": NO_FACE, "faces": 0}]
    blank["faces"] = len(result.faces)
    return [blank | {"face": number} | _cells_of(face) for number, face in enumerate(result.faces)]


def _cells_of(face: DescribedFace) -> Row:
    cells: Row = {"status": TOO_SMALL if face.too_small else REJECTED if face.rejected else OK}
    cells |= {name: round(v, 1) for name, v in zip(("x0", "y0", "x1", "y1"), face.box, strict=True)}
    cells |= {"detection": round(face.score, 4), "turn": face.face.rotation}
    for task, prediction in face.predictions.items():
        if prediction.probability is not None:
            cells[task] = prediction.label
            cells[f"{task}_prob"] = round(prediction.probability, 4)
        # Four decimals hide the last bits, which depend on the processor.
        cells |= {f"{task}:{name}": round(p, 4) for name, p in prediction.probabilities.items()}
    return cells


Columns = dict[str, type]
# By path the times of its frames that are done; None stands for a picture.
Done = dict[str, set[float | None]]
PICTURE_DONE: set[float | None] = {None}  # one for all: a set for each would be most of the memory
# More than the rows of any one input.
MOST_TORN_BYTES = 4 << 20
# Where a text begins like this, a spreadsheet may compute it; one "'" more takes no other's place.
FORMULA, DEFUSED = re.compile(r"'*[=+\-@\t\r]"), re.compile(r"'+[=+\-@\t\r]")
OTHER_COLUMNS = (
    "{} has other columns than this job writes: another model or another program made it. "
    "Choose another output."
)


class CsvSerializer:
    """How rows become comma-separated values and come back.

    With `spreadsheet`, texts that one would take for a formula get a ``'`` in front, and a byte
    order mark says that all of them are UTF-8: Excel would read "Zoë" otherwise.
    """

    def __init__(self, columns: Columns, *, spreadsheet: bool = False) -> None:
        self.columns = columns
        self._texts = {name for name, kind in columns.items() if kind is str and spreadsheet}
        mark = codecs.BOM_UTF8 if spreadsheet else b""
        self.header = mark + self.encode([dict(zip(columns, columns, strict=True))])

    def encode(self, rows: Sequence[Row]) -> bytes:
        return b"".join(map(self._line, rows))

    def _line(self, row: Row) -> bytes:
        text = io.StringIO(newline="")
        # With another end of lines, the writer would not quote a name with a carriage return.
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow([self._cell(name, row[name]) for name in self.columns])
        return text.getvalue().removesuffix("\r\n").encode() + b"\n"

    def decode(self, lines: Iterator[bytes]) -> Iterator[Row | None]:
        """Rows, None for what is none."""
        reader = csv.reader(line.decode("utf-8", "replace") for line in lines)
        try:
            for cells in reader:
                fits = len(cells) == len(self.columns)
                yield self.plain(dict(zip(self.columns, cells, strict=True))) if fits else None
        except csv.Error:
            yield None

    def plain(self, row: Row) -> Row:
        """A row as it was before it was written."""
        return row | {n: row[n][1:] for n in self._texts if DEFUSED.match(row[n] or "")}

    def _cell(self, name: str, value: Any) -> Any:
        is_formula = name in self._texts and FORMULA.match(value or "")
        return f"'{value}" if is_formula else value


class JsonlSerializer:
    """One JSON object a line."""

    header = b""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def encode(self, rows: Sequence[Row]) -> bytes:
        lines = (
            json.dumps({name: row[name] for name in self.columns}, ensure_ascii=False)
            for row in rows
        )
        return "".join(f"{line}\n" for line in lines).encode()

    def decode(self, lines: Iterator[bytes]) -> Iterator[Row | None]:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield row if isinstance(row, dict) else None


Serializer = CsvSerializer | JsonlSerializer


def complete_inputs(path: Path, serializer: Serializer) -> tuple[int, Done]:
    """Read a table back after a kill.

    Returns:
        The offset behind the last input all of whose rows are there, and the inputs up to it.

    Raises:
        ValueError: The table has other columns, or is damaged elsewhere than at its end.
    """
    done: Done = {}
    with open(path, "rb") as file:
        lines = _Lines(file)
        header = b"".join(islice(lines, len(serializer.header.splitlines())))
        if header != serializer.header:
            if not serializer.header.startswith(header):
                raise ValueError(OTHER_COLUMNS.format(path))
            return 0, done
        end = lines.offset
        group: list[tuple[str, float | None, int]] = []
        for row in serializer.decode(lines):
            if row and list(row) != list(serializer.columns):
                raise ValueError(OTHER_COLUMNS.format(path))
            key = _key(row) if row and lines.whole else None
            if key is None or (group and key != group[0]):
                _must_be_torn_end(lines, path, end)
                break
            group.append(key)
            name, second, expected = key
            if len(group) == expected:
                times = done.setdefault(name, PICTURE_DONE if second is None else set())
                if times is PICTURE_DONE and second is not None:
                    times = done[name] = set(PICTURE_DONE)
                if second not in times:
                    times.add(second)
                end, group = lines.offset, []
    return end, done


def rewritten(path: Path, serializer: Serializer, *, without_unreadable: bool) -> Iterator[bytes]:
    """A table piece by piece in today's words, without rows of unreadable inputs if asked for.

    Raises as `complete_inputs`.
    """
    end, _ = complete_inputs(path, serializer)
    with open(path, "rb") as file, open(path, "rb") as again:
        yield again.read(min(len(serializer.header), end))
        file.seek(again.tell())
        lines = _Lines(file)
        for row in serializer.decode(lines):
            if lines.offset > end:
                return
            piece = again.read(lines.offset - again.tell())
            if row and row["status"] == OLD_REJECTED:
                yield serializer.encode([row | {"status": REJECTED}])
            elif row and not (without_unreadable and row["status"] == UNREADABLE):
                yield piece


def _key(row: Row) -> tuple[str, float | None, int] | None:
    """Path, time and the number of rows of the input that a row belongs to."""
    try:
        second = None if row["time"] in (None, "") else float(row["time"])
        return row["path"], second, max(1, int(row["faces"] or 0))
    except (TypeError, ValueError):
        return None


def _must_be_torn_end(lines: _Lines, path: Path, end: int) -> None:
    if next(lines, None) is not None or path.stat().st_size - end > MOST_TORN_BYTES:
        raise ValueError(
            f"{path} is damaged behind byte {end}, and not as a kill would have left it. "
            "Repair it or choose another output."
        )


class _Lines:
    """The lines of a file, with the offset behind the last one taken."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.offset = file.tell()
        self.whole = True

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self._file.readline()
        if not line:
            raise StopIteration
        self.offset += len(line)
        self.whole = line.endswith(b"\n")
        return line
