"""Tables on disk that a killed job can go on with: CSV, JSONL, Parquet by the name's ending."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypedDict

from filelock import FileLock, Timeout

from faceattr.files import atomic_write, unwritten, validate_output_path, write_errors
from faceattr.images.load import PathLike
from faceattr.inference.schema import (
    OLD_CELLS,
    OTHER_COLUMNS,
    Columns,
    CsvSerializer,
    Done,
    JsonlSerializer,
    Row,
    Serializer,
    complete_inputs,
    rewritten,
)

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".csv", ".jsonl", ".parquet")
SYNC_SECONDS = 10.0
ROWS_AT_ONCE = 20_000


class TableSettings(TypedDict, total=False):
    """The arguments of `TableOptions`."""

    resume: bool
    retry_unreadable: bool
    overwrite: bool
    spreadsheet: bool


@dataclass(frozen=True)
class TableOptions:
    """How a table is written.

    Args:
        resume: Go on with the table that is there, if there is one.
        retry_unreadable: Then try inputs again that could not be read; their rows move to the end.
        overwrite: Replace a table, and a gallery, that is there.
        spreadsheet: The CSV will be opened in one: texts that it would take for formulas (they
            begin with ``=``, ``+``, ``-`` or ``@``) get a ``'`` in front. Numbers stay as they are.
            A byte order mark at its start says that it is UTF-8.
    """

    resume: bool = False
    retry_unreadable: bool = False
    overwrite: bool = False
    spreadsheet: bool = False

    def __post_init__(self) -> None:
        if self.retry_unreadable and not self.resume:
            raise ValueError(
                "Only a table that is gone on with has inputs to try again: add --resume to "
                "--retry-unreadable."
            )
        if self.resume and self.overwrite:
            raise ValueError("Going on with a table and replacing it exclude each other.")


NEW_TABLE = TableOptions()


def validate_table_path(path: PathLike, options: TableOptions = NEW_TABLE) -> None:
    """Refuse a table's name before any work is done; raises as `open_table`."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"A table's name ends in {', '.join(SUFFIXES)}. Received: {path}")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError(
            f"{path} needs the package pyarrow, which is not installed: write .csv or .jsonl."
        )
    if options.spreadsheet and path.suffix != ".csv":
        raise ValueError(
            "Only a .csv table has cells that a spreadsheet would take for formulas: leave "
            f"--spreadsheet away. Received: {path}"
        )
    validate_output_path(path)
    if (real := _real(path)).suffix != path.suffix:
        raise ValueError(
            f"{path} is a link to {real}, whose name ends otherwise. Give the name of the table."
        )
    there = _begun(real)
    if there and not options.resume and not options.overwrite:
        raise FileExistsError(
            f"{there} exists already. Go on with it (--resume), replace it (--overwrite) or "
            "choose another name."
        )


