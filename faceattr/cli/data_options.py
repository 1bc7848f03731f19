"""Options of the commands that read labelled images: how, with which labels, who else teaches."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from faceattr.cli.options import Merged, by_name, names, old_names, pairs

TASKS = "columns to take from bare manifests"


def add_tasks(parser: argparse.ArgumentParser, what: str = TASKS) -> None:
    """Which labels are read; `what` is a help text."""
    parser.add_argument("--tasks", action="extend", type=names, metavar="TASK,…", help=what)


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """How labelled images are read."""
    add = parser.add_argument
    add(
        "--find-faces",
        action="store_true",
        help="the images are whole photographs: take the largest face of each",
    )
    add(
        "--find-faces-in",
        action="extend",
        type=names,
        metavar="SOURCE,…",
        help="the same for these sources alone, by the names of their folders or files",
    )
    add("--detector", metavar="NAME", help="as for `faceattr label`; asks for --find-faces")
    add("--offline", action="store_true", help="never download the detector's file")
    add("--cache", metavar="DIR", help="folder of the crop cache")
    add_label_options(parser)


def reading_of(given: dict) -> dict:
    """What was typed, with the detector and the label map that it asks for."""
    label_map, offline = label_map_of(given), given.pop("offline", False)
    name = given.pop("detector", None)
    if not (given.pop("find_faces", False) or "find_faces_in" in given or name):
        return {**given, "label_map": label_map}
    from faceattr.cli.console import Aside
    from faceattr.detection.choose import choose_detector

    detector = choose_detector(name or "auto", offline=offline, progress=Aside())
    return {**given, "label_map": label_map, "detector": detector}


def _renaming(text: str) -> tuple[str, str, str]:
    """``OLD=NEW`` for every task, ``TASK:OLD=NEW`` for one."""
    old, equals, new = text.partition("=")
    task, _, name = old.rpartition(":")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected [TASK:]OLD=NEW. Received: {text!r}")
    return task.strip(), name.strip(), new.strip()


def add_label_options(parser) -> None:
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
        **by_name(str.lower),
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


def add_new_heads(parser) -> None:
    """Heads that are added to a model that keeps its own."""
    add = parser.add_argument_group("adding a head to the model of --weights").add_argument
    add(
        "--add",
        action="append",
        metavar="TASK=PATH",
        help="labelled images of a new head; all heads of the model are kept, and only the new "
        "ones learn unless --epochs finetune=N opens the backbone; may be repeated",
    )
    add(
        "--evaluate-on",
        nargs="+",
        metavar="[TASK=]PATH",
        help="labelled images that only show what the old heads lose",
    )
    old_names(parser, {"--judge": "--evaluate-on"})


OLD_HEADS = "old"


def _distilled(text: str) -> dict[str, float | None]:
    """``old``, ``task=share,…``, or both."""
    names = text.split(",")
    rest = ",".join(name for name in names if name != OLD_HEADS)
    return dict.fromkeys(set(names) & {OLD_HEADS}) | (pairs(float)(rest) if rest else {})


def add_distillation(parser) -> None:
    """Models whose answers count as labels."""
    add = parser.add_argument_group("distillation").add_argument
    add(
        "--teacher",
        action="append",
        metavar="MODEL",
        help="its answers are labels of the tasks that a training row has none of, where it is "
        "sure enough (rows without any label are left out); repeated: the mean of several",
    )
    add("--sure", **by_name(float), metavar="TASK=P,…", help="how sure it must be (0.8)")
    add(
        "--distill",
        action=Merged,
        type=_distilled,
        metavar="old|TASK=SHARE,…",
        help="TASK=SHARE: how much a teacher's answers count beside a label that is known, of 1 "
        "(0); old: hold the heads of the model that gets new ones to their own answers",
    )
    add(
        "--doubt",
        **by_name(float),
        metavar="TASK=P,…",
        help="labels that the teacher finds less probable count as unknown (0)",
    )
    add(
        "--temperature",
        type=float,
        metavar="X",
        help="above 1 a teacher's answers become softer (1)",
    )
    old_names(parser, {"--keep": "--distill old"})


def distillation_of(given: dict):
    """Whose answers count as labels, None without any; takes it out of `given`."""
    from faceattr.training.distill import Distillation

    names = {"sure": "thresholds", "doubt": "doubts", "temperature": "temperature"}
    fields = {field: given.pop(name) for name, field in names.items() if name in given}
    shares, teachers = dict(given.pop("distill", {})), tuple(given.pop("teacher", ()))
    if shares.get(OLD_HEADS, 0) is None:
        fields["old_heads"] = shares.pop(OLD_HEADS) is None
    if shares:
        fields["shares"] = shares
    return Distillation(teachers, **fields) if teachers or fields else None


def label_map_of(given: dict):
    """How labels are to be understood; takes it out of `given`."""
    from faceattr.data.label_map import LabelMap

    renamed: dict[str, dict[str, str]] = {}
    for task, old, new in given.pop("map", ()):
        renamed.setdefault(task, {})[old] = new
    return LabelMap(renamed, given.pop("order", {}), given.pop("votes", {}))


def new_heads_of(sources: Sequence[str], distillation, given: dict):
    """What is added to a model, None where nothing is; takes it out of `given`."""
    from faceattr.training.new_heads import NewHeads

    added, compared = tuple(given.pop("add", ())), tuple(given.pop("evaluate_on", ()))
    if added or compared or (distillation and distillation.old_heads):
        return NewHeads(added, compared)
    if not sources:
        raise ValueError("There is nothing to learn from: give [TASK=]PATH, or --add TASK=PATH.")
    return None
