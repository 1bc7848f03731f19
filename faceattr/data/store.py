"""Arrays kept on disk by key: one append-only file of rows, and beside it a line per row.

A row counts once its key is written, and rows are on the disk before their keys are: a kill costs
at most the rows of the last moment. Each key has a checksum of its row beside it, so that what a
power cut or a bad disk left of a row is not trusted.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, ReadWriteLock, Timeout

LINE = 64 + 1 + 8 + 1  # hexadecimal digits of a SHA-256, a space, those of a CRC-32, a line feed
KEYS, USERS = ".index", ".users"  # endings of the files beside one of rows
FORMAT = "-2"  # in the names of files: an older faceattr neither reads nor cuts them
OLD_KEYS = ".keys"


class Store:
    """The two files, repaired on opening if their last writer was killed.

    Args:
        path: The file of rows.
        shape: Of a row.
        dtype: Of a row.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self._path, self._keys_path = path, path.with_suffix(KEYS)
        self._shape, self._dtype = shape, dtype
        self._row_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._index: dict[str, int] = {}
        self._unchecked: dict[str, int] = {}

    def __enter__(self) -> Store:
        hold(self._path)
        self._rows = open(self._path, "ab")
        os.utime(self._path)  # the time of its last use, for `delete_oldest`
        self._keys = open(self._keys_path, "a+b")
        self._keys.seek(0)
        lines = self._keys.read()
        whole = min(len(lines) // LINE, self._rows.tell() // self._row_bytes)
        self._keys.truncate(whole * LINE)
        self._rows.truncate(whole * self._row_bytes)
        for row in range(whole):
            key, _, checksum = lines[row * LINE : (row + 1) * LINE].decode("latin1").partition(" ")
            self._index[key] = row
            self._unchecked[key] = _number(checksum)
        self._count = whole
        self._before = self.array()
        return self

    def __exit__(self, *_) -> None:
        self._rows.close()
        self._keys.close()

    def place_of(self, key: str) -> int | None:
        """Where a row is, None where there is none of this key that is whole."""
        place = self._index.get(key)
        checksum = self._unchecked.pop(key, None)
        if place is None or checksum is None or zlib.crc32(self._before[place]) == checksum:
            return place
        del self._index[key]
        return None

    def append(self, batch: Sequence[tuple[str, np.ndarray]]) -> None:
        """Write rows first and their keys second, so that a key always has its row."""
        new = {
            key: np.ascontiguousarray(row, self._dtype)
            for key, row in batch
            if self.place_of(key) is None
        }
        if not new:
            return
        for row in new.values():
            self._rows.write(row.data)
        _flush(self._rows)
        for key, row in new.items():
            self._keys.write(f"{key} {zlib.crc32(row.data):08x}\n".encode())
            self._index[key] = self._count
            self._count += 1
        _flush(self._keys)

    def array(self) -> np.ndarray:
        """All rows, memory-mapped and read-only, ``(rows, *shape)``."""
        if not self._count:
            return np.zeros((0, *self._shape), self._dtype)
        shape = (self._count, *self._shape)
        return np.memmap(self._path, dtype=self._dtype, mode="r", shape=shape)


def _number(checksum: str) -> int:
    try:
        return int(checksum, 16)
    except ValueError:
        return -1  # no row has it


def _flush(file) -> None:
    file.flush()
    os.fsync(file.fileno())


_held: dict[Path, ReadWriteLock] = {}


def hold(path: Path) -> None:
    """Say that this process uses a store, until it ends: nobody deletes it meanwhile."""
    if path not in _held:
        lock = ReadWriteLock(path.with_suffix(USERS))
        lock.acquire_read()
        _held[path] = lock


def delete_oldest(paths: Iterable[Path], limit: float) -> list[Path]:
    """Delete stores, those used longest ago first, until the rest has at most so many bytes.

    Args:
        paths: The files of rows.
        limit: In bytes.

    Returns:
        Those that were deleted; one that a process uses stays.
    """
    found = sorted(paths, key=lambda path: path.stat().st_mtime)
    total, deleted = sum(path.stat().st_size for path in found), []
    for path in found:
        if total <= limit:
            break
        size = path.stat().st_size
        if _deleted(path):
            total -= size
            deleted.append(path)
    return deleted


def _deleted(path: Path) -> bool:
    if path in _held:
        return False
    lock = ReadWriteLock(path.with_suffix(USERS), is_singleton=False)
    try:
        with lock.write_lock(blocking=False):
            path.unlink(missing_ok=True)
            for ending in (KEYS, OLD_KEYS):
                path.with_suffix(ending).unlink(missing_ok=True)
    except Timeout:
        return False
    finally:
        lock.close()
    return True


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait, and say so, while another process writes to the same cache."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        print(f"waiting for another faceattr that uses {path.parent}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
