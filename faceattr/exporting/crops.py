"""The crops that an exported file is proved on, and those an int8 one is measured on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from faceattr.data.dataset import Rows
from faceattr.data.label_map import AS_WRITTEN, Spelling
from faceattr.data.manifest import Example, Manifest
from faceattr.data.sources import read_labelled, without_folders
from faceattr.evaluation.report import read_rows
from faceattr.model.file import Description

FEWEST = 100  # for int8: of fewer, one changed answer would be more than is allowed
CALIBRATING = 300
MADE = 256


@dataclass(frozen=True)
class Shown:
    """Crops for an export.

    Args:
        rows: What network and file are compared on, with whatever labels are known.
        about: What they are, in words.
        calibrating: Other real crops ``(n, size, size, 3)`` to measure int8's ranges on; None
            for float32.
    """

    rows: Rows
    about: str
    calibrating: np.ndarray | None = None


def choose_crops(
    sources: Sequence[str],
    description: Description,
    most: int,
    cache: str | Path | None = None,
    *,
    int8: bool = False,
    spelling: Spelling = AS_WRITTEN,
) -> Shown:
    """Choose what an export is proved on.

    Args:
        sources: Labelled faces, see `faceattr.data.sources.read_source`; one without val
            rows gives a fifth of its rows, as in training. With none, pictures are made.
        description: The model's tasks and crop rule.
        most: Rows of val for each task.
        cache: Folder of the crop cache.
        int8: Take crops of train rows for calibration as well.
        spelling: How the sources' labels are to be understood.

    Raises:
        ValueError: The sources have no task of the model, int8 has too few crops, or labels
            are spelt and there are none.
    """
    if not sources:
        if int8:
            raise ValueError(
                "int8 is measured and proved on real faces: give labelled ones, for example "
                f"--on {description.tasks[0].name}=FOLDER."
            )
        if spelling != AS_WRITTEN:
            raise ValueError("Made pictures have no labels to spell: give labelled faces by --on.")
        rows = made(description.crop.size)
        return Shown(rows, f"{len(rows)} made pictures, which are no faces")
    known = {task.name: task for task in description.tasks}
    manifest = read_labelled(sources, known, spelling, aside=True)
    names = [task.name for task in description.tasks if task in manifest.tasks]
    val = _rows(_chosen(manifest, "val", names, most), manifest, description, cache)
    about = f"{len(val):,} faces of {', '.join(map(without_folders, sources))} (val)"
    if not int8:
        return Shown(val, about)
    chosen = _chosen(manifest, "train", names, CALIBRATING // len(names))
    train = _rows(chosen, manifest, description, cache)
    if min(len(val), len(train)) < FEWEST:
        raise ValueError(
            f"int8 needs at least {FEWEST} faces to measure ranges on and {FEWEST} others to "
            f"prove it on. Received: {len(train)} of train and {len(val)} of val."
        )
    return Shown(val, about, train.crops[train.index])


def _chosen(manifest: Manifest, split: str, names: Iterable[str], most: int) -> list[Example]:
    """For each task up to `most` examples of a split that know it, none twice."""
    examples = manifest.only(split)
    chosen: set[int] = set()
    for name in names:
        knowing = [i for i, example in enumerate(examples) if example.labels.get(name)]
        chosen.update(np.random.default_rng(0).permutation(knowing)[:most].tolist())
    return [examples[i] for i in sorted(chosen)]


def _rows(
    examples: Sequence[Example],
    manifest: Manifest,
    description: Description,
    cache: str | Path | None,
) -> Rows:
    rows, _ = read_rows(examples, manifest.tasks, description.crop, cache)
    if not len(rows):
        raise ValueError("None of the pictures given can be read, so nothing can be proved.")
    return rows


def made(side: int) -> Rows:
    """Coloured clouds of every coarseness, for a float file and nobody's pictures.

    They tell whether two programs compute the same function, and nothing about faces.
    """
    generator = np.random.default_rng(0)
    crops = np.empty((MADE, side, side, 3), "uint8")
    for number in range(MADE):
        grain = 2 + number % (side - 1)
        coarse = generator.integers(0, 256, (grain, grain, 3), dtype="uint8")
        crops[number] = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return Rows(crops, np.arange(MADE), {})
