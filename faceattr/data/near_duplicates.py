"""Faces that occur twice: pixel for pixel, or nearly.

Near-duplicates are crops whose normalised correlation is above 0.95 after both were made grey,
shrunk to 48 pixels, blurred by one pixel and cropped to the inner 40. All pairs are compared, and
none is missed: of unit vectors u and v the correlation is at most that of their coarse parts
plus the product of the lengths of what is left, so only pairs that pass this bound, found by
one matrix product over 101 numbers a face instead of 1,600, are compared in full.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pandas as pd
from scipy.fft import dct

from faceattr.data.crops import CachedCrops
from faceattr.data.dataset import LabeledDataset
from faceattr.data.splits import connected_sets
from faceattr.progress import SILENT, Progress

NEAR, SURE = 0.95, 0.8
SIDE, INNER, BLUR = 48, 40, 1.0
COARSE = 10  # lowest frequencies of the cosine transform in each direction
SLACK = 1e-4  # of float32 sums
TOGETHER = 2048  # pairs, or faces
CELLS = 1 << 24  # of a table of bounds: it does not grow with the number of faces
NEAR_DUPLICATE = "near_duplicate"  # a column that is worked out: is the face in train too?
IN_TRAIN, NOT_IN_TRAIN = "in train too", "not in train"


@dataclass(frozen=True)
class Pairs:
    """Pairs of similar faces: their places in the one and the other set and their normalised
    correlation, ``(m,)`` each.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class Fingerprints:
    """Crops as vectors whose scalar products are correlations: `fine` ``(n, 40, 40)`` of length 1
    (0 for a crop of one colour), and `coarse` ``(n, 101)``, its lowest frequencies and the length
    of the rest.
    """

    fine: np.ndarray
    coarse: np.ndarray

    def __len__(self) -> int:
        return len(self.fine)

    def mirrored(self) -> Fingerprints:
        # A mirrored wave of an odd number is its negative.
        signs = np.append(np.tile((-1.0) ** np.arange(COARSE), COARSE), 1).astype("float32")
        return Fingerprints(self.fine[:, :, ::-1], self.coarse * signs)


def fingerprints_of(crops: np.ndarray, index: np.ndarray) -> Fingerprints:
    """What some crops look like: RGB ``uint8`` ``(kept, size, size, 3)``, those at `index`."""
    fine = np.empty((len(index), INNER, INNER), "float32")
    coarse = np.empty((len(index), COARSE**2 + 1), "float32")
    waves = dct(np.eye(INNER), axis=0, norm="ortho")[:COARSE].astype("float32")
    for start in range(0, len(index), TOGETHER):
        some = slice(start, start + TOGETHER)
        faces = np.stack([_inner(crops[row]) for row in index[some]])
        faces -= faces.mean(axis=(1, 2), keepdims=True)
        lengths = np.linalg.norm(faces, axis=(1, 2), keepdims=True)
        faces /= np.where(lengths > SLACK, lengths, np.inf)
        low = (waves @ faces @ waves.T).reshape(-1, COARSE**2)
        left = np.square(faces).sum(axis=(1, 2)) - np.square(low).sum(axis=1)
        fine[some], coarse[some, :-1] = faces, low
        coarse[some, -1] = np.sqrt(np.maximum(left, 0))
    return Fingerprints(fine, coarse)


def _inner(face: np.ndarray, blur: float = BLUR) -> np.ndarray:
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    if len(grey) != SIDE:
        grey = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    edge = (SIDE - INNER) // 2
    return cv2.GaussianBlur(grey.astype("float32"), (0, 0), blur)[edge:-edge, edge:-edge]


def detail(face: np.ndarray, other: np.ndarray) -> float:
    """Correlation of what is finer than two pixels in two crops.

    Faces that were aligned by their landmarks have their shape in common, and may pass for
    near-duplicates. Of 1,037 such pairs of UTKFace and 1,760 of FER2013, looked at in samples:
    below 0.8 those of UTKFace are two people, above it one photograph; in FER2013, which is
    not aligned, most pairs below 0.8 are one photograph, shifted.
    """
    fine = [_inner(crop, BLUR) - _inner(crop, 2 * BLUR) for crop in (face, other)]
    one, two = (part - part.mean() for part in fine)
    lengths = float(np.linalg.norm(one) * np.linalg.norm(two))
    best = max(float((one * view).sum()) for view in (two, two[:, ::-1]))  # maybe mirrored
    return best / lengths if lengths > SLACK else 0.0


