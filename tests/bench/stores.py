"""What keeps crops on disk: our append-only store against others, side by side.

    pip install lmdb zarr
    python tests/bench/stores.py [--rows N] [--side N] [--folder DIR] [--stores NAME ...]

*indexed* is ours with its keys in an SQLite table, which also holds the lock.

Rows of noise, `side` x `side` x 3, are written 512 at a time and made durable after each batch.
They are read in random batches of 128 (as training draws them) and from the first to the last (as
a first epoch does), from the operating system's cache. Then a writer is killed (SIGKILL) three
times, two processes write at once, and a user who may not write reads.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from faceattr.data.store import Store, alone

TOGETHER, BATCH, BATCHES = 512, 128, 300
LINE = "{:<8} {:>8} {:>10} {:>10} {:>8} {:>14} {:>12} {:>12}"
HEADS = ("store", "write", "random", "in order", "MB", "kept by a kill", "two writers", "read-only")


def key_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def noise(numbers: Sequence[int], side: int) -> np.ndarray:
    """Row `number` can be drawn again, to see whether it came back whole."""
    first = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return np.stack([first + np.uint8(n % 256) ^ np.uint8(n // 256 % 256) for n in numbers])


class Ours:
    """`faceattr.data.store.Store`: rows in one file, keys and checksums in another."""

    def __init__(self, folder: Path, side: int) -> None:
        self.path, self.shape = folder / "rows.crops", (side, side, 3)

    def write(self, numbers: Sequence[int], side: int) -> None:
        with alone(self.path.with_suffix(".lock")), Store(self.path, self.shape, "uint8") as store:
            for batch in batches(numbers):
                store.append(
                    [(key_of(n), row) for n, row in zip(batch, noise(batch, side), strict=True)]
                )
                print(batch[-1] + 1, flush=True)

    def open(self, readonly: bool = False) -> None:
        self.store = Store(self.path, self.shape, "uint8").__enter__()
        self.array = self.store.array()

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        return self.array[[self.store.place_of(key_of(n)) for n in numbers]]

    def count(self) -> int:
        return len(self.array)


class Sqlite:
    """One table; a write-ahead log, synchronous."""

    def __init__(self, folder: Path, side: int) -> None:
        self.path, self.shape = folder / "rows.sqlite", (side, side, 3)

    def connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=60)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, value BLOB)")
        return db

    def write(self, numbers: Sequence[int], side: int) -> None:
        db = self.connect()
        for batch in batches(numbers):
            pairs = (
                (key_of(n), r.tobytes()) for n, r in zip(batch, noise(batch, side), strict=True)
            )
            with db:
                db.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?)", pairs)
            print(batch[-1] + 1, flush=True)
        db.close()

    def open(self, readonly: bool = False) -> None:
        address = f"file:{self.path}?mode=ro&immutable=1"
        self.db = sqlite3.connect(address, uri=True) if readonly else self.connect()

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        one = "SELECT value FROM rows WHERE key = ?"
        found = [self.db.execute(one, (key_of(n),)).fetchone()[0] for n in numbers]
        return np.frombuffer(b"".join(found), np.uint8).reshape(-1, *self.shape)

    def count(self) -> int:
        return self.db.execute("SELECT count(*) FROM rows").fetchone()[0]


class Indexed:
    """Rows in a memory-mapped file as ours has them, keys and checksums in an SQLite table.

    SQLite's transaction is the only lock; rows behind the last known place are written over.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self.path, self.shape = folder / "rows", (side, side, 3)

    def connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path.with_suffix(".sqlite"), timeout=60, isolation_level=None)
        db.execute("PRAGMA synchronous = FULL")
        table = "rows (place INTEGER PRIMARY KEY, key TEXT UNIQUE, checksum INTEGER)"
        db.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        return db

    def write(self, numbers: Sequence[int], side: int) -> None:
        db = self.connect()
        self.path.touch()
        with open(self.path, "r+b") as rows:
            for batch in batches(numbers):
                self.put(
                    db,
                    rows,
                    {key_of(n): row for n, row in zip(batch, noise(batch, side), strict=True)},
                )
                print(batch[-1] + 1, flush=True)
        db.close()

    def put(self, db: sqlite3.Connection, rows, batch: dict[str, np.ndarray]) -> None:
        db.execute("BEGIN IMMEDIATE")
        known = "SELECT 1 FROM rows WHERE key = ?"
        new = {k: row for k, row in batch.items() if not db.execute(known, (k,)).fetchone()}
        (count,) = db.execute("SELECT ifnull(max(place) + 1, 0) FROM rows").fetchone()
        rows.seek(count * int(np.prod(self.shape)))
        rows.write(b"".join(row.tobytes() for row in new.values()))
        rows.flush()
        os.fsync(rows.fileno())
        sums = [(count + i, key, zlib.crc32(row.data)) for i, (key, row) in enumerate(new.items())]
        db.executemany("INSERT INTO rows VALUES (?, ?, ?)", sums)
        db.execute("COMMIT")

    def open(self, readonly: bool = False) -> None:
        address = f"file:{self.path.with_suffix('.sqlite')}?mode=ro{'&immutable=1' * readonly}"
        db = sqlite3.connect(address, uri=True)
        self.places = dict(db.execute("SELECT key, place FROM rows"))
        shape = (len(self.places), *self.shape)
        self.array = np.memmap(self.path, np.uint8, "r", shape=shape)

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        return self.array[[self.places[key_of(n)] for n in numbers]]

    def count(self) -> int:
        return len(self.array)


