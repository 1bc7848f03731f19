"""`faceattr audit`."""

from __future__ import annotations

from faceattr.cli.console import Terminal
from faceattr.cli.options import (
    FOUND,
    add_face_options,
    add_label_options,
    command,
    detector_of,
    label_map_of,
    names,
    start_keras,
)


def add_command(commands) -> None:
    parser = command(commands, audit, "look for what is wrong with labelled faces")
    add = parser.add_argument
    add("sources", nargs="+", metavar="[TASK=]PATH", help="manifest CSV or folder")
    add("-o", "--output", metavar="DIR", help="where findings.csv, audit.json and sheets go")
    add("--tasks", action="extend", type=names, help="columns to take from bare manifests")
    add(
        "--model",
        metavar="FILE",
        help="is asked whether names of classes were mixed up: a .keras file or none (shipped)",
    )
    add_face_options(parser)
    add("--strict", action="store_true", help=f"exit with {FOUND} where scores would be untrue")
    add("--cache", metavar="DIR", help="folder of the crop cache")
    add_label_options(parser)


def audit(sources, strict=False, **given) -> int:
    """Look for unreadable pictures, copies within and across splits, labels that contradict
    each other, divided groups, classes with few faces and names that look swapped."""
    start_keras()
    from faceattr.auditing.audit import audit as run
    from faceattr.cli import tables  # noqa: F401

    if given.get("model") == "none":
        given["model"] = None
    data = {"label_map": label_map_of(given), "detector": detector_of(given)}
    found = run(sources, **data, **given, progress=Terminal())
    return FOUND if strict and found.is_serious else 0
