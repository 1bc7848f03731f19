"""Faces that occur twice: pixel for pixel, or nearly.

Near twins are crops whose normalised correlation is above 0.95 after both were made grey,
shrunk to 48 pixels, blurred by one pixel and cut to the inner 40. All pairs are compared, and
none is missed: of unit vectors u and v the correlation is at most that of their coarse parts
plus the product of the lengths of what is left, so only pairs that pass this bound, found by
one matrix product over 101 numbers a face instead of 1,600, are compared in full.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from scipy.fft import dct

from faceattr.data.dataset import LabeledDataset
from faceattr.data.manifest import Example
from faceattr.data.splits import bipartite_components, component_labels
from faceattr.data.store import cache_crops
from faceattr.images.crop import CropRule

NEAR, SURE = 0.95, 0.8
SIDE, INNER, BLUR = 48, 40, 1.0
COARSE = 10  # lowest frequencies of the cosine transform in each direction
SLACK = 1e-4  # of float32 sums
TOGETHER = 2048  # faces


@dataclass(frozen=True)
class Pairs:
    """Pairs of faces that look alike.

    Args:
        first: Places in the one set, ``(m,)``.
        second: Places in the other set, ``(m,)``.
        similarity: Normalised correlation, ``(m,)``.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class Fingerprints:
    """What crops look like, as vectors whose scalar products are correlations.

    Args:
        fine: ``float32`` ``(n, 1600)``, of length 1; of length 0 for a crop of one colour.
        coarse: Its lowest frequencies and the length of the rest, ``(n, 101)``.
    """

    fine: np.ndarray
    coarse: np.ndarray

    def __len__(self) -> int:
        return len(self.fine)


def fingerprints_of(crops: np.ndarray, index: np.ndarray) -> Fingerprints:
    """What crops look like.

    Args:
        crops: RGB ``uint8`` of shape ``(kept, size, size, 3)``.
        index: Which of them, ``(n,)``.
    """
    fine = np.empty((len(index), INNER, INNER), "float32")
    for place, number in enumerate(index):
        fine[place] = _inner(crops[number])
    fine -= fine.mean(axis=(1, 2), keepdims=True)
    lengths = np.linalg.norm(fine, axis=(1, 2), keepdims=True)
    fine /= np.where(lengths > SLACK, lengths, np.inf)
    waves = dct(np.eye(INNER), axis=0, norm="ortho")[:COARSE].astype("float32")
    low = (waves @ fine @ waves.T).reshape(len(index), COARSE**2)
    flat = fine.reshape(len(index), INNER**2)
    left = np.square(flat).sum(axis=1) - np.square(low).sum(axis=1)
    return Fingerprints(flat, np.column_stack([low, np.sqrt(np.maximum(left, 0))]))


def _inner(face: np.ndarray, blur: float = BLUR) -> np.ndarray:
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    if len(grey) != SIDE:
        grey = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    edge = (SIDE - INNER) // 2
    return cv2.GaussianBlur(grey.astype("float32"), (0, 0), blur)[edge:-edge, edge:-edge]


def detail(face: np.ndarray, other: np.ndarray) -> float:
    """Correlation of what is finer than two pixels in two crops.

    Faces that were aligned by their landmarks have their shape in common, and may pass for
    near twins. Of 1,037 such pairs of UTKFace and 1,760 of FER2013, looked at in samples:
    below 0.8 those of UTKFace are two people, above it one photograph; in FER2013, which is
    not aligned, most pairs below 0.8 are one photograph, shifted.
    """
    fine = [_inner(crop, BLUR) - _inner(crop, 2 * BLUR) for crop in (face, other)]
    one, two = (part - part.mean() for part in fine)
    lengths = float(np.linalg.norm(one) * np.linalg.norm(two))
    best = max(float((one * view).sum()) for view in (two, two[:, ::-1]))  # maybe mirrored
    return best / lengths if lengths > SLACK else 0.0


def near_pairs(
    looks: Fingerprints, others: Fingerprints | None = None, above: float = NEAR
) -> Pairs:
    """All pairs whose correlation is above a limit, of one set or between two.

    A mirrored copy is a copy: training mirrors its crops.

    Returns:
        Each pair once; within one set the earlier face is `first`.
    """
    nothing = np.zeros(0, int), np.zeros(0, int), np.zeros(0, "float32")
    found = [nothing, *_near(looks, others, above), *_near(looks, others, above, mirrored=True)]
    first, second, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
    # A face that is nearly its own mirror image was found both ways: the higher value counts.
    order = np.lexsort((-similarity, second, first))
    first, second, similarity = first[order], second[order], similarity[order]
    new = np.ones(len(first), bool)
    new[1:] = (np.diff(first) != 0) | (np.diff(second) != 0)
    return Pairs(first[new], second[new], similarity[new])


def _mirrored(fine: np.ndarray) -> np.ndarray:
    return fine.reshape(-1, INNER, INNER)[:, :, ::-1].reshape(len(fine), INNER**2)


