"""Faces found in whole photographs, so that folders of photographs can be learnt from.

What a detector found in a file is kept beside the crops, by the file's content and the
detector: a later run only hashes the files.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from faceattr.data.crop_cache import default_folder
from faceattr.data.manifest import Example
from faceattr.detection.base import Detector, Face, enough
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
    about = json.dumps(dict(detector.about), sort_keys=True)
    digest.update(f"{FOUND_VERSION} {about}".encode())
    return digest.hexdigest()


def _look(example: Example, detector: Detector) -> list[Face] | None:
    try:
        picture = read_picture(example.path, enough(detector))
    except (OSError, ValueError):
        return None
    return [face.scaled(picture.scale) for face in detector(picture.image)]


def _recall(memory: sqlite3.Connection, key: str) -> list[Face] | None:
    row = memory.execute("SELECT faces FROM found WHERE key = ?", (key,)).fetchone()
    return None if row is None else [_face(fields) for fields in json.loads(row[0])]


def _face(fields: dict) -> Face:
    points = fields["landmarks"] and tuple(map(tuple, fields["landmarks"]))
    return Face(tuple(fields["box"]), points, fields["score"], fields["turn"])


def _keep(memory: sqlite3.Connection, found: dict[str, list[Face] | None]) -> None:
    rows = [
        (key, json.dumps([asdict(face) for face in faces]))
        for key, faces in found.items()
        if faces is not None
    ]
    with memory:
        memory.executemany("INSERT OR REPLACE INTO found VALUES (?, ?)", rows)
