"""Heads of a model file: removed, renamed, put to other priors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from faceattr.evaluation.robustness import by_size_of, smallest_face
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.file import Description
from faceattr.model.priors import Prior, log_ratios, set_prior
from faceattr.model.vgg16 import layer_name, split_layer_name
from faceattr.tasks import KNOWN_TASKS, Task, refuse_unknown

NewNames = Mapping[str, str]  # by the old ones


def edit_heads(
    path: str | Path,
    output: str | Path,
    *,
    remove: str | Collection[str] = (),
    rename: NewNames | None = None,
    rename_classes: Mapping[str, NewNames] | None = None,
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
            left, or the new file's name does not end in ``.keras``.
        OSError: A file cannot be read or written, or `output` is there already.
    """
    remove = [remove] if isinstance(remove, str) else remove
    output, rename, rename_classes = Path(output), dict(rename or {}), dict(rename_classes or {})
    model_file.validate_output(output, overwrite=overwrite)
    path = model_file.path_of(path)
    about, priors = model_file.describe(path), priors or {}
    tasks = _edited(about.tasks, remove, rename, rename_classes)
    network = model_file.load(path)[0]
    for name, ratio in log_ratios(about, priors).items():
        set_prior(network, name, ratio)
    network = _with_heads(network, {old: task.name for old, task in tasks.items()})
    edit = {"removed": list(remove), "renamed": rename, "classes": rename_classes}
    edit |= {"file": path.name, "sha256": runtime.sha256_of(path)}
    edited = _described(about, tasks, priors, edit)
    model_file.save(network, edited, output, half=model_file.is_stored_in_half(path))
    return edited


def _described(
    about: Description,
    tasks: Mapping[str, Task],
    priors: Mapping[str, Prior],
    edit: Mapping[str, Any],
) -> Description:
    """What the new file says about itself; `tasks` are those that are left, by their old names."""
    heads = {old: task.name for old, task in tasks.items()}
    classes = {
        task.name: dict(zip(task.classes, tasks[task.name].classes, strict=True))
        for task in about.tasks
        if task.name in tasks
    }
    built = dict(about.network)
    if "feature_layers" in built:
        built["feature_layers"] = _renamed(built["feature_layers"], heads)
    told = _told_priors(about.provenance, priors, heads, classes)
    # Scores of heads whose answers have changed are no longer theirs.
    scored = {old: new for old, new in heads.items() if old not in priors}
    return replace(
        about,
        tasks=tuple(tasks.values()),
        network=built,
        scores=_scores(about.scores, scored, classes),
        data=tuple(_labels_renamed(about.data, heads)),
        provenance={**_origin_renamed(about.provenance, heads), **told, "heads_edited": edit},
    )


def _labels_renamed(data: Iterable[Mapping[str, Any]], heads: NewNames) -> list[dict[str, Any]]:
    """What a file says about its rows, with the labels of the heads that are left."""
    return [{**part, "labels": _renamed(part.get("labels", {}), heads)} for part in data]


def _origin_renamed(provenance: Mapping[str, Any], heads: NewNames) -> dict[str, Any]:
    """The provenance with the heads' new names in what it says of the models they were added to."""
    if not (old := provenance.get("added_to")):
        return dict(provenance)
    renamed = {
        **old,
        "heads": [heads[name] for name in old["heads"] if name in heads],
        "data": _labels_renamed(old["data"], heads),
        "provenance": _origin_renamed(old.get("provenance", {}), heads),
    }
    return {**provenance, "added_to": renamed}


def _edited(
    tasks: Collection[Task],
    remove: Collection[str],
    rename: NewNames,
    rename_classes: Mapping[str, NewNames],
) -> dict[str, Task]:
    """The tasks that are left, by their old names."""
    there = {task.name: task for task in tasks}
    refuse_unknown("head", (*remove, *rename, *rename_classes), there, "in the model")
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


def _renamed_classes(task: Task, renaming: NewNames) -> tuple[str, ...]:
    if strangers := sorted(set(renaming) - set(task.classes)):
        raise ValueError(
            f"Head {task.name!r} has no class {', '.join(strangers)}. "
            f"Its classes are {', '.join(task.classes)}."
        )
    return tuple(renaming.get(name, name) for name in task.classes)


def _with_heads(network: keras.Model, heads: NewNames) -> keras.Model:
    """The same network with some of its heads, under their new names."""

    def renamed(layer: keras.layers.Layer) -> keras.layers.Layer:
        base, owner = split_layer_name(layer.name)
        name = heads.get(layer.name) or layer_name(base, owner and heads.get(owner, owner))
        return type(layer).from_config({**layer.get_config(), "name": name})

    smaller = keras.Model(network.inputs[0], {name: network.output[name] for name in heads})
    copy = keras.models.clone_model(smaller, clone_function=renamed)
    copy.set_weights(smaller.get_weights())
    outputs = {new: copy.output[old] for old, new in heads.items()}
    return keras.Model(copy.inputs[0], outputs, name=network.name)


def _renamed(by_name: Mapping[str, Any], names: NewNames) -> dict[str, Any]:
    """What is known of the heads, or classes, that are left, under their new names."""
    return {new: by_name[old] for old, new in names.items() if old in by_name}


def _told_priors(
    provenance: Mapping[str, Any],
    priors: Mapping[str, Prior],
    heads: NewNames,
    classes: Mapping[str, NewNames],
) -> dict[str, Any]:
    """What the new file says of priors."""
    now = {
        head: prior if isinstance(prior, str) else _renamed(prior, classes[head])
        for head, prior in {**provenance.get("priors", {}), **priors}.items()
        if head in heads
    }
    shares = _renamed(provenance.get("class_shares", {}), heads)
    is_told = bool(provenance.get("priors") or priors)
    return {"priors": _renamed(now, heads), "class_shares": shares} if is_told else {}


def _scores(
    scores: Mapping[str, Any], heads: NewNames, classes: Mapping[str, NewNames]
) -> dict[str, Any]:
    """The scores of some heads, under the new names of heads and classes."""
    found: dict[str, Any] = {}
    for old, new in heads.items():
        if score := scores.get(old):
            now = {"task": new, "recall": _renamed(score.get("recall", {}), classes[old])}
            found[new] = {key: now.get(key, value) for key, value in score.items()}
    if "half_precision" in scores:
        found["half_precision"] = _renamed(scores["half_precision"], heads)
    if "forgetting" in scores:
        renamed = _renamed(scores["forgetting"], heads)
        found["forgetting"] = {head: {**of, "task": head} for head, of in renamed.items()}
    by_size = by_size_of(scores, heads)
    if any(by_size.values()):
        found |= {"by_size": by_size, "min_face": smallest_face(by_size)}
    return found
