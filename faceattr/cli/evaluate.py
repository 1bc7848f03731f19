"""`faceattr evaluate`."""

from __future__ import annotations

from faceattr.cli.options import command, start_keras


def add_command(commands) -> None:
    parser = command(commands, evaluate, "score a model on labelled faces")
    add = parser.add_argument
    add("model", help="a .keras file, or 'shipped'")
    add("sources", nargs="+", metavar="[TASK=]PATH", help="manifest CSV or folder")
    splits = ("train", "val", "test", "all")
    add("--split", choices=splits, help="rows to score (val where there are some, else all)")
    add("-o", "--output", metavar="DIR", help="where scores.json and confusions.png go")
    add("--cache", metavar="DIR", help="folder of the crop cache")


def evaluate(model, sources, **given) -> int:
    """Score a model on labelled faces: exact figures over the rows that know each task."""
    start_keras()
    from faceattr.training.report import report

    report(model, sources, **given)
    return 0
