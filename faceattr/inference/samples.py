"""What a labelling job looks at, one after the other, and how it gets past what it dies at.

A native library that crashes takes the process with it. So a job notes what it reads in a file that
outlives it; the job that goes on reads alone what comes next, and leaves out what it dies at. A
kill from outside blames nothing: only at a crash does Python write the second file.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import math
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import BinaryIO

import numpy as np

from faceattr.detection.base import Face
from faceattr.files import short_name
from faceattr.images.inputs import InputFile, kind_of_name, places
from faceattr.images.load import (
    NO_PICTURE,
    PathLike,
    Picture,
    content_of,
    read_picture,
    reason_of,
)

MOST_DEATHS = 3
DIED = (
    f"{MOST_DEATHS} processes died at it: a library crashes, or the picture takes more memory than "
    "there is"
)
SLOT = 4096  # bytes for what one thread reads; a longer name is cut


@dataclass(frozen=True)
class Sample:
    """One picture to look at: a file, or a frame that was taken out of a video.

    Args:
        file: The file.
        time: Seconds into a video, None for a picture.
        frame: RGB ``uint8`` ``(h, w, 3)`` of a video, or of an image that is in memory.
        content: Gives what is in the file, or its path; None where `file` says it.
        reason: Why it cannot be read, where that is known already.
    """

    file: InputFile
    time: float | None = None
    frame: np.ndarray | None = None
    content: Callable[[], PathLike | bytes] | None = None
    reason: str | None = None

    def decode(
        self, at_least: int | None = None, *, max_pixels: int, reserve: Callable[[int], None]
    ) -> Picture:
        """The picture itself; arguments and errors are those of `read_picture`."""
        if self.frame is not None:
            return Picture(self.frame, self.frame.shape[:2])
        source = self.content() if self.content else self.file.path
        return read_picture(source, at_least, max_pixels=max_pixels, reserve=reserve)

    def unreadable(self, error: Exception) -> Sample:
        """The same with the reason why it cannot be read."""
        reason = reason_of(error, self.file.path)
        is_named = self.content is None and not kind_of_name(self.file.path)
        if is_named and reason == NO_PICTURE:
            reason += ", and its name does not end like a video's (.mp4, .mov …)"
        return replace(self, reason=reason)

    def without_content(self) -> Sample:
        """The same without what takes memory: what waits for its row needs only the names."""
        return replace(self, frame=None, content=None)


@dataclass(frozen=True)
class Detections:
    """The faces of a sample, in pixels of its full size, and the crops of the large ones."""

    sample: Sample
    faces: tuple[Face, ...] = ()
    crops: tuple[np.ndarray, ...] = ()


def checked_interval(every: float) -> float:
    """Raises ValueError where there cannot be so many seconds between two frames."""
    is_number = isinstance(every, Real) and not isinstance(every, bool)
    if not (is_number and 0 <= every < math.inf):
        raise ValueError(
            "Between two frames of a video are 0 seconds (each frame) or more (--every). "
            f"Received: {every!r}"
        )
    return float(every)  # numpy's numbers cannot be written as JSON


def samples_of(
    files: Iterable[InputFile],
    every: float,
    done: Mapping[str, set] | None = None,
    *,
    allow_urls: bool = False,
    deaths: Deaths | None = None,
) -> Iterator[Sample]:
    """The pictures, and the frames of the videos `every` so many seconds.

    What is `done` is left out: by name the times (None for a picture). `deaths` is told which video
    is read; one that it knows as deadly is left unread.
    """
    place_of = places()
    times_at = _by_place(done or {}, place_of)
    for file in files:
        finished = times_at.get(place_of(file.name), set())
        if None in finished:
            continue
        if file.is_video and deaths and deaths.is_deadly(file.name):
            yield Sample(file, reason=DIED)
        elif file.is_video:
            if deaths is not None:
                deaths.note(file.name)
            yield from _frames_of(file, every, finished)
        elif file.is_url:
            fetched = partial(content_of, file.path, allow_urls=allow_urls)
            yield Sample(file, content=cache(fetched))
        else:
            yield Sample(file)


def _by_place(done: Mapping[str, set], place_of: Callable[[str], str]) -> dict[str, set]:
    """Times by place: a folder may be spelled otherwise than when the job began."""
    times_at: dict[str, set] = {}
    for name, times in done.items():
        place = place_of(name)
        before = times_at.get(place)
        # A path that is whole already needs no second text.
        times_at[name if place == name else place] = times if before is None else before | times
    return times_at


def _frames_of(file: InputFile, every: float, finished: set) -> Iterator[Sample]:
    if find_spec("av") is None:
        yield Sample(file, reason="a video needs the package av, which is not installed")
        return
    # Few jobs have videos, and FFmpeg is large.
    from faceattr.images.video import BrokenOff, frames

    try:
        for second, frame in frames(file.path, every, start=max(finished, default=0.0)):
            if second not in finished:
                yield Sample(file, second, frame)
    except BrokenOff as error:
        if error.second not in finished:
            yield Sample(file, error.second, reason=reason_of(error, file.path))
    except (OSError, ValueError) as error:
        yield Sample(file, reason=reason_of(error, file.path))


class Deaths:
    """What each thread reads, in a file beside a table that is gone after an orderly end.

    A context manager. With `resume` it counts what an earlier process of the job read when it died.
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
