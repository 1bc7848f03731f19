"""From what somebody typed to the pictures and videos that are meant.

Nothing is read here but names, and the names are walked through lazily, so that a folder
of a million pictures costs no memory.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from faceattr.pictures.reading import PathLike

# What a folder's files must end in to count; HEIC is in it so that such a file gets its row
# ("unreadable") rather than being passed over.
PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".heic", ".heif"),
    *(".gif", ".bmp", ".dib", ".tif", ".tiff", ".tga", ".jp2", ".j2k", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".wmv"),
    *(".mpg", ".mpeg", ".mts", ".3gp", ".ogv"),
)
LIST_SUFFIXES = (".txt", ".lst")
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class InputFile:
    """One input.

    Args:
        path: Where it lies, spelled as it was given.
        is_video: Whether it holds frames rather than one picture.
    """

    path: str
    is_video: bool = False

    @property
    def name(self) -> str:
        """The path as valid text; bytes that are no UTF-8 are spelled ``\\\\xff``."""
        return os.fsencode(self.path).decode("utf-8", "backslashreplace")


class Inputs:
    """The pictures and videos behind paths, in a fixed order, each once.

    Args:
        inputs: Folders (read recursively, links followed but no loop), pictures, videos,
            patterns such as ``"photos/**/*.jpg"``, text files (``.txt``, ``.lst``) with one
            path a line, ``"-"`` for such a list on standard input.
        without: Folders to leave out, because the job itself writes there.

    Raises:
        FileNotFoundError: An input does not exist or a pattern fits nothing.
    """

    def __init__(
        self, inputs: PathLike | Sequence[PathLike], without: Sequence[PathLike] = ()
    ) -> None:
        given = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
        self.inputs = [os.fspath(path) for path in given]
        if not self.inputs:
            raise ValueError("There is nothing to read: no path was given.")
        self._without = {os.path.realpath(folder) for folder in without}
        for path in self.inputs:
            _must_exist(path)

    def __iter__(self) -> Iterator[InputFile]:
        seen: set[str] = set()
        # One folder cannot name a file twice; several inputs can.
        may_repeat = len(self.inputs) > 1 or not os.path.isdir(self.inputs[0])
        for path in self.inputs:
            for file in self._behind(path):
                if may_repeat:
                    if file.name in seen:
                        continue
                    seen.add(file.name)
                yield file

    @cached_property
    def count(self) -> int:
        """How many there are."""
        return sum(1 for _ in self)

    def _behind(self, path: str) -> Iterator[InputFile]:
        if path == STANDARD_INPUT:
            for line in self._standard_input:
                yield from self._behind_one(line)
        elif Path(path).suffix.lower() in LIST_SUFFIXES and os.path.isfile(path):
            with open(path, encoding="utf-8-sig", errors="surrogateescape") as lines:
                for line in _paths_in(lines):
                    yield from self._behind_one(line)
        elif not os.path.lexists(path):
            for match in sorted(glob.iglob(path, recursive=True)):
                yield from self._behind_one(match, named=False)
        else:
            yield from self._behind_one(path)

    def _behind_one(self, path: str, named: bool = True) -> Iterator[InputFile]:
        if os.path.isdir(path):
            yield from self._in_folder(path, set())
        elif named or _kind(path):
            yield InputFile(path, _kind(path) == "video")

    def _in_folder(self, folder: str, visited: set[str]) -> Iterator[InputFile]:
        real = os.path.realpath(folder)
        if real in visited or real in self._without:
            return
        visited.add(real)
        with os.scandir(folder) as entries:
            found = sorted((entry.name, _is_folder(entry)) for entry in entries)
        for name, is_folder in found:
            path = os.path.join(folder, name)
            if name.startswith("."):
                continue
            if is_folder:
                yield from self._in_folder(path, visited)
            elif kind := _kind(path):
                yield InputFile(path, kind == "video")

    @cached_property
    def _standard_input(self) -> list[str]:
        return list(_paths_in(sys.stdin))


def _paths_in(lines) -> Iterator[str]:
    return (line for line in (raw.rstrip("\r\n") for raw in lines) if line.strip())


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link onto itself
        return False


def _kind(path: str) -> str:
    """``"picture"``, ``"video"`` or nothing, told by the name's ending."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "picture" if suffix in PICTURE_SUFFIXES else ""


def _must_exist(path: str) -> None:
    if path == STANDARD_INPUT or os.path.lexists(path):
        return
    if glob.has_magic(path) and next(glob.iglob(path, recursive=True), None):
        return
    what = "Nothing fits the pattern" if glob.has_magic(path) else "There is no file or folder"
    raise FileNotFoundError(f"{what} {path}")
