"""What a comparison of ways prints: a line per run while it lasts, and a table in the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from rich import box
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from faceattr.data.console import ERR, OUT, print_notes
from faceattr.evaluation.metrics import wilson
from faceattr.progress import Bar
from faceattr.training.compare import ALONE, Result, Run

WIDE = 200  # characters, however narrow the terminal: a Markdown table must not be cut


class RunProgress:
    """A bar over the runs of a comparison, and a line for each that ended."""

    def __enter__(self) -> RunProgress:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, TimeRemainingColumn(), console=ERR, speed_over=36_000)
        self._bar.start()
        self._line = self._bar.add_task("reading")
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def begin(self, run: Run, number: int, of: int) -> None:
        """Say which run begins, the how manieth of how many it is."""
        who = " ".join(filter(None, (run.name, run.alone)))
        what = f"{number} of {of}: {who}, seed {run.seed}"
        self._bar.update(self._line, description=what, completed=number - 1, total=of)

    def end(self, results: Sequence[Result]) -> None:
        """Print what a run brought."""
        one = results[0]
        found = ", ".join(f"{result.task} {result.accuracy:.1%}" for result in results)
        OUT.print(f"{one.way}, seed {one.seed}: {found}; {one.minutes:.1f} minutes")


def print_standings(results: pd.DataFrame) -> None:
    """Print the table and what the number of validation rows leaves open."""
    Console(width=WIDE, highlight=False, markup=False).print(standings(results))
    print_notes(certainty(results))


def standings(results: pd.DataFrame) -> Table:
    """A Markdown table of ways.

    Every figure is a mean over seeds, ± its standard deviation. ``gain`` is the accuracy less
    that of the task trained alone with the same seed, in points.

    Args:
        results: What `faceattr.training.compare.compare` gave.
    """
    tasks = list(results["task"].unique())
    table = Table(box=box.MARKDOWN)
    table.add_column("way")
    for name in (*(n for task in tasks for n in (task, "gain")), "pictures", "minutes", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for way in results["way"].unique():
        own = results[results["way"] == way]
        cells = [cell for task in tasks for cell in _of_task(results, way, task)]
        table.add_row(way, *cells, *_cost(own))
    return table


def _of_task(results: pd.DataFrame, way: str, task: str) -> Iterator[str]:
    by_seed = results[results["task"] == task].pivot(index="seed", columns="way", values="accuracy")
    yield _mean_and_spread(100 * by_seed[way], "{:.1f}")
    if way == ALONE or ALONE not in by_seed:
        yield "-"
    else:
        yield _mean_and_spread(100 * (by_seed[way] - by_seed[ALONE]), "{:+.1f}")


def _mean_and_spread(values: pd.Series, form: str) -> str:
    mean = form.format(values.mean())
    return mean if len(values) < 2 else f"{mean} ± {values.std():.1f}"


def _cost(own: pd.DataFrame) -> Iterator[str]:
    """Pictures and minutes of a seed, its runs together, and the most memory of a run."""
    runs = own.drop_duplicates("run").groupby("seed")
    yield f"{runs['pictures'].sum().mean():,.0f}"
    yield _mean_and_spread(runs["minutes"].sum(), "{:.1f}")
    yield f"{own['megabytes'].max():,.0f}"


def certainty(results: pd.DataFrame) -> Iterator[str]:
    """By task a sentence on what its validation rows alone leave open."""
    for task, own in results.groupby("task", sort=False):
        n, accuracy = int(own["n"].iloc[0]), own["accuracy"].mean()
        low, high = wilson(round(accuracy * n), n)
        yield (
            f"{task}: judged on {n:,} rows; an accuracy of {accuracy:.1%} on so few is known to "
            f"lie between {low:.1%} and {high:.1%}"
        )
