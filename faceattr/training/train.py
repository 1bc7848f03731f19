"""From labelled images to a model file, its log and its report: what `faceattr train` does."""

from __future__ import annotations

import datetime
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Unpack

import keras
import numpy as np

from faceattr import __version__
from faceattr.auditing import checks
from faceattr.auditing.label_permutation import find_label_permutations
from faceattr.compatibility import renamed_arguments
from faceattr.data.dataset import LabeledDataset, add_log_priors, read_dataset, read_splits
from faceattr.data.face_finder import FaceFinder
from faceattr.data.label_map import LabelMap
from faceattr.data.manifest import Manifest, Source, merge_sources, select_split
from faceattr.data.near_duplicates import find_near_duplicates, mark_near_duplicates
from faceattr.data.sources import (
    ReadingConfig,
    ReadingTasksSettings,
    read_for_model,
    read_labels,
    unite,
    without_folders,
)
from faceattr.data.splits import sources_with_val
from faceattr.data.store import features_folder
from faceattr.evaluation.calibration import unseen
from faceattr.evaluation.report import SCORES
from faceattr.files import OPENCV, refuse_existing, versions_of
from faceattr.images.load import PathLike, as_paths
from faceattr.model import file as model_file
from faceattr.model.file import Description
from faceattr.model.priors import class_shares
from faceattr.progress import SILENT, Progress
from faceattr.tasks import KNOWN_TASKS, Task
from faceattr.training import network as networks
from faceattr.training.checkpoint import SETTINGS
from faceattr.training.config import FROZEN, Network, Settings
from faceattr.training.devices import on_all_devices
from faceattr.training.distill import Distillation, check_classes_left, distilled
from faceattr.training.new_heads import ExistingHeads, NewHeads
from faceattr.training.package import TrainingResult, check_priors, package
from faceattr.training.trainer import check, check_classes, check_sources, fit

DOUBTED = "doubted.png"  # the labels that a teacher does not believe
NEW = ".new.training"  # a run that replaces a finished one, until it is finished itself


@dataclass(frozen=True)
class RowsRead:
    """What a run trains on, by split; shown before its first epoch.

    `left_out` says by reason how many rows cannot be used, `notes` what to have in mind.
    """

    tasks: Sequence[Task]
    rows: Mapping[str, LabeledDataset]
    left_out: Mapping[str, int]
    notes: Sequence[str]


@renamed_arguments(spelling="label_map", adding="new_heads")
def train(
    sources: PathLike | Sequence[PathLike],
    output: str | Path,
    *,
    network: Network | None = None,
    settings: Settings | None = None,
    new_heads: NewHeads | None = None,
    distillation: Distillation | None = None,
    licence: str | None = None,
    drop_near_duplicates: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
    **reading: Unpack[ReadingTasksSettings],
) -> TrainingResult:
    """Train a model on any number of sources and write it with log, curves and report.

    Args:
        sources: See `faceattr.data.sources.read_source`.
        output: The model file, ending in ``.keras``. Beside it comes a folder
            ``NAME.training`` with checkpoint, log, curves and report.
        network: What to train; the default starts from the shipped model's backbone.
        settings: How to train; by default with the phases that suit the start, and with the
            frozen one alone where heads are added.
        new_heads: Heads for the model that the run starts from, which keeps its own; their
            sources train along with `sources`.
        distillation: Answers that count as labels of training rows, never of val rows.
        licence: Terms of the new weights, kept in the file; by default those of the model that
            the run starts from.
        drop_near_duplicates: Leave the training rows out whose face is, or nearly is, among the
            val or test rows as well.
        resume: Go on with a run that was interrupted.
        overwrite: Replace a model or an unfinished run that is already there; a finished run and
            its model stay until the new model is finished.
        progress: Is shown `RowsRead`, notes, and every `faceattr.training.checkpoint.Epoch`.
        **reading: How the sources are read, see `faceattr.data.sources.ReadingConfig`:
            ``tasks``, ``label_map``, ``detector``, ``find_faces_in``, ``cache``.

    Returns:
        The scores of the finished file and what else was measured.
    """
    output, config = Path(output), ReadingConfig.of("train", reading)
    folder = _folder_of_run(output, resume=resume, overwrite=overwrite)
    # Everything that can be refused is refused before images are read.
    with on_all_devices(progress):
        plan = _plan(as_paths(sources), network or Network(), settings, new_heads, config)
        if distillation:
            distillation.check(plan.heads, plan.finder.rule)
            _tell_what_does_nothing(distillation, plan.settings, progress)
        found = unite(plan.labelled, plan.known, plan.finder, progress)
        # Once more: where sources share faces, one of them may have no rows of its own.
        check_sources(plan.model.output, plan.settings, found.examples)
        doubts = tuple(_doubts_of_val(found, plan))
        manifest = replace(found, notes=(*plan.notes, *doubts))
        rows = _read_rows(manifest, plan, drop_near_duplicates, progress)
        compare_on = [_rows_to_compare(source, plan, progress) for source in plan.compared]
        description = _description(plan, rows, doubts, distillation, licence)
        networks.measure_norm_statistics(plan.network, plan.model, rows["train"])
        val = mark_near_duplicates(rows["val"], rows["train"], progress)
        fit(
            plan.model,
            manifest.tasks,
            _distilled(rows["train"], distillation, plan, folder / DOUBTED, progress),
            unseen(val),
            plan.settings,
            folder,
            network=plan.network,
            resume=resume,
            features=features_folder(config.cache),
            progress=progress,
        )
    result = package(
        networks.finished_model(plan.network, plan.model, plan.heads),
        description,
        {"train": rows["train"], "val": val},
        plan.settings.priors,
        folder,
        output,
        old=plan.old,
        compare_on=compare_on,
        progress=progress,
    )
    if folder != (usual := output.with_suffix(".training")):  # of the run before
        shutil.rmtree(usual, ignore_errors=True)
        folder.rename(usual)
    return result


