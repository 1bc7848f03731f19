"""Labels in the names of folders, a tree of class folders, or of files, UTKFace."""

from __future__ import annotations

import re
from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from faceattr.data.manifest import SPLIT_NAMES, SPLITS, Example, Source
from faceattr.files import spelled
from faceattr.images.inputs import Inputs
from faceattr.tasks import AGE_GROUP, GENDER, KNOWN_TASKS

# UTKFace (Zhang et al. 2017): age_gender_race_date.jpg, gender 0 male and 1 female.
UTKFACE_NAME = re.compile(r"^(?P<age>\d{1,3})_(?P<gender>[01])_(?P<ethnicity>\d)_\d{8,}")
UTKFACE_ETHNICITIES = ("white", "black", "asian", "indian", "others")
GENDER_FROM_AGE = 6  # younger faces do not show it


def read_folder(root: Path, task: str) -> Source:
    """Read a tree of class folders, or of UTKFace's file names for gender and age group.

    The tree is ``root/<class>/…`` or ``root/<train, val or test>/<class>/…``; hidden files and
    folders do not count, links are followed.
    """
    paths = [Path(file.path) for file in Inputs(root) if not file.is_video]
    if not paths:
        raise ValueError(f"{root} holds no images.")
    is_utkface = any(UTKFACE_NAME.match(path.name) for path in paths)
    if task in (GENDER.name, AGE_GROUP.name) and is_utkface:
        return _read_utkface(root, paths, task)
    _check_splits(root, paths)
    examples, left_out = [], Counter[str]()
    for path in paths:
        relative = path.relative_to(root)
        split = _split_of(relative)
        folders = relative.parts[1 if split else 0 : -1]
        if folders:
            label, origin = spelled(folders[0]), spelled(relative)
            examples.append(Example(path, {task: label}, split=split, origin=origin))
        else:
            left_out["not in a class folder"] += 1
    if not examples:
        raise ValueError(f"{root} has images but no class folders: expected {root}/<class>/*.jpg")
    _check_filled(root, examples, task)
    _check_level(root, examples, task)
    return Source((task,), tuple(examples), left_out)


def _read_utkface(root: Path, paths: Sequence[Path], task: str) -> Source:
    examples, left_out = [], Counter[str]()
    for path in paths:
        relative, columns = path.relative_to(root), _utkface_columns(path)
        if label := columns.pop(task, ""):
            split, origin = _split_of(relative), spelled(relative)
            example = Example(path, {task: label}, metadata=columns, split=split, origin=origin)
            examples.append(example)
        elif columns:
            left_out[f"{task} is not read off faces under {GENDER_FROM_AGE}"] += 1
        else:
            left_out["not one of UTKFace's file names"] += 1
    if not examples:
        raise ValueError(f"{root}: no image tells its {task}: {', '.join(left_out)}.")
    return Source((task,), tuple(examples), left_out)


def _utkface_columns(path: Path) -> dict[str, str]:
    """All that a file name tells, by column."""
    match = UTKFACE_NAME.match(path.name)
    if match is None:
        return {}
    age, ethnicity = int(match["age"]), int(match["ethnicity"])
    columns = {"age": match["age"], AGE_GROUP.name: age_group(age)}
    if age >= GENDER_FROM_AGE:
        columns[GENDER.name] = GENDER.classes[int(match["gender"])]
    if ethnicity < len(UTKFACE_ETHNICITIES):
        columns["ethnicity"] = UTKFACE_ETHNICITIES[ethnicity]
    return columns


def age_group(age: int) -> str:
    """The class of `AGE_GROUP` into which an age in years falls."""
    youngest = [int(name.rstrip("+").split("-")[0]) for name in AGE_GROUP.classes]
    return AGE_GROUP.classes[bisect(youngest, age) - 1]


def _split_of(relative: Path) -> str:
    """The split that the first folder is called after; empty if it is none."""
    return SPLIT_NAMES.get(relative.parts[0].lower(), "") if len(relative.parts) > 1 else ""


def _check_splits(root: Path, paths: Sequence[Path]) -> None:
    """Refuse a tree of which some folders are splits and others are not."""
    relatives = [path.relative_to(root) for path in paths if path.parent != root]
    tops = {relative.parts[0] for relative in relatives}
    splits = {relative.parts[0] for relative in relatives if _split_of(relative)}
    if splits and tops - splits:
        raise ValueError(
            f"{root} has splits ({', '.join(sorted(splits))}) and beside them "
            f"{', '.join(sorted(tops - splits))}. Expected {root}/<class>/… or "
            f"{root}/<{', '.join(SPLITS)}>/<class>/… alone: move or rename them."
        )


def _check_filled(root: Path, examples: Sequence[Example], task: str) -> None:
    """Refuse a tree with a class folder in which there is no image."""
    filled = {example.labels[task] for example in examples}
    tops = [f for f in root.iterdir() if f.is_dir() and f.name.lower() in SPLIT_NAMES] or [root]
    folders = {spelled(f.name) for top in tops for f in top.iterdir() if f.is_dir()}
    if empty := sorted(f for f in folders - filled if not f.startswith((".", "__MACOSX"))):
        raise ValueError(
            f"{root}: class folders without an image: {', '.join(empty)}. Remove or fill them."
        )


def _check_level(root: Path, examples: Sequence[Example], task: str) -> None:
    """Refuse a tree whose classes may be the folders in its folders."""
    inside: dict[str, set[str]] = {}
    for example in examples:
        below = example.path.relative_to(root).parts[2 if example.split else 1 : -1]
        inside.setdefault(str(example.labels[task]), set()).add(below[0] if below else "")
    firsts, seconds = sorted(inside), sorted(set().union(*inside.values()))
    is_known = task in KNOWN_TASKS and any(name in KNOWN_TASKS[task] for name in firsts)
    is_even = all(names == set(seconds) for names in inside.values())
    if is_known or not is_even or len(seconds) < 2 or "" in seconds:
        return
    either, other = (", ".join(names[:5]) + ", …" * (len(names) > 5) for names in (firsts, seconds))
    raise ValueError(
        f"{root} can be read in two ways: either {task} is {either}, after the folders in "
        f"it, or {other}, after the folders in those. Expected {root}/<class>/*.jpg: give "
        f"the folder that holds the classes, move the images up or give a CSV with the columns "
        f"path and {task}."
    )
