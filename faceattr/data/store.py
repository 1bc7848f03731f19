"""What is kept on disk between runs: rows of arrays (crops, features) and found faces.

Rows lie in files of their own, memory-mapped and only ever appended to. An SQLite database beside
them has their keys and checksums, and the found faces; its transaction guards the keys, and a lock
beside each file of rows says who uses it. A key is written when its rows are on the disk, so a kill
costs at most the rows of the last moment; a row that a power cut or a bad disk left damaged does
not fit its checksum and is not trusted.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import ReadWriteLock, Timeout

from faceattr.files import cache_folder

DATABASE = "cache.sqlite"
OLD_FACES = "faces.sqlite"  # where an older faceattr kept found faces
TABLES = """
CREATE TABLE IF NOT EXISTS rows (
    file TEXT, key TEXT, place INTEGER, checksum INTEGER, PRIMARY KEY (file, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS faces (key TEXT PRIMARY KEY, faces TEXT) WITHOUT ROWID;
"""
PATIENCE = 600  # seconds that one process waits for the transaction of another
FORMAT = "-3"  # in the names of files of rows: an older faceattr neither reads nor writes them
CROPS, FEATURES = ".crops", ".features"  # endings of files of rows
USERS = ".users"  # ending of the lock that says who uses a file of rows
OLDER = (".index", ".keys")  # endings of what an older faceattr kept beside its rows


def crops_folder(cache: str | Path | None = None) -> Path:
    """Where crops are kept: in the folder given, by default in the user's cache folder."""
    return Path(cache) if cache else cache_folder() / "crops"


def features_folder(cache: str | Path | None = None) -> Path:
    """Where features are kept: beside the crops, by default in the user's cache folder."""
    return Path(cache or cache_folder(), "features")


def stores_in(cache: str | Path | None = None) -> list[Path]:
    """The files of crops and of features that lie in a cache folder, or in the user's own."""
    crops = crops_folder(cache).glob(f"*{CROPS}")
    return sorted([*crops, *features_folder(cache).glob(f"*{FEATURES}")])


class Rows:
    """Arrays of one shape, by key, in one file; the database knows the keys."""

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: str, database: sqlite3.Connection
    ) -> None:
        self._path, self._shape, self._dtype = path, shape, dtype
        self._row_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._database = database
        self._whole: dict[str, int] = {}  # places of rows that fit their checksums

    def array(self) -> np.ndarray:
        """All rows, memory-mapped and read-only, ``(rows, *shape)``."""
        count = self._path.stat().st_size // self._row_bytes if self._path.exists() else 0
        if not count:
            return np.zeros((0, *self._shape), self._dtype)
        return np.memmap(self._path, dtype=self._dtype, mode="r", shape=(count, *self._shape))

    def places(self, keys: Sequence[str]) -> np.ndarray:
        """Where the rows of these keys are, ``int64`` ``(n,)``; -1 where there is none."""
        array = self.array()
        for key in dict.fromkeys(keys):
            if key not in self._whole:
                query = "SELECT place, checksum FROM rows WHERE file = ? AND key = ?"
                found = self._database.execute(query, (self._path.name, key)).fetchone()
                if found and found[0] < len(array) and zlib.crc32(array[found[0]].data) == found[1]:
                    self._whole[key] = found[0]
        return np.array([self._whole.get(key, -1) for key in keys], "int64")

    def put(self, rows: Mapping[str, np.ndarray]) -> None:
        """Keep rows that are not there yet: they are on the disk before their keys are."""
        with self._database as database:
            database.execute("BEGIN IMMEDIATE")
            known = zip(rows, self.places(list(rows)), strict=True)
            new = [key for key, place in known if place < 0]
            if not new:
                return
            arrays = [np.ascontiguousarray(rows[key], self._dtype) for key in new]
            name, first = self._path.name, self._append(arrays)
            lines = [
                (name, key, place, zlib.crc32(array.data))
                for place, (key, array) in enumerate(zip(new, arrays, strict=True), first)
            ]
            database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", lines)
        self._whole |= {key: place for _, key, place, _ in lines}

    def _append(self, rows: Sequence[np.ndarray]) -> int:
        """Write rows behind all others; the place of the first."""
        with open(self._path, "ab") as file:
            start = -(-file.tell() // self._row_bytes)
            file.truncate(start * self._row_bytes)  # a kill may have left a part of a row
            file.writelines(row.data for row in rows)
            file.flush()
            os.fsync(file.fileno())
        return start


class Store:
    """The rows and the faces of one folder; `open_store` makes it."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self._folder, self._database = folder, database

    def rows(self, name: str, shape: tuple[int, ...], dtype: str) -> Rows:
        """The rows of one file, which nobody deletes while this process lives."""
        path = self._folder / name
        if os.access(self._folder, os.W_OK):
            hold(path)
            path.touch()  # the time of its last use, for `delete_oldest`
        return Rows(path, shape, dtype, self._database)

    def forget(self, *, faces: bool = False) -> None:
        """Drop the keys of files that are gone and, if asked for, all faces."""
        with self._database as database:
            database.execute("BEGIN IMMEDIATE")
            for (name,) in database.execute("SELECT DISTINCT file FROM rows").fetchall():
                if not (self._folder / name).exists():
                    database.execute("DELETE FROM rows WHERE file = ?", (name,))
            if faces:
                database.execute("DELETE FROM faces")
        if faces:
            database.execute("VACUUM")

    def faces(self, keys: Iterable[str]) -> dict[str, Any]:
        """What `put_faces` kept, by key, as far as it is there."""
        query = "SELECT faces FROM faces WHERE key = ?"
        found = {key: self._database.execute(query, (key,)).fetchone() for key in keys}
        return {key: json.loads(row[0]) for key, row in found.items() if row}

    def put_faces(self, found: Mapping[str, Any]) -> None:
        """Keep faces by key, in any form that JSON has."""
        lines = [(key, json.dumps(faces)) for key, faces in found.items()]
        with self._database as database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT OR REPLACE INTO faces VALUES (?, ?)", lines)


class DamagedStoreError(OSError):
    """The file is no database, or no longer one."""


@contextmanager
def open_store(folder: Path) -> Iterator[Store]:
    """What a folder keeps; where nothing can be written, what is there can still be read.

    Raises:
        OSError: The database is damaged, or something is to be written where it cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # whoever runs a container may have no home
        cure = "Give a folder that takes files with --cache."
        raise OSError(f"The cache {folder} cannot be made: {error.strerror}. {cure}") from None
    path, can_write = folder / DATABASE, os.access(folder, os.W_OK)
    # SQLite takes no URI of a network drive of Windows, so one is made where it is needed.
    address = path if can_write else f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, timeout=PATIENCE, uri=not can_write)) as database:
            database.isolation_level = None
            if can_write:
                database.executescript(TABLES)
            yield Store(folder, database)
    except sqlite3.OperationalError as error:  # another run is too slow, or the disk refuses
        cure = "Try again when no other run uses it, or give another folder with --cache."
        raise OSError(f"{path} cannot be used ({error}). {cure}") from None
    except sqlite3.Error as error:
        cure = "Delete it, or give another folder with --cache; what was kept is made anew."
        raise DamagedStoreError(f"{path} cannot be used ({error}). {cure}") from None


