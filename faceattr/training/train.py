"""From labelled pictures to a model file, its log and its report: what `faceattr train` does."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from faceattr.auditing import checks
from faceattr.auditing.label_permutation import find_label_permutations
from faceattr.data.dataset import LabeledDataset, add_log_priors, read_dataset
from faceattr.data.face_finder import FaceFinder
from faceattr.data.label_map import LABELS_AS_WRITTEN, LabelMap
from faceattr.data.manifest import Manifest, select_split
from faceattr.data.near_duplicates import find_near_duplicates, mark_near_duplicates
from faceattr.data.sources import check_find_faces_in, read_for_model, read_for_training
from faceattr.data.store import features_folder
from faceattr.detection.base import Detector
from faceattr.evaluation.calibration import unseen
from faceattr.evaluation.report import SCORES
from faceattr.exporting.embed import add_copy
from faceattr.files import validate_output_path
from faceattr.images.load import PathLike, as_paths
from faceattr.model.file import Description
from faceattr.progress import SILENT, Progress
from faceattr.tasks import KNOWN_TASKS, Task
from faceattr.training import network as networks
from faceattr.training.add_heads import ExistingHeads, NewHeads
from faceattr.training.checkpoint import SETTINGS
from faceattr.training.config import FROZEN, Network, Settings
from faceattr.training.distill import Distillation, distilled
from faceattr.training.package import TrainingResult, check_priors, describe_run, package
from faceattr.training.trainer import check, fit

NEW = ".new.training"  # a run that replaces a finished one, until it is finished itself


@dataclass(frozen=True)
class RowsRead:
    """What a run trains on; shown before its first epoch.

    Args:
        tasks: The tasks of the sources.
        rows: By split.
        left_out: By reason, how many rows cannot be used.
        notes: What somebody should have in mind.
    """

    tasks: Sequence[Task]
    rows: Mapping[str, LabeledDataset]
    left_out: Mapping[str, int]
    notes: Sequence[str]


def train(
    sources: PathLike | Sequence[PathLike],
    output: str | Path,
    *,
    new_heads: NewHeads | None = None,
    tasks: Collection[str] | None = None,
    label_map: LabelMap = LABELS_AS_WRITTEN,
    network: Network | None = None,
    settings: Settings | None = None,
    distillation: Distillation | None = None,
    licence: str | None = None,
    detector: Detector | None = None,
    find_faces_in: Collection[str] | None = None,
    drop_near_duplicates: bool = False,
    cache: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Train a model on any number of sources and write it with log, curves and report.

    Args:
        sources: See `faceattr.data.sources.read_source`.
        output: The model file, ending in ``.keras``. Beside it comes a folder
            ``NAME.training`` with checkpoint, log, curves and report.
        new_heads: Heads for the model that the run starts from, which keeps its own; their
            sources train along with `sources`.
        tasks: Columns to take from bare manifests.
        label_map: How the labels are to be understood.
        network: What to train; the default starts from the shipped model's backbone.
        settings: How to train; by default with the phases that suit the start, and with the
            frozen one alone where heads are added.
        distillation: Answers that count as labels of training rows, never of val rows.
        licence: Terms of the new weights, kept in the file; by default those of the model that
            the run starts from.
        detector: Finds the faces in whole photographs; None: the pictures are faces.
        find_faces_in: Names of the sources that hold whole photographs; None: all, if any.
        drop_near_duplicates: Leave the training rows out whose face is, or nearly is, among the
            val or test rows as well.
        cache: Folder of the crop cache.
        resume: Go on with a run that was interrupted.
        overwrite: Replace a model or an unfinished run that is already there; a finished run and
            its model stay until the new model is finished.
        progress: Is shown `RowsRead`, notes, and every `faceattr.training.checkpoint.Epoch`.

    Returns:
        The scores of the finished file and what else was measured.
    """
    output, sources = Path(output), as_paths(sources)
    folder = _folder_of_run(output, resume=resume, overwrite=overwrite)
    network = networks.resolved(network or Network())
    settings = settings or Settings(phases=(FROZEN,) if new_heads else network.phases)
    old = ExistingHeads.of(network) if new_heads else None
    compared = new_heads.evaluate_on if new_heads else ()
    every = [*sources, *(new_heads.sources if new_heads else ())]
    check_find_faces_in(find_faces_in, [*every, *compared])
    rule = networks.crop_rule(network)
    finder = FaceFinder(rule, detector, Path(cache) if cache else None, find_faces_in)
    if compared:  # a name may occur in what is compared alone
        label_map = replace(label_map, strict=False)
    known = KNOWN_TASKS | (old.known if old else {})
    manifest = read_for_training(every, tasks, label_map, known, finder, progress)
    heads = manifest.tasks
    if new_heads and old:
        heads = old.with_new(heads, new_heads.names)
        network = networks.extended(network, old.description)
        settings = new_heads.sparing(settings)
    model = networks.new_model(network, heads, settings.seed)
    check(model, settings, manifest.examples)
    if distillation:
        _check_distillation(distillation, heads, network, settings, progress)
    rows = _read_rows(manifest, heads, network, cache, drop_near_duplicates, progress)
    check_priors(settings.priors, rows["train"])
    rows["train"] = add_log_priors(rows["train"], settings.priors)
    networks.measure(network, model, rows["train"])
    _show_permutations(manifest.tasks, rows["train"], network, finder.cache, progress)
    compare_on = [
        _rows_of(source, old, network, finder, label_map, progress) for source in compared if old
    ]
    about = describe_run(every, rows, network, settings, manifest.notes, old)
    about["provenance"] |= {"distillation": distillation.provenance()} if distillation else {}
    terms = licence or networks.licence(network)
    description = Description(heads, rule, licence=terms, **about)
    val = mark_near_duplicates(rows["val"], rows["train"])
    fit(
        model,
        manifest.tasks,
        _taught(rows["train"], distillation, old, settings, progress),
        unseen(val),
        settings,
        folder,
        network=network,
        resume=resume,
        features=features_folder(cache),
        progress=progress,
    )
    best = networks.finished_model(network, model, heads)
    marked = {"train": rows["train"], "val": val}
    result = package(
        best, description, marked, settings.priors, folder, output, old=old, compare_on=compare_on
    )
    _take_place(folder, output)
    add_copy(output, val, progress)
    return result


