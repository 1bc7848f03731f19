"""From the best epoch of a run to a model file that says what it is worth."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from faceattr.data.dataset import LabeledDataset, log_prior, log_priors_of
from faceattr.evaluation.calibration import Calibration, calibrate, unseen
from faceattr.evaluation.groups import near_duplicate_groups
from faceattr.evaluation.metrics import Score, difference, predict, scores_of
from faceattr.evaluation.report import Evaluation, write_report
from faceattr.evaluation.robustness import accuracy_by_size, smallest_face
from faceattr.exporting.export import add_copy
from faceattr.files import replace_durably, write_json
from faceattr.model import file as model_file
from faceattr.model.file import Description
from faceattr.model.priors import Prior, class_shares, set_prior
from faceattr.progress import SILENT, Progress
from faceattr.training import checkpoint
from faceattr.training.config import NATURAL, UNIFORM
from faceattr.training.new_heads import FORGETTING, Change, ExistingHeads, compare_heads


@dataclass(frozen=True)
class TrainingResult:
    """What a training brought.

    Args:
        evaluation: Of the stored file, on the validation rows.
        calibration: By task, how its head was calibrated.
        half_precision: By task, how far the stored answers are from those in float32, if they are.
        changes: Of every old head, where heads were added to a model.
    """

    model: Path
    evaluation: Evaluation
    calibration: Mapping[str, Calibration]
    half_precision: Mapping[str, Mapping[str, float]]
    changes: Sequence[Change] = ()

    @property
    def scores(self) -> dict[str, Score]:
        """By task, the score of the stored file on the validation rows."""
        return self.evaluation.scores


def package(
    best: keras.Model,
    description: Description,
    rows: Mapping[str, LabeledDataset],
    priors: Mapping[str, Prior],
    folder: Path,
    output: Path,
    *,
    old: ExistingHeads | None = None,
    compare_on: Sequence[LabeledDataset] = (),
    progress: Progress = SILENT,
) -> TrainingResult:
    """Store, calibrate, score and report a trained network; the file is whole or not there.

    The stored file itself is scored. Heads of the model `old` that answer as before stay as they
    are to the last bit.

    Args:
        best: The network of the best epoch, in float32.
        rows: ``"train"``, which tells how frequent the classes of each source are, and ``"val"``,
            of `faceattr.data.near_duplicates.mark_near_duplicates`.
        folder: The folder of the run, with its log.
        compare_on: Rows that only show what the old heads have lost.
    """
    train, val = rows["train"], rows["val"]
    val = replace(val, targets={name: t for name, t in val.targets.items() if t.any()})
    unchanged = old.unchanged(best) if old else set()
    fresh = unseen(val)
    shares = {name: log_priors_of(fresh, name, train) for name in priors if name in val.targets}
    calibration = calibrate(best, fresh, set(val.targets) - unchanged, shares, progress)
    learnt = {name: prior for name, prior in priors.items() if name not in unchanged}
    kept = _kept_priors(old, unchanged | learnt.keys(), train, description, progress)
    description = _with_priors(best, description, learnt, train, kept)
    part = folder / "part.keras"
    half = old is None or model_file.is_stored_in_half(old.path)
    model_file.save(best, description, part, half=half)
    stored = model_file.load(part)[0]
    answers = predict(stored, val, progress=progress)
    found = _measured(stored, answers, description, val, calibration)
    if half:
        found["half_precision"] = difference(predict(best, val, progress=progress), answers)
    changed: list[Change] = []
    if old:
        parts = [val, *compare_on]
        before = [predict(old.network, part, progress=progress) for part in parts]
        after = [answers, *(predict(stored, part, progress=progress) for part in compare_on)]
        changed = compare_heads(old.description.tasks, parts, before, after)
        by_task = {change.task: asdict(change) for change in changed}
        found = old.scores(unchanged, found) | {"forgetting": by_task}
        write_json(by_task, folder / FORGETTING)
    described = replace(description, scores=found)
    model_file.describe_anew(part, described)
    add_copy(part, val, progress, name=output)
    replace_durably(part, output)
    evaluation = Evaluation(
        model=output.name,
        description=described,
        split="val",
        sources=tuple(description.provenance["sources"]),
        rows=val,
        probabilities=answers,
        groups=near_duplicate_groups(described.tasks, val, answers),
        remarks=(*_what_was_done(description.provenance), *map(str, changed)),
        log=folder / checkpoint.LOG,
    )
    write_report(evaluation, folder)
    checkpoint.remove(folder)
    half_precision = found.get("half_precision", {})
    return TrainingResult(output, evaluation, calibration, half_precision, changed)


def _kept_priors(
    old: ExistingHeads | None,
    settled: Collection[str],
    train: LabeledDataset,
    description: Description,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """What the file of the old model says of the class shares that its heads take for granted.

    A head that learnt from labels, or a teacher, and is not `settled` by a prior of this run or
    because it has not changed, has the shares of what taught it.
    """
    if old is None:
        return {}
    before = old.description.provenance
    answered = description.provenance.get("distillation", {}).get("answered", ())
    lost = {
        name
        for name in before.get("priors", {}).keys() - settled
        if name in answered or train.targets[name].any()
    }
    if lost:
        progress.show(
            f"note: {', '.join(sorted(lost))} learnt again without --prior: the class shares are "
            "those of these rows now, and `faceattr heads --prior` cannot set others"
        )
    found = {key: before.get(key, {}) for key in ("priors", "class_shares")}
    return {key: {name: of[name] for name in of.keys() - lost} for key, of in found.items()}


def _with_priors(
    best: keras.Model,
    description: Description,
    learnt: Mapping[str, Prior],
    train: LabeledDataset,
    kept: Mapping[str, Mapping[str, Any]],
) -> Description:
    """Give heads their priors, in place, and say so, and which were `kept`, in the description."""
    priors = {**kept.get("priors", {}), **learnt}
    if not priors:
        return description
    shares_of = {name: _known_shares(train, name) for name in learnt}
    for task in (task for task in description.tasks if task.name in learnt):
        shares = class_shares(learnt[task.name], shares_of[task.name], task.classes)
        set_prior(best, task.name, np.log(shares))
    about = {"priors": priors, "class_shares": {**kept.get("class_shares", {}), **shares_of}}
    return replace(description, provenance={**description.provenance, **about})


def check_priors(priors: Mapping[str, Prior], train: LabeledDataset) -> None:
    """Refuse priors that the training rows cannot tell."""
    for task, prior in priors.items():
        known = _known_shares(train, task)
        if isinstance(prior, str) and prior not in known:
            raise ValueError(
                f"No training row of {prior} knows {task}, so its class shares are not known. "
                f"Expected one of {', '.join(known)}."
            )


def _known_shares(train: LabeledDataset, task: str) -> dict[str, list[float]]:
    """By the name of a prior, the class shares that it stands for."""
    target, sources = train.targets[task], train.sources
    rows = {NATURAL: target, **{str(name): target[sources == name] for name in np.unique(sources)}}
    labelled = {name: of for name, of in rows.items() if of.any()}
    even = [1 / target.shape[1]] * target.shape[1]
    return {UNIFORM: even} | {
        name: np.exp(log_prior(of)).round(6).tolist() for name, of in labelled.items()
    }


def _what_was_done(made: Mapping[str, Any]) -> Iterator[str]:
    """What a reader of the report should know of how labels and classes were treated."""
    yield from (f"Labels were read so: {note}." for note in made.get("labels_read_as", ()))
    yield from (f"{remark[0].upper()}{remark[1:]}." for remark in made.get("remarks", ()))
    if made["settings"]["balance"] == "weights":
        yield "Rare classes weighed more in the loss, so that all classes of a task counted alike."
    if made["settings"]["balance"] == "sampling":
        yield "Rare classes were shown more often, so that all classes of a task came alike."


def _measured(
    stored: keras.Model,
    answers: Mapping[str, np.ndarray],
    description: Description,
    val: LabeledDataset,
    calibration: Mapping[str, Calibration],
) -> dict[str, Any]:
    """What the model file says about how good it is."""
    by_size = accuracy_by_size(stored, description.tasks, val, description.crop)
    found: dict[str, Any] = {"by_size": by_size, "min_face": smallest_face(by_size)}
    for name, score in scores_of(answers, description.tasks, val).items():
        found[name] = {"split": "val", **asdict(score)}
        if name in calibration:
            found[name]["calibrated"] = asdict(calibration[name])
    return found
