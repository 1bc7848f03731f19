"""Puts measured figures into the pages, between their marks: `python docs/figures.py`.

They come from files that commands write: weights/figures.json (tests/bench/card.py), the report of
the LiteRT copy inside the shipped model file, and docs/figures.json (`record` below, called by the
scripts of tests/bench with `--write`). tests/test_docs.py holds pages, files and the shipped model
together.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "weights/faceattr.keras"
OF_THE_CARD = ROOT / "weights/figures.json"
RECORDED = ROOT / "docs/figures.json"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
OWN_SHARES = "model, --prior: its train rows' shares"  # what the card calls them
SETS = {"fer2013": "FER2013", "affectnet": "AffectNet (part)", "expw": "ExpW"}
SETS |= {"utkface": "UTKFace", "celeba": "CelebA (part)", "aaf": "All-Age-Faces"}


def add_write(parser: argparse.ArgumentParser) -> None:
    """Give a bench the option that notes its figures."""
    what = "note the figures in a file (%(const)s)"
    parser.add_argument("--write", type=Path, nargs="?", const=RECORDED, metavar="FILE", help=what)


def record(
    into: Path | None,
    name: str,
    columns: list[str],
    rows: list[list[str]],
    of: Mapping[str, str],
    note: str = "",
) -> None:
    """Note a table in a file like docs/figures.json, with the command and commit that measured it.

    Args:
        into: The file. What it says of other tables stays. None: nothing is noted.
        name: What the mark in a page calls it.
        columns, rows: The table, as it is printed.
        of: What was measured, by name: a SHA-256 (``{"model": …}``) or a version; empty where
            neither a model nor a detector takes part.
        note: A sentence below the table.
    """
    if not into:
        return
    known = json.loads(into.read_text(encoding="utf-8")) if into.exists() else {}
    known[name] = {**conditions(into), "of": of, "columns": columns, "rows": rows, "note": note}
    into.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def of_detectors(*detectors: Any) -> dict[str, str]:
    """For `record`: which detectors took part."""
    known = (detector.provenance for detector in detectors)
    return {about["name"]: about.get("file", about["from"]) for about in known}


def conditions(into: Path) -> dict[str, Any]:
    """Command, commit, day and machine of the measurement that runs."""
    script, *words = sys.argv
    words = [Path(word).name for word in words if word not in ("--write", str(into))]
    asked = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    return {
        "command": shlex.join(["python", f"tests/bench/{Path(script).name}", *words]),
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[2]:.0f}",
    }


def processor() -> str:
    """What the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = next((line for line in lines if line.startswith("model name")), "")
    return named.partition(":")[2].strip() or platform.processor()


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def interval(score: Mapping[str, Any]) -> str:
    low, high = (100 * bound for bound in score["interval"])
    return f"{100 * score['accuracy']:.1f} % ({low:.1f} to {high:.1f})"


def of_the_card() -> dict[str, Any]:
    return json.loads(OF_THE_CARD.read_text(encoding="utf-8"))


def expression() -> str:
    """FER2013's own labels beside FER+'s majority."""
    scores = of_the_card()["sets"]["fer2013"]["scores"]
    named = {"expression": "FER2013's own labels", "expression:majority": "FER+'s majority"}
    rows = (
        (title, f"{scores[task]['model']['n']:,}", interval(scores[task]["model"]),
         percent(scores[task]["model"]["balanced_accuracy"]))
        for task, title in named.items()
    )  # fmt: skip
    return table(("labels", "faces", "accuracy", "balanced"), rows)


def class_shares() -> str:
    """Accuracy with the prior that ships, and with the class shares of each set's train rows."""
    rows = (
        (SETS[name] + ", FER+'s majority" * (":" in task), f"{by[OWN_SHARES]['n']:,}",
         *(f"{percent(by[who]['accuracy'])} ({percent(by[who]['balanced_accuracy'])})"
           for who in ("model", OWN_SHARES)))
        for name, one in of_the_card()["sets"].items()
        for task, by in one["scores"].items() if task.startswith("expression")
    )  # fmt: skip
    return table(("expression", "faces", "prior that ships", "shares of the train rows"), rows)


def calibration() -> str:
    """ECE of each task on each set."""
    rows = (
        (f"{task.replace('_', ' ')}, {SETS[name]}", f"{by['model']['n']:,}",
         percent(by["model"]["calibration_error"]), percent(by["model"]["expected_ece"]))
        for name, one in of_the_card()["sets"].items()
        for task, by in one["scores"].items() if ":" not in task
    )  # fmt: skip
    return table(("rows", "faces", "ECE", "of a perfect head"), rows)