def _folder_of_run(output: Path, *, resume: bool, overwrite: bool) -> Path:
    """Where a run keeps its things; refuses what cannot be written or would destroy."""
    if output.suffix != ".keras" or output.is_dir():
        raise ValueError(f"A model is a file whose name ends in .keras. Received: {output}")
    validate_output_path(output)
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
    if output.exists() and not (resume or overwrite):
        raise ValueError(f"{output} exists already: choose another name, or --overwrite.")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output.parent):
        pass
    return folder


def _is_unfinished(folder: Path) -> bool:
    return (folder / SETTINGS).is_file() and not (folder / SCORES).is_file()


def _take_place(folder: Path, output: Path) -> None:
    """Put the folder of a finished run where that of the run before was."""
    usual = output.with_suffix(".training")
    if folder != usual:
        shutil.rmtree(usual, ignore_errors=True)
        folder.rename(usual)


def _check_distillation(
    distillation: Distillation,
    heads: Sequence[Task],
    network: Network,
    settings: Settings,
    progress: Progress,
) -> None:
    distillation.check(heads, networks.crop_rule(network))
    if distillation.old_heads and not any(phase.unfreeze_from for phase in settings.phases):
        progress.show(
            "note: --distill old does nothing: the backbone is frozen, --epochs finetune=N opens it"
        )


def _taught(
    rows: LabeledDataset,
    distillation: Distillation | None,
    old: ExistingHeads | None,
    settings: Settings,
    progress: Progress,
) -> LabeledDataset:
    """Training rows with the answers among their labels that shall count as such."""
    if distillation and distillation.old_heads and old:
        rows = old.soft_labelled(rows)
    if distillation and distillation.teachers:
        rows, lines = distilled(rows, distillation, settings.priors)
        for line in lines:
            progress.show(line)
    return rows


