"""From labelled pictures to a model file, its log and its report: what `faceattr train` does."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras

from faceattr import __version__, model_file
from faceattr.model_file import Description
from faceattr.tasks import Task
from faceattr.training import console
from faceattr.training.calibrate import calibrate
from faceattr.training.dataset import Rows
from faceattr.training.evaluate import (
    Score,
    accuracy_by_size,
    difference,
    predict,
    scores_of,
    smallest_face,
)
from faceattr.training.findings import Findings
from faceattr.training.fit import CHECKPOINT, LOG, SCORES, SETTINGS, Epoch, check, fit
from faceattr.training.manifest import Manifest
from faceattr.training.network import Network
from faceattr.training.report import print_findings, read_rows, repeats, write_report
from faceattr.training.settings import Settings
from faceattr.training.sources import read_for_training, without_folders

BEST = "best.keras"


def train(
    sources: Sequence[str],
    output: str | Path,
    *,
    tasks: Collection[str] | None = None,
    network: Network | None = None,
    settings: Settings | None = None,
    licence: str = "not stated",
    cache: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Score]:
    """Train a model on any number of sources and write it with log, curves and report.

    Args:
        sources: See `faceattr.training.sources.read_source`.
        output: The model file, ending in ``.keras``. Beside it comes a folder
            ``NAME.training`` with checkpoint, log, curves and report.
        tasks: Columns to take from bare manifests.
        network: What to train; the default starts from the shipped model's trunk.
        settings: How to train; by default with the phases that suit the start.
        licence: Terms of the new weights, kept in the file.
        cache: Folder of the crop cache.
        resume: Go on with a run that was interrupted.
        overwrite: Replace a model or an unfinished run that is already there.

    Returns:
        By task, the score of the finished file on the validation rows.
    """
    output = Path(output)
    network = network or Network()
    settings = settings or Settings(phases=network.phases)
    folder = output.with_suffix(".training")
    _check_output(output, folder, resume=resume, overwrite=overwrite)
    manifest = read_for_training(sources, tasks)
    model = network.build(manifest.tasks, seed=settings.seed)
    check(model, settings)
    rows = _cut(manifest, network, cache)
    description = Description(
        manifest.tasks, network.crop, licence=licence, **_made(sources, rows, network, settings)
    )
    with console.TrainingProgress(manifest.tasks, settings, len(rows["train"])) as progress:

        def keep_and_show(epoch: Epoch) -> None:
            if epoch.is_best:
                best = network.finished(model, manifest.tasks)
                model_file.save(best, description, folder / BEST, half=False)
            progress.show(epoch)

        fit(
            model,
            manifest.tasks,
            rows["train"],
            rows["val"],
            settings,
            folder,
            identity=asdict(network),
            resume=resume,
            after_epoch=keep_and_show,
            callbacks=[progress],
        )
    return finish(folder, output, rows["val"])


def _check_output(output: Path, folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse, before any work, what could not be written or would destroy something."""
    if output.suffix != ".keras" or output.is_dir():
        raise ValueError(f"A model is a file whose name ends in .keras. Received: {output}")
    unfinished = (folder / SETTINGS).is_file() and not (folder / SCORES).is_file()
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


def _cut(manifest: Manifest, network: Network, cache: str | Path | None) -> dict[str, Rows]:
    """Cut the faces of both splits, print what was read, and refuse what cannot teach."""
    rows, left_out = {}, Counter[str]()
    for split in ("train", "val"):
        part = manifest.only(split)
        rows[split], unusable = read_rows(part, manifest.tasks, network.crop, cache)
        left_out.update(unusable)
    console.print_rows(rows, manifest.tasks)
    console.print_left_out({**manifest.left_out, **left_out})
    console.print_repeats(*repeats(rows["train"], rows["val"]))
    check_classes(manifest.tasks, rows["train"])
    for task in manifest.tasks:
        if not rows["val"].targets[task.name].any():
            raise ValueError(
                f"Task {task.name!r} has no usable validation row, so nothing could tell how "
                "good it becomes. Give some rows the split val."
            )
    return rows


def check_classes(tasks: Sequence[Task], train: Rows) -> None:
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


def _made(
    sources: Sequence[str], rows: Mapping[str, Rows], network: Network, settings: Settings
) -> dict[str, Any]:
    """What the model file will say about how it was made."""
    libraries = (keras.backend.backend(), "keras", "numpy", "opencv-python")
    return {
        "network": network.architecture,
        "data": tuple(
            {"split": split, "rows": len(part), "sha256": part.sha256()}
            for split, part in rows.items()
        ),
        "made": {
            "by": f"faceattr {__version__}",
            "with": {name: importlib.metadata.version(name) for name in libraries},
            "on": f"{platform.system()} {platform.machine()}",
            "date": datetime.date.today().isoformat(),
            "sources": [without_folders(source) for source in sources],
            "weights": without_folders(network.weights),
            "settings": asdict(settings),
        },
    }


def finish(folder: Path, output: Path, val: Rows) -> dict[str, Score]:
    """Make the model file out of the best epoch of a run, and write down what it is worth.

    The heads are calibrated, the weights stored in half precision, and the stored file itself
    is scored.

    Args:
        folder: The folder of the run, with its log and best epoch.
        output: The model file to write.
        val: The validation rows.
    """
    best, description = model_file.load(folder / BEST)
    calibration = calibrate(best, val)
    part = folder / "part.keras"
    model_file.save(best, description, part)
    stored = model_file.load(part)[0]
    answers = predict(stored, val)
    scores = scores_of(answers, description.tasks, val)
    by_size = accuracy_by_size(stored, description.tasks, val, description.crop)
    found: dict[str, Any] = {
        name: {"split": "val", **asdict(score), "calibrated": asdict(calibration[name])}
        for name, score in scores.items()
    }
    found |= {"by_size": by_size, "min_face": smallest_face(by_size)}
    found["half_precision"] = difference(predict(best, val), answers)
    described = replace(description, scores=found)
    model_file.describe_anew(part, described)
    os.replace(part, output)
    console.print_calibration(calibration)
    console.print_half_precision(found["half_precision"])
    sources = tuple(description.made["sources"])
    findings = Findings(output.name, described, "val", sources, val, answers, log=folder / LOG)
    print_findings(findings)
    write_report(findings, folder)
    for leftover in (BEST, CHECKPOINT):
        (folder / leftover).unlink(missing_ok=True)
    return scores
