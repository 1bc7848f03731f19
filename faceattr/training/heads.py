"""Heads of a model file removed or renamed, classes renamed; what is left answers as before."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from faceattr.evaluation.calibration import set_prior
from faceattr.evaluation.robustness import smallest_face
from faceattr.files import refuse_existing
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.file import Description
from faceattr.model.priors import Prior, log_ratios
from faceattr.model.vgg16 import layer_name, split_layer_name
from faceattr.tasks import KNOWN_TASKS, Task

Classes = Mapping[str, Mapping[str, str]]


def edit_heads(
    path: str | Path,
    output: str | Path,
    *,
    remove: str | Collection[str] = (),
    rename: Mapping[str, str] | None = None,
    rename_classes: Classes | None = None,
    priors: Mapping[str, Prior] | None = None,
    overwrite: bool = False,
) -> Description:
    """Write a model file with fewer heads, other names for heads and classes, or other priors.

    Args:
        path: A model file.
        output: The file to write.
        remove: Heads to leave out; the others answer as before, to the last bit.
        rename: New names of heads by their old ones.
        rename_classes: By head (its old name), new names of classes by their old ones.
        priors: By head (its old name), how frequent it shall take its classes to be:
            ``"uniform"``, ``"natural"``, the name of a source that taught it, or shares by class.
            Nothing is trained: the head's bias moves by the difference of the logarithms. Only
            heads that were trained with a prior can be told another one.
        overwrite: Replace a file that is already there.

    Returns:
        What the new file says about itself.

    Raises:
        ValueError: There is no such head or class, two would be called the same, no head is
            left, or the file exists.
    """
    remove = [remove] if isinstance(remove, str) else remove
    output, rename, rename_classes = Path(output), dict(rename or {}), dict(rename_classes or {})
    refuse_existing(output, overwrite=overwrite)
    about, priors = model_file.describe(path), priors or {}
    tasks = _edited(about.tasks, remove, rename, rename_classes)
    names = {old: task.name for old, task in tasks.items()}
    network = model_file.load(path)[0]
    told = _set_priors(network, about, priors)
    built = dict(about.network)
    if "feature_layers" in built:
        built["feature_layers"] = _renamed(built["feature_layers"], names)
    edit = {"removed": list(remove), "renamed": rename, "classes": rename_classes}
    edit |= {"file": Path(path).name, "sha256": runtime.sha256_of(path)}
    # Scores of heads whose answers have changed are no longer theirs.
    scored = {old: new for old, new in names.items() if old not in priors}
    edited = replace(
        about,
        tasks=tuple(tasks.values()),
        network=built,
        scores=_scores(about.scores, scored, rename_classes),
        provenance={
            **about.provenance,
            **_renamed_priors(told, names, rename_classes),
            "heads_edited": edit,
        },
    )
    network = _with_heads(network, names)
    model_file.save(network, edited, output, half=model_file.is_stored_in_half(path))
    return edited


def _set_priors(
    network: keras.Model, about: Description, priors: Mapping[str, Prior]
) -> dict[str, Any]:
    """Give heads other priors, in place; what the new file says of them."""
    for name, ratio in log_ratios(about, priors).items():
        set_prior(network, name, ratio)
    now = dict(about.provenance.get("priors", {}))
    now |= {name: of if isinstance(of, str) else dict(of) for name, of in priors.items()}
    known = about.provenance.get("class_shares", {})
    return {"priors": now, "class_shares": known} if now else {}


def _renamed_priors(
    told: Mapping[str, Any], names: Mapping[str, str], rename_classes: Classes
) -> dict[str, Any]:
    """What a file says of priors, under the new names of heads and classes."""
    found = {key: _renamed(by_head, names) for key, by_head in told.items()}
    for head, new in names.items():
        prior, renaming = found.get("priors", {}).get(new), rename_classes.get(head, {})
        if isinstance(prior, Mapping):
            shares = {renaming.get(name, name): share for name, share in prior.items()}
            found["priors"][new] = shares
    return found


def _edited(
    tasks: Collection[Task],
    remove: Collection[str],
    rename: Mapping[str, str],
    rename_classes: Classes,
) -> dict[str, Task]:
    """The tasks that are left, by their old names."""
    there = {task.name: task for task in tasks}
    for name in (*remove, *rename, *rename_classes):
        if name not in there:
            raise ValueError(f"There is no head {name!r}. The heads are {', '.join(there)}.")
    left = {}
    for name in (name for name in there if name not in remove):
        classes = _renamed_classes(there[name], rename_classes.get(name, {}))
        left[name] = Task(rename.get(name, name), classes)
    names = [task.name for task in left.values()]
    if not names:
        raise ValueError("A model needs at least one head, and all of them would be removed.")
    for task in left.values():
        known = KNOWN_TASKS.get(task.name)
        if known and task.name in rename.values() and set(task.classes) - set(known.classes):
            raise ValueError(
                f"A head called {task.name} has the classes {', '.join(known.classes)}, and this "
                f"one has {', '.join(task.classes)}. Choose another name, such as my_{task.name}."
            )
    if len(set(names)) < len(names):
        raise ValueError(f"Two heads would be called the same: {', '.join(names)}.")
    return left


def _renamed_classes(task: Task, renaming: Mapping[str, str]) -> tuple[str, ...]:
    if strangers := sorted(set(renaming) - set(task.classes)):
        raise ValueError(
            f"Head {task.name!r} has no class {', '.join(strangers)}. "
            f"Its classes are {', '.join(task.classes)}."
        )
    return tuple(renaming.get(name, name) for name in task.classes)


def _with_heads(network: keras.Model, names: Mapping[str, str]) -> keras.Model:
    """The same network with some of its heads, under their new names."""

    def renamed(layer: keras.layers.Layer) -> keras.layers.Layer:
        base, owner = split_layer_name(layer.name)
        name = names.get(layer.name) or layer_name(base, owner and names.get(owner, owner))
        return type(layer).from_config({**layer.get_config(), "name": name})

    smaller = keras.Model(network.inputs[0], {name: network.output[name] for name in names})
    copy = keras.models.clone_model(smaller, clone_function=renamed)
    copy.set_weights(smaller.get_weights())
    outputs = {new: copy.output[old] for old, new in names.items()}
    return keras.Model(copy.inputs[0], outputs, name=network.name)


def _renamed(by_head: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Values of the heads that are left, under their new names."""
    return {new: by_head[old] for old, new in names.items() if old in by_head}


def _scores(
    scores: Mapping[str, Any], names: Mapping[str, str], rename_classes: Classes
) -> dict[str, Any]:
    """The scores of some heads, under the new names of heads and classes."""
    found: dict[str, Any] = {}
    for old, score in scores.items():
        if old in names:
            classes = rename_classes.get(old, {})
            recall = {classes.get(name, name): of for name, of in score.get("recall", {}).items()}
            new = {"task": names[old], "recall": recall}
            found[names[old]] = {**score, **{key: new[key] for key in new if key in score}}
    for key in ("half_precision", "forgetting"):
        if key in scores:
            found[key] = _renamed(scores[key], names)
    by_size = {int(side): _renamed(of, names) for side, of in scores.get("by_size", {}).items()}
    if any(by_size.values()):
        found |= {"by_size": by_size, "min_face": smallest_face(by_size)}
    return found
