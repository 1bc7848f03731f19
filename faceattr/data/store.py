"""Arrays kept on disk by key: one append-only file of rows, and beside it a line per row.

A row counts once its key is written, and rows are on the disk before their keys are: a kill costs
at most the rows of the last moment. Each key has a checksum of its row beside it, so that what a
power cut or a bad disk left of a row is not trusted.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import platformdirs
from filelock import FileLock, ReadWriteLock, Timeout

from faceattr.data.manifest import Example
from faceattr.images.crop import CropRule, crop
from faceattr.images.load import read_image

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


CROP_VERSION = 1  # of the function that cuts; another one needs other crops
CROPS = ".crops"
TOGETHER = 512  # crops between two flushes


@dataclass(frozen=True)
class CachedCrops:
    """Crops of examples, in their order.

    Args:
        array: Memory-mapped RGB ``uint8`` of shape ``(kept, size, size, 3)``; read-only.
        rows: For each example its row in `array`, -1 where the picture could not be used.
        reasons: Why a picture could not be used, by its place among the examples.
    """

    array: np.ndarray
    rows: np.ndarray
    reasons: Mapping[int, str] = field(default_factory=dict)

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many pictures could not be used, by reason."""
        return Counter(self.reasons.values())


def default_folder() -> Path:
    """Where crops are kept unless told otherwise: the user's cache folder."""
    return Path(platformdirs.user_cache_dir("faceattr")) / "crops"


def cache_crops(
    examples: Sequence[Example],
    rule: CropRule,
    folder: Path | None = None,
    progress: Iterable[Example] | None = None,
) -> CachedCrops:
    """Cut every example's face, or find it in the cache.

    Args:
        examples: What to cut. A picture that cannot be read is left out and counted.
        rule: Size and margin of the crops.
        folder: The cache; `default_folder` unless given.
        progress: `examples` wrapped in a progress bar, if one shall be shown.
    """
    folder = folder or default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    keys: list[str] = []
    path, shape = folder / f"{rule.size}{FORMAT}{CROPS}", (rule.size, rule.size, 3)
    with alone(path.with_suffix(".lock")), Store(path, shape, "uint8") as store:
        found = _prepared(progress or examples, rule, store)
        while batch := list(islice(found, TOGETHER)):
            store.append([(key, face) for key, face, _ in batch if face is not None])
            keys.extend(key or f"!{reason}" for key, _, reason in batch)
        places = (None if key.startswith("!") else store.place_of(key) for key in keys)
        rows = np.array([-1 if place is None else place for place in places], dtype=np.int64)
        array = store.array()
    reasons = {place: key[1:] for place, key in enumerate(keys) if key.startswith("!")}
    return CachedCrops(array, rows, reasons)


Prepared = tuple[str, np.ndarray | None, str]


def _prepared(examples: Iterable[Example], rule: CropRule, store: Store) -> Iterator[Prepared]:
    """Key, crop (None where it is known or unusable) and reason for each example, in order."""

    def prepare(example: Example) -> Prepared:
        try:
            key = _key(example, rule)
            if store.place_of(key) is not None:
                return key, None, ""
            image = example.pixels if example.pixels is not None else read_image(example.path)
        except (OSError, ValueError):
            return "", None, "unreadable picture"
        try:
            return key, crop(image, example.box, rule, example.landmarks), ""
        except ValueError:
            return "", None, "box empty or outside the picture"

    # Decoding and resizing release the GIL. The pool works a bounded way ahead.
    iterator = iter(examples)
    with ThreadPoolExecutor() as pool:
        while ahead := list(islice(iterator, TOGETHER)):
            yield from pool.map(prepare, ahead)


def _key(example: Example, rule: CropRule) -> str:
    pixels = example.pixels
    content = example.path.read_bytes() if pixels is None else pixels.tobytes()
    digest = hashlib.sha256(content)
    digest.update(f"{CROP_VERSION} {example.box} {rule.size} {rule.margin}".encode())
    if rule.align and example.landmarks is not None:
        digest.update(f" level {example.landmarks}".encode())
    return digest.hexdigest()