@dataclass(frozen=True)
class _Plan:
    """What a run trains, how, and on what, once labels are read and before images are.

    `specs` are the sources as they were given, `labelled` the same with labels; `compared` only
    show what the old heads lose. `known` are the tasks whose classes are fixed; `start` is the
    model file that the run starts from.
    """

    network: Network
    settings: Settings
    heads: tuple[Task, ...]
    model: keras.Model
    start: Path | None
    old: ExistingHeads | None
    specs: Sequence[str]
    compared: Sequence[str]
    labelled: Sequence[Source]
    notes: tuple[str, ...]
    known: Mapping[str, Task]
    label_map: LabelMap
    finder: FaceFinder


def _plan(
    specs: list[str],
    network: Network,
    settings: Settings | None,
    new_heads: NewHeads | None,
    config: ReadingConfig,
) -> _Plan:
    """Read the labels, build the model, and refuse what does not fit."""
    network = networks.resolved(network)
    settings = settings or Settings(phases=(FROZEN,) if new_heads else network.phases)
    old = ExistingHeads.of(network) if new_heads else None
    specs = [*specs, *(new_heads.sources if new_heads else ())]
    compared = new_heads.evaluate_on if new_heads else ()
    finder = config.finder(networks.crop_rule(network), [*specs, *compared])
    # A name that is mapped may occur in what is compared alone.
    label_map = replace(config.label_map, strict=False) if compared else config.label_map
    known = KNOWN_TASKS | (old.known if old else {})
    labelled, notes = read_labels(specs, config.tasks, label_map, known)
    heads = merge_sources(labelled, known).tasks
    if new_heads and old:
        heads = old.with_new(heads, new_heads.names)
        network = networks.with_old_heads(network, old.description)
        settings = new_heads.freeze_old_heads(settings)
    model = networks.new_model(network, heads, settings.seed)
    check(model, settings, [example for source in labelled for example in source.examples])
    for task in heads:
        if isinstance(prior := settings.priors.get(task.name), Mapping):
            class_shares(prior, {}, task.classes)
    return _Plan(
        network=network,
        settings=settings,
        heads=heads,
        model=model,
        start=networks.start_file(network),
        old=old,
        specs=specs,
        compared=compared,
        labelled=labelled,
        notes=notes,
        known=known,
        label_map=label_map,
        finder=finder,
    )


def _tell_what_does_nothing(
    distillation: Distillation, settings: Settings, progress: Progress
) -> None:
    if distillation.old_heads and not any(phase.unfreeze_from for phase in settings.phases):
        progress.show(
            "note: --distill old does nothing: the backbone is frozen, --epochs finetune=N opens it"
        )


def _folder_of_run(output: Path, *, resume: bool, overwrite: bool) -> Path:
    """Where a run keeps its things; refuses what cannot be written or would destroy."""
    model_file.validate_output(output, overwrite=True)
    if resume and overwrite:
        raise ValueError("--resume goes on with a run and --overwrite starts it anew: choose one.")
    folder, new = output.with_suffix(".training"), output.with_suffix(NEW)
    # What was finished stays until there is a new model in its place.
    if _is_unfinished(new) or (overwrite and output.exists() and (folder / SCORES).is_file()):
        folder = new
    unfinished = _is_unfinished(folder)
    if resume and not unfinished and output.exists():
        raise ValueError(f"{output} is finished, there is nothing to resume.")
    if unfinished and not (resume or overwrite):
        raise ValueError(
            f"{folder} holds an unfinished run: go on with --resume, "
            "or start anew with --overwrite."
        )
    refuse_existing(output, overwrite=resume or overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output.parent):
        pass
    return folder


def _is_unfinished(folder: Path) -> bool:
    return (folder / SETTINGS).is_file() and not (folder / SCORES).is_file()


