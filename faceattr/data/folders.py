"""Labels in the names of folders and files: class folders, and UTKFace."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from faceattr.data.manifest import SPLIT_NAMES, SPLITS, Example, Source
from faceattr.images.inputs import Inputs
from faceattr.tasks import AGE_GROUP, GENDER, KNOWN_TASKS

# UTKFace (Zhang et al. 2017): age_gender_race_date.jpg, gender 0 male and 1 female.
UTKFACE_NAME = re.compile(r"^(?P<age>\d{1,3})_(?P<gender>[01])_(?P<ethnicity>\d)_\d{8,}")
UTKFACE_ETHNICITIES = ("white", "black", "asian", "indian", "others")
GENDER_FROM_AGE = 6  # younger faces do not show it


def read_folder(root: Path, task: str) -> Source:
    """Read a tree of class folders, or of UTKFace's file names for gender and age group.

    Args:
        root: ``root/<class>/…`` or ``root/<train, val or test>/<class>/…``; hidden files and
            folders do not count, links are followed.
        task: What the folders' names answer.

    Raises:
        ValueError: There are no pictures, no class folders, or a class folder is empty.
    """
    pictures = [Path(file.path) for file in Inputs(root) if not file.is_video]
    if not pictures:
        raise ValueError(f"{root} holds no pictures.")
    if task in (GENDER.name, AGE_GROUP.name) and any(map(_is_utkface, pictures)):
        return _read_utkface(root, pictures, task)
    return _read_class_folders(root, pictures, task)


def _is_utkface(path: Path) -> bool:
    return UTKFACE_NAME.match(path.name) is not None


def _split_of(relative: Path) -> str:
    """The split that the first folder is called after; empty if it is none."""
    return SPLIT_NAMES.get(relative.parts[0].lower(), "") if len(relative.parts) > 1 else ""


def _read_class_folders(root: Path, pictures: Sequence[Path], task: str) -> Source:
    _must_be_all_splits_or_none(root, pictures)
    examples, left_out = [], Counter[str]()
    for path in pictures:
        relative = path.relative_to(root)
        split = _split_of(relative)
        folders = relative.parts[1 if split else 0 : -1]
        if folders:
            examples.append(Example(path, {task: folders[0]}, split=split, origin=str(relative)))
        else:
            left_out["not in a class folder"] += 1
    if not examples:
        raise ValueError(f"{root} has pictures but no class folders: expected {root}/<class>/*.jpg")
    if empty := _empty_folders(root, examples, task):
        raise ValueError(f"{root}: class folders without a picture: {', '.join(empty)}.")
    _must_be_one_level(root, examples, task)
    return Source((task,), tuple(examples), left_out)


def _must_be_all_splits_or_none(root: Path, pictures: Sequence[Path]) -> None:
    relatives = [path.relative_to(root) for path in pictures if path.parent != root]
    tops = {relative.parts[0] for relative in relatives}
    splits = {relative.parts[0] for relative in relatives if _split_of(relative)}
    if splits and tops - splits:
        raise ValueError(
            f"{root} has splits ({', '.join(sorted(splits))}) and beside them "
            f"{', '.join(sorted(tops - splits))}. Expected {root}/<class>/… or "
            f"{root}/<{', '.join(SPLITS)}>/<class>/… alone: move or rename them."
        )


def _must_be_one_level(root: Path, examples: Sequence[Example], task: str) -> None:
    """Refuse a tree whose classes may be the folders in its folders."""
    inside: dict[str, set[str]] = {}
    for example in examples:
        label = str(example.labels[task])
        below = example.path.relative_to(root).parts[2 if example.split else 1 : -1]
        inside.setdefault(label, set()).add(below[0] if below else "")
    firsts, seconds = sorted(inside), sorted(set().union(*inside.values()))
    is_known = task in KNOWN_TASKS and any(name in KNOWN_TASKS[task] for name in firsts)
    is_even = all(names == set(seconds) for names in inside.values())
    if is_known or not is_even or len(seconds) < 2 or "" in seconds:
        return
    raise ValueError(
        f"{root} can be read in two ways: either {task} is {_some(firsts)}, after the folders in "
        f"it, or {_some(seconds)}, after the folders in those. Expected {root}/<class>/*.jpg: give "
        f"the folder that holds the classes, move the pictures up or give a CSV with the columns "
        f"path and {task}."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _empty_folders(root: Path, examples: Sequence[Example], task: str) -> list[str]:
    filled = {str(example.labels[task]) for example in examples}
    tops = [f for f in root.iterdir() if f.is_dir() and f.name.lower() in SPLIT_NAMES] or [root]
    folders = {f.name for top in tops for f in top.iterdir() if f.is_dir()}
    return sorted(f for f in folders - filled if not f.startswith((".", "__MACOSX")))


def _read_utkface(root: Path, pictures: Sequence[Path], task: str) -> Source:
    examples, left_out = [], Counter[str]()
    for path in pictures:
        relative = path.relative_to(root)
        label, why_not = _utkface_label(path, task)
        if label:
            split = _split_of(relative)
            about = _utkface_about(path, task)
            origin = str(relative)
            examples.append(
                Example(path, {task: label}, split=split, metadata=about, origin=origin)
            )
        else:
            left_out[why_not] += 1
    if not examples:
        raise ValueError(f"{root}: no picture tells its {task}: {', '.join(left_out)}.")
    return Source((task,), tuple(examples), left_out)


def _utkface_label(path: Path, task: str) -> tuple[str, str]:
    """The label that a file name tells, or why it tells none."""
    match = UTKFACE_NAME.match(path.name)
    if match is None:
        return "", "not one of UTKFace's file names"
    age = int(match["age"])
    if task == AGE_GROUP.name:
        return age_group(age), ""
    if age < GENDER_FROM_AGE:
        return "", f"{task} is not read off faces under {GENDER_FROM_AGE}"
    return GENDER.classes[int(match["gender"])], ""


def _utkface_about(path: Path, task: str) -> dict[str, str]:
    """What else a file name tells, by the name of a column."""
    match = UTKFACE_NAME.match(path.name)
    if match is None:
        return {}
    about = {name: _utkface_label(path, name)[0] for name in (GENDER.name, AGE_GROUP.name)}
    about |= {"age": match["age"], "ethnicity": _ethnicity(int(match["ethnicity"]))}
    return {name: value for name, value in about.items() if value and name != task}


def _ethnicity(number: int) -> str:
    return UTKFACE_ETHNICITIES[number] if number < len(UTKFACE_ETHNICITIES) else ""


def age_group(age: int) -> str:
    """The class of `AGE_GROUP` into which an age in years falls."""
    starts = [int(name.rstrip("+").split("-")[0]) for name in AGE_GROUP.classes]
    return AGE_GROUP.classes[int(np.searchsorted(starts, age, side="right")) - 1]
