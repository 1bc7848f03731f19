"""Arrays kept on disk by key: one append-only file of rows, and beside it a line per row.

A row counts once its key is written, so a kill at any moment costs at most the rows of the
last moment.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

KEY_LENGTH = 64  # hexadecimal digits of a SHA-256


class Store:
    """The two files, repaired on opening if their last writer was killed.

    Args:
        path: The file of rows; the keys lie beside it, in a file that ends in ``.keys``.
        shape: Of a row.
        dtype: Of a row.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self._path, self._keys_path = path, path.with_suffix(".keys")
        self._shape, self._dtype = shape, dtype
        self._row_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.index: dict[str, int] = {}

    def __enter__(self) -> Store:
        self._rows = open(self._path, "ab")
        self._keys = open(self._keys_path, "a+b")
        self._keys.seek(0)
        lines = self._keys.read()
        whole = min(len(lines) // (KEY_LENGTH + 1), self._rows.tell() // self._row_bytes)
        self._keys.truncate(whole * (KEY_LENGTH + 1))
        self._rows.truncate(whole * self._row_bytes)
        for row, key in enumerate(lines[: whole * (KEY_LENGTH + 1)].split()):
            self.index[key.decode()] = row
        self._count = whole
        return self

    def __exit__(self, *_) -> None:
        self._rows.close()
        self._keys.close()

    def append(self, batch: Sequence[tuple[str, np.ndarray]]) -> None:
        """Write rows first and their keys second, so that a key always has its row."""
        new = {key: row for key, row in batch if key not in self.index}
        for row in new.values():
            self._rows.write(row.astype(self._dtype, copy=False).tobytes())
        self._rows.flush()
        for key in new:
            self._keys.write(f"{key}\n".encode())
            self.index[key] = self._count
            self._count += 1
        self._keys.flush()

    def array(self) -> np.ndarray:
        """All rows, memory-mapped and read-only, ``(rows, *shape)``."""
        if not self._count:
            return np.zeros((0, *self._shape), self._dtype)
        shape = (self._count, *self._shape)
        return np.memmap(self._path, dtype=self._dtype, mode="r", shape=shape)


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