def _distilled(
    rows: LabeledDataset,
    distillation: Distillation | None,
    plan: _Plan,
    sheet: Path,
    progress: Progress,
) -> LabeledDataset:
    """Training rows with the answers among their labels that shall count as such."""
    if distillation and distillation.old_heads and plan.old:
        rows = plan.old.soft_labelled(rows, progress)
    if distillation and distillation.teachers:
        labelled = rows
        rows, lines = distilled(
            labelled,
            distillation,
            plan.settings.priors,
            plan.heads,
            sheet,
            progress,
            networks.dtype_of(plan.network),
        )
        for line in lines:
            progress.show(line)
        check_classes_left(plan.heads, labelled, rows)
    return rows


def _read_rows(
    manifest: Manifest, plan: _Plan, drop: bool, progress: Progress
) -> dict[str, LabeledDataset]:
    """Crop the faces of both splits, and refuse what cannot teach."""
    splits = ("train", "val", *(["test"] if drop else []))
    finder = plan.finder
    rows, left_out = read_splits(manifest, splits, plan.heads, finder.rule, finder.cache, progress)
    if drop:
        others = [rows["val"], rows.pop("test")]
        repeats = [find_near_duplicates(rows["train"], part, progress) for part in others]
        seen = np.any(repeats, axis=0)
        rows["train"] = rows["train"].take(np.flatnonzero(~seen))
        left_out["train rows that val or test repeats"] += int(seen.sum())
    looked_at = checks.brief_audit(manifest.tasks, tuple(rows.values()), progress)
    progress.show(RowsRead(manifest.tasks, rows, left_out, (*manifest.notes, *looked_at)))
    check_classes(
        manifest.tasks, replace(rows["train"], source_weights=plan.settings.source_weights)
    )
    for task in manifest.tasks:
        if not rows["val"].targets[task.name].any():
            raise ValueError(
                f"Task {task.name!r} has no usable validation row, so nothing could tell how "
                "good it becomes. Give some rows the split val."
            )
    check_priors(plan.settings.priors, rows["train"])
    rows["train"] = add_log_priors(rows["train"], plan.settings.priors)
    if plan.start:
        train = rows["train"].examples
        for found in find_label_permutations(manifest.tasks, train, plan.start, finder.cache):
            progress.show(f"WARNING: {found.task}: {found}")
    return rows


def _doubts_of_val(manifest: Manifest, plan: _Plan) -> Iterator[str]:
    """Where val is drawn from a source, the model that the run starts from may know its faces."""
    if plan.start is None:
        return
    about = model_file.describe(plan.start)
    stated = sources_with_val(one for source in plan.labelled for one in source.examples)
    val = [one for one in manifest.only("val") if one.source not in stated]
    drawn = sorted({one.source for one in val})
    asked = {name for one in val for name, label in one.labels.items() if label}
    if learnt := [task.name for task in about.tasks if task.name in asked]:
        taught = ", ".join(about.provenance.get("sources", ())) or "sources that it does not name"
        yield (
            f"val is set aside from {', '.join(drawn)}, and {without_folders(str(plan.start))} "
            f"learnt {', '.join(learnt)} from {taught}. Where val has faces of these, the figures "
            "are too good: to be sure, give rows that it has never seen the split val"
        )


def _description(
    plan: _Plan,
    rows: Mapping[str, LabeledDataset],
    doubts: Sequence[str],
    distillation: Distillation | None,
    licence: str | None,
) -> Description:
    """What the model file says about the run, but for the scores."""
    made = {
        "by": f"faceattr {__version__}",
        "with": versions_of(keras.backend.backend(), "keras", "numpy", *OPENCV),
        "on": f"{platform.system()} {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "sources": [without_folders(source) for source in plan.specs],
        "weights": without_folders(plan.network.weights),
        "settings": asdict(plan.settings),
        "labels_read_as": list(plan.notes),
        "remarks": list(doubts),
        **({"added_to": plan.old.provenance()} if plan.old else {}),
        **({"distillation": distillation.provenance(plan.heads)} if distillation else {}),
    }
    return Description(
        tasks=plan.heads,
        crop=plan.finder.rule,
        network=networks.architecture(plan.network),
        data=tuple(
            {"split": split, "rows": len(of), "labels": _labels(of), "sha256": of.sha256()}
            for split, of in rows.items()
        ),
        provenance=made,
        licence=licence or networks.licence(plan.network),
    )


def _labels(rows: LabeledDataset) -> dict[str, list[float]]:
    """By task, how many rows (or shares of votes) each class has, in the task's order."""
    counts = {name: target.sum(axis=0).round(1) for name, target in rows.targets.items()}
    return {name: count.tolist() for name, count in counts.items() if count.any()}


def _rows_to_compare(source: str, plan: _Plan, progress: Progress) -> LabeledDataset:
    """Rows that only show what the old heads lose: those of split val, if there are any."""
    known, finder = plan.old.known if plan.old else {}, plan.finder
    whole = read_for_model([source], known, plan.label_map, finder, progress=progress)
    _, some = select_split(whole, None)
    return read_dataset(some.examples, some.tasks, finder.rule, finder.cache, progress)[0]
