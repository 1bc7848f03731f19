"""Tables on disk that a killed job can go on with: CSV, JSONL, Parquet by the name's ending."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from faceattr.files import short_name, validate_output_path
from faceattr.images.load import PathLike
from faceattr.inference.schema import (
    OTHER_COLUMNS,
    Columns,
    CsvSerializer,
    Done,
    JsonlSerializer,
    Row,
    Serializer,
    whole_inputs,
    without_unreadable,
)

SUFFIXES = (".csv", ".jsonl", ".parquet")
SYNC_SECONDS = 10.0
STUCK = "{} cannot be written: {}. The table is whole. Make room and go on with --resume."
ROWS_AT_ONCE = 20_000


@contextlib.contextmanager
def open_table(
    path: PathLike,
    columns: Columns,
    *,
    resume: bool = False,
    retry_unreadable: bool = False,
    overwrite: bool = False,
    spreadsheet: bool = False,
    begin: Callable[[], None] = lambda: None,
) -> Iterator[Table]:
    """Open a table for writing; its form is told by the name's ending.

    Args:
        path: Ends in ``.csv``, ``.jsonl`` or ``.parquet``. A Parquet table is kept as JSONL
            beside it (``NAME.part.jsonl``) until it is finished.
        columns: Names and types, in order.
        resume: Go on with the table that is there, if there is one.
        retry_unreadable: Then take the rows of inputs that could not be read out of it.
        overwrite: Replace the table that is there.
        spreadsheet: As for `CsvSerializer`.
        begin: Called once no other job can write it, before anything in it changes.

    Raises:
        FileExistsError: There is a table, and neither is asked for.
        ValueError: Another ending, other columns, a damaged table, or another job writes it.
        OSError: It cannot be written.
    """
    target = Path(path)
    there = {"resume": resume, "retry_unreadable": retry_unreadable, "overwrite": overwrite}
    must_be_writable(target, **there, spreadsheet=spreadsheet)
    target.parent.mkdir(parents=True, exist_ok=True)
    is_parquet = target.suffix == ".parquet"
    file = _journal(target) if is_parquet else target
    with _only_one_job(target):
        begin()
        if is_parquet and resume and target.exists() and not file.exists():
            _unpack(target, file, columns)
        is_csv = file.suffix == ".csv"
        form: Serializer = (
            CsvSerializer(columns, spreadsheet=spreadsheet) if is_csv else JsonlSerializer(columns)
        )
        if retry_unreadable and file.exists():
            with atomic_write(file) as part, open(part, "wb") as kept:
                kept.writelines(without_unreadable(file, form))
        with Table(file, form, resume=resume) as table:
            yield table
        if is_parquet and table.finished:
            _pack(file, target, columns)


def must_be_writable(
    path: PathLike,
    *,
    resume: bool = False,
    retry_unreadable: bool = False,
    overwrite: bool = False,
    spreadsheet: bool = False,
) -> None:
    """Refuse a table's name before any work is done; raises as `open_table`."""
    path = Path(path)
    if retry_unreadable and not resume:
        raise ValueError(
            "Only a table that is gone on with has inputs to try again: add --resume to "
            "--retry-unreadable."
        )
    if resume and overwrite:
        raise ValueError("Going on with a table and replacing it exclude each other.")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"A table's name ends in {', '.join(SUFFIXES)}. Received: {path}")
    if spreadsheet and path.suffix != ".csv":
        raise ValueError(
            "Only a .csv table has cells that a spreadsheet would take for formulas: leave "
            f"--spreadsheet away. Received: {path}"
        )
    validate_output_path(path)
    there = _begun(path)
    if there and not resume and not overwrite:
        raise FileExistsError(
            f"{there} exists already. Go on with it (--resume), replace it (--overwrite) or "
            "choose another name."
        )


def _begun(path: Path) -> Path | None:
    """The file that holds a table's rows, if there is one: itself, or a Parquet one's journal."""
    return next((file for file in (path, _journal(path)) if file.exists()), None)