@contextlib.contextmanager
def open_table(
    path: PathLike,
    columns: Columns,
    options: TableOptions = NEW_TABLE,
    *,
    begin: Callable[[], None] = lambda: None,
    before_sync: Callable[[], None] | None = None,
) -> Iterator[Table]:
    """Open a table for writing; the name's ending chooses its form.

    Args:
        path: Ends in ``.csv``, ``.jsonl`` or ``.parquet``. A Parquet table is kept as JSONL
            beside it (``NAME.part.jsonl``) until it is finished.
        columns: Names and types, in order.
        options: Whether a table that is there is gone on with or replaced.
        begin: Called once no other job can write it, before anything in it changes.
        before_sync: Called before rows are synced to the disk: what they tell of must be there.

    Raises:
        FileExistsError: There is a table, and neither is asked for.
        ValueError: Another ending, other columns, a damaged table, or another job writes it.
        OSError: It cannot be written.
    """
    validate_table_path(path, options)
    target = _real(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    is_parquet = target.suffix == ".parquet"
    file = _journal(target) if is_parquet else target
    with _only_one_job(target):
        begin()
        if is_parquet and options.resume and target.exists() and not file.exists():
            _unpack(target, file, columns)
        serializer: Serializer = JsonlSerializer(columns)
        if file.suffix == ".csv":
            serializer = CsvSerializer(columns, spreadsheet=options.spreadsheet)
        if options.resume and file.exists():
            _prepare(file, serializer, options.retry_unreadable)
        with Table(file, serializer, before_sync, resume=options.resume) as table:
            yield table
        if is_parquet and table.finished:
            _pack(file, target, columns)


def _prepare(file: Path, serializer: Serializer, retry_unreadable: bool) -> None:
    """Take out the rows that are tried again; an old status gets today's word."""
    with open(file, "rb") as lines:
        is_old = any(cell in line for line in lines for cell in OLD_CELLS)
    if retry_unreadable or is_old:
        with atomic_write(file, resumable=True) as part, open(part, "wb") as kept:
            kept.writelines(rewritten(file, serializer, without_unreadable=retry_unreadable))


def _real(path: PathLike) -> Path:
    """Where a table lies: a link to it is followed, not replaced."""
    return Path(os.path.realpath(path))


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.jsonl")


def _begun(path: Path) -> Path | None:
    """The file that holds a table's rows, if there is one: itself, or a Parquet one's journal."""
    return next((file for file in (path, _journal(path)) if file.exists()), None)


def has_rows(path: PathLike) -> bool:
    """Whether there is a table with more in it than a header."""
    file = _begun(_real(path))
    if file is None:
        return False
    with open(file, "rb") as lines:
        return len(list(islice(lines, 2))) > (file.suffix == ".csv")


@contextlib.contextmanager
def _only_one_job(path: Path) -> Iterator[None]:
    # The lock's file stays: were it deleted, whoever has just opened it would hold nothing.
    lock = FileLock(path.with_name(f".{path.name}.lock"), blocking=False)
    try:
        with write_errors(path):
            lock.acquire()
    except Timeout:
        if not os.path.exists(lock.lock_file):
            message = f"{path} cannot be written: {path.parent} takes no new files."
            raise OSError(message) from None
        raise ValueError(f"Another faceattr is writing {path} just now.") from None
    try:
        yield
    finally:
        lock.release()


class Table:
    """An append-only file of rows; a context manager that holds it.

    With `resume` it goes on behind the last whole input. `done` are the inputs that are in it;
    `finished` is set by whoever has written the last row.
    """

    def __init__(
        self,
        path: Path,
        serializer: Serializer,
        before_sync: Callable[[], None] | None = None,
        *,
        resume: bool = False,
    ) -> None:
        self.path = path
        self.done: Done = {}
        self.finished = False
        self._serializer = serializer
        self._before_sync = before_sync
        self._end = 0
        if resume and path.exists():
            self._end, self.done = complete_inputs(path, serializer)
        self._synced = time.monotonic()

    def __enter__(self) -> Table:
        self._file: BinaryIO = open(self.path, "ab", buffering=0)
        self._file.truncate(self._end)
        if self._end == 0:
            self._append(self._serializer.header)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._sync()
        self._file.close()

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def _sync(self) -> None:
        if self._before_sync:
            self._before_sync()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def write(self, rows: Sequence[Row]) -> None:
        """Append all rows of one input; they are in the file when this returns.

        Raises:
            OSError: The disk is full or gone. The table then ends with the input before.
        """
        self._append(self._serializer.encode(rows))

    def _append(self, data: bytes) -> None:
        if not self._is_there():
            raise OSError(
                f"{self.path} was replaced or removed while this job wrote it. --resume goes on "
                "with what is there."
            )
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
            # A kill loses nothing that was written; a power cut loses these seconds at most.
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self._sync()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise unwritten(self.path, error, resumable=True) from error
        self._end += len(data)


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
        serializer = CsvSerializer(columns, spreadsheet=spreadsheet)
        with open(path, encoding="utf-8-sig", newline="") as lines:
            for row in map(serializer.plain, csv.DictReader(lines)):
                cells = ((name, kind, row[name]) for name, kind in columns.items())
                yield {name: kind(cell) if cell else None for name, kind, cell in cells}


def _unpack(table: Path, journal: Path, columns: Columns) -> None:
    """Turn a finished Parquet table back into the journal that rows can be added to."""
    serializer = JsonlSerializer(columns)
    with atomic_write(journal, resumable=True) as part, open(part, "wb") as file:
        for row in read_rows(table, columns):
            if list(row) != list(columns):
                raise ValueError(OTHER_COLUMNS.format(table))
            file.write(serializer.encode([row]))


def arrow_schema(columns: Columns) -> pyarrow.Schema:
    import pyarrow

    arrow = {str: pyarrow.string(), int: pyarrow.int32(), float: pyarrow.float64()}
    return pyarrow.schema([(name, arrow[kind]) for name, kind in columns.items()])


def arrow_tables(rows: Iterable[Row], columns: Columns) -> Iterator[pyarrow.Table]:
    """Tables of 20,000 rows: rows that are dicts take many times the memory."""
    import pyarrow

    schema, rows = arrow_schema(columns), iter(rows)
    while some := list(islice(rows, ROWS_AT_ONCE)):
        yield pyarrow.Table.from_pylist(some, schema)


def _pack(journal: Path, table: Path, columns: Columns) -> None:
    """Write the Parquet table from its journal, then drop the journal."""
    import pyarrow.parquet

    with (
        atomic_write(table, resumable=True) as part,
        pyarrow.parquet.ParquetWriter(part, arrow_schema(columns)) as writer,
    ):
        for some in arrow_tables(read_rows(journal, columns), columns):
            writer.write_table(some)
    journal.unlink()
