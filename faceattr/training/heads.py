"""Heads of a model file: removed, renamed, put to other priors; and new ones beside the old."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from faceattr.compatibility import renamed_arguments
from faceattr.data.dataset import LabeledDataset, is_known
from faceattr.evaluation.metrics import Interval, predict, wilson
from faceattr.evaluation.robustness import smallest_face
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.file import Description
from faceattr.model.priors import Prior, log_ratios, set_prior
from faceattr.model.vgg16 import layer_name, split_layer_name
from faceattr.progress import SILENT, Progress
from faceattr.tasks import KNOWN_TASKS, Task, refuse_unknown
from faceattr.training.config import Network, Settings
from faceattr.training.distill import as_if_even, with_answers
from faceattr.training.network import start_file

FORGETTING = "forgetting.json"
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
    by_size = _by_size(scores, heads)
    if any(by_size.values()):
        found |= {"by_size": by_size, "min_face": smallest_face(by_size)}
    return found


def _by_size(scores: Mapping[str, Any], heads: NewNames) -> dict[int, dict[str, float]]:
    return {int(side): _renamed(of, heads) for side, of in scores.get("by_size", {}).items()}


@dataclass(frozen=True)
class Change:
    """How one old head answers before and after, on `n` labelled rows of `seen`.

    Args:
        same: Share of the rows with the same answer.
        largest: The largest difference of a probability.
        before: Accuracy of the old model, with its 95 % Wilson interval; NaN without labels.
        lost: Rows that only the old model answers right.
        won: Rows that only the new model answers right.
    """

    task: str
    seen: int
    same: float
    largest: float
    n: int
    before: float
    before_interval: Interval
    after: float
    after_interval: Interval
    lost: int
    won: int

    def __str__(self) -> str:
        if not self.largest:
            return f"{self.task} answers as before, to the last bit ({self.seen:,} images)."
        if not self.n:
            return (
                f"{self.task}: nobody gave labels to judge it by (--evaluate-on); the answer is as "
                f"before for {self.same:.1%} of {self.seen:,} images."
            )
        return (
            f"{self.task}: accuracy {self.before:.1%} before and {self.after:.1%} after on "
            f"{self.n:,} rows; {self.lost:,} right answers were lost and {self.won:,} won."
        )


def compare_heads(
    tasks: Sequence[Task],
    parts: Sequence[LabeledDataset],
    before: Sequence[Mapping[str, np.ndarray]],
    after: Sequence[Mapping[str, np.ndarray]],
) -> list[Change]:
    """Compare how two models answered the tasks of the old one about the same rows.

    `before` and `after` have for each part the probabilities ``(n, classes)`` by task.
    """
    found = []
    for task in tasks:
        nothing = np.zeros((0, len(task.classes)), "float32")
        unknown = [np.zeros((len(rows), len(task.classes)), "float32") for rows in parts]
        truth = [of.targets.get(task.name, none) for of, none in zip(parts, unknown, strict=True)]
        said = [[answers[task.name] for answers in model] for model in (before, after)]
        found.append(_change(task, *(np.concatenate([nothing, *of]) for of in (truth, *said))))
    return found


def _change(task: Task, target: np.ndarray, old: np.ndarray, new: np.ndarray) -> Change:
    known, truth = is_known(target), target.argmax(axis=1)
    was, is_now = ((answers.argmax(axis=1) == truth)[known] for answers in (old, new))
    n = int(known.sum())
    return Change(
        task=task.name,
        seen=len(target),
        same=float((old.argmax(axis=1) == new.argmax(axis=1)).mean()) if len(target) else np.nan,
        largest=float(np.abs(old - new).max(initial=0)),
        n=n,
        before=float(was.mean()) if n else np.nan,
        before_interval=wilson(int(was.sum()), n),
        after=float(is_now.mean()) if n else np.nan,
        after_interval=wilson(int(is_now.sum()), n),
        lost=int((was & ~is_now).sum()),
        won=int((is_now & ~was).sum()),
    )


@renamed_arguments(judge="evaluate_on")
@dataclass(frozen=True)
class NewHeads:
    """What is added to the model that a run starts from, which keeps all of its heads.

    Args:
        sources: ``TASK=PATH`` each, labelled images for a new head, see
            `faceattr.data.sources.read_source`.
        evaluate_on: Labelled images that only measure what the old heads lose; nothing is
            trained on them.
    """

    sources: tuple[str, ...]
    evaluate_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError(
                "There is no head to add: --distill old and --evaluate-on go with --add TASK=PATH."
            )
        if bare := [source for source in self.sources if "=" not in source]:
            raise ValueError(f"A head is added as TASK=PATH. Received: {', '.join(bare)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The new heads."""
        return tuple(dict.fromkeys(source.partition("=")[0] for source in self.sources))

    def freeze_old_heads(self, settings: Settings) -> Settings:
        """The settings, with the old heads frozen as long as the backbone is."""
        phases = (
            replace(phase, heads=self.names) if phase.unfreeze_from is None else phase
            for phase in settings.phases
        )
        return replace(settings, phases=tuple(phases))