def has_rows(path: PathLike) -> bool:
    """Whether there is a table with more in it than a header."""
    file = _begun(Path(path))
    if file is None:
        return False
    with open(file, "rb") as lines:
        return len(list(islice(lines, 2))) > (file.suffix == ".csv")


@contextlib.contextmanager
def _only_one_job(path: Path) -> Iterator[None]:
    # The lock's file stays: were it deleted, whoever has just opened it would hold nothing.
    lock = FileLock(path.with_name(f".{path.name}.lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"Another faceattr is writing {path} just now, or {path.parent} takes no new files."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def atomic_write(path: PathLike) -> Iterator[Path]:
    """A name to write a file under that gets its own name once it is whole.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    path = Path(path)
    part = path.with_name(short_name(f".{path.stem}.part{path.suffix}"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise OSError(STUCK.format(path, error.strerror or error)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


class Table:
    """An append-only file of rows; a context manager that holds it.

    Args:
        path: The file.
        form: How rows become bytes.
        resume: Go on behind the last whole input; otherwise start anew.

    Attributes:
        done: The inputs that are in it.
        finished: Set it once the last row is written.
    """

    def __init__(self, path: Path, form: Serializer, *, resume: bool = False) -> None:
        self.path = path
        self.done: Done = {}
        self.finished = False
        self._form = form
        self._end = 0
        if resume and path.exists():
            self._end, self.done = whole_inputs(path, form)
        self._synced = time.monotonic()

    def __enter__(self) -> Table:
        self._file: BinaryIO = open(self.path, "ab", buffering=0)
        self._file.truncate(self._end)
        if self._end == 0:
            self._append(self._form.header)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()

    def write(self, rows: Sequence[Row]) -> None:
        """Append all rows of one input; they are in the file when this returns.

        Raises:
            OSError: The disk is full or gone. The table then ends with the input before.
        """
        self._append(self._form.encode(rows))

    def _append(self, data: bytes) -> None:
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
            self._sync_now_and_then()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise OSError(STUCK.format(self.path, error.strerror)) from error
        self._end += len(data)

    def _sync_now_and_then(self) -> None:
        # A kill loses nothing that was written; a power cut loses these seconds at most.
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()


def read_rows(path: PathLike, columns: Columns, *, spreadsheet: bool = False) -> Iterator[Row]:
    """The rows of a finished table of any form, empty cells as None, numbers as numbers."""
    path = Path(path)
    if path.suffix == ".parquet":
        import pyarrow.parquet

        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(ROWS_AT_ONCE):
            yield from batch.to_pylist()
    elif path.suffix == ".jsonl":
        with open(path, encoding="utf-8") as lines:
            yield from map(json.loads, lines)
    else:
        form = CsvSerializer(columns, spreadsheet=spreadsheet)
        with open(path, encoding="utf-8", newline="") as lines:
            for row in map(form.plain, csv.DictReader(lines)):
                yield {
                    name: kind(row[name]) if row[name] else None for name, kind in columns.items()
                }


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.jsonl")


def _unpack(table: Path, journal: Path, columns: Columns) -> None:
    """Turn a finished Parquet table back into the journal that rows can be added to."""
    form = JsonlSerializer(columns)
    with atomic_write(journal) as part, open(part, "wb") as file:
        for row in read_rows(table, columns):
            if list(row) != list(columns):
                raise ValueError(OTHER_COLUMNS.format(table))
            file.write(form.encode([row]))


def _pack(journal: Path, table: Path, columns: Columns) -> None:
    """Write the Parquet table from its journal, then drop the journal."""
    import pyarrow
    import pyarrow.parquet

    arrow = {str: pyarrow.string(), int: pyarrow.int32(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, arrow[kind]) for name, kind in columns.items()])
    rows = read_rows(journal, columns)
    with atomic_write(table) as part, pyarrow.parquet.ParquetWriter(part, schema) as writer:
        while some := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema))
    journal.unlink()
