"""From labelled pictures to a model file, its log and its report: what `faceattr train` does."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from faceattr.auditing import checks
from faceattr.auditing.label_permutation import find_label_permutations
from faceattr.data import console
from faceattr.data.dataset import LabeledDataset, add_log_priors, read_dataset
from faceattr.data.face_finder import FaceFinder
from faceattr.data.label_map import LABELS_AS_WRITTEN, LabelMap
from faceattr.data.manifest import Manifest, select_split
from faceattr.data.near_duplicates import find_near_duplicates, mark_near_duplicates
from faceattr.data.sources import check_find_faces_in, read_for_model, read_for_training
from faceattr.data.store import features_folder
from faceattr.detection.base import Detector
from faceattr.evaluation.calibration import unseen
from faceattr.evaluation.metrics import Score
from faceattr.evaluation.report import SCORES
from faceattr.files import validate_output_path
from faceattr.images.load import PathLike, as_paths
from faceattr.model.file import Description
from faceattr.tasks import KNOWN_TASKS, Task
from faceattr.training.add_heads import Adding, ExistingHeads
from faceattr.training.config import FROZEN, Settings
from faceattr.training.distill import Distillation, distilled
from faceattr.training.network import Network
from faceattr.training.package import check_priors, made, package
from faceattr.training.progress import TrainingProgress
from faceattr.training.trainer import SETTINGS, check, fit


def of_rows(tasks: Sequence[Task], rows: Mapping[str, LabeledDataset]) -> list[str]:
    """A note for each kind of finding among the faces of all splits, and where there is more."""
    found = checks.check_faces(tasks, joined(tuple(rows.values())))
    totals = checks.totals(one for one in found if one.kind not in checks.IN_WORDS)
    lines = [f"{kind}: {count:,} ({where})" for (kind, where), count in totals.items()]
    for kind in checks.IN_WORDS:
        if told := [f"{one.where} {one.words}" for one in found if one.kind == kind]:
            lines.append(f"{kind}: {', '.join(told)}")
    return [*lines, "`faceattr audit` with these sources names them"] if totals else lines


def joined(parts: Sequence[LabeledDataset]) -> LabeledDataset:
    """Rows of several splits in one; all are cut by the same rule into the same cache."""
    # Crops are only ever appended, so the longest view of the file holds those of the others.
    crops = max((part.crops for part in parts), key=len)
    targets = {
        name: np.concatenate([part.targets[name] for part in parts]) for name in parts[0].targets
    }
    examples = [example for part in parts for example in part.examples]
    return LabeledDataset(crops, np.concatenate([part.index for part in parts]), targets, examples)


def of_start(
    tasks: Sequence[Task], train: LabeledDataset, network: Network, cache: Path | None
) -> list[str]:
    """A line for each task whose names the model that is started from would exchange."""
    if network.start is None:
        return []
    swaps = find_label_permutations(tasks, train.examples, network.start, cache)
    return [f"WARNING: {swap.task}: {swap}" for swap in swaps]


NEW = ".new.training"  # a run that replaces a finished one, until it is finished itself


def train(
    sources: PathLike | Sequence[PathLike],
    output: str | Path,
    *,
    adding: Adding | None = None,
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
) -> dict[str, Score]:
    """Train a model on any number of sources and write it with log, curves and report.

    Args:
        sources: See `faceattr.data.sources.read_source`.
        output: The model file, ending in ``.keras``. Beside it comes a folder
            ``NAME.training`` with checkpoint, log, curves and report.
        adding: New heads for the model that the run starts from, which keeps its own; its
            sources train along with `sources`.
        tasks: Columns to take from bare manifests.
        label_map: How the labels are to be understood.
        network: What to train; the default starts from the shipped model's trunk.
        settings: How to train; by default with the phases that suit the start, and with the
            frozen one alone where heads are added.
        distillation: Teachers whose answers count as labels of training rows, never of val rows.
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

    Returns:
        By task, the score of the finished file on the validation rows.
    """
    output, sources = Path(output), as_paths(sources)
    folder = _folder_of_run(output, resume=resume, overwrite=overwrite)
    network = (network or Network()).settled()
    settings = settings or Settings(phases=(FROZEN,) if adding else network.phases)
    old = ExistingHeads.of(network) if adding else None
    every = [*sources, *(adding.sources if adding else ())]
    check_find_faces_in(find_faces_in, [*every, *(adding.judge if adding else ())])
    known = KNOWN_TASKS | (old.known if old else {})
    finder = FaceFinder(network.rule, detector, Path(cache) if cache else None, find_faces_in)
    if adding and adding.judge:  # a name may occur in what is judged alone
        label_map = replace(label_map, strict=False)
    manifest = read_for_training(every, tasks, label_map, known, finder, console.PRINTING)
    heads = manifest.tasks
    if adding and old:
        heads = old.with_new(heads, adding.names)
        network, settings = network.extending(old.description), adding.sparing(settings)
        console.print_notes(adding.notes(settings))
    model = network.build(heads, seed=settings.seed)
    check(model, settings, manifest.examples)
    if distillation:
        distillation.check(heads, network.rule)
    rows = _cut(manifest, heads, network, cache, drop_near_duplicates)
    check_priors(settings.priors, rows["train"])
    rows["train"] = add_log_priors(rows["train"], settings.priors)
    network.measure(model, rows["train"])
    console.print_lines(of_start(manifest.tasks, rows["train"], network, finder.cache))
    judged = _judged(adding.judge, old, network, finder, label_map) if adding and old else []
    about = made(every, rows, network, settings, manifest.notes, old)
    about["made"] |= {"distillation": distillation.told()} if distillation else {}
    description = Description(heads, network.rule, licence=licence or network.licence, **about)
    taught = old.soft_labelled(rows["train"]) if adding and adding.keep and old else rows["train"]
    if distillation:
        taught, lines = distilled(taught, distillation, settings.priors)
        console.print_lines(list(lines))
    val = mark_near_duplicates(rows["val"], rows["train"])
    with TrainingProgress(manifest.tasks, settings, len(taught)) as progress:
        fit(
            model,
            manifest.tasks,
            taught,
            unseen(val),
            settings,
            folder,
            identity=asdict(network),
            draws=network.draws,
            resume=resume,
            after_epoch=progress.show,
            callbacks=[progress],
            features=features_folder(cache),
            track=progress.track,
            tell=console.OUT.print,
        )
    best = network.finished(model, heads)
    scores = package(
        best,
        description,
        folder,
        output,
        val,
        rows["train"],
        settings.priors,
        old=old,
        judged=judged,
    )
    _take_place(folder, output)
    return scores


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


def _cut(
    manifest: Manifest,
    heads: Sequence[Task],
    network: Network,
    cache: str | Path | None,
    drop: bool,
) -> dict[str, LabeledDataset]:
    """Cut the faces of both splits, print what was read, and refuse what cannot teach."""
    rows, left_out = {}, Counter[str]()
    for split in ("train", "val", *(["test"] if drop else [])):
        part = manifest.only(split)
        rows[split], unusable = read_dataset(part, heads, network.rule, cache, console.PRINTING)
        left_out.update(unusable)
    if drop:
        judges = [rows["val"], rows.pop("test")]
        seen = np.any([find_near_duplicates(rows["train"], part) for part in judges], axis=0)
        rows["train"] = rows["train"].take(np.flatnonzero(~seen))
        left_out["train rows that val or test repeats"] += int(seen.sum())
    console.print_rows(rows, manifest.tasks)
    console.print_left_out({**manifest.left_out, **left_out})
    console.print_notes(manifest.notes)
    console.print_notes(of_rows(manifest.tasks, rows))
    check_classes(manifest.tasks, rows["train"])
    for task in manifest.tasks:
        if not rows["val"].targets[task.name].any():
            raise ValueError(
                f"Task {task.name!r} has no usable validation row, so nothing could tell how "
                "good it becomes. Give some rows the split val."
            )
    return rows


def _judged(
    sources: Sequence[str],
    old: ExistingHeads,
    network: Network,
    finder: FaceFinder,
    label_map: LabelMap,
) -> list[LabeledDataset]:
    """The rows that only show what the old heads lose: those of split val, if there are any."""
    found = []
    for source in sources:
        printing = console.PRINTING
        read = read_for_model([source], old.known, label_map, finder, progress=printing)
        _, manifest = select_split(read, None)
        where = manifest.tasks, network.rule, finder.cache, printing
        found.append(read_dataset(manifest.examples, *where)[0])
    return found


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
