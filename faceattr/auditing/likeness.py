"""Which labelled faces are the same, or nearly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from faceattr.data.dataset import Rows
from faceattr.data.near_duplicates import Pairs, detail, looks_of, near_pairs, prints_of


class Likenesses:
    """Which of the rows show the same face.

    Args:
        rows: Labelled crops with their examples.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        marks = prints_of(rows.crops, rows.index)
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
        return near_pairs(looks_of(self.rows.crops, self.rows.index[firsts]))

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
