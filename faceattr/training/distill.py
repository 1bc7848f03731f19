"""A model's answers as labels: of teachers, or of the heads that a model keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from faceattr.data.dataset import LabeledDataset, is_known
from faceattr.evaluation.calibration import apply_temperature
from faceattr.evaluation.metrics import predict
from faceattr.images.crop import CropRule
from faceattr.images.draw import Tile, contact_sheet
from faceattr.model import runtime
from faceattr.model.file import Description, path_of
from faceattr.model.priors import change_prior, granted_shares
from faceattr.model.weights import in_bfloat16
from faceattr.progress import SILENT, Progress
from faceattr.tasks import Task

SURE = 0.8
SHOWN = 48  # faces of a task on the sheet of doubted labels


@dataclass(frozen=True)
class Distillation:
    """What counts as a label beside those of the rows (Hinton et al. 2015; Xie et al. 2020).

    Args:
        teachers: Model files; the mean of their probabilities is the teacher's answer.
        thresholds: By task, how sure the teacher must be of an unlabelled row, 0.8 where not
            given; the row's target is then the whole answer. A row of which it is less sure stays
            unlabelled.
        shares: By task, how much the answer counts beside a label that is known, of 1; 0 where
            not given.
        doubts: By task, the least probability that the teacher must give a label for it to be
            believed; 0 where not given. A row whose label is not believed counts as unlabelled:
            it gets the answer where the teacher is sure enough, else nothing.
        temperature: Above 1 the answers become softer before they are used.
        old_heads: Where heads are added to a model: while the backbone learns, the old heads are
            held to what they said before. Their own answers are the targets wherever a training
            row has no label for them (learning without forgetting, Li and Hoiem 2016).
    """

    teachers: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    doubts: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    old_heads: bool = False

    def __post_init__(self) -> None:
        amounts = [*self.thresholds.values(), *self.shares.values(), *self.doubts.values()]
        if not all(0 <= amount <= 1 for amount in amounts) or not 0 < self.temperature < np.inf:
            raise ValueError(
                "Thresholds, shares and doubts of a teacher are from 0 to 1, and its temperature "
                f"is above 0. Received: {dict(self.thresholds)}, {dict(self.shares)}, "
                f"{dict(self.doubts)}, {self.temperature}"
            )
        needs_teacher = self.thresholds or self.shares or self.doubts or self.temperature != 1
        if not self.teachers and (needs_teacher or not self.old_heads):
            raise ValueError("Thresholds and shares go with --teacher MODEL, and there is none.")

    def provenance(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """What a model file of these tasks says of it."""
        paths = [path_of(teacher) for teacher in self.teachers]
        hashes = [runtime.sha256_of(path) for path in paths]
        names = {"teachers": [path.name for path in paths], "sha256": hashes}
        return {**asdict(self), **names, "answered": sorted(self.answered(tasks))}

    def answered(self, tasks: Sequence[Task]) -> set[str]:
        """Those of the tasks that a teacher answers."""
        known = {task.name for about in self._descriptions for task in about.tasks}
        return known & {task.name for task in tasks}

    @cached_property
    def _descriptions(self) -> tuple[Description, ...]:
        return tuple(runtime.describe(path_of(teacher)) for teacher in self.teachers)

    def check(self, tasks: Sequence[Task], rule: CropRule) -> None:
        """Refuse teachers that have other classes or another crop rule, or teach nothing."""
        own, answered = {task.name: task for task in tasks}, self.answered(tasks)
        for teacher, about in zip(self.teachers, self._descriptions, strict=True):
            if about.crop != rule:
                raise ValueError(
                    f"{teacher} sees faces cropped by {about.crop}, and here they are cropped by "
                    f"{rule}: it would be asked about crops that it does not know. Train with its "
                    "--size and --margin."
                )
            for task in (task for task in about.tasks if task.name in own):
                if task.classes != own[task.name].classes:
                    raise ValueError(
                        f"{teacher} answers {task.name} with the classes {', '.join(task.classes)},"
                        f" and here they are {', '.join(own[task.name].classes)}."
                    )
        strangers = sorted({*self.thresholds, *self.shares, *self.doubts} - answered)
        if self.teachers and (strangers or not answered):
            raise ValueError(
                f"No teacher answers {', '.join(strangers or own)} here. They answer "
                f"{', '.join(sorted(answered)) or 'nothing that is trained'}."
            )


def distilled(
    rows: LabeledDataset,
    how: Distillation,
    priors: Collection[str] = (),
    tasks: Sequence[Task] = (),
    sheet: Path | None = None,
    progress: Progress = SILENT,
    dtype: str = "float32",
) -> tuple[LabeledDataset, list[str]]:
    """Training rows with the teacher's answers among their targets, and what to say of it.

    `sheet` is the image file for the faces of `tasks` whose labels are least believed, `dtype` what
    the teachers compute in: ``"mixed_bfloat16"`` takes half the time where a machine has it.

    Tasks with `priors` learn with the class shares of each row's source (`log_priors_of`). Their
    teachers' answers are put to a uniform prior first, and beside a label to the shares of its
    source; an unlabelled row that is taught has no other prior then.
    """
    said = [_answers_of(path_of(name), rows, priors, dtype, progress) for name in how.teachers]
    names = dict.fromkeys(name for one in said for name in one)
    answers = {name: np.mean([one[name] for one in said if name in one], axis=0) for name in names}
    soft = {name: apply_temperature(of, how.temperature) for name, of in answers.items()}
    beliefs = _beliefs(rows, answers)
    doubted = {name: beliefs[name] < least for name, least in how.doubts.items() if name in beliefs}
    if sheet and any(of.any() for of in doubted.values()):
        _draw_doubted(rows, answers, beliefs, doubted, tasks, sheet)
    unknown = {name: rows.targets[name] * ~of[:, None] for name, of in doubted.items()}
    believed = replace(rows, targets={**rows.targets, **unknown})
    taught = with_answers(believed, soft, how.thresholds, how.shares, sure_of=answers)
    return taught, [*_doubts(rows, taught, doubted), *_lines(believed, taught, soft)]


def _beliefs(rows: LabeledDataset, answers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By task, the probability that the answer gives each row's label, ``(n,)``; 1 without one."""
    found = {}
    for name in answers.keys() & rows.targets.keys():
        target, answer = rows.targets[name], answers[name]
        if name in rows.log_priors:
            answer = change_prior(answer, rows.log_priors[name])
        given = np.take_along_axis(answer, target.argmax(axis=1)[:, None], axis=1)[:, 0]
        found[name] = np.where(is_known(target), given, 1)
    return found


