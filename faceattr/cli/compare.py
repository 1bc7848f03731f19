"""`faceattr compare`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from rich import box
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from faceattr.cli.console import ERR, OUT, Terminal
from faceattr.cli.data_options import TASKS, add_label_options, label_map_of
from faceattr.cli.options import command, names, start_keras
from faceattr.cli.recipe import read_recipes
from faceattr.cli.train import add_options, network_of, settings_of
from faceattr.progress import Bar

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
WIDE = 200  # characters, however narrow the terminal: a Markdown table must not be cut


def add_command(commands) -> None:
    parser = command(commands, compare, "train with several configs and compare what comes out")
    add = parser.add_argument
    add(
        "recipes",
        nargs="+",
        metavar="RECIPE",
        help="TOML files of options of `faceattr train`, FILE for all sections or FILE:NAME; the "
        "first one is also trained on each task alone, the baseline",
    )
    add("--on", nargs="+", required=True, metavar="[TASK=]PATH", help="what all are trained on")
    add("--tasks", action="extend", type=names, metavar="TASK,…", help=TASKS)
    add("--seeds", type=int, metavar="N", help="how many trainings of each (3)")
    add("-o", "--output", required=True, metavar="TABLE.csv", help="keeps what is finished")
    add("--cache", metavar="DIR", help="folder of the crop cache")
    add_label_options(parser)


def compare(recipes, on, output, **given) -> int:
    """Train with every config on the same rows, for the same number of images, with several
    seeds. The same command goes on behind what TABLE.csv holds."""
    options = [one for spec in recipes for one in read_recipes(spec, add_options).items()]
    start_keras()
    from faceattr.training.compare import compare as run
    from faceattr.training.compare import train_in_subprocess

    configs = [_config(name, dict(own)) for name, own in options]
    given["label_map"] = label_map_of(given)
    perform = partial(train_in_subprocess, begin=start_keras)
    with ComparisonTerminal() as progress:
        results = run(configs, on, output, perform=perform, progress=progress, **given)
    print_results(results)
    return 0


def _config(name: str, given: dict):
    from faceattr.training.compare import Config

    if "seed" in given:
        raise ValueError(f"Recipe {name!r}: the seeds are 0, 1, …, the same for all: --seeds N.")
    network = network_of(given)
    config = Config(name, network, settings_of(network.phases, given))
    if given:
        raise ValueError(f"Recipe {name!r}: {', '.join(given)} cannot be compared.")
    return config


class ComparisonTerminal(Terminal):
    """A bar over the runs of a comparison, and a line for each that ended."""

    def __enter__(self) -> ComparisonTerminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, TimeRemainingColumn(), console=ERR, speed_over=36_000)
        self._bar.start()
        self._line = self._bar.add_task("reading")
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def track(self, items: Sequence[T], what: str) -> Iterable[T]:
        return self._bar.follow(items, what)

    def show(self, record: object) -> None:
        from faceattr.training.compare import RunFinished, RunStarted

        if isinstance(record, RunStarted):
            run, number = record.run, record.number
            who = " ".join(filter(None, (run.name, run.alone)))
            what = f"{number} of {record.total}: {who}, seed {run.seed}"
            self._bar.update(self._line, description=what, completed=number - 1, total=record.total)
        elif isinstance(record, RunFinished):
            one = record.results[0]
            found = ", ".join(f"{of.task} {of.accuracy:.1%}" for of in record.results)
            OUT.print(f"{one.config}, seed {one.seed}: {found}; {one.minutes:.1f} minutes")
        else:
            super().show(record)


def print_results(results: pd.DataFrame) -> None:
    """Print the table and what the number of validation rows leaves open."""
    console = Console(width=WIDE, highlight=False, markup=False)
    console.print(results_table(results))
    for line in certainty(results):
        OUT.print(f"note: {line}")


def results_table(results: pd.DataFrame) -> Table:
    """A Markdown table of configs, from what `faceattr.training.compare.compare` gave.

    Every figure is a mean over seeds, ± its standard deviation. ``gain`` is the accuracy less that
    of the task trained alone with the same seed, in points.
    """
    tasks = list(results["task"].unique())
    table = Table(box=box.MARKDOWN)
    table.add_column("config")
    for name in (*(n for task in tasks for n in (task, "gain")), "images", "minutes", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for config in results["config"].unique():
        own = results[results["config"] == config]
        cells = [cell for task in tasks for cell in _of_task(results, config, task)]
        table.add_row(config, *cells, *_cost(own))
    return table


def _of_task(results: pd.DataFrame, config: str, task: str) -> Iterator[str]:
    from faceattr.training.compare import ALONE

    own = results[results["task"] == task]
    by_seed = own.pivot(index="seed", columns="config", values="accuracy")
    yield _mean_and_spread(100 * by_seed[config], "{:.1f}")
    if config == ALONE or ALONE not in by_seed:
        yield "-"
    else:
        yield _mean_and_spread(100 * (by_seed[config] - by_seed[ALONE]), "{:+.1f}")


def _mean_and_spread(values: pd.Series, form: str) -> str:
    mean = form.format(values.mean())
    return mean if len(values) < 2 else f"{mean} ± {values.std():.1f}"


def _cost(own: pd.DataFrame) -> Iterator[str]:
    """Images and minutes of a seed, its runs together, and the most memory of a run."""
    runs = own.drop_duplicates("run").groupby("seed")
    yield f"{runs['images'].sum().mean():,.0f}"
    yield _mean_and_spread(runs["minutes"].sum(), "{:.1f}")
    yield f"{own['megabytes'].max():,.0f}"


def certainty(results: pd.DataFrame) -> Iterator[str]:
    """By task a sentence on what its validation rows alone leave open."""
    from faceattr.evaluation.metrics import wilson

    for task, own in results.groupby("task", sort=False):
        n, accuracy = int(own["n"].iloc[0]), own["accuracy"].mean()
        low, high = wilson(round(accuracy * n), n)
        yield (
            f"{task}: scored on {n:,} rows; an accuracy of {accuracy:.1%} on so few is known to "
            f"lie between {low:.1%} and {high:.1%}"
        )