def _read_rows(
    manifest: Manifest,
    heads: Sequence[Task],
    network: Network,
    cache: str | Path | None,
    drop: bool,
    progress: Progress,
) -> dict[str, LabeledDataset]:
    """Cut the faces of both splits, and refuse what cannot teach."""
    rows, left_out, rule = {}, Counter[str](), networks.crop_rule(network)
    for split in ("train", "val", *(["test"] if drop else [])):
        rows[split], unusable = read_dataset(manifest.only(split), heads, rule, cache, progress)
        left_out.update(unusable)
    if drop:
        others = [rows["val"], rows.pop("test")]
        seen = np.any([find_near_duplicates(rows["train"], part) for part in others], axis=0)
        rows["train"] = rows["train"].take(np.flatnonzero(~seen))
        left_out["train rows that val or test repeats"] += int(seen.sum())
    notes = (*manifest.notes, *_findings(manifest.tasks, rows))
    progress.show(RowsRead(manifest.tasks, rows, {**manifest.left_out, **left_out}, notes))
    check_classes(manifest.tasks, rows["train"])
    for task in manifest.tasks:
        if not rows["val"].targets[task.name].any():
            raise ValueError(
                f"Task {task.name!r} has no usable validation row, so nothing could tell how "
                "good it becomes. Give some rows the split val."
            )
    return rows


def _findings(tasks: Sequence[Task], rows: Mapping[str, LabeledDataset]) -> list[str]:
    """A note for each kind of finding among the faces of all splits, and where there is more."""
    found = checks.check_faces(tasks, _joined(tuple(rows.values())))
    totals = checks.totals(one for one in found if one.kind not in checks.IN_WORDS)
    lines = [f"{kind}: {count:,} ({where})" for (kind, where), count in totals.items()]
    for kind in checks.IN_WORDS:
        if told := [f"{one.where} {one.words}" for one in found if one.kind == kind]:
            lines.append(f"{kind}: {', '.join(told)}")
    return [*lines, "`faceattr audit` with these sources names them"] if totals else lines


def _joined(parts: Sequence[LabeledDataset]) -> LabeledDataset:
    """Rows of several splits in one; all are cut by the same rule into the same cache."""
    # Crops are only ever appended, so the longest view of the file holds those of the others.
    crops = max((part.crops for part in parts), key=len)
    targets = {
        name: np.concatenate([part.targets[name] for part in parts]) for name in parts[0].targets
    }
    examples = [example for part in parts for example in part.examples]
    return LabeledDataset(crops, np.concatenate([part.index for part in parts]), targets, examples)


def _show_permutations(
    tasks: Sequence[Task],
    train: LabeledDataset,
    network: Network,
    cache: Path | None,
    progress: Progress,
) -> None:
    """Warn of each task whose names the model that is started from would exchange."""
    if start := networks.start_file(network):
        for found in find_label_permutations(tasks, train.examples, start, cache):
            progress.show(f"WARNING: {found.task}: {found}")


def _rows_of(
    source: str,
    old: ExistingHeads,
    network: Network,
    finder: FaceFinder,
    label_map: LabelMap,
    progress: Progress,
) -> LabeledDataset:
    """Rows that only show what the old heads lose: those of split val, if there are any."""
    whole = read_for_model([source], old.known, label_map, finder, progress=progress)
    _, manifest = select_split(whole, None)
    rule = networks.crop_rule(network)
    return read_dataset(manifest.examples, manifest.tasks, rule, finder.cache, progress)[0]


def check_classes(tasks: Sequence[Task], train: LabeledDataset) -> None:
    """Raise ValueError where a task or one of its classes has no training row."""
    for task in tasks:
        counts = train.targets[task.name].sum(axis=0)
        missing = [name for name, count in zip(task.classes, counts, strict=True) if not count]
        if missing:
            raise ValueError(
                f"Task {task.name!r} has no training row of {', '.join(missing)}, so that could "
                "not be learnt. Add some, or call the task otherwise (for example "
                f"my_{task.name}=…) to have a head of just your own classes."
            )