def _draw_doubted(
    rows: LabeledDataset,
    answers: Mapping[str, np.ndarray],
    beliefs: Mapping[str, np.ndarray],
    doubted: Mapping[str, np.ndarray],
    tasks: Sequence[Task],
    path: Path,
) -> None:
    """A contact sheet: label and answer of the rows whose labels are least believed."""
    tiles = []
    for task in (task for task in tasks if task.name in doubted):
        places = np.flatnonzero(doubted[task.name])
        for place in places[np.argsort(beliefs[task.name][places], kind="stable")][:SHOWN]:
            label = task.classes[int(rows.targets[task.name][place].argmax())]
            answer = answers[task.name][place]
            lines = (
                f"{task.classes[int(answer.argmax())]} {answer.max():.0%}",
                f"label: {label}",
                f"believed {beliefs[task.name][place]:.1%}",
            )
            tiles.append(Tile(rows.crops[rows.index[place]], lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(tiles, title="Labels that the teacher does not believe").save(path)


def _doubts(
    before: LabeledDataset, after: LabeledDataset, doubted: Mapping[str, np.ndarray]
) -> Iterator[str]:
    for name, rows in doubted.items():
        known = is_known(before.targets[name])
        again = int(is_known(after.targets[name])[rows].sum())
        shares = ", ".join(
            f"{source} {rows[known & (before.sources == source)].mean():.1%}"
            for source in np.unique(before.sources[known])
        )
        yield (
            f"teacher: {name}: {int(rows.sum()):,} of {int(known.sum()):,} labels are not believed "
            f"({shares}); {again:,} of these rows get its answer"
        )


def _answers_of(
    path: Path, rows: LabeledDataset, priors: Collection[str], dtype: str, progress: Progress
) -> dict[str, np.ndarray]:
    """What one teacher says of the rows; for tasks with priors as if classes were even."""
    network, about = runtime.load(path)
    # An exported teacher computes as it was exported, and a network of one's own as it was made.
    is_ours = not isinstance(network, runtime.ExportedModel) and about.network
    if dtype == "mixed_bfloat16" and is_ours:
        network = in_bfloat16(network, about.tasks, about.network)
    said = predict(network, rows, progress=progress, what="asking the teacher")
    return as_if_even(said, about, priors, path.name, progress)


def as_if_even(
    said: Mapping[str, np.ndarray],
    about: Description,
    names: Collection[str],
    file: str,
    progress: Progress = SILENT,
) -> dict[str, np.ndarray]:
    """Answers of the model in `file`, for tasks `names` as if their classes had been equally
    frequent where it learnt them.
    """
    found = dict(said)
    for task in (task for task in about.tasks if task.name in said and task.name in names):
        granted = _granted_shares(about, task)
        if granted is None:
            progress.show(
                f"note: {file} does not say how frequent the classes of {task.name} were "
                "where it learnt them: they are taken to have been equally frequent"
            )
        else:
            found[task.name] = change_prior(said[task.name], -np.log(granted))
    return found


def _granted_shares(about: Description, task: Task) -> np.ndarray | None:
    """The class shares that a teacher's head takes for granted, ``(classes,)``, if they are known;
    they need not sum to 1."""
    for data, made in _runs(about):
        if (shares := granted_shares(made, task)) is not None:
            return shares
        # A head without a prior has learnt the shares of its rows.
        if _kept_as_it_was(task.name, made):
            continue
        labels: Mapping[str, Sequence[float]] = next(
            (part["labels"] for part in data if part["split"] == "train"), {}
        )
        if counts := labels.get(task.name):
            is_balanced = made.get("settings", {}).get("balance", "none") != "none"
            return np.ones(len(counts)) if is_balanced else np.array(counts) + 0.5
    return None


def _runs(about: Description) -> Iterator[tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]]:
    """Data and provenance of the run that made a model, and of those whose heads it kept."""
    yield about.data, about.provenance
    made: Mapping[str, Any] = about.provenance
    while old := made.get("added_to"):
        made = old.get("provenance", {})  # files of before have none here
        yield old["data"], made


def _kept_as_it_was(head: str, made: Mapping[str, Any]) -> bool:
    """Whether a run that added heads left this one alone: its rows only measured it."""
    phases = made.get("settings", {}).get("phases", ())
    opened = any(phase.get("unfreeze_from") or phase.get("first") for phase in phases)
    return head in made.get("added_to", {}).get("heads", ()) and not opened


def with_answers(
    rows: LabeledDataset,
    answers: Mapping[str, np.ndarray],
    thresholds: Mapping[str, float],
    shares: Mapping[str, float],
    sure_of: Mapping[str, np.ndarray] | None = None,
) -> LabeledDataset:
    """Rows with answers as targets where a task is unknown, and beside what is known.

    All by task: `answers` are probabilities ``(n, classes)``, `thresholds` the least probability of
    the likeliest class (0.8 where not given), `shares` the answers' part of a known target (0 where
    not given). The thresholds are held against `sure_of`, by default against the answers.
    """
    targets, priors, soft = dict(rows.targets), dict(rows.log_priors), set(rows.soft)
    for name in answers.keys() & targets.keys():
        target, answer = targets[name], answers[name]
        known = is_known(target)[:, None]
        share, beside = shares.get(name, 0.0), answer
        if name in rows.log_priors:
            beside = change_prior(answer, rows.log_priors[name])
        sure = (sure_of or answers)[name].max(axis=1, keepdims=True) >= thresholds.get(name, SURE)
        found = np.where(known, (1 - share) * target + share * beside, answer * sure)
        targets[name] = found.astype("float32")
        if name in priors:
            even = -np.log(answer.shape[1])  # mixup adds shares up, so they sum to 1 here as well
            priors[name] = np.where(known, priors[name], even).astype("float32")
        if not np.array_equal(targets[name], target):
            soft.add(name)
    return replace(rows, targets=targets, log_priors=priors, soft=tuple(sorted(soft)))


def _lines(
    before: LabeledDataset, after: LabeledDataset, answered: Collection[str]
) -> Iterator[str]:
    for name in before.targets:
        if name in answered:
            unknown = ~is_known(before.targets[name])
            got = int(is_known(after.targets[name])[unknown].sum())
            yield f"teacher: {name}: {got:,} of {int(unknown.sum()):,} unlabelled faces"


def check_classes_left(
    tasks: Sequence[Task], before: LabeledDataset, taught: LabeledDataset
) -> None:
    """Raise ValueError where a teacher has doubted every training row of a task or a class away."""
    for task in tasks:
        had, has = (rows.targets[task.name].sum(axis=0) > 0 for rows in (before, taught))
        if gone := [task.classes[place] for place in np.flatnonzero(had & ~has)]:
            raise ValueError(
                f"The teacher leaves no training row of {', '.join(gone)} for task {task.name!r}: "
                "it believes none of these labels, and is sure enough of no row in their place. "
                f"Give --doubt {task.name} or --sure {task.name} a smaller number."
            )