def near_duplicate() -> str:
    """FER2013's val faces that are in train too, and the others."""
    return table(("", "faces", "accuracy"), _groups("fer2013", "expression", "near_duplicate"))


def gaps() -> str:
    """What a reader must know before use: by whom and by what the answers get worse."""
    found = of_the_card()
    lines = []
    for name, task, by in (
        ("aaf", "gender", "gender"), ("utkface", "age_group", "age_group"),
        ("aaf", "age_group", "age_group"), ("utkface", "gender", "age_group"),
    ):  # fmt: skip
        groups = sorted(_groups(name, task, by), key=lambda row: float(row[2].split()[0]))
        worst, best = groups[0], groups[-1]
        what = f"{task.replace('_', ' ')}, {SETS[name]}"
        lines.append((what, f"{best[0]}: {best[2]}", f"{worst[0]}: {worst[2]}"))
    by_change = found["robustness"]
    for task in by_change["as it is"]:
        worst_change = min(by_change, key=lambda change, task=task: by_change[change][task])
        plain, covered = by_change["as it is"][task], by_change[worst_change][task]
        what = f"{task.replace('_', ' ')}, changed faces"
        lines.append((what, f"as it is: {percent(plain)}", f"{worst_change}: {percent(covered)}"))
    return table(("accuracy of", "at best", "at worst"), lines)


def _groups(name: str, task: str, by: str) -> list[tuple[str, str, str]]:
    (found,) = (
        groups for groups in of_the_card()["sets"][name]["groups"]
        if groups["task"] == task and groups["by"] == by
    )  # fmt: skip
    return [
        (group["name"], f"{group['n']:,}", interval(group))
        for group in found["groups"] if group["n"] >= 30
    ]  # fmt: skip


def litert_copy() -> str:
    """The parity report of the copy inside the shipped model."""
    parity = _parity()
    rows = [
        (task.replace("_", " "), f"{one['labelled']['n']:,}",
         f"{percent(one['labelled']['accuracy_before'])}, "
         f"{percent(one['labelled']['accuracy_after'])}",
         f"{one['mean_change']:.3f}", f"{one['change_99']:.3f}", f"{one['same_answer']:.2%}",
         f"{percent(one['labelled']['calibration_before'])}, "
         f"{percent(one['labelled']['calibration_after'])}")
        for task, one in parity["heads"].items()
    ]  # fmt: skip
    columns = (
        "head",
        "faces with labels",
        "accuracy: Keras, copy",
        "mean change",
        "99th percentile",
    )
    text = table((*columns, "same answer", "ECE: Keras, copy"), rows)
    spent = parity["milliseconds"]
    ratios = (spent[size]["network"] / spent[size]["file"] for size in ("1", "32"))
    one, many = (f"{ratio:.0f}" for ratio in ratios)
    return f"{text}\n\nOne crop is {one} times as fast, 32 crops {many} times (two busy cores)."


def _parity() -> dict[str, Any]:
    with zipfile.ZipFile(MODEL) as archive:
        return json.loads(archive.read("faceattr.tflite.json"))["parity"]


def recorded(name: str) -> str:
    """A table of docs/figures.json, and how it was measured."""
    one = json.loads(RECORDED.read_text(encoding="utf-8"))[name]
    of = "".join(f", {_versioned(*what)}" for what in one["of"].items())
    how = f"`{one['command']}`, {one['date']}, commit `{one['commit']}`{of}; {one['machine']}."
    below = one["note"], f"<small>{how}</small>"
    return "\n\n".join(filter(None, (table(one["columns"], one["rows"]), *below)))


def _versioned(what: str, which: str) -> str:
    which = f"`{which[:12]}…`" if re.fullmatch("[0-9a-f]{64}", which) else which
    return which if which.startswith(what) else f"{what} {which}"


MADE: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (expression, class_shares, calibration, near_duplicate, gaps, litert_copy)
}


def filled(text: str) -> str:
    """A page with the figures of today between its marks."""

    def block(found: re.Match[str]) -> str:
        name = found[2]
        made = MADE[name]() if name in MADE else recorded(name)
        return f"{found[1]}{made}\n{found[3]}"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        if (after := filled(before)) != before:
            page.write_text(after, encoding="utf-8")
            print(page.relative_to(ROOT))
