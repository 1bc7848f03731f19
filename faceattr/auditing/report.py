"""What an audit prints and writes down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.table import Column, Table
from rich.text import Text

from faceattr.auditing import issues
from faceattr.auditing.issues import Audit, Finding
from faceattr.data.console import OUT, print_left_out
from faceattr.data.dataset import Rows
from faceattr.data.manifest import SPLITS, Example
from faceattr.data.near_duplicates import NEAR
from faceattr.images.draw import Tile, contact_sheet
from faceattr.model.file import plain

SHEETS = {
    "copies_across_splits": (issues.EXACT_ACROSS, issues.NEAR_ACROSS),
    "contradictions": (issues.EXACT_OTHERWISE, issues.NEAR_OTHERWISE),
    "copies_in_a_split": (issues.EXACT_WITHIN, issues.NEAR_WITHIN),
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
        if finding.kind == issues.SWAPPED:
            OUT.print(f"{finding.where}: {finding.words}")


def _table_of_counts(audit: Audit) -> Table:
    stated = {split for task in audit.counts.values() for split in task}
    splits = [split for split in (*SPLITS, issues.UNSPLIT) if split in stated]
    table = Table("task", "class", *(Column(split, justify="right") for split in splits))
    for task in audit.tasks:
        counts = audit.counts[task.name]
        for place, name in enumerate(task.classes):
            numbers = [f"{counts.get(split, {}).get(name, 0):,.0f}" for split in splits]
            table.add_row("" if place else task.name, Text(name), *numbers)
    return table


def _in_short(finding: Finding) -> str:
    ends = [_name(end) for end in (finding.example, finding.other) if end is not None]
    said = "" if finding.kind == issues.SWAPPED else finding.words
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
    (folder / "audit.json").write_text(json.dumps(plain(_as_json(audit)), indent=1))
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


def _tiles(finding: Finding, rows: Rows) -> list[Tile]:
    return [
        Tile(rows.crops[rows.index[row]], _words(rows.examples[row], finding.similarity, side))
        for side, row in enumerate(finding.rows or ())
    ]


def _words(example: Example, similarity: float | None, side: int) -> tuple[str, ...]:
    likeness = "" if similarity is None else f"r = {similarity:.3f}"
    head = f"{example.split or issues.UNSPLIT}  {likeness if side else ''}"
    return head, labels_of(example), example.path.name
