"""How rows become the bytes of a CSV or JSONL file and come back after a kill.

The rows of one input are appended in one piece. Whatever a kill leaves behind is therefore
whole inputs and at most one torn one at the end.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from faceattr.inference.rows import UNREADABLE, Row

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


class Form(Protocol):
    """How rows become bytes and come back."""

    header: bytes
    columns: Columns

    def encode(self, rows: Sequence[Row]) -> bytes: ...

    def decode(self, lines: Iterator[bytes]) -> Iterator[Row | None]:
        """Rows, None for what is none."""


class CsvForm:
    """Comma-separated values.

    Args:
        columns: Names and types, in order.
        spreadsheet: Put a ``'`` before texts that a spreadsheet would take for a formula.
    """

    def __init__(self, columns: Columns, *, spreadsheet: bool = False) -> None:
        self.columns = columns
        self._texts = {name for name, kind in columns.items() if kind is str and spreadsheet}
        self.header = self.encode([dict(zip(columns, columns, strict=True))])

    def encode(self, rows: Sequence[Row]) -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(
            [self._cell(name, row[name]) for name in self.columns] for row in rows
        )
        return text.getvalue().encode()

    def decode(self, lines: Iterator[bytes]) -> Iterator[Row | None]:
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


class JsonlForm:
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


def whole_inputs(path: Path, form: Form) -> tuple[int, Done]:
    """Read a table back after a kill.

    Returns:
        The offset behind the last input all of whose rows are there, and the inputs up to it.

    Raises:
        ValueError: The table has other columns, or is damaged elsewhere than at its end.
    """
    done: Done = {}
    with open(path, "rb") as file:
        lines = _Lines(file)
        header = b"".join(line for _, line in zip(form.header.splitlines(), lines, strict=False))
        if header != form.header:
            _must_be_torn_header(header, form.header, path)
            return 0, done
        end = lines.offset
        group: list[tuple[str, float | None, int]] = []
        for row in form.decode(lines):
            if row and list(row) != list(form.columns):
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


def without_unreadable(path: Path, form: Form) -> Iterator[bytes]:
    """A table piece by piece, without the rows of inputs that could not be read.

    Raises:
        ValueError: As `whole_inputs`.
    """
    end, _ = whole_inputs(path, form)
    with open(path, "rb") as file, open(path, "rb") as again:
        yield again.read(min(len(form.header), end))
        file.seek(again.tell())
        lines = _Lines(file)
        for row in form.decode(lines):
            if lines.offset > end:
                return
            piece = again.read(lines.offset - again.tell())
            if row and row["status"] != UNREADABLE:
                yield piece


def _key(row: Row) -> tuple[str, float | None, int] | None:
    """Path, time and the number of rows of the input that a row belongs to."""
    try:
        second = None if row["time"] in (None, "") else float(row["time"])
        return row["path"], second, max(1, int(row["faces"] or 0))
    except (TypeError, ValueError):
        return None


def _must_be_torn_header(found: bytes, expected: bytes, path: Path) -> None:
    if not expected.startswith(found):
        raise ValueError(OTHER_COLUMNS.format(path))


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
