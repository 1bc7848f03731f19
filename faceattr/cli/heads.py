"""`faceattr heads`."""

from __future__ import annotations

import argparse
import sys

from faceattr.cli.options import PRIORS, by_name, command, names, pairs, start_keras


def _renamed_classes(text: str) -> tuple[str, dict[str, str]]:
    """``head:old=new,…``."""
    head, colon, classes = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"expected HEAD:OLD=NEW,…. Received: {text!r}")
    return head.strip(), pairs(str)(classes)


def add_command(commands) -> None:
    parser = command(commands, heads, "show, remove or rename a model's heads and classes")
    add = parser.add_argument
    add("model", metavar="MODEL", help="a .keras file, hf://user/model, shipped or shipped-slim")
    add("-o", "--output", metavar="MODEL", help="the .keras file to write")
    add("--remove", action="extend", type=names, metavar="HEAD,…", help="heads to leave out")
    add("--rename", **by_name(str), metavar="OLD=NEW,…", help="new names of heads")
    add(
        "--rename-class",
        action="append",
        type=_renamed_classes,
        metavar="HEAD:OLD=NEW,…",
        help="new names of a head's classes, HEAD by its old name; may be repeated",
    )
    add(
        "--prior",
        **PRIORS,
        help="how frequent a head that was trained with --prior takes its classes to be: uniform, "
        "natural, a source's name, or shares of all classes; may be repeated",
    )
    add("--overwrite", action="store_true", help="replace a model that is already there")


def heads(model, output=None, **given) -> int:
    """Show a model's heads and their classes in order, or write a model with fewer heads or
    other names; what is left answers as before, to the last bit."""
    from faceattr.model import file as model_file

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

        priors = given.pop("prior", {})
        tasks = edit_heads(path, output, rename_classes=classes, priors=priors, **given).tasks
    for task in tasks:
        print(f"{task.name}: {', '.join(task.classes)}")
    print(_engines(path if output is None else output), file=sys.stderr)
    return 0


def _engines(path) -> str:
    """What answers, by what is inside the file."""
    from faceattr.model.embedded import describe_copy

    if copy := describe_copy(path):
        return f"answered by litert ({copy.precision} copy inside) or keras"
    return f"answered by keras (`faceattr export {path} --embed` puts a fast copy in)"
