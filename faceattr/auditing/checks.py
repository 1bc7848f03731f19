"""What can be wrong with labelled faces: each check takes them and gives findings."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from faceattr.data.dataset import DatasetSummary, LabeledDataset, summarize
from faceattr.data.manifest import SPLITS, Example
from faceattr.data.near_duplicates import (
    SURE,
    detail,
    distinct,
    fingerprints_of,
    hashes_of,
    near_pairs,
)
from faceattr.evaluation.metrics import FEW_OF_A_CLASS
from faceattr.progress import SILENT, Progress
from faceattr.tasks import KNOWN_TASKS, Task

UNREADABLE, NO_FACE = "unreadable images", "images without a face"
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
SERIOUS = (EXACT_ACROSS, NEAR_ACROSS, GROUP_ACROSS, EXACT_OTHERWISE, SWAPPED)
# What is told in words, and of which there is no row to name.
IN_WORDS = (FEW_ROWS, NAMES_ALIKE, NAMES_UNKNOWN, PHOTOGRAPHS)
UNSPLIT = "unsplit"  # a row of which nobody has said where it belongs
Totals = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Finding:
    """One thing that is, or may be, wrong.

    Args:
        kind: One of `KINDS`.
        where: Splits, task or class that it concerns.
        other: The face that `example` is held against.
        similarity: Their correlation; 1 for equal pixels.
        detail: Their correlation in what is finer than two pixels.
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
    """What an audit found: of which sources, without where they lie; the faces that could be looked
    at, in their order; and rows that no source gave, by reason."""

    sources: tuple[str, ...]
    tasks: tuple[Task, ...]
    rows: LabeledDataset
    summary: DatasetSummary
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


UNKNOWN = ("nan", "none", "null", "n/a", "na", "unknown", "?", "-")  # as cells say it
SLIP = 0.9  # from this similarity on, two names may be one: suprise and surprise have 0.93
LOOKED_AT = 100  # images at most whose size is asked
# Shorter side in pixels and longer side as its multiple, from which on an image is hardly a
# face that was cut out.
PHOTOGRAPH, OBLONG = 200, 1.2


def check_faces(
    tasks: Sequence[Task], rows: LabeledDataset, progress: Progress = SILENT
) -> list[Finding]:
    """What can be seen from faces and labels alone."""
    alike = NearDuplicates(rows, progress)
    few = few_rows(summary_of(tasks, rows))
    odd = [*_ambiguous_class_names(tasks), *_whole_photographs(rows.examples)]
    return [*copies(alike), *contradictions(alike, tasks), *few, *odd]


def brief_audit(
    tasks: Sequence[Task], parts: Sequence[LabeledDataset], progress: Progress = SILENT
) -> list[str]:
    """A line for each kind of finding among the faces of several splits, and where to see more.

    All parts are cropped by the same rule into the same cache.
    """
    # Crops are only ever appended, so the longest view of the file holds those of the others.
    crops = max((part.crops for part in parts), key=len)
    joined = {
        name: np.concatenate([part.targets[name] for part in parts]) for name in parts[0].targets
    }
    index = np.concatenate([part.index for part in parts])
    examples = [example for part in parts for example in part.examples]
    found = check_faces(tasks, LabeledDataset(crops, index, joined, examples), progress)
    counted = totals(one for one in found if one.kind not in IN_WORDS)
    lines = [f"{kind}: {count:,} ({where})" for (kind, where), count in counted.items()]
    for kind in IN_WORDS:
        if told := [f"{one.where} {one.words}" for one in found if one.kind == kind]:
            lines.append(f"{kind}: {', '.join(told)}")
    return [*lines, "`faceattr audit` with these sources names them"] if counted else lines


