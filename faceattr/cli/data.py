"""Options on what is learnt from which labels: heads to add, and how labels are spelt."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from faceattr.cli.options import by_name


def _renaming(text: str) -> tuple[str, str, str]:
    """``OLD=NEW`` for every task, ``TASK:OLD=NEW`` for one."""
    old, equals, new = text.partition("=")
    task, _, name = old.rpartition(":")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected [TASK:]OLD=NEW. Received: {text!r}")
    return task.strip(), name.strip(), new.strip()


def _order(text: str) -> tuple[str, str]:
    task, equals, order = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected TASK=ORDER. Received: {text!r}")
    return task.strip(), order.strip().lower()


def add_spelling(parser) -> None:
    """How labels are to be understood."""
    add = parser.add_argument_group("labels that are spelt otherwise").add_argument
    add(
        "--map",
        action="append",
        type=_renaming,
        metavar="[TASK:]OLD=NEW",
        help="what the data call OLD is class NEW, or unknown if NEW is empty; may be repeated",
    )
    add(
        "--order",
        action="append",
        type=_order,
        metavar="TASK=ORDER",
        help="whose numbers the labels are: expression=fer2013, fer+, raf-db, affectnet or "
        "imagefolder; gender=utkface or imdb-wiki",
    )
    add(
        "--votes",
        **by_name(float),
        metavar="TASK=SHARE",
        help="how much the votes beside a label count, of 1 (0: the label alone): columns "
        "TASK:CLASS, or FER+'s",
    )


def add_adding(parser) -> None:
    """Heads that are added to a model that keeps its own."""
    add = parser.add_argument_group("adding a head to the model of --weights").add_argument
    add(
        "--add",
        action="append",
        metavar="TASK=PATH",
        help="labelled pictures of a new head; all heads of the model are kept, and only the new "
        "ones learn unless --epochs finetune=N opens the trunk; may be repeated",
    )
    add("--keep", action="store_true", help="hold the old heads to their answers meanwhile")
    add(
        "--judge",
        nargs="+",
        metavar="[TASK=]PATH",
        help="labelled pictures that only show what the old heads lose",
    )


def add_distillation(parser) -> None:
    """Teachers whose answers count as labels."""
    add = parser.add_argument_group("teachers").add_argument
    add(
        "--teacher",
        action="append",
        metavar="MODEL",
        help="its answers are labels of training rows that have none, where it is sure enough; "
        "repeated: the mean of several",
    )
    add("--sure", **by_name(float), metavar="TASK=P,…", help="how sure it must be (0.8)")
    add(
        "--distill",
        **by_name(float),
        metavar="TASK=SHARE,…",
        help="how much its answers count beside a label that is known, of 1 (0)",
    )
    add("--temperature", type=float, help="above 1 its answers become softer (1)")


def distillation_of(given: dict):
    """What teachers say counts as a label, None without any; takes it out of `given`."""
    from faceattr.training.distill import Distillation

    names = {"sure": "thresholds", "distill": "shares", "temperature": "temperature"}
    fields = {field: given.pop(name) for name, field in names.items() if name in given}
    teachers = tuple(given.pop("teacher", ()))
    return Distillation(teachers, **fields) if teachers or fields else None


def spelling_of(given: dict):
    """How labels are to be understood; takes it out of `given`."""
    from faceattr.data.label_map import Spelling

    renamed: dict[str, dict[str, str]] = {}
    for task, old, new in given.pop("map", ()):
        renamed.setdefault(task, {})[old] = new
    return Spelling(renamed, dict(given.pop("order", ())), given.pop("votes", {}))


def adding_of(sources: Sequence[str], given: dict):
    """What is added to a model, None where nothing is; takes it out of `given`."""
    from faceattr.training.add_heads import Adding

    fields = {name: given.pop(name) for name in ("keep", "judge") if name in given}
    added = given.pop("add", ())
    if not (added or fields):
        if not sources:
            raise ValueError(
                "There is nothing to learn from: give [TASK=]PATH, or --add TASK=PATH."
            )
        return None
    return Adding(tuple(added), fields.get("keep", False), tuple(fields.get("judge", ())))
