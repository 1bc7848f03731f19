"""What is wrong with labelled faces, before anybody trains on them: what `faceattr audit` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd

from faceattr.auditing import checks
from faceattr.auditing.checks import Audit, Finding
from faceattr.auditing.label_permutation import find_label_permutations
from faceattr.data.crops import cache_crops
from faceattr.data.dataset import LabeledDataset
from faceattr.data.face_finder import FaceFinder
from faceattr.data.manifest import Example, merge_sources, strongest, targets
from faceattr.data.near_duplicates import NEAR
from faceattr.data.sources import ReadingConfig, ReadingTasksSettings, read_labels, without_folders
from faceattr.data.splits import with_stated_splits
from faceattr.files import spelled, validate_report_folder, write_errors, write_json
from faceattr.images.crop import CropRule
from faceattr.images.draw import Tile, contact_sheet
from faceattr.images.load import PathLike, as_paths
from faceattr.model import file as model_file
from faceattr.progress import SILENT, Progress
from faceattr.tasks import Task

SHEETS = {
    "copies_across_splits": (checks.EXACT_ACROSS, checks.NEAR_ACROSS),
    "contradictions": (checks.EXACT_OTHERWISE, checks.NEAR_OTHERWISE),
    "copies_in_a_split": (checks.EXACT_WITHIN, checks.NEAR_WITHIN),
}
FINDINGS, COUNTS = "findings.csv", "audit.json"
SHOWN = 24  # pairs of each kind on a sheet


def audit(
    sources: PathLike | Sequence[PathLike],
    *,
    model: str | Path | None = model_file.SHIPPED,
    rule: CropRule | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
    **reading: Unpack[ReadingTasksSettings],
) -> Audit:
    """Look for all that is wrong with labelled faces and, if asked, write it down.

    Args:
        sources: See `faceattr.data.sources.read_source`.
        model: What is asked whether names of classes were mixed up: a model file,
            ``"shipped"``, or None for nobody.
        rule: How faces are cropped to be compared.
        output: A folder for the findings, see `write_audit`.
        overwrite: Replace the findings that are there.
        progress: Is told how far the work is, and shown the audit.
        **reading: How the sources are read, see `faceattr.data.sources.ReadingConfig`.
    """
    if output is not None:
        validate_report_folder(Path(output), (FINDINGS, COUNTS), overwrite=overwrite)
    sources, config = as_paths(sources), ReadingConfig.of("audit", reading)
    finder = config.finder(rule or CropRule(), sources)
    read, _ = read_labels(sources, config.tasks, config.label_map)
    manifest = merge_sources(read)
    findings = checks.groups_across_splits([e for source in read for e in source.examples])
    examples = with_stated_splits(manifest.examples)
    rows, lost = _read_rows(manifest.tasks, examples, finder, progress)
    findings += [*lost, *checks.check_faces(manifest.tasks, rows, progress)]
    if model is not None and len(rows):
        asked = model_file.path_of(model)
        for mixed_up in find_label_permutations(manifest.tasks, rows.examples, asked, finder.cache):
            findings.append(Finding(checks.SWAPPED, mixed_up.task, words=str(mixed_up)))
    names = tuple(map(without_folders, sources))
    summary = checks.summary_of(manifest.tasks, rows)
    found = Audit(names, manifest.tasks, rows, summary, tuple(findings), manifest.left_out)
    progress.show(found)
    if output is not None:
        write_audit(found, Path(output))
    return found


def _read_rows(
    tasks: Sequence[Task], examples: Sequence[Example], finder: FaceFinder, progress: Progress
) -> tuple[LabeledDataset, list[Finding]]:
    """The faces, those of photographs last, and images without one or that nobody can read."""
    search = finder.search(examples, progress)
    cached = cache_crops(search.examples, finder.rule, finder.cache, progress)
    lost = [Finding(checks.NO_FACE, "images", one) for one in search.without]
    for place, reason in cached.reasons.items():
        lost.append(Finding(checks.UNREADABLE, "images", search.examples[place], words=reason))
    usable = np.flatnonzero(cached.rows >= 0)
    kept = [search.examples[place] for place in usable]
    return LabeledDataset(cached.array, cached.rows[usable], targets(tasks, kept), kept), lost


def write_audit(audit: Audit, folder: Path) -> None:
    """Write the findings into a folder.

    ``findings.csv`` has a row for every finding, ``audit.json`` the counts, and contact sheets
    show pairs of copies and contradictions.
    """
    with write_errors(folder):
        _write_audit(audit, folder)


def _write_audit(audit: Audit, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(map(_cells, audit.findings), columns=list(_cells(Finding("", ""))))
    table.to_csv(folder / FINDINGS, index=False)
    totals = [
        {"finding": kind, "where": where, "count": count}
        for (kind, where), count in audit.totals.items()
    ]
    about = {
        "sources": audit.sources,
        "faces": len(audit.rows),
        "left_out": audit.left_out,
        "classes": audit.summary.classes,
        "near_means_above": NEAR,
        "serious": audit.is_serious,
        "findings": totals,
    }
    write_json(about, folder / COUNTS)
    for name, kinds in SHEETS.items():
        tiles = [tile for kind in kinds for tile in _tiles(audit, kind)]
        (folder / f"{name}.png").unlink(missing_ok=True)  # of an audit that was there
        if tiles:
            title = f"{name.replace('_', ' ')}: pairs side by side"
            contact_sheet(tiles, title=title).save(folder / f"{name}.png")


def _cells(finding: Finding) -> dict[str, object]:
    cells: dict[str, object] = {"finding": finding.kind, "where": finding.where}
    for before, example in (("", finding.example), ("other_", finding.other)):
        cells[f"{before}path"] = example and example.name
        cells[f"{before}box"] = " ".join(f"{x:g}" for x in (example and example.box) or ())
        cells[f"{before}split"] = example and example.split
        cells[f"{before}labels"] = _labels_of(example) if example else None
    for name in ("similarity", "detail"):
        value = getattr(finding, name)
        cells[name] = None if value is None else round(value, 3)
    return cells | {"words": finding.words}


def _labels_of(example: Example) -> str:
    """What is known of an example in words; of votes the strongest."""
    known = example.labels.items()
    return ", ".join(f"{task} {strongest(label)}" for task, label in known if label)


def _tiles(audit: Audit, kind: str) -> Iterator[Tile]:
    """Both faces of some findings of a kind, from the first to the last."""
    own = [finding for finding in audit.findings if finding.kind == kind]
    rows = audit.rows
    for finding in own[:: max(1, -(-len(own) // SHOWN))]:
        for side, row in enumerate(finding.rows or ()):
            example = rows.examples[row]
            similar = f" r={finding.similarity:.2f}" if side else ""
            head = f"{example.split or checks.UNSPLIT}{similar}"
            words = head, _labels_of(example), spelled(example.path.name)
            yield Tile(rows.crops[rows.index[row]], words)