class NearDuplicates:
    """Which of the rows show the same face."""

    def __init__(self, rows: LabeledDataset, progress: Progress = SILENT) -> None:
        self.rows, self._progress = rows, progress
        # Rows that are equal pixel for pixel are one face.
        self._firsts, self._face = distinct(hashes_of(rows.crops, rows.index))
        self._rows_of: dict[int, list[int]] = defaultdict(list)
        for row, face in enumerate(self._face.tolist()):
            self._rows_of[face].append(row)

    def same(self) -> Iterator[list[int]]:
        """Rows that are equal pixel for pixel, where there are several."""
        return (rows for rows in self._rows_of.values() if len(rows) > 1)

    @cached_property
    def near(self) -> list[tuple[list[int], list[int], float]]:
        """The rows of two faces that are nearly alike and their correlation, most similar first."""
        faces = fingerprints_of(self.rows.crops, self.rows.index[self._firsts])
        pairs = near_pairs(faces, progress=self._progress)
        order = np.argsort(-pairs.similarity, kind="stable")
        columns = (pairs.first, pairs.second, pairs.similarity)
        found = zip(*(column[order].tolist() for column in columns), strict=True)
        return [(self._rows_of[one], self._rows_of[other], alike) for one, other, alike in found]

    def finding(
        self,
        kinds: tuple[str, str],
        where: str,
        ends: tuple[int, int],
        similarity: float,
        words: str = "",
    ) -> Finding:
        """What is wrong with two rows: of the first kind where they are equal pixel for pixel."""
        one, other = (self.rows.examples[row] for row in ends)
        fine = detail(*(self.rows.crops[self.rows.index[row]] for row in ends))
        kind = kinds[int(self._face[ends[0]] != self._face[ends[1]])]
        return Finding(kind, where, one, other, similarity, fine, words, ends)


def _ambiguous_class_names(tasks: Iterable[Task]) -> Iterator[Finding]:
    """Classes that may be one, spelled in two ways, or no class: what a cell says for unknown."""
    for task in tasks:
        if task.name in KNOWN_TASKS:
            continue
        for other, name in itertools.combinations(task.classes, 2):
            if _may_be_one(other, name):
                words = f"{other!r} and {name!r}; `--map {name}={other}` makes them one"
                yield Finding(NAMES_ALIKE, task.name, words=words)
        for name in task.classes:
            if name.casefold() in UNKNOWN:
                words = f"{name!r}; `--map {name}=` leaves it out"
                yield Finding(NAMES_UNKNOWN, task.name, words=words)


def _may_be_one(name: str, other: str) -> bool:
    """Whether names are the same but for capitals, the form of a number, or a letter or two."""
    try:
        return float(name) == float(other)
    except ValueError:
        one, two = name.casefold(), other.casefold()
    are_words = one.isalpha() and two.isalpha()
    return one == two or (are_words and difflib.SequenceMatcher(None, one, two).ratio() >= SLIP)


