"""Inputs at which a labelling job dies, and how it gets past them.

A native library that crashes takes the process with it. So a job notes what it reads in a file that
outlives it; the job that goes on reads alone what comes next, and leaves out what it dies at. A
kill from outside blames nothing: only at a crash does Python write the second file.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import os
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from faceattr.files import short_name

if TYPE_CHECKING:
    from faceattr.inference.samples import Sample

MOST_DEATHS = 3
DIED = (
    f"{MOST_DEATHS} processes died at it: a library crashes, or the picture takes more memory than "
    "there is"
)
SLOT = 4096  # bytes for what one thread reads; a longer name is cut


class Deaths:
    """What each thread reads, in a file that is gone after an orderly end; a context manager.

    Args:
        table: The job's table, beside which the file is.
        resume: Count what an earlier process of the job read when it died.
    """

    def __init__(self, table: Path, *, resume: bool) -> None:
        self._path = table.with_name(short_name(f".{table.name}.reading"))
        self._crash_path = self._path.with_name(f"{self._path.name}.crash")
        self._counts = _counted(self._path, self._crash_path) if resume else Counter()
        self._slots, self._own = itertools.count(), threading.local()
        self._lock = threading.Lock()

    def __enter__(self) -> Deaths:
        self._file: BinaryIO = open(self._path, "wb", buffering=0)
        self._begin = self._write(0, json.dumps(self._counts).encode() + b"\n")
        self._crash: BinaryIO = open(self._crash_path, "wb", buffering=0)
        self._watched = faulthandler.is_enabled()
        faulthandler.enable(self._crash)
        return self

    def __exit__(self, *_: object) -> None:
        faulthandler.disable()
        if self._watched and sys.__stderr__:
            faulthandler.enable(sys.__stderr__)
        for file, path in ((self._file, self._path), (self._crash, self._crash_path)):
            file.close()
            path.unlink(missing_ok=True)

    def __bool__(self) -> bool:
        """Whether an earlier process died while it read something."""
        return bool(self._counts)

    def is_deadly(self, name: str) -> bool:
        """Whether the job died at it as often as it may."""
        return self._counts[_key(name)] >= MOST_DEATHS

    def note(self, name: str) -> None:
        """This thread reads it now."""
        if not hasattr(self._own, "slot"):
            self._own.slot = next(self._slots)
        key = os.fsencode(_key(name)).ljust(SLOT, b"\0")
        self._write(self._begin + self._own.slot * SLOT, key)

    def noted(self, sample: Sample) -> Sample:
        """A sample that this thread reads now, or one that is left unread."""
        if self.is_deadly(sample.file.name):
            return replace(sample, reason=DIED)
        self.note(sample.file.name)
        return sample

    def _write(self, place: int, data: bytes) -> int:
        with self._lock, suppress(OSError):  # a full disk is told where the table is written
            self._file.seek(place)
            self._file.write(data)
        return place + len(data)


def _counted(path: Path, crash: Path) -> Counter[str]:
    """By name, how many processes died at it; nothing of a file that is damaged."""
    try:
        head, _, slots = path.read_bytes().partition(b"\n")
        if not crash.stat().st_size:
            slots = b""
        parts = (slots[place : place + SLOT].rstrip(b"\0") for place in range(0, len(slots), SLOT))
        return Counter(json.loads(head)) + Counter({os.fsdecode(part) for part in parts if part})
    except (OSError, ValueError, TypeError):
        return Counter()


def _key(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:SLOT])
