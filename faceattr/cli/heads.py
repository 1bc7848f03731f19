"""`faceattr heads`."""

from __future__ import annotations

import argparse

from faceattr.cli.options import by_name, command, names, pairs, start_keras


def _classes(text: str) -> tuple[str, dict[str, str]]:
    """``HEAD:OLD=NEW,…``"""
    head, colon, renaming = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"expected HEAD:OLD=NEW,… Received: {text!r}")
    return head.strip(), pairs(str)(renaming)


def add_command(commands) -> None:
    parser = command(commands, heads, "show, remove or rename a model's heads and classes")
    add = parser.add_argument
    add("model", help="a .keras file, or 'shipped'")
    add("-o", "--output", metavar="MODEL", help="the .keras file to write")
    add("--remove", action="extend", type=names, metavar="HEAD,…")
    add("--rename", **by_name(str), metavar="OLD=NEW,…")
    add("--rename-class", action="append", type=_classes, metavar="HEAD:OLD=NEW,…")
    add("--overwrite", action="store_true", help="replace a model that is already there")


def heads(model, output=None, **given) -> int:
    """Show a model's heads and their classes in order, or write a model with fewer heads or
    other names; what is left answers as before, to the last bit."""
    from faceattr import model_file

    path = model_file.path_of(model)
    classes: dict[str, dict[str, str]] = {}
    for head, renaming in given.pop("rename_class", ()):
        classes.setdefault(head, {}).update(renaming)
    if output is None:
        if given or classes:
            raise ValueError("A changed model is written to a file of its own: give -o MODEL.")
        tasks = model_file.describe(path).tasks
    else:
        start_keras()
        from faceattr.training.heads import edit_heads

        tasks = edit_heads(path, output, rename_classes=classes, **given).tasks
    for task in tasks:
        print(f"{task.name}: {', '.join(task.classes)}")
    return 0
