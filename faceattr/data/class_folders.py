"""Labels in the names of folders: a tree of class folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from faceattr.data.manifest import SPLIT_NAMES, SPLITS, Example, Source
from faceattr.data.public_datasets import is_utkface, read_utkface
from faceattr.images.inputs import Inputs
from faceattr.tasks import AGE_GROUP, GENDER, KNOWN_TASKS


def read_folder(root: Path, task: str) -> Source:
    """Read a tree of class folders, or of UTKFace's file names for gender and age group.

    Args:
        root: ``root/<class>/…`` or ``root/<train, val or test>/<class>/…``; hidden files and
            folders do not count, links are followed.
        task: What the folders' names answer.

    Raises:
        ValueError: There are no pictures, no class folders, a class folder is empty, or it is not
            clear which folders are the classes.
    """
    pictures = [Path(file.path) for file in Inputs(root) if not file.is_video]
    if not pictures:
        raise ValueError(f"{root} holds no pictures.")
    if task in (GENDER.name, AGE_GROUP.name) and any(map(is_utkface, pictures)):
        return read_utkface(root, pictures, task, _split_of)
    _check_splits(root, pictures)
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
    _check_filled(root, examples, task)
    _check_level(root, examples, task)
    return Source((task,), tuple(examples), left_out)


def _split_of(relative: Path) -> str:
    """The split that the first folder is called after; empty if it is none."""
    return SPLIT_NAMES.get(relative.parts[0].lower(), "") if len(relative.parts) > 1 else ""


def _check_splits(root: Path, pictures: Sequence[Path]) -> None:
    """Refuse a tree of which some folders are splits and others are not."""
    relatives = [path.relative_to(root) for path in pictures if path.parent != root]
    tops = {relative.parts[0] for relative in relatives}
    splits = {relative.parts[0] for relative in relatives if _split_of(relative)}
    if splits and tops - splits:
        raise ValueError(
            f"{root} has splits ({', '.join(sorted(splits))}) and beside them "
            f"{', '.join(sorted(tops - splits))}. Expected {root}/<class>/… or "
            f"{root}/<{', '.join(SPLITS)}>/<class>/… alone: move or rename them."
        )


def _check_filled(root: Path, examples: Sequence[Example], task: str) -> None:
    """Refuse a tree with a class folder in which there is no picture."""
    filled = {example.labels[task] for example in examples}
    tops = [f for f in root.iterdir() if f.is_dir() and f.name.lower() in SPLIT_NAMES] or [root]
    folders = {f.name for top in tops for f in top.iterdir() if f.is_dir()}
    if empty := sorted(f for f in folders - filled if not f.startswith((".", "__MACOSX"))):
        raise ValueError(f"{root}: class folders without a picture: {', '.join(empty)}.")


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
    raise ValueError(
        f"{root} can be read in two ways: either {task} is {_some(firsts)}, after the folders in "
        f"it, or {_some(seconds)}, after the folders in those. Expected {root}/<class>/*.jpg: give "
        f"the folder that holds the classes, move the pictures up or give a CSV with the columns "
        f"path and {task}."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
