"""Configs of training side by side: the same rows, the same number of pictures, several seeds.

The results of a run are appended to a CSV file as it ends; what is there is not run again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import keras
import pandas as pd

from faceattr.data.dataset import LabeledDataset, read_dataset
from faceattr.data.label_map import LABELS_AS_WRITTEN, LabelMap
from faceattr.data.sources import read_for_training
from faceattr.data.store import features_folder
from faceattr.images.crop import CropRule
from faceattr.model.file import rename_keys, to_jsonable
from faceattr.progress import SILENT, Progress
from faceattr.tasks import Task
from faceattr.training import network as networks
from faceattr.training.batches import steps_per_epoch
from faceattr.training.checkpoint import Epoch
from faceattr.training.config import OLD_NAMES, Network, Settings, TaskSampling
from faceattr.training.trainer import check, fit

ALONE = "alone"
STORED_NAMES = {new: old for old, new in OLD_NAMES.items()}


@dataclass(frozen=True)
class Config:
    """How several tasks are trained, by name."""

    name: str
    network: Network
    settings: Settings


@dataclass(frozen=True)
class Data:
    """What all configs are trained and scored on.

    Args:
        sources: See `faceattr.data.sources.read_source`.
        tasks: Columns to take from bare manifests.
        cache: Folder of the crop cache.
        label_map: How the labels are to be understood.
    """

    sources: tuple[str, ...]
    tasks: tuple[str, ...] | None = None
    cache: str | Path | None = None
    label_map: LabelMap = LABELS_AS_WRITTEN


@dataclass(frozen=True)
class Run:
    """One training: a config, a seed, and the task that is trained alone, or None for all."""

    config: Config
    seed: int
    data: Data
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
            settings = replace(settings, priors=priors, task_sampling=TaskSampling())
        return replace(settings, phases=phases, seed=self.seed)

    @property
    def fingerprint(self) -> str:
        """A hash of all that was asked for, the same for tables of older versions."""
        facts = {
            "network": rename_keys(asdict(self.config.network), STORED_NAMES),
            "settings": rename_keys(asdict(self.settings), STORED_NAMES),
            "sources": self.data.sources,
            "tasks": self.data.tasks,
            "spelling": asdict(self.data.label_map),
            "alone": self.alone,
        }
        return hashlib.sha256(json.dumps(to_jsonable(facts)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Result:
    """What a run brought for one task: a line of the file.

    Args:
        config: The config's name, or `ALONE`.
        seed: The run's.
        task: The task.
        n: Validation rows that know it.
        accuracy: On them, after the last epoch; no epoch is chosen by them.
        balanced_accuracy: Likewise.
        pictures: How many the run trained on, repeats counted.
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
    pictures: int
    minutes: float
    megabytes: float
    rows: str
    run: str


def train_apart(run: Run, begin: Callable[[], None] | None = None) -> list[Result]:
    """`train_once` in a new process, in which `begin` is called before all else.

    Raises:
        OSError: The process was killed.
    """
    fresh = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=fresh, initializer=begin) as pool:
            return pool.submit(train_once, run).result()
    except BrokenProcessPool:
        raise OSError(
            f"The process of {run.name}, seed {run.seed}, was killed, most likely for want of "
            "memory. The same command goes on behind what is finished."
        ) from None


def train_once(run: Run) -> list[Result]:
    """Train once and score the last epoch."""
    network = networks.resolved(run.config.network)
    tasks, rows = _read(run, networks.crop_rule(network))
    model = networks.new_model(network, tasks, run.seed)
    networks.measure(network, model, rows["train"])
    observer = _Observer()
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            tasks,
            rows["train"],
            rows["val"],
            run.settings,
            Path(folder),
            callbacks=[observer],
            features=features_folder(run.data.cache),
            progress=observer,
        )
    steps = observer.epochs * steps_per_epoch(len(rows["train"]), run.settings.batch_size)
    result = partial(
        Result,
        config=run.name,
        seed=run.seed,
        pictures=steps * run.settings.batch_size,
        minutes=observer.seconds / 60,
        megabytes=_peak_megabytes(),
        rows=rows["train"].sha256()[:8] + rows["val"].sha256()[:8],
        run=run.fingerprint,
    )
    return [
        result(
            task=task,
            n=score.n,
            accuracy=score.accuracy,
            balanced_accuracy=score.balanced_accuracy,
        )
        for task, score in observer.scores.items()
    ]


