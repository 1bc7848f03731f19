"""`faceattr heads`."""

from __future__ import annotations

import argparse
import sys

from faceattr.cli.options import by_name, command, names, pairs, start_keras


def _classes(text: str) -> tuple[str, dict[str, str]]:
    """``HEAD:OLD=NEW,…``"""
    head, colon, renaming = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"expected HEAD:OLD=NEW,… Received: {text!r}")
    return head.strip(), pairs(str)(renaming)


def _prior(text: str) -> tuple[str, str | dict[str, float]]:
    """``HEAD=NAME`` or ``HEAD:CLASS=SHARE,…``"""
    head, colon, shares = text.partition(":")
    if colon:
        return head.strip(), pairs(float)(shares)
    head, equals, name = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected HEAD=PRIOR. Received: {text!r}")
    return head.strip(), name.strip()


def add_command(commands) -> None:
    parser = command(commands, heads, "show, remove or rename a model's heads and classes")
    add = parser.add_argument
    add("model", help="a .keras file, or 'shipped'")
    add("-o", "--output", metavar="MODEL", help="the .keras file to write")
    add("--remove", action="extend", type=names, metavar="HEAD,…")
    add("--rename", **by_name(str), metavar="OLD=NEW,…")
    add("--rename-class", action="append", type=_classes, metavar="HEAD:OLD=NEW,…")
    add(
        "--prior",
        action="append",
        type=_prior,
        metavar="HEAD=PRIOR",
        help="how frequent a head that was trained with --prior takes its classes to be: uniform, "
        "natural, a source's name, or HEAD:CLASS=SHARE,… for all classes",
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

        priors = dict(given.pop("prior", ()))
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
