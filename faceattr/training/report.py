"""Reading labelled rows, scoring a model file on them, and writing down what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from faceattr import model_file
from faceattr.pictures.crop import CropRule
from faceattr.tasks import Task
from faceattr.training import console
from faceattr.training.crop_cache import cache_crops
from faceattr.training.dataset import Rows, rows_of
from faceattr.training.evaluate import Score, draw_confusions, evaluate, write_json
from faceattr.training.fit import SCORES
from faceattr.training.manifest import Example, Manifest
from faceattr.training.sources import read_labelled


def report(
    model: str | Path,
    sources: Sequence[str],
    *,
    split: str | None = None,
    output: str | Path | None = None,
    cache: str | Path | None = None,
) -> dict[str, Score]:
    """Score a model file on labelled faces: what `faceattr evaluate` does.

    Args:
        model: A model file, or ``"shipped"`` for the one that comes with the package.
        sources: See `faceattr.training.sources.read_source`.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; None for val where some row
            is of it, else all.
        output: A folder for ``scores.json`` and ``confusions.png``; None writes neither.
        cache: Folder of the crop cache.

    Raises:
        ValueError: Model and sources share no task, or the split has no row.
    """
    path = model_file.shipped_model() if model == "shipped" else Path(model)
    description = model_file.describe(path)
    known = {task.name: task for task in description.tasks}
    manifest = _of_split(read_labelled(sources, known), split)
    if not set(known) & {task.name for task in manifest.tasks}:
        raise ValueError(
            f"{path} answers {', '.join(known)}, and the labels are of "
            f"{', '.join(task.name for task in manifest.tasks)}: there is nothing to score."
        )
    rows, left_out = read_rows(manifest.examples, manifest.tasks, description.crop, cache)
    console.print_left_out(left_out)
    if not len(rows):
        raise ValueError("None of these pictures can be read, so there is nothing to score.")
    scores = evaluate(model_file.load(path)[0], description.tasks, rows)
    if output is None:
        console.print_scores(scores)
    else:
        write_report(scores, description.tasks, Path(output))
    return scores


def _of_split(manifest: Manifest, split: str | None) -> Manifest:
    """The rows of one split; without a name those of val, or all where no row is of val."""
    splits = {example.split for example in manifest.examples}
    chosen = split or ("val" if "val" in splits else "all")
    if chosen == "all":
        return manifest
    if chosen not in splits:
        raise ValueError(
            f"There is no row of split {chosen!r}. The splits are: "
            f"{', '.join(sorted(s or 'none given' for s in splits))}"
        )
    return replace(manifest, examples=manifest.only(chosen))


def read_rows(
    examples: Sequence[Example],
    tasks: Sequence[Task],
    rule: CropRule,
    cache: str | Path | None = None,
) -> tuple[Rows, Mapping[str, int]]:
    """Cut all faces; also how many pictures could not be used, by reason."""
    folder = Path(cache) if cache is not None else None
    cached = cache_crops(examples, rule, folder, console.track(examples, "cutting faces"))
    return rows_of(tasks, examples, cached), cached.left_out


def repeats(train: Rows, val: Rows) -> tuple[int, int]:
    """Faces that occur again, pixel for pixel.

    Returns:
        How many val faces are in train too, and how many train faces have another label for the
        same task somewhere else in train.
    """
    contradicting: set[int] = set()
    for target in train.targets.values():
        known = target.any(axis=1)
        answers = np.column_stack([train.index[known], target[known].argmax(axis=1)])
        faces, counts = np.unique(np.unique(answers, axis=0)[:, 0], return_counts=True)
        contradicting.update(faces[counts > 1].tolist())
    return int(np.isin(val.index, train.index).sum()), len(contradicting)


def write_report(scores: Mapping[str, Score], tasks: Sequence[Task], folder: Path) -> None:
    """Print the scores and write ``scores.json`` and ``confusions.png`` into a folder."""
    console.print_scores(scores)
    folder.mkdir(parents=True, exist_ok=True)
    draw_confusions(scores, tasks, folder / "confusions.png")
    write_json(scores, folder / SCORES)