def _read(run: Run, rule: CropRule) -> tuple[list[Task], dict[str, LabeledDataset]]:
    """The tasks that the run trains, and the rows that know one of them, by split."""
    manifest = read_for_training(run.data.sources, run.data.tasks, run.data.label_map)
    tasks = [task for task in manifest.tasks if run.alone in (None, task.name)]
    rows = {}
    for split in ("train", "val"):
        examples = manifest.only(split)
        rows[split], _ = read_dataset(examples, manifest.tasks, rule, run.data.cache)
        if run.alone:
            rows[split] = rows[split].only(run.alone)
    return tasks, rows


class _Observer(Progress, keras.callbacks.Callback):
    """Counts epochs, keeps the scores of the last one, and measures seconds in training steps."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs, self.seconds = 0, 0.0

    def show(self, record: object) -> None:
        if isinstance(record, Epoch):
            self.epochs, self.scores = self.epochs + 1, record.scores

    def on_train_batch_begin(self, batch: int, logs=None) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self.seconds += time.perf_counter() - self._began


def _peak_megabytes() -> float:
    """The most memory that this process held; NaN where the system does not tell."""
    # getrusage would tell the parent's peak where that is higher.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
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
    data: Data,
    output: str | Path,
    *,
    seeds: int = 3,
    perform: Callable[[Run], list[Result]] = train_apart,
    progress: Progress = SILENT,
) -> pd.DataFrame:
    """Train with every config and every seed, and with the first one each task alone.

    Args:
        configs: What to compare. The first one, trained on one task at a time, is the baseline
            that tells what sharing gave or cost.
        data: What to train and score on.
        output: The CSV file that keeps the results; what it holds already is not run again.
        seeds: How many seeds, from 0 on.
        perform: Trains once.
        progress: Is shown `RunStarted` and `RunFinished`.

    Returns:
        A line for every run and task, with the fields of `Result`.

    Raises:
        ValueError: Two configs have the same name, or a setting does not fit.
        OSError: A run's process was killed.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    runs = list(_runs(configs, data, seeds))
    known = set(_read_results(output)["run"])
    for number, run in enumerate(runs, 1):
        if run.fingerprint in known:
            continue
        progress.show(RunStarted(run, number, len(runs)))
        results = perform(run)
        lines = pd.DataFrame([asdict(result) for result in results])
        lines.to_csv(output, mode="a", header=not output.exists(), index=False)
        progress.show(RunFinished(results))
    table = _read_results(output)
    wanted = [run.fingerprint for run in runs]
    return table[table["run"].isin(wanted)].reset_index(drop=True)


def _runs(configs: Sequence[Config], data: Data, seeds: int) -> Iterator[Run]:
    """Seed by seed, so that a stop leaves whole rounds; the baseline comes first."""
    names = [config.name for config in configs]
    if not configs or seeds < 1 or len({*names, ALONE}) <= len(names):
        raise ValueError(
            f"A comparison has a seed and configs with names of their own, none called {ALONE}. "
            f"Received: {seeds} seeds, {', '.join(names) or 'no config'}"
        )
    manifest = read_for_training(data.sources, data.tasks, data.label_map)
    for config in configs:
        model = networks.new_model(networks.resolved(config.network), manifest.tasks)
        check(model, config.settings, manifest.examples)
    tasks = [task.name for task in manifest.tasks]
    for seed in range(seeds):
        if len(tasks) > 1:
            yield from (Run(configs[0], seed, data, alone=task) for task in tasks)
        yield from (Run(config, seed, data) for config in configs)


def _read_results(output: Path) -> pd.DataFrame:
    """The results that a file holds already; until version 0.1 a config was called a way."""
    columns = list(Result.__dataclass_fields__)
    if not output.exists():
        return pd.DataFrame(columns=columns)
    table = pd.read_csv(output).rename(columns={"way": "config"})
    if list(table.columns) != columns:
        raise ValueError(f"{output} is no table of a comparison: choose another name.")
    return table
