"""Files wherever they lie, in folders and in object stores, and the inputs of a job among them.

A place is the path of a file or a folder, or an address such as ``s3://bucket/photos``, which the
file systems of pyarrow open. A file in an object store is there when it is whole; in a folder it
gets its name when it is. Where a store refuses or cannot be asked, an OSError says so in one
sentence.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import os
import posixpath
import re
import uuid
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from faceattr.files import replace_durably
from faceattr.images.fetch import is_url
from faceattr.images.inputs import (
    LIST_SUFFIXES,
    InputFile,
    Inputs,
    kind_of_name,
    on_disk,
    path_of,
    paths_in,
    text_of,
)
from faceattr.images.load import PathLike

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+://[^/]*)/?(.*)", re.DOTALL | re.IGNORECASE)
# What a driver of pyarrow adds to what the store said.
NOISE = re.compile(
    r"\s*\(Request ID: \S+\)|\s*(Detail: |See Azure::).*$|\[Errno \d+\] |Unknown error: "
    r"|N\d\w+ExceptionE: ",
    re.DOTALL,
)
MANIFEST_SUFFIXES = (".csv", ".parquet")
MAGIC = re.compile(r"[*?[]")
ROWS_AT_ONCE = 100_000


def is_remote(place: str) -> bool:
    """Whether a place is in an object store rather than in a folder."""
    return ADDRESS.match(place) is not None and not is_url(place)


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)


def entries(folder: str) -> list[tuple[str, bool]]:
    """Names in a folder and whether they are folders, in order; none where there is no folder."""
    from pyarrow.fs import FileSelector, FileType, PyFileSystem

    system, path = _opened(folder, anew=True)
    with _told(folder, "listed"):
        if isinstance(system, PyFileSystem):
            return _listed(system.handler.fs, path)
        found = system.get_file_info(FileSelector(path, allow_not_found=True))
    return sorted((info.base_name, info.type == FileType.Directory) for info in found)


def _listed(system: Any, path: str) -> list[tuple[str, bool]]:
    """As `entries`, of a file system of fsspec.

    pyarrow takes its `find`, which is silent about what cannot be listed and which adlfs answers
    with all that lies below.
    """
    try:
        found = {
            (one["name"].strip("/"), one["type"] == "directory")
            for one in system.ls(path, detail=True)
        }
    except FileNotFoundError:
        return []
    mark = path.strip("/")  # of the folder itself
    return sorted((name.rpartition("/")[2], is_folder) for name, is_folder in found if name != mark)


def kind_of(place: str) -> str:
    """``"file"``, ``"folder"`` or nothing."""
    from pyarrow.fs import FileType

    system, path = _opened(place, anew=True)
    with _told(place, "looked at"):
        found = system.get_file_info(path).type
    return {FileType.File: "file", FileType.Directory: "folder"}.get(found, "")


def read(place: str) -> bytes:
    """What is in a file; FileNotFoundError where there is none."""
    system, path = _opened(place)
    with _told(place, "read"), system.open_input_file(path) as file:
        return file.read()


def write(place: str, content: bytes) -> None:
    """Write a file that is there as a whole or not at all; its folder is made."""
    with _told(place, "written"):
        if not is_remote(place):
            _write_here(os.path.abspath(place), content)
            return
        system, path = _opened(place)
        with system.open_output_stream(path) as file:
            file.write(content)


def _write_here(path: str, content: bytes) -> None:
    # Two workers may write one file at once: each has a name of its own until it is whole. A killed
    # one leaves its file behind: pandas and others read no names that begin with a dot.
    folder, name = os.path.split(path)
    part = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.part")
    os.makedirs(folder, exist_ok=True)
    try:
        with open(part, "wb") as file:
            file.write(content)
        replace_durably(part, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def delete(place: str) -> None:
    system, path = _opened(place)
    with contextlib.suppress(FileNotFoundError), _told(place, "deleted"):
        system.delete_file(path)


def _opened(place: str, *, anew: bool = False) -> tuple[FileSystem, str]:
    """The file system of a place and what the place is called in it.

    `anew`: It forgets what it has listed before; those of fsspec would answer from that.
    """
    from pyarrow.fs import LocalFileSystem, PyFileSystem

    address = ADDRESS.match(place)
    if address is None:
        return LocalFileSystem(), os.path.abspath(place)
    # Keys are no URIs: spaces and "%" are their own.
    system, root = _of_root(address[1])
    if anew and isinstance(system, PyFileSystem):
        system.handler.fs.invalidate_cache()
    return system, "/".join(part for part in (root.rstrip("/"), address[2].rstrip("/")) if part)


@lru_cache
def _of_root(root: str) -> tuple[FileSystem, str]:
    import pyarrow
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    # pyarrow knows Azure's identities alone, adlfs its keys and connection strings too.
    if not (root.startswith("abfs") and importlib.util.find_spec("adlfs")):
        with contextlib.suppress(pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
            return FileSystem.from_uri(root)
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(root)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"{root} cannot be opened: {error}. faceattr reads folders, s3://, gs:// and abfs://, "
            "and what an installed package of fsspec reads."
        ) from None
    return PyFileSystem(FSSpecHandler(system)), path


@contextlib.contextmanager
def _told(place: str, what: str) -> Iterator[None]:
    """Turn what a store says into one sentence with the place in it."""
    from pyarrow.lib import ArrowException

    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(2, "No such file or directory", place) from None
    except (OSError, ArrowException) as error:  # Azure's driver calls its errors unknown
        said = " ".join(NOISE.sub("", str(error)).split()).rstrip(".")
        reason = getattr(error, "strerror", None) or said
        cure = "; see its name, and the rights of this machine's account" * is_remote(place)
        raise OSError(f"{place} cannot be {what}: {reason}{cure}.") from error


class Places(Inputs):
    """The pictures and videos behind places, in a fixed order, each once.

    Nothing is read but names; in memory are those of one folder at a time, and of a manifest or a
    list, or of several inputs, all.

    Args:
        inputs: What `Inputs` takes; folders, files and patterns in object stores
            (``s3://bucket/photos/**/*.jpg``); lists (``.txt``, ``.lst``) and manifests (``.csv``,
            ``.parquet`` with a column ``path``), whose paths may be any of these. A manifest in a
            store, or of a folder, has addresses or whole paths.

    Raises:
        OSError, ValueError: An input does not exist or cannot be listed, or there is nothing in
            any of them.
    """

    def __init__(self, inputs: PathLike | Sequence[PathLike]) -> None:
        super().__init__(inputs)
        self.require_any()

    def _must_exist(self, path: str) -> None:
        if not is_remote(path):  # a store is asked when it is listed
            super()._must_exist(path)

    def _is_folder(self, path: str) -> bool:
        if is_remote(path):
            return self._remote_kinds[path] == "folder"
        return super()._is_folder(path)

    @cached_property
    def _remote_kinds(self) -> dict[str, str]:
        remote = (place for place in self.inputs if is_remote(place))
        return {place: kind_of(place) for place in remote}

    def _behind(self, path: str) -> Iterator[InputFile]:
        suffix, remote = os.path.splitext(path)[1].lower(), is_remote(path)
        if suffix in MANIFEST_SUFFIXES and (remote or os.path.isfile(path)):
            yield from map(InputFile.named, _in_manifest(path))
        elif remote and suffix in LIST_SUFFIXES:
            for line in paths_in(text_of(io.BytesIO(read(path)))):
                yield from self._behind_one(line)
        elif remote:
            yield from _in_store(path, self._remote_kinds[path])
        else:
            yield from super()._behind(path)

    def _behind_one(self, path: str) -> Iterator[InputFile]:
        path = on_disk(path)
        # A store is not asked about what is called like a picture.
        if is_remote(path) and not kind_of_name(path):
            yield from _in_store(path, kind_of(path))
        else:
            yield from super()._behind_one(path)


def _in_store(place: str, kind: str) -> Iterator[InputFile]:
    if kind == "file":
        yield InputFile.named(place)
    elif kind == "folder":
        yield from _in_folder(place)
    elif MAGIC.search(place):
        yield from _in_pattern(place)
    else:
        raise FileNotFoundError(
            f"There is nothing at {place}: no object is called so or begins with it."
        )


def _in_folder(folder: str) -> Iterator[InputFile]:
    for name, is_folder in entries(folder):
        place = join(folder, name)
        if name.startswith("."):
            continue
        if not name:  # a key such as "/a.jpg"
            raise ValueError(
                f"{folder} has objects whose names begin with /, which cannot be opened, so its "
                "pictures would be missing: name its other folders one by one."
            )
        if is_folder:
            yield from _in_folder(place)
        elif kind := kind_of_name(name):
            yield InputFile(place, kind == "video")


def _in_pattern(pattern: str) -> Iterator[InputFile]:
    from fsspec.utils import glob_translate

    start = pattern[: MAGIC.search(pattern).start()].rpartition("/")[0]  # type: ignore[union-attr]
    fits = re.compile(glob_translate(pattern.removeprefix(f"{start}/")))
    for file in _in_folder(start):
        if fits.match(file.path.removeprefix(f"{start}/")):
            yield file


def _in_manifest(place: str) -> Iterator[str]:
    """The column ``path``; what is relative is so to the manifest's folder.

    Names that are no UTF-8 are spelled as in tables.
    """
    folder = place.rpartition("/")[0] if is_remote(place) else os.path.dirname(place)
    is_parquet = place.lower().endswith(".parquet")
    for path in map(on_disk, (_of_parquet if is_parquet else _of_csv)(place)):
        if is_remote(path) or is_url(path):
            yield path
        elif is_remote(folder) and not os.path.isabs(path):
            # A store knows neither "./a.jpg" nor "../a.jpg".
            store, key = ADDRESS.match(join(folder, path)).groups()  # type: ignore[union-attr]
            yield f"{store}/{posixpath.normpath(key)}"
        else:
            yield path_of(os.path.join(folder, path))


def _of_csv(place: str) -> Iterator[str]:
    try:
        lines = io.StringIO(read(place).decode("utf-8-sig"), newline="")
        reader = csv.DictReader(lines)
        _must_have_path(place, reader.fieldnames or [])
        yield from (row["path"] for row in reader if row["path"])
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{place} is not a readable CSV file: {error}") from None


def _of_parquet(place: str) -> Iterator[str]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        file: Any = ParquetFile(pyarrow.BufferReader(read(place)))
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{place} is not a readable Parquet file: {error}") from None
    _must_have_path(place, file.schema_arrow.names)
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=["path"]):
        for cell in filter(None, batch.column("path").to_pylist()):
            if not isinstance(cell, str | bytes):
                raise ValueError(
                    f"The column path of {place} has names as text. Received: {cell!r:.80}"
                )
            yield os.fsdecode(cell)


def _must_have_path(place: str, names: Sequence[str]) -> None:
    if "path" not in names:
        raise ValueError(
            f"{place} has no column path, which names the pictures. Received: {', '.join(names)}"
        )
