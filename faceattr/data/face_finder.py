"""Looking at the pictures while labels are read: which faces, and which of them are alike."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from faceattr.data import console
from faceattr.data.manifest import Example, Manifest, Source
from faceattr.data.near_duplicates import photographs
from faceattr.data.store import default_folder
from faceattr.detection.base import Detector, Face, min_decode_size
from faceattr.images.crop import CropRule
from faceattr.images.load import read_picture

FACES = "faces.sqlite"
FOUND_VERSION = 1  # of how pictures are read for a detector; another one needs another look
TOGETHER = 64  # pictures between two commits
NAMED = 20  # pictures in a line for people


@dataclass(frozen=True)
class Search:
    """What came of looking for faces.

    Args:
        examples: The labelled faces. A picture that cannot be read stays as it was.
        without: Labelled pictures in which no face was found; they are not among the examples.
        crowded: How many pictures have more than one face, of which the largest was taken.
    """

    examples: tuple[Example, ...]
    without: tuple[Example, ...] = ()
    crowded: int = 0

    def lines(self) -> list[str]:
        """What somebody must know of it, a line each."""
        told = []
        if self.without:
            names = [str(example.path) for example in self.without]
            more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
            shown = ", ".join(names[:NAMED])
            told.append(f"left out: {len(names):,} (no face found: {shown}{more})")
        if self.crowded:
            told.append(f"note: of {self.crowded:,} pictures with several faces the largest counts")
        return told


def find_faces(
    examples: Sequence[Example],
    detector: Detector,
    folder: Path | None = None,
    progress: Iterable[Example] | None = None,
) -> Search:
    """Find the largest face of every labelled picture, as `faceattr label` would find it.

    Args:
        examples: Labelled pictures. Those that have a box, or hold their pixels (faces
            already cut out), are left as they are.
        detector: What finds faces.
        folder: Where it is kept what was found; that of the crop cache unless given.
        progress: `examples` wrapped in a progress bar, if one shall be shown.
    """
    folder = folder or default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[Example] = []
    without: list[Example] = []
    crowded = 0
    with _memory(folder / FACES) as memory:
        for example, faces in _looked_at(progress or examples, detector, memory):
            if faces is None:
                kept.append(example)
            elif faces:
                kept.append(_of_largest(example, faces))
                crowded += len(faces) > 1
            else:
                without.append(example)
    return Search(tuple(kept), tuple(without), crowded)


@contextmanager
def _memory(path: Path) -> Iterator[sqlite3.Connection]:
    """What was found before."""
    try:
        with closing(sqlite3.connect(path, timeout=60)) as memory:
            memory.execute("CREATE TABLE IF NOT EXISTS found (key TEXT PRIMARY KEY, faces TEXT)")
            yield memory
    except sqlite3.Error as error:
        raise OSError(
            f"{path} cannot be used ({error}). Delete it; faces are searched anew."
        ) from None


def _of_largest(example: Example, faces: Sequence[Face]) -> Example:
    face = max(faces, key=lambda face: face.side)
    return replace(example, box=face.box, landmarks=face.landmarks)


def _looked_at(
    examples: Iterable[Example], detector: Detector, memory: sqlite3.Connection
) -> Iterator[tuple[Example, Sequence[Face] | None]]:
    """Each example with its faces; None where there is nothing to find or to read."""
    iterator = iter(examples)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(iterator, TOGETHER)):
            keys = list(pool.map(lambda example: _key(example, detector), batch))
            found = {key: _recall(memory, key) for key in keys if key}
            new = {k: e for k, e in zip(keys, batch, strict=True) if k and found[k] is None}
            seen = list(pool.map(lambda example: _look(example, detector), new.values()))
            found |= dict(zip(new, seen, strict=True))
            _keep(memory, {key: found[key] for key in new})
            for key, example in zip(keys, batch, strict=True):
                yield example, found.get(key)


def _key(example: Example, detector: Detector) -> str:
    """Content of the file and detector; empty where there is nothing to look for."""
    if example.box is not None or example.pixels is not None:
        return ""
    try:
        digest = hashlib.sha256(example.path.read_bytes())
    except OSError:
        return ""
    about = json.dumps(dict(detector.provenance), sort_keys=True)
    digest.update(f"{FOUND_VERSION} {about}".encode())
    return digest.hexdigest()


def _look(example: Example, detector: Detector) -> list[Face] | None:
    try:
        picture = read_picture(example.path, min_decode_size(detector))
    except (OSError, ValueError):
        return None
    return [face.scaled(picture.scale) for face in detector(picture.image)]


def _recall(memory: sqlite3.Connection, key: str) -> list[Face] | None:
    row = memory.execute("SELECT faces FROM found WHERE key = ?", (key,)).fetchone()
    return None if row is None else [_face(fields) for fields in json.loads(row[0])]


def _face(fields: dict) -> Face:
    rotation = fields.get("rotation", fields.get("turn", 0))  # as it was called before
    points = fields["landmarks"] and tuple(map(tuple, fields["landmarks"]))
    return Face(tuple(fields["box"]), points, fields["score"], rotation)


def _keep(memory: sqlite3.Connection, found: dict[str, list[Face] | None]) -> None:
    rows = [
        (key, json.dumps([asdict(face) for face in faces]))
        for key, faces in found.items()
        if faces is not None
    ]
    with memory:
        memory.executemany("INSERT OR REPLACE INTO found VALUES (?, ?)", rows)


Read = TypeVar("Read", Source, Manifest)


@dataclass(frozen=True)
class FaceFinder:
    """How pictures are looked at.

    Args:
        rule: How faces are cut.
        detector: Finds the faces in whole photographs; None: the pictures are faces.
        cache: Folder of the crop cache.
        photographs: Names of the sources whose pictures are whole photographs; None: all are,
            where there is a detector.
    """

    rule: CropRule = field(default_factory=CropRule)
    detector: Detector | None = None
    cache: Path | None = None
    photographs: Collection[str] | None = None

    def search(self, examples: Sequence[Example]) -> Search:
        """The faces of labelled pictures, with a progress bar."""
        if self.detector is None:
            return Search(tuple(examples))
        names = self.photographs
        whole = [e for e in examples if names is None or e.source in names]
        bar = console.track(whole, "finding faces")
        search = find_faces(whole, self.detector, self.cache, bar) if whole else Search(())
        cut = [e for e in examples if names is not None and e.source not in names]
        return replace(search, examples=(*cut, *search.examples))

    def faces_of(self, read: Read) -> Read:
        """The same source or manifest with faces in place of photographs; prints what is lost.

        Raises:
            ValueError: No picture has a face.
        """
        search = self.search(read.examples)
        console.print_lines(search.lines())
        if read.examples and not search.examples:
            raise ValueError(
                f"No face was found in any of {len(read.examples):,} pictures. If they are faces "
                "already cut out, leave --find-faces out."
            )
        return replace(read, examples=search.examples)

    def alike(self, examples: Sequence[Example]) -> np.ndarray:
        """Numbers that twins share, see `faceattr.data.near_duplicates.photographs`."""
        bar = console.track(examples, "cutting faces")
        return photographs(examples, self.rule, self.cache, bar)
