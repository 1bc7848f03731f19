"""`faceattr audit`."""

from __future__ import annotations

from faceattr.cli.console import Terminal
from faceattr.cli.data_options import add_reading_options, add_tasks, reading_of
from faceattr.cli.options import FOUND, command, start_keras


def add_command(commands) -> None:
    parser = command(commands, audit, "look for what is wrong with labelled faces")
    add = parser.add_argument
    add("sources", nargs="+", metavar="[TASK=]PATH", help="manifest CSV or folder")
    add("-o", "--output", metavar="DIR", help="where findings.csv, audit.json and sheets go")
    add("--overwrite", action="store_true", help="replace an audit that is there")
    add(
        "--model",
        metavar="MODEL",
        help="is asked whether names of classes were mixed up: a model or none (shipped)",
    )
    add("--strict", action="store_true", help=f"exit with {FOUND} where scores would be untrue")
    add_tasks(parser)
    add_reading_options(parser)


def audit(sources, strict=False, **given) -> int:
    """Look for unreadable images, copies within and across splits, labels that contradict
    each other, divided groups, classes with few faces and names that look swapped."""
    start_keras()
    from faceattr.auditing.audit import audit as run
    from faceattr.cli import tables  # noqa: F401

    if given.get("model") == "none":
        given["model"] = None
    found = run(sources, **reading_of(given), progress=Terminal())
    return FOUND if strict and found.is_serious else 0