def _whole_photographs(examples: Sequence[Example]) -> Iterator[Finding]:
    """One finding where most images that count as cropped faces are large and not square."""
    uncut = [one for one in examples if one.box is None and one.pixels is None]
    some = uncut[:: max(1, -(-len(uncut) // LOOKED_AT))]
    if some and sum(map(_looks_uncut, some)) > len(some) / 2:
        words = (
            f"most of {len(some)} are large and not square; `--find-faces` takes the face of each"
        )
        yield Finding(PHOTOGRAPHS, "images", words=words)


def _looks_uncut(example: Example) -> bool:
    try:
        with Image.open(example.path) as image:
            shorter, longer = sorted(image.size)
    except (OSError, ValueError):
        return False
    return shorter >= PHOTOGRAPH and longer >= OBLONG * shorter


def copies(alike: NearDuplicates) -> list[Finding]:
    """Faces that occur again: in an earlier split, or earlier in their own.

    A face that is in another split pixel for pixel is not counted again as a near copy.
    """
    splits = [example.split for example in alike.rows.examples]
    pairs = [(rows, rows, 1.0) for rows in alike.same()]
    for ours, theirs, similarity in alike.near:
        pairs += [(ours, theirs, similarity), (theirs, ours, similarity)]
    found: dict[tuple[int, bool], tuple[int, float]] = {}
    for rows, others, similarity in pairs:
        firsts = {splits[row]: row for row in reversed(others)}
        for row in rows:
            earlier = SPLITS[: SPLITS.index(splits[row])] if splits[row] else ()
            if before := [firsts[split] for split in earlier if split in firsts]:
                found.setdefault((row, True), (before[0], similarity))
            if firsts.get(splits[row], row) < row:
                found.setdefault((row, False), (firsts[splits[row]], similarity))
    return [
        _copy(alike, row, other, similarity, across)
        for (row, across), (other, similarity) in sorted(found.items())
    ]


def _copy(alike: NearDuplicates, row: int, other: int, similarity: float, across: bool) -> Finding:
    own, its = (alike.rows.examples[place].split for place in (row, other))
    kinds = (EXACT_ACROSS, NEAR_ACROSS) if across else (EXACT_WITHIN, NEAR_WITHIN)
    where = f"{own}, also {its}" if across else own or UNSPLIT
    found = alike.finding(kinds, where, (row, other), similarity)
    is_unsure = found.kind == kinds[1] and (found.detail or 0) < SURE
    return replace(found, words="may be two people") if is_unsure else found


def contradictions(alike: NearDuplicates, tasks: Iterable[Task]) -> list[Finding]:
    """Faces whose labels for a task differ: one finding per set of equal ones, then near pairs, the
    most similar first, until every such face is named: the frames of a video have a million pairs.

    Near copies count where they agree in detail too: people who only look alike may differ.
    """
    kinds = EXACT_OTHERWISE, NEAR_OTHERWISE
    found = []
    for task in tasks:
        target = alike.rows.targets[task.name]
        answers = [task.classes[row.argmax()] if row.any() else "" for row in target]
        named: set[int] = set()
        for one, other, similarity in _contradicting(alike, answers):
            if {one, other} <= named:
                continue
            words = f"{answers[one]} and {answers[other]}"
            finding = alike.finding(kinds, task.name, (one, other), similarity, words)
            if finding.kind == EXACT_OTHERWISE or (finding.detail or 0) >= SURE:
                found.append(finding)
                named |= {one, other}
    return found


def _contradicting(
    alike: NearDuplicates, answers: Sequence[str]
) -> Iterator[tuple[int, int, float]]:
    """Two rows of each set of equal faces, and of each near pair, whose answers differ."""
    for rows in alike.same():
        known = [row for row in rows if answers[row]]
        others = (row for row in known if answers[row] != answers[known[0]])
        yield from ((known[0], row, 1.0) for row in itertools.islice(others, 1))
    for ours, theirs, similarity in alike.near:
        one, other = (next((row for row in rows if answers[row]), -1) for rows in (ours, theirs))
        if -1 not in (one, other) and answers[one] != answers[other]:
            yield one, other, similarity


def groups_across_splits(examples: Sequence[Example]) -> list[Finding]:
    """Identities that sit in two splits, whichever sources these came from."""
    first: dict[str, dict[str, Example]] = defaultdict(dict)
    for example in examples:
        if example.group and example.split:
            first[example.group].setdefault(example.split, example)
    found = []
    for group, sides in first.items():
        if len(sides) > 1:
            one, other, *_ = sides.values()
            where = " and ".join(sides)
            found.append(Finding(GROUP_ACROSS, where, one, other, words=f"group {group}"))
    return found


def summary_of(tasks: Iterable[Task], rows: LabeledDataset) -> DatasetSummary:
    """How many labelled faces there are by split; those of which nobody has said are `UNSPLIT`."""
    splits = np.array([example.split for example in rows.examples])
    places = {split or UNSPLIT: np.flatnonzero(splits == split) for split in (*SPLITS, "")}
    parts = {split: rows.take(where) for split, where in places.items() if len(where)}
    return summarize(parts, tasks)


def few_rows(summary: DatasetSummary) -> list[Finding]:
    """Classes with too few faces in a split to learn from or to tell anything."""
    return [
        Finding(FEW_ROWS, f"{task} {name}", words=f"{round(count, 1):g} in {split}")
        for task, splits in summary.classes.items()
        for split, classes in splits.items()
        if any(classes.values())
        for name, count in classes.items()
        if count < FEW_OF_A_CLASS
    ]
