"""From labelled pictures to a model file, its log and its report: what `faceattr train` does."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from faceattr import __version__, model_file
from faceattr.model_file import Description
from faceattr.tasks import Task
from faceattr.training import console, curves
from faceattr.training.calibrate import calibrate
from faceattr.training.dataset import Rows
from faceattr.training.evaluate import Score, accuracy_by_size, evaluate, smallest_face
from faceattr.training.fit import CHECKPOINT, LOG, Epoch, fit
from faceattr.training.network import Network
from faceattr.training.report import read_rows, write_report
from faceattr.training.settings import Settings
from faceattr.training.sources import read_sources
from faceattr.training.splitting import split_off_val


def train(
    sources: Sequence[str],
    output: str | Path,
    *,
    tasks: Collection[str] | None = None,
    network: Network | None = None,
    settings: Settings | None = None,
    licence: str = "not stated",
    cache: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Score]:
    """Train a model on any number of sources and write it with log, curves and report.

    Args:
        sources: See `faceattr.training.sources.read_sources`.
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
    manifest = split_off_val(read_sources(sources, tasks))
    rows, left_out = {}, Counter[str]()
    for split in ("train", "val"):
        part = replace(manifest, examples=manifest.only(split))
        rows[split], unusable = read_rows(part, network.crop, cache)
        left_out.update(unusable)
    console.print_manifest(manifest, left_out)
    check_classes(manifest.tasks, rows["train"])
    made = _made(sources, rows, network, settings)
    description = Description(manifest.tasks, network.crop, licence=licence, **made)

    model = network.build(manifest.tasks, seed=settings.seed)
    with console.TrainingProgress(manifest.tasks, settings, len(rows["train"])) as progress:

        def keep_and_show(epoch: Epoch) -> None:
            if epoch.is_best:
                model_file.save(network.finished(model, manifest.tasks), description, output)
            progress.show(epoch)

        fit(
            model,
            manifest.tasks,
            rows["train"],
            rows["val"],
            settings,
            folder,
            resume=resume,
            after_epoch=keep_and_show,
            callbacks=[progress],
        )
    scores = finish(output, folder, rows["val"])
    (folder / CHECKPOINT).unlink()
    return scores


def _check_output(output: Path, folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse, before any work, what could not be written or would destroy something."""
    if output.suffix != ".keras":
        raise ValueError(f"A model file's name ends in .keras. Received: {output}")
    unfinished = (folder / CHECKPOINT).is_file()
    if resume and not unfinished and output.exists():
        raise ValueError(f"{output} is finished, there is nothing to resume.")
    if unfinished and not (resume or overwrite):
        raise ValueError(
            f"{folder} holds an unfinished run: go on with --resume, "
            "or start anew with --overwrite."
        )
    if output.exists() and not (resume or overwrite):
        raise ValueError(f"{output} exists already: choose another name, or --overwrite.")
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".probe"
    probe.touch()
    probe.unlink()


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
    libraries = ("tensorflow", "keras", "numpy", "opencv-python")
    return {
        "network": {"trunk": "vgg16", "pooling": network.pooling, "dropout": network.dropout},
        "data": tuple(
            {"split": split, "rows": len(part), "sha256": part.sha256()}
            for split, part in rows.items()
        ),
        "made": {
            "by": f"faceattr {__version__}",
            "with": {name: importlib.metadata.version(name) for name in libraries},
            "on": f"{platform.system()} {platform.machine()}",
            "date": datetime.date.today().isoformat(),
            "sources": list(sources),
            "weights": network.weights,
            "settings": asdict(settings),
        },
    }


def finish(output: Path, folder: Path, val: Rows) -> dict[str, Score]:
    """Calibrate the best model of a run, score the finished file itself, and write all down.

    Args:
        output: The model file; it is replaced by its calibrated self.
        folder: The folder of the run, with its log.
        val: The validation rows.
    """
    best, description = model_file.load(output)
    calibration = calibrate(best, val)
    model_file.save(best, description, output)
    model = model_file.load(output)[0]
    scores = evaluate(model, description.tasks, val)
    by_size = accuracy_by_size(model, description.tasks, val, description.crop)
    found: dict[str, Any] = {
        name: {"split": "val", **asdict(score), "calibrated": asdict(calibration[name])}
        for name, score in scores.items()
    }
    found |= {"by_size": by_size, "min_face": smallest_face(by_size)}
    model_file.describe_anew(output, replace(description, scores=found))
    write_report(scores, description.tasks, folder)
    curves.draw_curves(folder / LOG, folder / "curves.png")
    return scores