@dataclass(frozen=True)
class ExistingHeads:
    """The model that gets new heads: its file, the network in it, and what the file says."""

    path: Path
    network: keras.Model
    description: Description

    @classmethod
    def of(cls, network: Network) -> ExistingHeads:
        """The model file that a run starts from; ValueError where it starts from none."""
        path = start_file(network)
        if path is None:
            raise ValueError(
                "Heads are added to a model that has some: --weights is 'shipped' or a model "
                f"file. Received: {network.weights}"
            )
        return cls(path, *model_file.load(path))

    @property
    def known(self) -> dict[str, Task]:
        """The old tasks by name."""
        return {task.name: task for task in self.description.tasks}

    def with_new(self, tasks: Sequence[Task], added: Sequence[str]) -> tuple[Task, ...]:
        """The old tasks and behind them those of the data that are new; all of these must be
        `added`, and none be there already."""
        new = [task for task in tasks if task.name not in self.known]
        if there := sorted(set(added) & set(self.known)):
            raise ValueError(
                f"{self.path.name} has a head {', '.join(there)} already. Call the new one "
                "otherwise, or give its data without --add to train it along."
            )
        if strangers := sorted({task.name for task in new} - set(added)):
            raise ValueError(
                f"{self.path.name} has no head {', '.join(strangers)}: give that data with --add."
            )
        return (*self.description.tasks, *new)

    def unchanged(self, network: keras.Model) -> set[str]:
        """The old heads that answer as before: neither they nor the backbone have changed."""
        before, after = (
            {layer.name: b"".join(w.tobytes() for w in layer.get_weights()) for layer in of.layers}
            for of in (self.network, network)
        )
        same = {name for name, weights in before.items() if after.get(name) == weights}
        backbone = {layer.name for layer in self.network.layers if layer.weights} - set(self.known)
        return same & set(self.known) if backbone <= same else set()

    def soft_labelled(self, rows: LabeledDataset, progress: Progress = SILENT) -> LabeledDataset:
        """The rows with the old heads' answers wherever an old task is unknown; of one that learns
        with a prior, as if its classes were equally frequent.
        """
        said = predict(self.network, rows, progress=progress, what="asking the old heads")
        answers = as_if_even(said, self.description, rows.log_priors, self.path.name, progress)
        return with_answers(rows, answers, dict.fromkeys(self.known, 0.0), {})

    def scores(self, unchanged: Collection[str], found: Mapping[str, Any]) -> dict[str, Any]:
        """What was found of the new model, and the old scores of heads that answer as before."""
        before = self.description.scores
        merged = {**{name: before[name] for name in unchanged if name in before}, **found}
        old, new = _by_size(before, {name: name for name in unchanged}), found["by_size"]
        by_size = {side: old[side] | new[side] for side in new if old.get(side)} or new
        return {**merged, "by_size": by_size, "min_face": smallest_face(by_size)}

    def provenance(self) -> dict[str, Any]:
        """What the new model's file says about the old one."""
        return {
            "file": self.path.name,
            "sha256": runtime.sha256_of(self.path),
            "heads": list(self.known),
            "data": [dict(part) for part in self.description.data],
            "provenance": dict(self.description.provenance),
        }
