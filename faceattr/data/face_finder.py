"""Finding the faces of labelled photographs, and faces that several of them have in common."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from faceattr.data.crops import cache_crops, content_hash
from faceattr.data.manifest import Example, Source, listed
from faceattr.data.near_duplicates import near_duplicate_sets
from faceattr.data.store import Store, crops_folder, open_store
from faceattr.detection.base import Detector, Face, min_decode_size
from faceattr.images.crop import CropRule
from faceattr.images.load import read_picture
from faceattr.progress import SILENT, Progress

FOUND_VERSION = 1  # of how images are read for a detector; another one detects anew
BATCH = 64  # images whose faces are written at once


@dataclass(frozen=True)
class Search:
    """What came of looking for faces: the labelled faces (an image that cannot be read stays as it
    was), images without a face, and how many have several, of which the largest counts.
    """

    examples: tuple[Example, ...]
    without: tuple[Example, ...] = ()
    crowded: int = 0

    def lines(self) -> Iterator[str]:
        """What somebody must know of it, a line each."""
        if self.without:
            names = listed(self.without)
            yield f"left out: {len(self.without):,} (no face found: {names})"
        if self.crowded:
            yield f"note: of {self.crowded:,} images with several faces the largest counts"


def find_faces(
    examples: Sequence[Example],
    detector: Detector,
    cache: str | Path | None = None,
    progress: Progress = SILENT,
) -> Search:
    """Find the largest face of every labelled image, as `faceattr label` would find it.

    Images that have a box, or hold their pixels (faces already cropped), are left as they are.
    The crop cache keeps what was found.
    """
    kept: list[Example] = []
    without: list[Example] = []
    crowded = 0
    ahead = progress.track(examples, "finding faces")
    with open_store(crops_folder(cache)) as store:
        for example, faces in _faces_of(ahead, detector, store):
            if faces:
                largest = max(faces, key=lambda face: face.side)
                kept.append(replace(example, box=largest.box, landmarks=largest.landmarks))
                crowded += len(faces) > 1
            else:
                (kept if faces is None else without).append(example)
    return Search(tuple(kept), tuple(without), crowded)


def _faces_of(
    examples: Iterable[Example], detector: Detector, store: Store
) -> Iterator[tuple[Example, Sequence[Face] | None]]:
    """Each example with its faces; None where there is nothing to find or to read."""
    ahead = iter(examples)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(ahead, BATCH)):
            keys = list(pool.map(lambda example: _key(example, detector), batch))
            found = {key: [_face(*one) for one in of] for key, of in store.faces(keys).items()}
            new = {k: e for k, e in zip(keys, batch, strict=True) if k and k not in found}
            made = zip(new, pool.map(lambda e: _detect(e, detector), new.values()), strict=True)
            detected = {key: faces for key, faces in made if faces is not None}
            fields = {k: [(f.box, f.landmarks, f.score) for f in of] for k, of in detected.items()}
            store.put_faces(fields)
            found |= detected
            yield from ((e, found.get(key)) for key, e in zip(keys, batch, strict=True))


def _key(example: Example, detector: Detector) -> str:
    """Content of the file and detector; empty where there is nothing to look for."""
    if example.box is not None or example.pixels is not None:
        return ""
    about = json.dumps(dict(detector.provenance), sort_keys=True)
    return content_hash(example, f"{FOUND_VERSION} {about}")


def _detect(example: Example, detector: Detector) -> list[Face] | None:
    try:
        read = read_picture(example.path, min_decode_size(detector))
    except (OSError, ValueError):
        return None
    return [face.scaled(read.scale) for face in detector(read.image)]


def _face(box: list, landmarks: list | None, score: float) -> Face:
    points = None if landmarks is None else tuple(map(tuple, landmarks))
    return Face(tuple(box), points, score)  # type: ignore[arg-type]


@dataclass(frozen=True)
class FaceFinder:
    """How the faces of labelled images are found and cropped.

    Without a `detector` the images are faces. `photographs` are the sources whose images are whole
    photographs; None: all are, where there is a detector. `cache` is the folder of the crop cache.
    """

    rule: CropRule = field(default_factory=CropRule)
    detector: Detector | None = None
    cache: Path | None = None
    photographs: Collection[str] | None = None

    def search(self, examples: Sequence[Example], progress: Progress = SILENT) -> Search:
        """The faces of labelled images."""
        if self.detector is None:
            return Search(tuple(examples))
        names = self.photographs
        whole = [e for e in examples if names is None or e.source in names]
        faces = [e for e in examples if names is not None and e.source not in names]
        search = find_faces(whole, self.detector, self.cache, progress) if whole else Search(())
        return replace(search, examples=(*faces, *search.examples))

    def faces_of(self, source: Source, progress: Progress = SILENT) -> Source:
        """The same source with faces in place of photographs; shows what is lost."""
        search = self.search(source.examples, progress)
        for line in search.lines():
            progress.show(line)
        if source.examples and not search.examples:
            raise ValueError(
                f"No face was found in any of {len(source.examples):,} images. If they are faces "
                "already cropped, leave --find-faces out."
            )
        return replace(source, examples=search.examples)

    def near_duplicates(
        self, examples: Sequence[Example], progress: Progress = SILENT
    ) -> np.ndarray:
        """For each example a number that it shares with its near-duplicates alone, ``(n,)``; one
        whose image cannot be read has none."""
        cached = cache_crops(examples, self.rule, self.cache, progress)
        return near_duplicate_sets(cached, progress)
