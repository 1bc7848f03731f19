"""`faceattr evaluate`."""

from __future__ import annotations

from faceattr.cli.console import Terminal
from faceattr.cli.options import (
    add_face_options,
    add_flip,
    add_label_options,
    command,
    detector_of,
    label_map_of,
    names,
    start_keras,
)


def add_command(commands) -> None:
    parser = command(commands, evaluate, "score a model on labelled faces")
    add = parser.add_argument
    add("model", help="a .keras or exported file, or 'shipped'")
    add("sources", nargs="+", metavar="[TASK=]PATH", help="manifest CSV or folder")
    add(
        "--tasks",
        action="extend",
        type=names,
        metavar="TASK,…",
        help="which of the model's tasks to score",
    )
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
    add_flip(parser)
    add(
        "--robust",
        action="store_true",
        help="score blurred, dark, compressed, turned and covered faces as well",
    )
    add("-o", "--output", metavar="DIR", help="where the report goes: report.html and its parts")
    add_face_options(parser)
    add("--cache", metavar="DIR", help="folder of the crop cache")
    add_label_options(parser)


def evaluate(model, sources, **given) -> int:
    """Score a model on labelled faces: exact figures over the rows that know each task."""
    start_keras()
    from faceattr.cli import tables  # noqa: F401
    from faceattr.evaluation.evaluate import evaluate as run

    data = {"label_map": label_map_of(given), "detector": detector_of(given)}
    run(model, sources, **data, **given, progress=Terminal())
    return 0
