"""Files wherever they lie: in folders, and in object stores by the file systems of pyarrow.

A place is the path of a file or a folder, or an address such as ``s3://bucket/photos``. A file
in an object store is there when it is whole; in a folder it gets its name when it is. Where a store
refuses or cannot be asked, an OSError says so in one sentence.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from faceattr.files import replace_durably
from faceattr.images.fetch import is_url

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+://[^/]*)/?(.*)", re.DOTALL | re.IGNORECASE)
# What a driver of pyarrow adds to what the store said.
NOISE = re.compile(r"\s*\(Request ID: \S+\)|\s*Detail: .*$|\[Errno \d+\] ", re.DOTALL)


def is_remote(place: str) -> bool:
    """Whether a place is in an object store rather than in a folder."""
    return ADDRESS.match(place) is not None and not is_url(place)


def place_of(name: str) -> str:
    """What two spellings of an input have in common."""
    return name if is_remote(name) else os.path.abspath(name)


def join(folder: str, name: str) -> str:
    """The place of a name in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)


def entries(folder: str) -> list[tuple[str, bool]]:
    """Names in a folder and whether they are folders, in order; none where there is no folder."""
    from pyarrow.fs import FileSelector, FileType

    system, path = _opened(folder)
    with _told(folder, "listed"):
        found = system.get_file_info(FileSelector(path, allow_not_found=True))
    return sorted((info.base_name, info.type == FileType.Directory) for info in found)


def kind_of(place: str) -> str:
    """``"file"``, ``"folder"`` or nothing."""
    from pyarrow.fs import FileType

    system, path = _opened(place)
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
    # Two workers may write one file at once: each has a name of its own until it is whole.
    part = f"{path}.{uuid.uuid4().hex}.part"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(part, "wb") as file:
            file.write(content)
        replace_durably(part, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def delete(place: str) -> None:
    """Delete a file, if it is there."""
    system, path = _opened(place)
    with contextlib.suppress(FileNotFoundError), _told(place, "deleted"):
        system.delete_file(path)


def _opened(place: str) -> tuple[FileSystem, str]:
    """The file system of a place and what the place is called in it."""
    from pyarrow.fs import LocalFileSystem

    address = ADDRESS.match(place)
    if address is None:
        return LocalFileSystem(), os.path.abspath(place)
    # Keys are no URIs: spaces and "%" are their own.
    system, root = _of_root(address[1])
    return system, "/".join(part for part in (root.rstrip("/"), address[2].rstrip("/")) if part)


@lru_cache
def _of_root(root: str) -> tuple[FileSystem, str]:
    import pyarrow
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        return FileSystem.from_uri(root)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        pass  # a store that pyarrow does not know
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
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(2, "No such file or directory", place) from None
    except OSError as error:
        reason = error.strerror or " ".join(NOISE.sub("", str(error)).split()).rstrip(".")
        cure = "; see its name, and the rights of this machine's account" * is_remote(place)
        raise OSError(f"{place} cannot be {what}: {reason}{cure}.") from error
