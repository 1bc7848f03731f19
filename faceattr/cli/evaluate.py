"""`faceattr evaluate`."""

from __future__ import annotations

from pathlib import Path

from faceattr.cli.console import OUT, Terminal
from faceattr.cli.data_options import add_reading_options, add_tasks, reading_of
from faceattr.cli.options import RUNTIMES, add_describing, command, names, start_keras


def add_command(commands) -> None:
    parser = command(commands, evaluate, "score a model on labelled faces")
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL",
        help="a .keras or exported file, hf://user/model, shipped or shipped-slim",
    )
    add("sources", nargs="+", metavar="[TASK=]PATH", help="manifest CSV or folder")
    splits = ("train", "val", "test", "all")
    add("--split", choices=splits, help="rows to score (val where there are some, else all)")
    add(
        "--by",
        action="extend",
        type=names,
        metavar="COLUMN,…",
        help="accuracy by group: columns of the manifest, a+b for two crossed, or another task, "
        "whose answers make the groups where it is no column; near_duplicate: is the face in train "
        "too",
    )
    add_describing(parser, "--flip", "--tta", "--prior")
    add(
        "--runtime",
        dest="engine",
        choices=RUNTIMES,
        help="keras (default): the network itself; litert: the fast copy inside the model file, by "
        "which label, live and serve answer; auto: the copy where there is one",
    )
    add(
        "--robust",
        action="store_true",
        help="score blurred, dark, compressed, turned and covered faces as well",
    )
    add("-o", "--output", metavar="DIR", help="where the report goes: report.html and its parts")
    add("--overwrite", action="store_true", help="replace a report that is there, its card too")
    add_tasks(parser, "which of the model's tasks to score")
    add_reading_options(parser)


def evaluate(model, sources, **given) -> int:
    """Score a model on labelled faces: exact figures over the rows that know each task."""
    start_keras()
    from faceattr.cli import tables  # noqa: F401
    from faceattr.evaluation.evaluate import evaluate as run

    run(model, sources, **reading_of(given), progress=Terminal())
    if folder := given.get("output"):
        OUT.print(f"  -> {Path(folder, 'report.html')}")
    return 0
