"""Reading labelled rows, scoring a model file on them, and writing down what came out."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from faceattr import __version__
from faceattr.data import console
from faceattr.data.dataset import LabeledDataset, build_dataset
from faceattr.data.face_finder import FaceFinder
from faceattr.data.label_map import AS_WRITTEN, LabelMap
from faceattr.data.manifest import Example, Manifest
from faceattr.data.near_duplicates import have_near_duplicates
from faceattr.data.sources import check_find_faces_in, read_labelled, without_folders
from faceattr.data.store import cache_crops
from faceattr.detection.base import Detector
from faceattr.evaluation import plots, show
from faceattr.evaluation.calibration import FEWEST
from faceattr.evaluation.findings import SHOWN, Evaluation, draw_mistakes, write_mistakes
from faceattr.evaluation.groups import Groups, by_groups, check_columns
from faceattr.evaluation.metrics import (
    Score,
    all_answers,
    operating_points,
    predict,
    reliability,
    write_json,
)
from faceattr.evaluation.pages import write_card, write_page
from faceattr.evaluation.robustness import robustness
from faceattr.files import validate_output_folder
from faceattr.images.crop import CropRule
from faceattr.images.load import PathLike, as_paths
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.file import Description
from faceattr.tasks import Task

SCORES = "scores.json"  # its absence tells that a run is not finished
ABOUT = "about.json"  # which rows and which model file were scored
ROBUSTNESS = "robustness.json"
TWIN = "twin"  # a column that is not in the manifest but worked out
IN_TRAIN, NOT_IN_TRAIN = "in train too", "not in train"


def report(
    model: str | Path,
    sources: PathLike | Sequence[PathLike],
    *,
    tasks: Collection[str] | None = None,
    spelling: LabelMap = AS_WRITTEN,
    split: str | None = None,
    by: Sequence[str] = (),
    flip: bool = False,
    robust: bool = False,
    output: str | Path | None = None,
    detector: Detector | None = None,
    find_faces_in: Collection[str] | None = None,
    cache: str | Path | None = None,
) -> dict[str, Score]:
    """Score a model file on labelled faces: what `faceattr evaluate` does.

    Args:
        model: A model file or an exported one, or ``"shipped"`` for the one of the package.
        sources: See `faceattr.data.sources.read_source`.
        tasks: Which of the model's tasks to score; None for all that the sources know.
        spelling: How the labels are to be understood.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; None for val where some row
            is of it, else all.
        by: Columns by which to group, see `faceattr.evaluation.groups.by_groups`; ``"twin"`` parts
            the faces that are, or nearly are, among the sources' rows of split train as well.
        flip: Average the answers on each face and its mirror image.
        robust: Also score the faces after they were blurred, darkened, compressed, turned away or
            covered, see `faceattr.evaluation.robustness.robustness`.
        output: A folder for the report, see `write_report`; None writes none.
        detector: Finds the faces in whole photographs; None: the pictures are faces.
        find_faces_in: Names of the sources that hold whole photographs; None: all, if any.
        cache: Folder of the crop cache.

    Raises:
        OSError: The report's folder cannot be written.
        ValueError: Model and sources share no task, the split has no row, or there is nothing
            of the kind to group by.
    """
    if output is not None:
        validate_output_folder(Path(output))
    path, sources = model_file.path_of(model), as_paths(sources)
    check_find_faces_in(find_faces_in, sources)
    description = runtime.describe(path)
    look = FaceFinder(description.crop, detector, Path(cache) if cache else None, find_faces_in)
    known = {task.name: task for task in description.tasks}
    whole = _only(read_labelled(sources, known, spelling, look), tasks, path, known)
    chosen, manifest = of_split(whole, split)
    check_columns([name for name in by if name != TWIN], manifest.examples, description.tasks)
    rows, left_out = read_dataset(manifest.examples, manifest.tasks, description.crop, cache)
    console.print_left_out(left_out)
    if not len(rows):
        raise ValueError("None of these pictures can be read, so there is nothing to score.")
    if TWIN in by:
        train, _ = read_dataset(whole.only("train"), manifest.tasks, description.crop, cache)
        rows = mark_near_duplicates(rows, train)
    watch = partial(console.track, what="asking the model")
    network = runtime.load(path)[0]
    network = runtime.FlipAveraging(network) if flip else network
    probabilities = predict(network, rows, watch=watch)
    answers = all_answers(description.tasks, rows, probabilities)
    groups = by_groups(answers, rows, probabilities, description.tasks, by)
    names = tuple(map(without_folders, sources))
    remarks = (*whole.notes, *_remarks(description, chosen, names, flip))
    findings = Evaluation(
        path.name, description, chosen, names, rows, probabilities, groups, remarks
    )
    console.OUT.print(_scored(chosen, rows, whole))
    print_findings(findings)
    worse = {}
    if robust:
        changes = partial(console.track, what="making faces worse")
        worse = robustness(network, description.tasks, rows, changes)
        show.print_robustness(worse)
    if output is not None:
        write_report(findings, Path(output))
        if worse:
            write_json(worse, Path(output, ROBUSTNESS))
        write_json(_about(findings, path, flip), Path(output, ABOUT))
    return findings.scores


def _about(findings: Evaluation, model: Path, flip: bool) -> dict[str, Any]:
    """Which model file was scored on which rows, for somebody who repeats it."""
    return {
        "faceattr": __version__,
        "date": datetime.date.today().isoformat(),
        "model": {"file": findings.model, "sha256": runtime.sha256_of(model)},
        "sources": findings.sources,
        "split": findings.split,
        "flip": flip,
        "rows": {"count": len(findings.rows), "sha256": findings.rows.sha256()},
    }


def _scored(split: str, rows: LabeledDataset, whole: Manifest) -> str:
    """Which rows were scored, and how many were not, in a few words."""
    if split == "all":
        return f"scored: {len(rows):,} faces of all splits"
    others = Counter(example.split for example in whole.examples if example.split != split)
    aside = ", ".join(f"{n:,} of {name or 'no split'}" for name, n in others.items())
    return f"scored: {len(rows):,} faces of split {split}" + (f", not {aside}" if aside else "")


def _remarks(
    description: Description, split: str, sources: Sequence[str], flip: bool
) -> Iterator[str]:
    """What a reader of these figures should have in mind."""
    if flip:
        yield "Every answer is the average over a face and its mirror image (--flip)."
    if split in ("all", "train") and set(sources) & set(description.provenance.get("sources", ())):
        yield (
            "The model learnt from a source of this name: if it is the same, these faces taught "
            "it and the figures are too good. Keep rows of split test aside, and score those."
        )


def _only(
    manifest: Manifest, names: Collection[str] | None, path: Path, known: Collection[str]
) -> Manifest:
    """The tasks of these names alone, and the examples that know one of them."""
    if names is None:
        return manifest
    if strangers := sorted(set(names) - set(known)):
        raise ValueError(
            f"{path} has no task {', '.join(strangers)}; its tasks are {', '.join(known)}."
        )
    tasks = tuple(task for task in manifest.tasks if task.name in names)
    examples = tuple(e for e in manifest.examples if any(e.labels.get(t.name) for t in tasks))
    if not examples:
        raise ValueError(
            f"No label is of {' or '.join(names)}; the labels are of "
            f"{', '.join(task.name for task in manifest.tasks)}."
        )
    return replace(manifest, tasks=tasks, examples=examples)


def mark_near_duplicates(rows: LabeledDataset, train: LabeledDataset) -> LabeledDataset:
    """Rows with a column `TWIN`: whether the same face, or nearly the same, is in train.

    Raises:
        ValueError: There are no training rows.
    """
    if not len(train):
        raise ValueError(f"--by {TWIN} compares with rows of split train, and there are none.")
    found = [IN_TRAIN if twin else NOT_IN_TRAIN for twin in have_near_duplicates(rows, train)]
    marked = [
        replace(example, about={**example.about, TWIN: word})
        for example, word in zip(rows.examples, found, strict=True)
    ]
    return replace(rows, examples=marked)


def unseen(rows: LabeledDataset) -> LabeledDataset:
    """The rows of `mark_near_duplicates` not in train; all of a task that has few others.

    Rows with a twin in train measure what was learnt by heart: they shall neither choose an
    epoch nor say how sure a model may be.
    """
    places = np.array([example.about[TWIN] == NOT_IN_TRAIN for example in rows.examples], bool)
    targets = {
        name: target * places[:, None] if target[places].any(axis=1).sum() >= FEWEST else target
        for name, target in rows.targets.items()
    }
    kept = np.any([target.any(axis=1) for target in targets.values()], axis=0)
    return replace(rows, targets=targets).take(np.flatnonzero(kept))


def twin_groups(
    tasks: Sequence[Task], rows: LabeledDataset, probabilities: Mapping[str, np.ndarray]
) -> tuple[Groups, ...]:
    """Accuracy with and without the faces that are in train too, of rows of `mark_near_duplicates`.

    A task none of whose faces, or all of them, have a twin is left out.
    """
    answers = all_answers(tasks, rows, probabilities)
    found = by_groups(answers, rows, probabilities, tasks, [TWIN])
    return tuple(groups for groups in found if len(groups.groups) > 1)


def of_split(manifest: Manifest, split: str | None) -> tuple[str, Manifest]:
    """The rows of one split; without a name those of val, or all where no row is of val."""
    splits = {example.split for example in manifest.examples}
    chosen = split or ("val" if "val" in splits else "all")
    if chosen == "all":
        return chosen, manifest
    if chosen not in splits:
        raise ValueError(
            f"There is no row of split {chosen!r}. The splits are: "
            f"{', '.join(sorted(s or 'none given' for s in splits))}"
        )
    return chosen, replace(manifest, examples=manifest.only(chosen))


def read_dataset(
    examples: Sequence[Example],
    tasks: Sequence[Task],
    rule: CropRule,
    cache: str | Path | None = None,
) -> tuple[LabeledDataset, Mapping[str, int]]:
    """Cut all faces; also how many pictures could not be used, by reason."""
    folder = Path(cache) if cache is not None else None
    cached = cache_crops(examples, rule, folder, console.track(examples, "cutting faces"))
    return build_dataset(tasks, examples, cached), cached.left_out


def print_findings(findings: Evaluation) -> None:
    """Print the scores, what they cannot tell, what confidence buys, and the groups."""
    show.print_scores(findings.scores)
    console.print_notes(findings.warnings())
    show.print_offers(
        {answers.task.name: operating_points(answers) for answers in findings.answers}
    )
    show.print_groups(findings.groups)


def write_report(findings: Evaluation, folder: Path) -> None:
    """Write a report into a folder.

    ``report.html`` has everything on a page, ``card.md`` the same in words and tables,
    ``mistakes.csv`` every wrong answer and ``mistakes.png`` the surest of them; beside them
    ``confusions.png``, ``calibration.png``, ``curves.png`` of a training run, and, at last,
    ``scores.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in _pictures(findings).items():
        plots.save_png(draw, folder / name)
    wrong = findings.mistakes.values()
    write_mistakes((one for some in wrong for one in some), findings.rows, folder / "mistakes.csv")
    surest = [one for some in wrong for one in some[:SHOWN]]
    draw_mistakes(surest, findings.rows, folder / "mistakes.png")
    write_card(findings, folder / "card.md")
    write_page(findings, folder / "report.html")
    write_json(_as_json(findings), folder / SCORES)


def _pictures(findings: Evaluation) -> dict[str, plots.Draw]:
    drawn: dict[str, plots.Draw] = {
        "confusions.png": partial(plots.confusions, findings.scores, findings.tasks),
        "calibration.png": partial(plots.calibration, findings.answers),
    }
    if findings.log is not None:
        drawn["curves.png"] = partial(plots.curves, findings.log)
    return drawn


def _as_json(findings: Evaluation) -> dict[str, dict]:
    """By task its score, and what else was counted."""
    found = {name: asdict(score) for name, score in findings.scores.items()}
    for answers in findings.answers:
        name = answers.task.name
        found[name]["within_one"] = findings.scores[name].within_one
        found[name]["classes"] = [asdict(one) for one in findings.scores[name].classes]
        found[name]["reliability"] = [asdict(one) for one in reliability(answers)]
        found[name]["min_confidence"] = [asdict(one) for one in operating_points(answers)]
        found[name]["groups"] = [asdict(one) for one in findings.groups if one.task == name]
    return found
