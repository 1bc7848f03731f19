"""Configs of training side by side: the same rows, the same number of images, several seeds.

The results of a run are appended to a CSV file as it ends; what is there is not run again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import keras
import pandas as pd

from faceattr.data.dataset import read_splits
from faceattr.data.manifest import Manifest
from faceattr.data.sources import (
    ReadingConfig,
    ReadingTasksSettings,
    read_labels,
    unite,
)
from faceattr.data.store import features_folder
from faceattr.files import atomic_write, to_jsonable
from faceattr.images.load import PathLike, as_paths
from faceattr.progress import SILENT, Progress
from faceattr.training import network as networks
from faceattr.training.checkpoint import Epoch
from faceattr.training.config import Network, Settings, TaskSampling
from faceattr.training.trainer import check, fit

ALONE = "alone"
SPLITS = ("train", "val")  # that are read


@dataclass(frozen=True)
class Config:
    """How several tasks are trained, by name."""

    name: str
    network: Network
    settings: Settings


@dataclass(frozen=True)
class Run:
    """One training: a config, a seed, what is read and how, what was read, the same for all runs,
    and the task that is trained alone.
    """

    config: Config
    seed: int
    sources: tuple[str, ...]
    reading: ReadingConfig
    manifest: Manifest
    alone: str | None = None

    @property
    def name(self) -> str:
        """What table and messages call its config."""
        return ALONE if self.alone else self.config.name

    @property
    def settings(self) -> Settings:
        """Its config's, with its seed; every phase goes to its end, so that all see as much."""
        settings = self.config.settings
        phases = tuple(replace(phase, patience=None) for phase in settings.phases)
        if self.alone:  # what was said of the other tasks and their sources has no meaning
            priors = {task: of for task, of in settings.priors.items() if task == self.alone}
            auxiliary = tuple(one for one in settings.auxiliary if one.task == self.alone)
            settings = replace(
                settings, priors=priors, auxiliary=auxiliary, task_sampling=TaskSampling()
            )
        return replace(settings, phases=phases, seed=self.seed)

    @property
    def network(self) -> Network:
        """Its config's, as far as it is of the tasks that are trained."""
        network = self.config.network
        layers = {t: layer for t, layer in network.feature_layers.items() if t == self.alone}
        return replace(network, feature_layers=layers) if self.alone else network

    @property
    def fingerprint(self) -> str:
        """A hash of all that was asked for."""
        facts = {
            "network": asdict(self.config.network),
            "settings": asdict(self.settings),
            "sources": self.sources,
            "tasks": self.reading.tasks,
            "label_map": asdict(self.reading.label_map),
            "alone": self.alone,
        }
        return hashlib.sha256(json.dumps(to_jsonable(facts)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Result:
    """What a run brought for one task after the last epoch: a line of the file.

    Args:
        config: The config's name, or `ALONE`.
        n: Validation rows that know the task; the last epoch counts, whatever they say.
        images: How many the run trained on, repeats counted.
        minutes: That its training steps took, without reading, features and validation.
        megabytes: The most memory that its process held.
        rows: A hash of its training and validation rows.
        run: Its fingerprint.
    """

    config: str
    seed: int
    task: str
    n: int
    accuracy: float
    balanced_accuracy: float
    images: int
    minutes: float
    megabytes: float
    rows: str
    run: str


def train_in_subprocess(run: Run, begin: Callable[[], None] | None = None) -> list[Result]:
    """`train_once` in a new process, in which `begin` is called before all else.

    An interruption ends it at once, and so does the end of this process.
    """
    fresh, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    try:
        with ProcessPoolExecutor(1, fresh, _begin_in_subprocess, (begin,)) as pool:
            try:
                return pool.submit(train_once, run).result()
            except (KeyboardInterrupt, SystemExit):
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()
                raise
    except BrokenProcessPool:
        raise OSError(
            f"The process of {run.name}, seed {run.seed}, was killed, most likely for want of "
            'memory, or your script calls compare() outside `if __name__ == "__main__":`. The '
            "same command goes on behind what is finished."
        ) from None


def _begin_in_subprocess(begin: Callable[[], None] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin:
        begin()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def train_once(run: Run) -> list[Result]:
    """Train once and score the last epoch."""
    network, manifest, observer = networks.resolved(run.network), run.manifest, _Observer()
    rule, cache = networks.crop_rule(network), run.reading.cache
    rows, _ = read_splits(manifest, SPLITS, manifest.tasks, rule, cache)
    if run.alone:
        rows = {split: of.only(run.alone) for split, of in rows.items()}
    tasks = [task for task in manifest.tasks if run.alone in (None, task.name)]
    model = networks.new_model(network, tasks, run.seed)
    networks.measure_norm_statistics(network, model, rows["train"])
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            tasks,
            rows["train"],
            rows["val"],
            run.settings,
            Path(folder),
            callbacks=[observer],
            features=features_folder(cache),
            progress=observer,
        )
    seen: dict[str, Any] = {
        "images": observer.steps * run.settings.batch_size,
        "minutes": observer.seconds / 60,
        "megabytes": _peak_megabytes(),
        "rows": rows["train"].sha256()[:8] + rows["val"].sha256()[:8],
        "run": run.fingerprint,
    }
    return [
        Result(run.name, run.seed, task, of.n, of.accuracy, of.balanced_accuracy, **seen)
        for task, of in observer.scores.items()
    ]


class _Observer(Progress, keras.callbacks.Callback):
    """Counts training steps and their seconds, and keeps the scores of the last epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.seconds = 0, 0.0

    def show(self, record: object) -> None:
        if isinstance(record, Epoch):
            self.scores = record.scores

    def on_train_batch_begin(self, batch: int, logs=None) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self.seconds += time.perf_counter() - self._began
        self.steps += 1


def _peak_megabytes() -> float:
    """The most memory that this process held; NaN where the system does not tell."""
    # getrusage would tell the parent's peak where that is higher.
    status = Path("/proc/self/status")
    lines = status.read_text("utf-8").splitlines() if status.is_file() else []
    found = [float(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return found[0] * 1024 / 1e6 if found else float("nan")


@dataclass(frozen=True)
class RunStarted:
    """Run `number` of `total` begins; shown before it."""

    run: Run
    number: int
    total: int


@dataclass(frozen=True)
class RunFinished:
    """What a run brought, by task; shown when the file has it."""

    results: Sequence[Result]


def compare(
    configs: Sequence[Config],
    sources: PathLike | Sequence[PathLike],
    output: str | Path,
    *,
    seeds: int = 3,
    perform: Callable[[Run], list[Result]] = train_in_subprocess,
    progress: Progress = SILENT,
    **reading: Unpack[ReadingTasksSettings],
) -> pd.DataFrame:
    """Train with every config and every seed, and with the first one each task alone.

    That first config, trained on one task at a time, is the baseline that tells what sharing gave
    or cost.

    Args:
        sources: What to train and score on, see `faceattr.data.sources.read_source`.
        output: The CSV file that keeps the results; what it holds already is not run again.
        perform: Trains once.
        progress: Is told what is read, and shown `RunStarted` and `RunFinished`.
        **reading: ``tasks``, ``label_map`` and ``cache`` of
            `faceattr.data.sources.ReadingConfig`; the images are faces.

    Returns:
        A line for every run and task, with the fields of `Result`.
    """
    output, how = Path(output), ReadingConfig.of("compare", reading)
    if how.detector or how.find_faces_in:
        raise ValueError("A comparison takes images of faces. Received: a detector.")
    output.parent.mkdir(parents=True, exist_ok=True)
    specs = tuple(as_paths(sources))
    labelled, notes = read_labels(specs, how.tasks, how.label_map)
    manifest = unite(labelled)
    planned = _planned(configs, manifest, seeds)
    runs = [Run(config, seed, specs, how, manifest, alone) for config, seed, alone in planned]
    known = set(_read_results(output)["run"])
    if not all(run.fingerprint in known for run in runs):
        # Near-duplicates are kept on one side, as in a training: one split for all configs.
        finder = how.finder(networks.crop_rule(networks.resolved(configs[0].network)), specs)
        manifest = replace(unite(labelled, finder=finder, progress=progress), notes=notes)
        _make_crops(configs, manifest, how.cache, progress)
    for number, run in enumerate(runs, 1):
        if run.fingerprint in known:
            continue
        progress.show(RunStarted(run, number, len(runs)))
        results = perform(replace(run, manifest=manifest))
        _append(output, results)
        known.add(run.fingerprint)
        progress.show(RunFinished(results))
    # Names are those of today: a config may have been renamed, or two have the same settings.
    asked = pd.DataFrame([{"config": run.name, "run": run.fingerprint} for run in runs])
    table = _read_results(output).drop_duplicates(["run", "task"])
    return asked.merge(table.drop(columns="config"), on="run")[list(table.columns)]


def _planned(
    configs: Sequence[Config], manifest: Manifest, seeds: int
) -> Iterator[tuple[Config, int, str | None]]:
    """Config, seed and single task of each run, once all are known to fit.

    Seed by seed, so that a stop leaves whole rounds; the baseline comes first.
    """
    names = [config.name for config in configs]
    if not configs or seeds < 1 or len({*names, ALONE}) <= len(names):
        raise ValueError(
            f"A comparison has a seed and configs with names of their own, none called {ALONE}. "
            f"Received: {seeds} seeds, {', '.join(names) or 'no config'}"
        )
    for config in configs:
        model = networks.new_model(networks.resolved(config.network), manifest.tasks)
        check(model, config.settings, manifest.examples)
    for seed in range(seeds):
        if len(manifest.tasks) > 1:
            yield from ((configs[0], seed, task.name) for task in manifest.tasks)
        yield from ((config, seed, None) for config in configs)


def _make_crops(
    configs: Sequence[Config], manifest: Manifest, cache: str | Path | None, progress: Progress
) -> None:
    """Crop the faces here, where somebody watches; the runs find them in the cache."""
    for note in manifest.notes:
        progress.show(f"note: {note}")
    rules = {networks.crop_rule(networks.resolved(config.network)) for config in configs}
    left_out: dict[str, int] = {}
    for rule in rules:
        left_out |= read_splits(manifest, SPLITS, manifest.tasks, rule, cache, progress)[1]
    for reason, count in left_out.items():
        progress.show(f"left out: {count:,} ({reason})")


def _append(output: Path, results: Sequence[Result]) -> None:
    """Add the results of a run, all or none: one that has a line is not run again."""
    before = output.read_text("utf-8") if output.exists() else ""
    lines = pd.DataFrame([asdict(result) for result in results])
    # As text has it: the file's own lines end as the system's do.
    new = lines.to_csv(header=not before, index=False, lineterminator="\n")
    with atomic_write(output) as part:
        part.write_text(before + new, "utf-8")


def _read_results(output: Path) -> pd.DataFrame:
    """The results that a file holds already; version 0.1 had other names for two columns."""
    columns = list(Result.__dataclass_fields__)
    if not output.exists():
        return pd.DataFrame(columns=columns)
    hashes = {"rows": str, "run": str}  # some look like numbers
    table = pd.read_csv(output, dtype=hashes)
    table = table.rename(columns={"way": "config", "pictures": "images"})
    if list(table.columns) != columns:
        raise ValueError(f"{output} is no table of a comparison: choose another name.")
    return table
