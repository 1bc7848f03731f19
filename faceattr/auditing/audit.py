"""What is wrong with labelled faces, before anybody trains on them: what `faceattr audit` does."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Column, Table
from rich.text import Text

from faceattr.auditing import checks
from faceattr.auditing.checks import Audit, Finding
from faceattr.auditing.label_permutation import find_label_permutations
from faceattr.data import console
from faceattr.data.console import OUT, print_left_out
from faceattr.data.dataset import LabeledDataset
from faceattr.data.face_finder import FaceFinder
from faceattr.data.label_map import LABELS_AS_WRITTEN, LabelMap, normalize_labels
from faceattr.data.manifest import SPLITS, Example, Source, merge_sources, targets
from faceattr.data.near_duplicates import NEAR
from faceattr.data.sources import check_asked_for, check_find_faces_in, read_named, without_folders
from faceattr.data.store import cache_crops
from faceattr.detection.base import Detector
from faceattr.files import validate_output_folder
from faceattr.images.crop import CropRule
from faceattr.images.draw import Tile, contact_sheet
from faceattr.images.load import PathLike, as_paths
from faceattr.model import file as model_file
from faceattr.model.file import to_jsonable
from faceattr.tasks import KNOWN_TASKS

SHEETS = {
    "copies_across_splits": (checks.EXACT_ACROSS, checks.NEAR_ACROSS),
    "contradictions": (checks.EXACT_OTHERWISE, checks.NEAR_OTHERWISE),
    "copies_in_a_split": (checks.EXACT_WITHIN, checks.NEAR_WITHIN),
}
SHOWN = 24  # pairs of each kind on a sheet


def print_audit(audit: Audit) -> None:
    """Print how many faces there are of each class, and how many findings, with one of each."""
    print_left_out(audit.left_out)
    OUT.print(_table_of_counts(audit))
    if not audit.findings:
        OUT.print("nothing found")
        return
    table = Table("finding", "where", Column("n", justify="right"), "for example")
    for (kind, where), count in audit.totals.items():
        first = next(f for f in audit.findings if (f.kind, f.where) == (kind, where))
        table.add_row(kind, Text(where), f"{count:,}", Text(_in_short(first)))
    OUT.print(table)
    for finding in audit.findings:
        if finding.kind == checks.SWAPPED:
            OUT.print(f"{finding.where}: {finding.words}")


def _table_of_counts(audit: Audit) -> Table:
    stated = {split for task in audit.counts.values() for split in task}
    splits = [split for split in (*SPLITS, checks.UNSPLIT) if split in stated]
    table = Table("task", "class", *(Column(split, justify="right") for split in splits))
    for task in audit.tasks:
        counts = audit.counts[task.name]
        for place, name in enumerate(task.classes):
            numbers = [f"{counts.get(split, {}).get(name, 0):,.0f}" for split in splits]
            table.add_row("" if place else task.name, Text(name), *numbers)
    return table


def _in_short(finding: Finding) -> str:
    ends = [_name(end) for end in (finding.example, finding.other) if end is not None]
    said = "" if finding.kind == checks.SWAPPED else finding.words
    return " = ".join(ends) + (f" ({said})" if said and ends else said)


def _name(example: Example) -> str:
    return "/".join(example.path.parts[-2:])


def write_audit(audit: Audit, folder: Path) -> None:
    """Write the findings into a folder.

    ``findings.csv`` has a row for every finding, ``audit.json`` the counts, and contact sheets
    show pairs of copies and contradictions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(map(_cells, audit.findings), columns=list(_cells(Finding("", ""))))
    table.to_csv(folder / "findings.csv", index=False)
    (folder / "audit.json").write_text(json.dumps(to_jsonable(_as_json(audit)), indent=1))
    for name, kinds in SHEETS.items():
        pairs = [one for kind in kinds for one in _spread(audit.findings, kind)]
        if pairs:
            tiles = [tile for pair in pairs for tile in _tiles(pair, audit.rows)]
            title = f"{name.replace('_', ' ')}: pairs side by side"
            contact_sheet(tiles, title=title).save(folder / f"{name}.png")


def _cells(finding: Finding) -> dict[str, object]:
    cells: dict[str, object] = {"finding": finding.kind, "where": finding.where}
    for before, example in (("", finding.example), ("other_", finding.other)):
        cells[f"{before}path"] = example and str(example.path)
        cells[f"{before}box"] = " ".join(f"{x:g}" for x in (example and example.box) or ())
        cells[f"{before}split"] = example and example.split
        cells[f"{before}labels"] = labels_of(example) if example else None
    for name in ("similarity", "detail"):
        value = getattr(finding, name)
        cells[name] = None if value is None else round(value, 3)
    return cells | {"words": finding.words}


