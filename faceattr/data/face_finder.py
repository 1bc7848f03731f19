"""Looking at the pictures while labels are read: which faces, and which of them are alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from faceattr.data import console
from faceattr.data.find_faces import Search, find_faces
from faceattr.data.manifest import Example, Manifest, Source
from faceattr.data.near_duplicates import photographs
from faceattr.detection.base import Detector
from faceattr.images.crop import CropRule

Read = TypeVar("Read", Source, Manifest)


@dataclass(frozen=True)
class Look:
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