class Lmdb:
    """One memory-mapped file, a transaction a batch."""

    def __init__(self, folder: Path, side: int) -> None:
        self.path, self.shape = folder / "rows.lmdb", (side, side, 3)

    def environment(self, readonly: bool = False):
        import lmdb

        return lmdb.open(
            str(self.path), subdir=False, map_size=1 << 36, readonly=readonly, lock=not readonly
        )

    def write(self, numbers: Sequence[int], side: int) -> None:
        with self.environment() as environment:
            for batch in batches(numbers):
                with environment.begin(write=True) as transaction:
                    for n, row in zip(batch, noise(batch, side), strict=True):
                        transaction.put(key_of(n).encode(), row.tobytes(), overwrite=False)
                print(batch[-1] + 1, flush=True)

    def open(self, readonly: bool = False) -> None:
        self.lmdb = self.environment(readonly)

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        out = np.empty((len(numbers), *self.shape), np.uint8)
        with self.lmdb.begin(buffers=True) as transaction:
            for row, n in zip(out, numbers, strict=True):
                row[...] = np.frombuffer(transaction.get(key_of(n).encode()), np.uint8).reshape(
                    self.shape
                )
        return out

    def count(self) -> int:
        return self.lmdb.stat()["entries"]


class Zarr:
    """One array in chunks of a batch. It knows no keys: a number stands for one."""

    def __init__(self, folder: Path, side: int) -> None:
        self.path, self.shape = folder / "rows.zarr", (side, side, 3)

    def write(self, numbers: Sequence[int], side: int) -> None:
        import zarr

        if self.path.exists():
            array = zarr.open_array(self.path, mode="r+")
        else:
            chunks = (BATCH, *self.shape)
            array = zarr.create_array(
                self.path, shape=(0, *self.shape), chunks=chunks, dtype="uint8", compressors=None
            )
        for batch in batches(numbers):
            array.append(noise(batch, side))
            print(batch[-1] + 1, flush=True)

    def open(self, readonly: bool = False) -> None:
        import zarr

        self.array = zarr.open_array(self.path, mode="r")

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        return self.array.get_orthogonal_selection(np.asarray(numbers))

    def count(self) -> int:
        return self.array.shape[0]


STORES = {"ours": Ours, "SQLite": Sqlite, "indexed": Indexed, "LMDB": Lmdb, "zarr": Zarr}


def batches(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[start : start + TOGETHER] for start in range(0, len(numbers), TOGETHER))