def _near(
    looks: Fingerprints, others: Fingerprints | None, above: float, *, mirrored: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    right = looks if others is None else others
    # A mirrored wave of an odd number is its negative.
    signs = np.append(np.tile((-1.0) ** np.arange(COARSE), COARSE), 1).astype("float32")
    coarse = right.coarse * signs if mirrored else right.coarse
    for start in range(0, len(looks), TOGETHER):
        offset = start if others is None else 0
        bound = looks.coarse[start : start + TOGETHER] @ coarse[offset:].T
        first, second = np.nonzero(bound > above - SLACK)
        first, second = first + start, second + offset
        if others is None:
            first, second = first[first < second], second[first < second]
        for place in range(0, len(first), TOGETHER):
            i, j = first[place : place + TOGETHER], second[place : place + TOGETHER]
            fine = _mirrored(right.fine[j]) if mirrored else right.fine[j]
            similarity = np.einsum("nd,nd->n", looks.fine[i], fine)
            kept = similarity > above
            yield i[kept], j[kept], similarity[kept]


def hashes_of(crops: np.ndarray, index: np.ndarray) -> list[bytes]:
    """A short hash for each crop, the same for those that are equal pixel for pixel."""
    return [hashlib.blake2b(crops[i].tobytes(), digest_size=12).digest() for i in index]


def find_near_duplicates(
    rows: LabeledDataset, others: LabeledDataset, above: float = NEAR
) -> np.ndarray:
    """Which rows show a face that is also, or nearly, among other rows.

    Args:
        rows: For example those of val.
        others: For example those of train.
        above: The least correlation of near twins; 1 asks for equal pixels alone.

    Returns:
        ``bool`` of shape ``(len(rows),)``.
    """
    known = set(hashes_of(others.crops, others.index))
    found = np.array([mark in known for mark in hashes_of(rows.crops, rows.index)], bool)
    if above < 1 and len(others):
        pairs = near_pairs(
            fingerprints_of(rows.crops, rows.index),
            fingerprints_of(others.crops, others.index),
            above,
        )
        found[pairs.first] = True
    return found


def photographs(
    examples: Sequence[Example],
    rule: CropRule,
    cache: Path | None = None,
    progress: Iterable[Example] | None = None,
) -> np.ndarray:
    """For each example a number that it shares with its twins alone.

    Args:
        examples: Faces; one whose picture cannot be read has no twins.
        rule: How they are cut.
        cache: Folder of the crop cache.
        progress: As for `cache_crops`.
    """
    cached = cache_crops(examples, rule, cache, progress)
    usable = np.flatnonzero(cached.rows >= 0)
    pairs = near_pairs(fingerprints_of(cached.array, cached.rows[usable]))
    near = np.column_stack([pairs.first, pairs.second])
    equal = bipartite_components(hashes_of(cached.array, cached.rows[usable]))
    return component_labels(len(examples), usable[np.concatenate([near, equal])])


class NearDuplicates:
    """Which of the rows show the same face.

    Args:
        rows: Labelled crops with their examples.
    """

    def __init__(self, rows: LabeledDataset) -> None:
        self.rows = rows
        marks = hashes_of(rows.crops, rows.index)
        numbers = {mark: number for number, mark in enumerate(dict.fromkeys(marks))}
        # Rows that are equal pixel for pixel are one face.
        self.face = np.array([numbers[mark] for mark in marks], int)
        self._rows_of: dict[int, list[int]] = defaultdict(list)
        for row, face in enumerate(self.face.tolist()):
            self._rows_of[face].append(row)

    @cached_property
    def pairs(self) -> Pairs:
        """Faces that are nearly alike, by number."""
        firsts = [rows[0] for rows in self._rows_of.values()]
        return near_pairs(fingerprints_of(self.rows.crops, self.rows.index[firsts]))

    def same(self) -> Iterator[list[int]]:
        """Rows that are equal pixel for pixel, where there are several."""
        return (rows for rows in self._rows_of.values() if len(rows) > 1)

    def are_equal(self, row: int, other: int) -> bool:
        """Whether two rows are equal pixel for pixel."""
        return bool(self.face[row] == self.face[other])

    def detail(self, row: int, other: int) -> float:
        """How far two faces agree in what is finer than their shape, see `twins.detail`."""
        crops, index = self.rows.crops, self.rows.index
        return detail(crops[index[row]], crops[index[other]])

    def rows_of(self, face: int) -> list[int]:
        """The rows that show a face."""
        return self._rows_of[int(face)]

    def near(self) -> Iterator[tuple[int, int, float]]:
        """Pairs of faces and their correlation, the most similar first."""
        order = np.argsort(-self.pairs.similarity, kind="stable")
        columns = (self.pairs.first, self.pairs.second, self.pairs.similarity)
        return zip(*(column[order].tolist() for column in columns), strict=True)
