"""Ways of training side by side: the same rows, the same number of pictures, several seeds.

The results of a run are appended to a CSV file as it ends; what is there is not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from faceattr.data.sources import read_for_training
from faceattr.training.trainer import check
from faceattr.training.trial import ALONE, Data, Result, Run, Way, train_apart


def compare(
    ways: Sequence[Way],
    data: Data,
    output: str | Path,
    *,
    seeds: int = 3,
    perform: Callable[[Run], list[Result]] = train_apart,
    on_begin: Callable[[Run, int, int], None] = lambda run, number, of: None,
    on_end: Callable[[list[Result]], None] = lambda results: None,
) -> pd.DataFrame:
    """Train every way with every seed, and the first way with each task alone.

    Args:
        ways: What to compare. The first one, trained on one task at a time, is the baseline
            that tells what sharing gave or cost.
        data: What to train and judge on.
        output: The CSV file that keeps the results; what it holds already is not run again.
        seeds: How many seeds, from 0 on.
        perform: Trains once.
        on_begin: Is told of every run before it begins, its number and how many there are.
        on_end: Is told what a run brought, when the file has it.

    Returns:
        A line for every run and task, with the fields of `Result`.

    Raises:
        ValueError: Two ways have the same name, or a setting does not fit.
        OSError: A run's process was killed.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    runs = list(_runs(ways, data, seeds))
    wanted = [run.fingerprint for run in runs]
    known = _known(output)
    for number, run in enumerate(runs, 1):
        if run.fingerprint in known:
            continue
        on_begin(run, number, len(runs))
        results = perform(run)
        lines = pd.DataFrame([asdict(result) for result in results])
        lines.to_csv(output, mode="a", header=not output.exists(), index=False)
        on_end(results)
    table = pd.read_csv(output)
    return table[table["run"].isin(wanted)].reset_index(drop=True)


def _runs(ways: Sequence[Way], data: Data, seeds: int) -> Iterator[Run]:
    """Seed by seed, so that a stop leaves whole rounds; the baseline comes first."""
    names = [way.name for way in ways]
    if not ways or seeds < 1 or len({*names, ALONE}) <= len(names):
        raise ValueError(
            f"A comparison has a seed and ways with names of their own, none called {ALONE}. "
            f"Received: {seeds} seeds, {', '.join(names) or 'no way'}"
        )
    manifest = read_for_training(data.sources, data.tasks, data.spelling)
    for way in ways:
        check(way.network.settled().build(manifest.tasks), way.settings, manifest.examples)
    tasks = [task.name for task in manifest.tasks]
    for seed in range(seeds):
        if len(tasks) > 1:
            yield from (Run(ways[0], seed, data, alone=task) for task in tasks)
        yield from (Run(way, seed, data) for way in ways)


def _known(output: Path) -> set[str]:
    if not output.exists():
        return set()
    table = pd.read_csv(output)
    if list(table.columns) != list(Result.__dataclass_fields__):
        raise ValueError(f"{output} is no table of a comparison: choose another name.")
    return set(table["run"])