def near_pairs(
    faces: Fingerprints,
    others: Fingerprints | None = None,
    above: float = NEAR,
    progress: Progress = SILENT,
) -> Pairs:
    """All pairs whose correlation is above a limit, of one set or between two, each once; within a
    set the earlier face is `first`. A mirrored copy is a copy: training mirrors its crops.
    """
    right, within = (faces, True) if others is None else (others, False)
    views = right, right.mirrored()
    found = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0, "float32"))]
    step = max(1, min(TOGETHER, CELLS // max(len(right), 1)))
    for start in progress.track(range(0, len(faces), step), "looking for near-duplicates"):
        for view in views:
            found += _near(faces, slice(start, start + step), view, above, within)
    first, second, similarity = map(np.concatenate, zip(*found, strict=True))
    # A face that is nearly its own mirror image was found both ways: the higher value counts.
    order = np.lexsort((-similarity, second, first))
    _, new = np.unique(np.stack([first, second])[:, order], axis=1, return_index=True)
    return Pairs(first[order[new]], second[order[new]], similarity[order[new]])


def _near(
    left: Fingerprints, some: slice, right: Fingerprints, above: float, within: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of some faces of `left`."""
    offset = some.start if within else 0
    bound = left.coarse[some] @ right.coarse[offset:].T
    # In one long row: NumPy takes forty times as long to find what is true in a table.
    first, second = divmod(np.flatnonzero(bound > above - SLACK), bound.shape[1])
    first, second = first + some.start, second + offset
    if within:
        first, second = first[first < second], second[first < second]
    for place in range(0, len(first), TOGETHER):
        i, j = first[place : place + TOGETHER], second[place : place + TOGETHER]
        similarity = np.einsum("nhw,nhw->n", left.fine[i], right.fine[j])
        kept = similarity > above
        yield i[kept], j[kept], similarity[kept]


def hashes_of(crops: np.ndarray, index: np.ndarray) -> list[bytes]:
    """A short hash for each crop, the same for those that are equal pixel for pixel."""
    return [hashlib.blake2b(crops[i].tobytes(), digest_size=12).digest() for i in index]


def distinct(hashes: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The first place of each hash in order, and for each place the number of its hash.

    Copies of one face are compared once: their pairs grow with the square of their number.
    """
    numbers = pd.factorize(np.array(hashes, object))[0]
    return np.unique(numbers, return_index=True)[1], numbers


def near_duplicate_sets(cached: CachedCrops, progress: Progress = SILENT) -> np.ndarray:
    """For each example a number that it shares with its near-duplicates alone, ``(n,)``."""
    usable = np.flatnonzero(cached.rows >= 0)
    firsts, of_row = distinct(hashes_of(cached.array, cached.rows[usable]))
    first_rows = usable[firsts]
    faces = fingerprints_of(cached.array, cached.rows[first_rows])
    pairs = near_pairs(faces, progress=progress)
    same = np.column_stack([usable, first_rows[of_row]])
    near = first_rows[np.column_stack([pairs.first, pairs.second])]
    rows = np.arange(len(cached.rows))
    return connected_sets([rows], np.concatenate([same, near]))


def find_near_duplicates(
    rows: LabeledDataset, others: LabeledDataset, progress: Progress = SILENT
) -> np.ndarray:
    """Which rows show a face that is also, or nearly, among other rows, ``bool`` ``(n,)``."""
    hashes, known = (hashes_of(part.crops, part.index) for part in (rows, others))
    found = np.isin(np.array(hashes, "S12"), np.array(known, "S12"))
    firsts, of_row = distinct(hashes)
    left = firsts[~found[firsts]]
    one = fingerprints_of(rows.crops, rows.index[left])
    other = fingerprints_of(others.crops, others.index[distinct(known)[0]])
    near = left[near_pairs(one, other, progress=progress).first]
    return found | np.isin(of_row, of_row[near])


def mark_near_duplicates(
    rows: LabeledDataset, train: LabeledDataset, progress: Progress = SILENT
) -> LabeledDataset:
    """Rows with a column `NEAR_DUPLICATE`: whether the same face, or nearly it, is in train."""
    if not len(train):
        raise ValueError(
            f"--by {NEAR_DUPLICATE} compares with rows of split train, and there are none."
        )
    found = find_near_duplicates(rows, train, progress)
    words = np.where(found, IN_TRAIN, NOT_IN_TRAIN).tolist()
    marked = [
        replace(example, metadata={**example.metadata, NEAR_DUPLICATE: word})
        for example, word in zip(rows.examples, words, strict=True)
    ]
    return replace(rows, examples=marked)
