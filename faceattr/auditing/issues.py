"""What an audit gives: findings of a few kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from faceattr.data.dataset import Rows
from faceattr.data.manifest import Example
from faceattr.tasks import Task

UNREADABLE, NO_FACE = "unreadable pictures", "pictures without a face"
EXACT_ACROSS, NEAR_ACROSS = "exact copies in another split", "near copies in another split"
EXACT_WITHIN, NEAR_WITHIN = "exact copies in one split", "near copies in one split"
EXACT_OTHERWISE, NEAR_OTHERWISE = "same pixels, two labels", "near copies, two labels"
GROUP_ACROSS, FEW_ROWS, SWAPPED = "groups in two splits", "few faces of a class", "swapped names"
NAMES_ALIKE, NAMES_UNKNOWN = "classes that may be one", "classes that may mean unknown"
PHOTOGRAPHS = "whole photographs, it seems"
KINDS = (
    *(UNREADABLE, NO_FACE, EXACT_ACROSS, NEAR_ACROSS, GROUP_ACROSS, EXACT_OTHERWISE),
    *(NEAR_OTHERWISE, EXACT_WITHIN, NEAR_WITHIN, FEW_ROWS, SWAPPED),
    *(NAMES_ALIKE, NAMES_UNKNOWN, PHOTOGRAPHS),
)
# What makes a score untrue or teaches what is wrong; the rest may be as somebody wants it.
SERIOUS = (
    EXACT_ACROSS,
    NEAR_ACROSS,
    GROUP_ACROSS,
    EXACT_OTHERWISE,
    SWAPPED,
)
# What is told in words, and of which there is no row to name.
IN_WORDS = (FEW_ROWS, NAMES_ALIKE, NAMES_UNKNOWN, PHOTOGRAPHS)
UNSPLIT = "unsplit"  # a row of which nobody has said where it belongs
Counts = Mapping[str, Mapping[str, Mapping[str, float]]]
Totals = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Finding:
    """One thing that is, or may be, wrong.

    Args:
        kind: One of `KINDS`.
        where: Splits, task or class that it concerns.
        example: The face.
        other: The face that it is held against.
        similarity: Their correlation; 1 for equal pixels.
        detail: Their correlation in what is finer than two pixels.
        words: What there is to say of it.
        rows: Places of both among the faces that were looked at.
    """

    kind: str
    where: str
    example: Example | None = None
    other: Example | None = None
    similarity: float | None = None
    detail: float | None = None
    words: str = ""
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Args:
        sources: What was audited, without where it lies.
        tasks: What is labelled.
        rows: The faces that could be looked at, in the order of the sources.
        counts: Labelled faces by task, split and class.
        findings: All that is, or may be, wrong.
        left_out: Rows that no source gave, by reason.
    """

    sources: tuple[str, ...]
    tasks: tuple[Task, ...]
    rows: Rows
    counts: Counts
    findings: tuple[Finding, ...]
    left_out: Mapping[str, int]

    @property
    def totals(self) -> Totals:
        """How many findings there are."""
        return totals(self.findings)

    @property
    def is_serious(self) -> bool:
        """Whether something makes scores untrue or teaches what is wrong."""
        return any(finding.kind in SERIOUS for finding in self.findings)


def totals(findings: Iterable[Finding]) -> Totals:
    """Findings by kind and where, in the order of `KINDS`."""
    found = Counter((finding.kind, finding.where) for finding in findings)
    return {key: found[key] for key in sorted(found, key=lambda key: KINDS.index(key[0]))}