def labels_of(example: Example) -> str:
    """What is known of an example in words; of votes the strongest."""
    return ", ".join(
        f"{task} {label if isinstance(label, str) else max(label, key=lambda k: label[k])}"
        for task, label in example.labels.items()
        if label
    )


def _as_json(audit: Audit) -> dict[str, object]:
    return {
        "sources": audit.sources,
        "faces": len(audit.rows),
        "left_out": audit.left_out,
        "classes": audit.counts,
        "near_means_above": NEAR,
        "serious": audit.is_serious,
        "findings": [
            {"finding": kind, "where": where, "count": count}
            for (kind, where), count in audit.totals.items()
        ],
    }


def _spread(findings: Sequence[Finding], kind: str) -> list[Finding]:
    """Some findings of a kind, from first to last."""
    own = [finding for finding in findings if finding.kind == kind]
    return own[:: max(1, -(-len(own) // SHOWN))]


def _tiles(finding: Finding, rows: LabeledDataset) -> list[Tile]:
    return [
        Tile(rows.crops[rows.index[row]], _words(rows.examples[row], finding.similarity, side))
        for side, row in enumerate(finding.rows or ())
    ]


def _words(example: Example, similarity: float | None, side: int) -> tuple[str, ...]:
    likeness = "" if similarity is None else f"r = {similarity:.3f}"
    head = f"{example.split or checks.UNSPLIT}  {likeness if side else ''}"
    return head, labels_of(example), example.path.name


def audit(
    sources: PathLike | Sequence[PathLike],
    *,
    tasks: Collection[str] | None = None,
    label_map: LabelMap = LABELS_AS_WRITTEN,
    model: str | Path | None = model_file.SHIPPED,
    detector: Detector | None = None,
    find_faces_in: Collection[str] | None = None,
    rule: CropRule | None = None,
    output: str | Path | None = None,
    cache: str | Path | None = None,
) -> Audit:
    """Look for all that is wrong with labelled faces, print it and, if asked, write it down.

    Args:
        sources: See `faceattr.data.sources.read_source`.
        tasks: Columns to take from bare manifests.
        label_map: How the labels are to be understood.
        model: What is asked whether names of classes were mixed up: a model file,
            ``"shipped"``, or None for nobody.
        detector: Finds the faces in whole photographs; None: the pictures are faces.
        find_faces_in: Names of the sources that hold whole photographs; None: all, if any.
        rule: How faces are cut to be compared.
        output: A folder for the findings, see `faceattr.auditing.audit.write_audit`.
        cache: Folder of the crop cache.
    """
    if output is not None:
        validate_output_folder(Path(output))
    folder = Path(cache) if cache is not None else None
    known, sources = KNOWN_TASKS, as_paths(sources)
    check_find_faces_in(find_faces_in, sources)
    read, _ = normalize_labels(read_named(sources, tasks, known), label_map, known)
    check_asked_for(tasks, read)
    manifest = merge_sources([_as_train_takes(source) for source in read], known)
    examples = manifest.examples
    findings = checks.divided_groups([e for source in read for e in source.examples])
    finder = FaceFinder(rule or CropRule(), detector, folder, find_faces_in)
    search = finder.search(examples)
    examples = search.examples
    findings += [Finding(checks.NO_FACE, "pictures", one) for one in search.without]
    bar = console.track(examples, "cutting faces")
    cached = cache_crops(examples, finder.rule, folder, bar)
    findings += [
        Finding(checks.UNREADABLE, "pictures", examples[place], words=reason)
        for place, reason in cached.reasons.items()
    ]
    usable = np.flatnonzero(cached.rows >= 0)
    kept = [examples[place] for place in usable]
    rows = LabeledDataset(cached.array, cached.rows[usable], targets(manifest.tasks, kept), kept)
    findings += checks.check_faces(manifest.tasks, rows)
    if model is not None and kept:
        swaps = find_label_permutations(manifest.tasks, kept, model_file.path_of(model), folder)
        findings += [Finding(checks.SWAPPED, swap.task, words=str(swap)) for swap in swaps]
    names = tuple(map(without_folders, sources))
    counts = checks.counts_of(manifest.tasks, rows)
    found = Audit(names, manifest.tasks, rows, counts, tuple(findings), manifest.left_out)
    print_audit(found)
    if output is not None:
        write_audit(found, Path(output))
    return found


def _as_train_takes(source: Source) -> Source:
    """Where a source has val rows, those without a split train; else val is not set aside yet."""
    if not any(example.split == "val" for example in source.examples):
        return source
    examples = [replace(example, split=example.split or "train") for example in source.examples]
    return replace(source, examples=tuple(examples))
