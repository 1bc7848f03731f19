"""What a labelling job shows while it lasts and at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from faceattr.cli.console import on_stderr
from faceattr.progress import Bar, Progress


def print_report(console: Console, summary, output, detector: str, folders: Sequence = ()) -> None:
    """Print what a job did; a quiet one tells only that it could read nothing."""
    for line in report(summary, output, detector, folders):
        console.print(line)
    if console.quiet and summary.statuses["unreadable"] == summary.statuses.total() > 0:
        why = f"see the column reason of {output}"
        on_stderr(False).print(f"faceattr: none of the inputs could be read; {why}")


def report(summary, output, detector: str, folders: Sequence = ()) -> Iterator[str]:
    """What is printed at the end, line by line."""
    from faceattr.inference.metadata import named

    before = f" ({summary.resumed} more were there before)" if summary.resumed else ""
    yield f"{summary.inputs} pictures, {summary.faces} faces described{before} -> {output}"
    yield f"  found with {detector}"
    yield f"  status      {_counted(summary.statuses)}"
    for task, answers in summary.answers.items():
        yield f"  {task:<11} {_counted(named(answers))}"
    if summary.inputs:
        yield f"  speed       {_speed(summary)}"
    if summary.resumed and folders:
        names = ", ".join(map(str, folders))
        yield f"  {summary.resumed} inputs were done before: of them nothing was added to {names}"
    if summary.statuses["no_face"] > summary.inputs / 2:
        yield (
            "  most have no face; of faces that were cut out already, --detector none takes each "
            "image as one"
        )
    if unreadable := summary.statuses["unreadable"]:
        yield (
            f"  {unreadable:,} could not be read (column reason); once they can be, the same "
            "command with --resume --retry-unreadable tries them again"
        )
    if summary.interrupted:
        yield "Stopped. The same command with --resume (without --overwrite) goes on from here."


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda c: -c[1]))


def _speed(summary) -> str:
    elapsed, spent = max(summary.seconds, 1e-9), sum(summary.stages.values()) or 1.0
    by_time = sorted(summary.stages.items(), key=lambda stage: -stage[1])
    shares = ", ".join(f"{stage} {t / spent:.0%}" for stage, t in by_time)
    return (
        f"{summary.inputs / elapsed:.1f} pictures/s, {summary.faces / elapsed:.1f} faces/s "
        f"(time in threads: {shares})"
    )


def bar_of(console: Console) -> Bar:
    """The bar of a job: files, time to go, faces."""
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[faces]} faces"),
        console=console,
    )


class LabelProgress(Progress):
    """Moves a bar on: one step a file, however many frames a video has."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self._start, self._last = bar, time.monotonic(), ""
        self._task = bar.add_task("labelling", total=None, faces=0)
        self._files = self._faces = 0

    def show(self, record) -> None:
        from faceattr.inference.label import Started

        if isinstance(record, Started):
            self._start = time.monotonic()
            self._bar.update(self._task, total=record.files, completed=record.done)
            return
        files, faces = self._counted(record)
        self._files, self._faces = self._files + files, self._faces + faces
        self._bar.update(self._task, advance=files, faces=self._faces, description=self._words())

    def _counted(self, result) -> tuple[int, int]:
        """Files and faces."""
        path = result.sample.file.path
        is_new, self._last = path != self._last, path
        return int(is_new), len(result.faces)

    def _words(self) -> str:
        return "labelling"


class ClusterProgress(LabelProgress):
    """Moves it on part by part, and says how fast."""

    def _counted(self, part) -> tuple[int, int]:
        return part.files, part.statuses.get("ok", 0)

    def _words(self) -> str:
        speed = self._files / max(time.monotonic() - self._start, 1e-9)
        return f"labelling ({self._faces:,} faces, {speed:.1f} pictures/s)"