_held: dict[Path, ReadWriteLock] = {}


def hold(path: Path) -> None:
    """Say that this process uses a file of rows, until it ends: nobody deletes it meanwhile."""
    if path not in _held:
        lock = ReadWriteLock(path.with_suffix(USERS))
        lock.acquire_read()
        _held[path] = lock


def delete_oldest(paths: Iterable[Path], limit: float) -> list[Path]:
    """Delete files of rows, those used longest ago first, until the rest has at most so many bytes.

    Returns:
        Those that were deleted; one that a process uses stays.
    """
    states, deleted = {}, []
    for path in paths:
        with suppress(FileNotFoundError):  # another process has just deleted it
            states[path] = path.stat()
    total = sum(state.st_size for state in states.values())
    for path in sorted(states, key=lambda path: states[path].st_mtime):
        if total > limit and _is_deleted(path):
            total -= states[path].st_size
            deleted.append(path)
    for folder in {path.parent for path in deleted}:
        forget_deleted(folder)
    return deleted


def _is_deleted(path: Path) -> bool:
    """Delete a file of rows that no process uses."""
    if path in _held:
        return False
    lock = ReadWriteLock(path.with_suffix(USERS), is_singleton=False)
    try:
        with lock.write_lock(blocking=False):
            for ending in (path.suffix, *OLDER):
                path.with_suffix(ending).unlink(missing_ok=True)
    except Timeout:
        return False
    finally:
        lock.close()
    return True


def forget_deleted(folder: Path, *, faces: bool = False) -> None:
    """Drop the keys of a folder's deleted files and, if asked for, the faces that it keeps.

    A run that has the database open goes on with it. A damaged database is deleted.
    """
    (folder / OLD_FACES).unlink(missing_ok=True)
    if not (folder / DATABASE).exists():
        return
    try:
        with open_store(folder) as store:
            store.forget(faces=faces)
    except DamagedStoreError:
        (folder / DATABASE).unlink(missing_ok=True)
