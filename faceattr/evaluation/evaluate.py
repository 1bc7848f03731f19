"""Scoring a model file on labelled faces: what `faceattr evaluate` does."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Unpack

from faceattr import __version__
from faceattr.compatibility import renamed_arguments
from faceattr.data.dataset import LabeledDataset, read_dataset
from faceattr.data.face_finder import FaceFinder
from faceattr.data.manifest import Example, Manifest, TasksByName, select_split
from faceattr.data.near_duplicates import NEAR_DUPLICATE, mark_near_duplicates
from faceattr.data.sources import (
    ReadingConfig,
    ReadingSettings,
    read_for_model,
    without_folders,
    without_spelling,
)
from faceattr.evaluation.groups import check_columns, score_groups
from faceattr.evaluation.metrics import Score, predict
from faceattr.evaluation.report import REPORT, Evaluation, write_report
from faceattr.evaluation.robustness import Robustness, robustness
from faceattr.files import validate_report_folder, write_json
from faceattr.images.load import PathLike, as_paths
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.file import Description
from faceattr.model.priors import log_ratios
from faceattr.model.runtime import InferenceConfig, InferenceSettings
from faceattr.progress import SILENT, Progress, suppress_stderr
from faceattr.tasks import refuse_unknown

ABOUT = "about.json"  # which rows and which model file were scored
ROBUSTNESS = "robustness.json"
OF_THE_COPY = "The answers are those of the LiteRT copy in the model file (--runtime litert)."
OLD_COLUMNS = {"twin": NEAR_DUPLICATE}  # what a column was called


class EvaluationSettings(ReadingSettings, InferenceSettings, total=False):
    """How the sources are read, and how the model is asked."""


@renamed_arguments(spelling="label_map")
def evaluate(
    model: str | Path,
    sources: PathLike | Sequence[PathLike],
    *,
    tasks: str | Collection[str] | None = None,
    split: str | None = None,
    by: str | Sequence[str] = (),
    engine: str | None = None,
    robust: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
    **how: Unpack[EvaluationSettings],
) -> dict[str, Score]:
    """Score a model file on labelled faces.

    Args:
        model: A model file or an exported one, or ``"shipped"`` for the one of the package.
        sources: See `faceattr.data.sources.read_source`.
        tasks: Which of the model's tasks to score; None for all that the sources know.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; None for val where some row
            is of it, else all.
        by: Columns by which to group, see `faceattr.evaluation.groups.score_groups`;
            ``"near_duplicate"`` parts the faces that are, or nearly are, among the sources' rows
            of split train as well.
        engine: Of a model file ``"keras"``, the network itself, is scored by default; ``"litert"``
            is the copy inside it, by which `label`, `live` and `serve` answer; ``"auto"`` the copy
            where there is one.
        robust: Also score the faces after they were blurred, darkened, compressed, turned away or
            covered, see `faceattr.evaluation.robustness.robustness`.
        output: A folder for the report, see `faceattr.evaluation.report.write_report`.
        overwrite: Replace a report that is there, and whatever was written into its card.
        progress: Is told how far the work is, and shown an `Evaluation` and a `Robustness`.
        **how: How the sources are read, see `faceattr.data.sources.ReadingConfig`:
            ``label_map``, ``detector``, ``find_faces_in``, ``cache``; and how the model is asked,
            as for `faceattr.FaceAttributes`: ``flip``, ``tta``, ``priors``.

    Returns:
        By task, the score.

    Raises:
        OSError: The report's folder cannot be written, or has a report in it.
        ValueError: Model and sources share no task, the split has no row, or there is nothing
            of the kind to group by.
    """
    if output is not None:
        validate_report_folder(Path(output), REPORT, overwrite=overwrite)
    path, sources = model_file.path_of(model), as_paths(sources)
    tasks = [tasks] if isinstance(tasks, str) else tasks
    by = [by] if isinstance(by, str) else by
    runtime.check_engine(path, engine or "auto")
    description, given = runtime.describe(path), dict[str, Any](how)
    names = given.keys() & InferenceSettings.__annotations__
    asked = InferenceConfig(**{name: given.pop(name) for name in names})
    log_ratios(description, asked.priors)  # what it refuses is told before images are read
    config = ReadingConfig.of("evaluate", given)
    finder = config.finder(description.crop, sources)
    known = {task.name: task for task in description.tasks}
    read = read_for_model(sources, known, config.label_map, finder, progress=progress)
    whole = _only(read, tasks, path, known)
    chosen, manifest = select_split(whole, split)
    by = [OLD_COLUMNS.get(name, name) for name in by]
    check_columns(by, manifest.examples, description.tasks)
    with suppress_stderr():  # LiteRT greets
        opened = runtime.load(path, engine or "keras")[0]
    network = asked.apply(opened, description)
    is_compared = any(NEAR_DUPLICATE in name.split("+") for name in by)
    train = whole.only("train") if is_compared else None
    rows = _read_rows(manifest, train, finder, progress)
    probabilities = predict(network, rows, progress=progress)
    groups = score_groups(description.tasks, rows, probabilities, by)
    answered_by = getattr(opened, "engine", "keras")
    scored = tuple(map(without_folders, sources))
    remarks = [*whole.notes, *_remarks(description, chosen, scored, asked)]
    remarks += _answers_as_labels(manifest)
    if answered_by == "litert" and not runtime.is_exported(path):
        remarks.append(OF_THE_COPY)
    evaluation = Evaluation(
        path.name, description, chosen, scored, rows, probabilities, groups, tuple(remarks)
    )
    progress.show(_scored(chosen, rows, whole))
    progress.show(evaluation)
    worse = robustness(network, description.tasks, rows, progress) if robust else None
    if worse:
        progress.show(worse)
    if output is not None:
        about = _provenance(evaluation, path) | asdict(asked) | {"engine": answered_by}
        _write(evaluation, worse, about, Path(output))
    return evaluation.scores


def _write(
    evaluation: Evaluation, worse: Robustness | None, about: dict[str, Any], folder: Path
) -> None:
    write_report(evaluation, folder)
    (folder / ROBUSTNESS).unlink(missing_ok=True)  # of a report that was there
    if worse:
        write_json(worse.accuracy, folder / ROBUSTNESS)
    write_json(about, folder / ABOUT)


def _read_rows(
    manifest: Manifest, train: Sequence[Example] | None, finder: FaceFinder, progress: Progress
) -> LabeledDataset:
    """The faces to score; with training rows given, marked where they are among these."""

    def read(examples: Sequence[Example]) -> tuple[LabeledDataset, Mapping[str, int]]:
        return read_dataset(examples, manifest.tasks, finder.rule, finder.cache, progress)

    rows, left_out = read(manifest.examples)
    for reason, count in {**manifest.left_out, **left_out}.items():
        progress.show(f"left out: {count:,} ({reason})")
    if not len(rows):
        raise ValueError("None of these images can be read, so there is nothing to score.")
    if train is None:
        return rows
    return mark_near_duplicates(rows, read(train)[0], progress)


def _provenance(evaluation: Evaluation, model: Path) -> dict[str, Any]:
    """Which model file was scored on which rows, for somebody who repeats it."""
    return {
        "faceattr": __version__,
        "date": datetime.date.today().isoformat(),
        "model": {"file": evaluation.model, "sha256": runtime.sha256_of(model)},
        "sources": evaluation.sources,
        "split": evaluation.split,
        "rows": {"count": len(evaluation.rows), "sha256": evaluation.rows.sha256()},
    }


def _scored(split: str, rows: LabeledDataset, whole: Manifest) -> str:
    if split == "all":
        return f"scored: {len(rows):,} faces of all splits"
    others = Counter(example.split for example in whole.examples if example.split != split)
    aside = ", ".join(f"{n:,} of {name or 'no split'}" for name, n in others.items())
    return f"scored: {len(rows):,} faces of split {split}" + (f", not {aside}" if aside else "")


def _remarks(
    description: Description, split: str, sources: Sequence[str], asked: InferenceConfig
) -> Iterator[str]:
    """What a reader of these figures should have in mind."""
    if asked.flip:
        yield "Every answer is the average over a face and its mirror image (--flip)."
    if asked.tta > 1:
        yield (
            f"Every answer is the average over {asked.tta} shifted crops of a face "
            f"(--tta {asked.tta})."
        )
    for task, prior in asked.priors.items():
        shares = prior if isinstance(prior, str) else _by_class(prior)
        yield f"The answers of {task} are put to other class shares (--prior): {shares}."
    taught = map(without_spelling, description.provenance.get("sources", ()))
    if split != "test" and set(map(without_spelling, sources)) & set(taught):
        did = (
            "chose its epoch and its calibration, and the figures are a little too good"
            if split == "val"
            else "taught it, and the figures are too good"
        )
        yield (
            "The model learnt from a source of this name: if it is the same, these faces "
            f"{did}. Keep rows of split test aside, and score those."
        )


def _answers_as_labels(manifest: Manifest) -> Iterator[str]:
    for task in manifest.tasks:
        if any(task.columns[1] in one.metadata for one in manifest.examples):
            yield (
                f"The labels of {task.name} stand beside {task.columns[1]}, as `faceattr label` "
                "writes its answers: to agree with a model's answers is no accuracy."
            )


def _by_class(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:g}" for name, share in shares.items())


def _only(
    manifest: Manifest, names: Collection[str] | None, path: Path, known: TasksByName
) -> Manifest:
    """The tasks of these names alone, and the examples that know one of them."""
    if names is None:
        return manifest
    refuse_unknown("task", names, known, f"in {path}")
    tasks = tuple(task for task in manifest.tasks if task.name in names)
    examples = tuple(e for e in manifest.examples if any(e.labels.get(t.name) for t in tasks))
    if not examples:
        raise ValueError(
            f"No label is of {' or '.join(names)}; the labels are of "
            f"{', '.join(task.name for task in manifest.tasks)}."
        )
    return replace(manifest, tasks=tasks, examples=examples)
