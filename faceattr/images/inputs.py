"""From what somebody typed to the pictures and videos that are meant.

Nothing is read here but names, and they are walked through lazily: in memory are those of one
folder at a time, about 100 bytes a file. Several inputs, a list or a pattern cost more: all their
names are remembered, so that none comes twice.
"""

from __future__ import annotations

import codecs
import glob
import io
import os
import re
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO, TextIO

from faceattr.files import spelled
from faceattr.images.fetch import is_url
from faceattr.images.load import PathLike, as_paths

# What a folder's files must end in to count; HEIC (also as .hif) and JPEG XL are in it so that
# such a file gets its row ("unreadable") rather than being passed over.
PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif"),
    *(".heic", ".heif", ".hif", ".jxl"),
    *(".gif", ".bmp", ".dib", ".tif", ".tiff", ".tga", ".jp2", ".j2k", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".wmv"),
    *(".mpg", ".mpeg", ".vob", ".mts", ".m2t", ".m2ts", ".3gp", ".ogv"),
)
VIDEO_IF_NAMED = ".ts"  # in a folder such files are most often TypeScript
LIST_SUFFIXES = (".txt", ".lst")
NO_UTF_8 = re.compile(rb"\\x([89a-f][0-9a-f])")  # as `spelled` has a byte
STANDARD_INPUT = "-"
HERE = re.compile(r"^(file|local)://(localhost)?(?=/)", re.IGNORECASE)
FOLDERS = 1 << 14  # whose places are remembered: many files lie in few folders


@dataclass(frozen=True)
class InputFile:
    """One input.

    Args:
        path: Where it lies, spelled as it was given.
        is_video: Whether it holds frames rather than one picture.
    """

    path: str
    is_video: bool = False

    @classmethod
    def named(cls, path: str) -> InputFile:
        """The input of a path, of the kind that its name tells."""
        is_video = kind_of_name(path) == "video" or path.lower().endswith(VIDEO_IF_NAMED)
        return cls(path, is_video and not is_url(path))

    @property
    def name(self) -> str:
        """The path as valid text, `spelled`."""
        return spelled(self.path)

    @property
    def is_url(self) -> bool:
        return is_url(self.path)


def path_of(name: str) -> str:
    """The path that is `spelled` so in a table or a manifest."""
    # On Windows a name is always text, and "\\" parts folders.
    if os.sep == "\\" or "\\x" not in name or os.path.lexists(name):
        return name
    as_bytes = os.fsencode(name)
    return os.fsdecode(NO_UTF_8.sub(lambda byte: bytes.fromhex(byte[1].decode()), as_bytes))


def places() -> Callable[[str], str]:
    """What gives every spelling of a file's name one place, that an address is as it stands.

    Links among the folders are followed; the file's own name is kept, for a link may be replaced.
    """
    real = lru_cache(FOLDERS)(os.path.realpath)

    def place_of(name: str) -> str:
        if "://" in name:
            return name
        folder, own = os.path.split(name.rstrip(os.sep))
        return os.path.join(real(folder), os.path.normcase(own))

    return place_of


def on_disk(path: str) -> str:
    """The path that ``file:///photos`` stands for; any other as it is."""
    rest = HERE.sub("", path)
    return rest if rest == path or os.path.lexists(rest) else urllib.request.url2pathname(rest)


