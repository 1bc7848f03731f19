"""`faceattr label` as somebody at a terminal sees it: a bar, a summary, Ctrl-C."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from faceattr.images.inputs import Inputs
from faceattr.inference.label import NOTHING, Artifacts, Summary, label_to, named
from faceattr.inference.predictor import FaceAttributes, open_typed
from faceattr.inference.schema import UNREADABLE, ImageResult
from faceattr.inference.table import must_be_writable
from faceattr.progress import Bar

EXTRAS = {"save_crops": "crops", "annotate": "annotated", "gallery": "gallery"}
DONE, INTERRUPTED = 0, 130


def run(output: str, inputs: list[str], *, quiet: bool = False, **given) -> int:
    """Label `inputs` into `output`; returns the exit code.

    Args:
        output: The table.
        inputs: Paths.
        quiet: Print nothing but errors.
        **given: What was typed, for `FaceAttributes.load` and `label_to`.
    """
    console = Console(stderr=True, quiet=quiet, highlight=False)
    extras = Artifacts(
        **{name: given.pop(typed) for typed, name in EXTRAS.items() if typed in given}
    )
    # What is typed wrongly shall be told before the seconds that a model takes to load.
    there = {name: given.get(name, False) for name in ("resume", "overwrite")}
    more = {name: given.get(name, False) for name in ("retry_unreadable", "spreadsheet")}
    must_be_writable(output, **there, **more)
    extras.must_be_writable(**there)
    Inputs(inputs)
    attributes = open_typed(
        given, say=lambda line: console.print(line, markup=False, soft_wrap=True)
    )
    with _bar(console) as bar, _ctrl_c(console) as stopped, warnings.catch_warnings():
        # What Pillow thinks of a file's metadata would tear the bar and change nothing.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        watch = _Watch(bar)
        summary = label_to(
            output,
            inputs,
            attributes,
            on_start=watch.start,
            on_input=watch.advance,
            stop=stopped.is_set,
            extras=extras,
            **given,
        )
    for line in report(summary, output, attributes, extras):
        console.print(line, markup=False, soft_wrap=True)
    return INTERRUPTED if summary.interrupted else DONE


def report(
    summary: Summary, output: str, attributes: FaceAttributes, extras: Artifacts = NOTHING
) -> Iterator[str]:
    """What is printed at the end, line by line."""
    before = f" ({summary.resumed} more were there before)" if summary.resumed else ""
    yield f"{summary.inputs} pictures, {summary.faces} faces described{before} -> {output}"
    yield f"  found with {attributes.detector.provenance['name']}"
    yield f"  status      {_counted(summary.statuses)}"
    for task, answers in summary.answers.items():
        yield f"  {task:<11} {_counted(named(answers))}"
    if summary.inputs:
        yield f"  speed       {_speed(summary)}"
    if summary.resumed and extras.folders:
        folders = ", ".join(map(str, extras.folders))
        yield f"  {summary.resumed} inputs were done before: of them nothing was added to {folders}"
    if unreadable := summary.statuses[UNREADABLE]:
        yield (
            f"  {unreadable:,} could not be read (column reason); once they can be, the same "
            "command with --resume --retry-unreadable tries them again"
        )
    if summary.interrupted:
        yield "Stopped. The same command with --resume (without --overwrite) goes on from here."


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda c: -c[1]))


def _speed(summary: Summary) -> str:
    elapsed, spent = max(summary.seconds, 1e-9), sum(summary.stages.values()) or 1.0
    by_time = sorted(summary.stages.items(), key=lambda stage: -stage[1])
    shares = ", ".join(f"{stage} {t / spent:.0%}" for stage, t in by_time)
    return (
        f"{summary.inputs / elapsed:.1f} pictures/s, {summary.faces / elapsed:.1f} faces/s "
        f"(time in threads: {shares})"
    )


def _bar(console: Console) -> Bar:
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[faces]} faces"),
        console=console,
    )


class _Watch:
    """Moves the bar on: one step a file, however many frames a video has."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("labelling", total=None, faces=0)
        self._faces = 0
        self._last = ""

    def start(self, total: int, done: int) -> None:
        self._bar.update(self._task, total=total, completed=done)

    def advance(self, labelled: ImageResult) -> None:
        self._faces += len(labelled.faces)
        step = labelled.file.path != self._last
        self._last = labelled.file.path
        self._bar.update(self._task, advance=int(step), faces=self._faces)


@contextmanager
def _ctrl_c(console: Console) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one stops at once."""
    stopped = threading.Event()

    def interrupt(*_: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        console.print("finishing the batch; Ctrl-C once more stops at once")

    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
