"""The pictures and videos of a job on many machines: as `Inputs`, and in object stores."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from faceattr.images.inputs import LIST_SUFFIXES, InputFile, Inputs, kind_of_name, paths_in
from faceattr.images.load import PathLike
from faceattr.inference import storage

MANIFEST_SUFFIXES = (".csv", ".parquet")
MAGIC = re.compile(r"[*?[]")
ROWS_AT_ONCE = 100_000


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
        if next(iter(self), None) is None:
            raise ValueError(f"There are no pictures in {', '.join(self.inputs)}.")

    def _must_exist(self, path: str) -> None:
        if not storage.is_remote(path):  # a store is asked when it is listed
            super()._must_exist(path)

    def _is_folder(self, path: str) -> bool:
        if storage.is_remote(path):
            return self._remote_kinds[path] == "folder"
        return super()._is_folder(path)

    @cached_property
    def _remote_kinds(self) -> dict[str, str]:
        remote = (place for place in self.inputs if storage.is_remote(place))
        return {place: storage.kind_of(place) for place in remote}

    def _behind(self, path: str) -> Iterator[InputFile]:
        suffix, is_remote = os.path.splitext(path)[1].lower(), storage.is_remote(path)
        if suffix in MANIFEST_SUFFIXES and (is_remote or os.path.isfile(path)):
            yield from map(_named, _in_manifest(path))
        elif is_remote and suffix in LIST_SUFFIXES:
            lines = storage.read(path).decode("utf-8-sig", "surrogateescape").splitlines()
            for line in paths_in(lines):
                yield from self._behind_one(line)
        elif is_remote:
            yield from _in_store(path, self._remote_kinds[path])
        else:
            yield from super()._behind(path)

    def _behind_one(self, path: str) -> Iterator[InputFile]:
        # A store is not asked about what is called like a picture.
        if storage.is_remote(path) and not kind_of_name(path):
            yield from _in_store(path, storage.kind_of(path))
        else:
            yield from super()._behind_one(path)


def _named(place: str) -> InputFile:
    return InputFile(place, kind_of_name(place) == "video")


def _in_store(place: str, kind: str) -> Iterator[InputFile]:
    if kind == "file":
        yield _named(place)
    elif kind == "folder":
        yield from _in_folder(place)
    elif MAGIC.search(place):
        yield from _in_pattern(place)
    else:
        raise FileNotFoundError(
            f"There is nothing at {place}: no object is called so or begins with it."
        )


def _in_folder(folder: str) -> Iterator[InputFile]:
    for name, is_folder in storage.entries(folder):
        place = storage.join(folder, name)
        if name.startswith("."):
            continue
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
    """The column ``path``; what is relative is so to the manifest's folder."""
    folder = place.rpartition("/")[0] if storage.is_remote(place) else os.path.dirname(place)
    is_parquet = place.lower().endswith(".parquet")
    for path in (_of_parquet if is_parquet else _of_csv)(place):
        is_whole = storage.is_remote(path) or os.path.isabs(path)
        yield path if is_whole or not folder else storage.join(folder, path)


def _of_csv(place: str) -> Iterator[str]:
    lines = io.StringIO(storage.read(place).decode("utf-8-sig"), newline="")
    reader = csv.DictReader(lines)
    _must_have_path(place, reader.fieldnames or [])
    yield from (row["path"] for row in reader if row["path"])


def _of_parquet(place: str) -> Iterator[str]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        file: Any = ParquetFile(pyarrow.BufferReader(storage.read(place)))
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{place} is not a readable Parquet file: {error}") from None
    _must_have_path(place, file.schema_arrow.names)
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=["path"]):
        yield from filter(None, batch.column("path").to_pylist())


def _must_have_path(place: str, names: Sequence[str]) -> None:
    if "path" not in names:
        raise ValueError(
            f"{place} has no column path, which names the pictures. Received: {', '.join(names)}"
        )