class Inputs:
    """The pictures and videos behind paths, in a fixed order, each once.

    Args:
        inputs: Folders (read recursively, links followed but no loop), pictures, videos,
            patterns such as ``"photos/**/*.jpg"``, text files (``.txt``, ``.lst``) with one
            path a line, ``"-"`` for such a list on standard input.
        without: Folders to leave out, because the job itself writes there.
        allow_urls: Inputs, and lines of lists, may be ``http(s)://`` addresses of pictures.

    Raises:
        FileNotFoundError: An input does not exist or a pattern fits nothing.
        ValueError: There is none, or it is an address and these are not allowed.
    """

    def __init__(
        self,
        inputs: PathLike | Sequence[PathLike],
        without: Sequence[PathLike] = (),
        *,
        allow_urls: bool = False,
    ) -> None:
        self.inputs = [on_disk(path) for path in as_paths(inputs)]
        if not self.inputs:
            raise ValueError("There is nothing to read: no path was given.")
        self.without = tuple(os.fspath(folder) for folder in without)
        self._without = {os.path.realpath(folder) for folder in without}
        self.allow_urls = allow_urls
        for path in self.inputs:
            self._must_exist(path)

    def __iter__(self) -> Iterator[InputFile]:
        seen: set[str] = set()
        place_of = places()
        # One folder cannot name a file twice; several inputs can.
        may_repeat = len(self.inputs) > 1 or not self._is_folder(self.inputs[0])
        for path in self.inputs:
            for file in self._behind(path):
                if may_repeat:
                    if (place := place_of(file.path)) in seen:
                        continue
                    seen.add(place)
                yield file

    @cached_property
    def count(self) -> int:
        return sum(1 for _ in self)

    def require_any(self) -> None:
        """Raises ValueError where there is not one picture or video."""
        if next(iter(self), None) is None:
            where, own = ", ".join(self.inputs), ", ".join(self.without)
            end = f", leaving out {own}, where this job writes itself." if own else "."
            raise ValueError(f"There are no pictures in {where}{end}")

    def _must_exist(self, path: str) -> None:
        if is_url(path) and not self.allow_urls:
            raise ValueError(
                f"{path} is an address, and only files are read unless `faceattr label` is told "
                "--allow-urls; in Python: faceattr.analyze(address, allow_urls=True)."
            )
        if is_url(path) or path == STANDARD_INPUT or os.path.lexists(path):
            return
        if "://" in path:
            raise ValueError(
                f"{path} is not on this machine. `faceattr label --engine ray` reads object stores."
            )
        if glob.has_magic(path) and next(_fitting(path), None):
            return
        what = "Nothing fits the pattern" if glob.has_magic(path) else "There is no file or folder"
        raise FileNotFoundError(f"{what} {path}")

    def _is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def _behind(self, path: str) -> Iterator[InputFile]:
        if path == STANDARD_INPUT:
            for line in self._standard_input:
                yield from self._behind_one(line)
        elif Path(path).suffix.lower() in LIST_SUFFIXES and os.path.isfile(path):
            with open(path, "rb") as file, text_of(file) as lines:
                for line in paths_in(lines):
                    yield from self._behind_one(line)
        elif not is_url(path) and not os.path.lexists(path):
            yield from self._behind_pattern(path)
        else:
            yield from self._behind_one(path)

    def _behind_one(self, path: str) -> Iterator[InputFile]:
        path = on_disk(path)
        if os.path.isdir(path):
            yield from self._in_folder(path, set(self._without))
        else:
            yield InputFile.named(path)

    def _behind_pattern(self, pattern: str) -> Iterator[InputFile]:
        found = sorted(path for path in set(_fitting(pattern)) if not self._is_own(path))
        visited = {os.path.realpath(os.path.dirname(path.rstrip(os.sep))) for path in found}
        visited |= self._without
        for path in found:
            if os.path.isdir(path):
                yield from self._in_folder(path, visited)
            elif kind := kind_of_name(path):
                yield InputFile(path, kind == "video")

    def _is_own(self, path: str) -> bool:
        parents = Path(os.path.realpath(path)).parents if self._without else ()
        return any(str(parent) in self._without for parent in parents)

    def _in_folder(self, folder: str, visited: set[str]) -> Iterator[InputFile]:
        for path, is_folder in _walk(folder, visited):
            if not is_folder and (kind := kind_of_name(path)):
                yield InputFile(path, kind == "video")

    @cached_property
    def _standard_input(self) -> list[str]:
        return list(paths_in(text_of(io.BytesIO(sys.stdin.buffer.read()))))


def text_of(file: BinaryIO) -> TextIO:
    """What a list says: UTF-8, or UTF-16 as PowerShell's ``>`` writes it."""
    start = file.read(2)
    file.seek(0)
    is_utf_16 = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return io.TextIOWrapper(
        file, "utf-16" if is_utf_16 else "utf-8-sig", "surrogateescape", newline="\n"
    )


def paths_in(lines: Iterable[str]) -> Iterator[str]:
    """The paths that a list holds, one a line."""
    return (line for line in (raw.rstrip("\r\n") for raw in lines) if line.strip())


def _fitting(pattern: str) -> Iterator[str]:
    """Files and folders that fit a pattern, only files where it has ``**``.

    Python's own ``**`` runs through loops of links until it has no more breath.
    """
    parts = pattern.replace(os.altsep or os.sep, os.sep).split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    stars = parts.index("**")
    head, tail = os.sep.join([*parts[:stars], ""]), os.sep.join(parts[stars + 1 :] or ["*"])
    for start in glob.iglob(head) if head else [""]:
        for folder in (path for path, is_folder in _walk(start, set()) if is_folder):
            inside = _fitting(os.path.join(glob.escape(folder), tail))
            yield from (path for path in inside if not os.path.isdir(path))


def _walk(folder: str, visited: set[str]) -> Iterator[tuple[str, bool]]:
    """A folder and all below it in order, each folder once, and whether it is a folder."""
    real = os.path.realpath(folder)
    if real in visited:
        return
    visited.add(real)
    yield folder, True
    for path, is_folder in _entries(folder):
        if is_folder:
            yield from _walk(path, visited)
        else:
            yield path, False


def _entries(folder: str) -> Iterator[tuple[str, bool]]:
    """What a folder holds, in order, and whether it is a folder; nothing hidden."""
    folders: set[str] = set()
    names: list[str] = []
    try:
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    names.append(entry.name)
                    if _is_folder(entry):
                        folders.add(entry.name)
    except FileNotFoundError:  # it was there when its parent was looked at
        return iter(())
    except PermissionError as error:
        raise PermissionError(
            f"The folder {folder} may not be read, so its pictures would be missing: allow it, or "
            "name the other folders one by one."
        ) from error
    names.sort()
    return ((os.path.join(folder, name), name in folders) for name in names)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link onto itself
        return False


def kind_of_name(path: str) -> str:
    """``"picture"``, ``"video"`` or nothing, by the name's ending."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "picture" if suffix in PICTURE_SUFFIXES else ""