def speed(store, rows: int, side: int) -> tuple[float, float, float]:
    """Seconds to write, to read at random and to read in order."""
    started = time.perf_counter()
    child(store, range(rows), side).wait()
    written = time.perf_counter() - started
    store.open()
    random = np.random.default_rng(0)
    draws = [random.integers(0, rows, BATCH).tolist() for _ in range(BATCHES)]
    store.read(draws[0])
    started = time.perf_counter()
    for draw in draws:
        store.read(draw)
    at_random = time.perf_counter() - started
    started = time.perf_counter()
    for start in range(0, BATCH * BATCHES, BATCH):
        store.read(range(start, min(start + BATCH, rows)))
    return written, at_random, time.perf_counter() - started


def child(store, numbers: range, side: int) -> subprocess.Popen:
    """A process that writes some rows; a pipe says how far it is."""
    name = next(name for name, kind in STORES.items() if isinstance(store, kind))
    words = [name, store.path.parent, numbers.start, numbers.stop, side]
    command = [sys.executable, __file__, "--write", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def kills(kind, side: int, rows: int = 20000) -> str:
    """Whether all that was said to be written is there, and whole, after SIGKILL."""
    told = []
    for wait in (3, 9, 15):
        with tempfile.TemporaryDirectory() as folder:
            store = kind(Path(folder), side)
            name = next(name for name, of in STORES.items() if of is kind)
            command = [sys.executable, __file__, "--write", name, folder, "0", str(rows), str(side)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            promised = [int(process.stdout.readline()) for _ in range(wait)][-1]
            time.sleep(0.003 * wait)
            process.send_signal(signal.SIGKILL)
            promised = [promised, *map(int, process.stdout.read().split())][-1]
            process.wait()
            told.append(_is_whole(store, promised, side))
    return "yes" if all(told) else f"{sum(told)} of {len(told)}"


def _is_whole(store, promised: int, side: int) -> bool:
    try:
        store.open()
        kept = store.count()
        found = store.read(range(kept))
        return kept >= promised and bool((found == noise(range(kept), side)).all())
    except Exception as error:
        print(type(store).__name__, type(error).__name__, error)
        return False


def two_writers(kind, side: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        store = kind(Path(folder), side)
        child(store, range(1), side).wait()
        both = [child(store, range(5000), side), child(store, range(2500, 7500), side)]
        codes = [process.wait() for process in both]
        try:
            store.open()
            whole = (store.read(range(7500)) == noise(range(7500), side)).all()
            return f"{store.count()}{'' if whole else ' broken'}{'' if not any(codes) else ' died'}"
        except Exception as error:
            return type(error).__name__


def read_only(kind, folder: Path, side: int) -> str:
    """Whether somebody who may not write can read."""
    name = next(name for name, of in STORES.items() if of is kind)
    code = (
        f"import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import lmdb, mmap, stores, zarr\nfrom pathlib import Path\n"
        f"store = stores.STORES[{name!r}](Path({str(folder)!r}), {side})\n"
        "os.setuid(65534)\nstore.open(readonly=True)\nstore.read(range(9))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return "yes" if process.returncode == 0 else process.stderr.strip().split("\n")[-1][:40]


def size_of(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--folder", type=Path, help="on the disk that is measured")
    parser.add_argument("--stores", nargs="+", default=list(STORES), choices=list(STORES))
    parser.add_argument("--write", nargs=5, help="what a writing process is told")
    options = parser.parse_args()
    if options.write:
        name, folder, start, stop, side = options.write
        STORES[name](Path(folder), int(side)).write(range(int(start), int(stop)), int(side))
        return
    try:
        import lmdb  # noqa: F401
        import zarr  # noqa: F401
    except ImportError:
        sys.exit("The other stores are not installed: pip install lmdb zarr")
    print(LINE.format(*HEADS))
    for name in options.stores:
        kind = STORES[name]
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        os.chmod(folder, 0o755)
        times = [
            f"{seconds:.2f} s"
            for seconds in speed(kind(folder, options.side), options.rows, options.side)
        ]
        more = (kills(kind, options.side), two_writers(kind, options.side))
        readable = read_only(kind, folder, options.side)
        print(LINE.format(name, *times, f"{size_of(folder):.0f}", *more, readable), flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
