"""`faceattr label`."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import fields
from functools import partial

from rich.console import Console
from rich.table import Table

from faceattr.cli.cluster import LOCAL, RAY, Engine, add_cluster, label_on_cluster, must_be_local
from faceattr.cli.console import Aside, ctrl_c, show
from faceattr.cli.label_report import bar_of, report
from faceattr.cli.options import (
    INTERRUPTED,
    MODEL,
    PRIORS,
    add_runtime,
    add_tta,
    by_name,
    command,
    duration,
    old_names,
    open_attributes,
)
from faceattr.progress import Bar, Progress


def add_command(commands) -> None:
    parser = command(commands, label, "label the faces of a folder of pictures")
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="PATH",
        help="folders (read recursively), pictures, videos, quoted patterns like 'a/**/*.jpg', "
        "text files of paths, or - for paths on standard input; with --engine ray also s3://, "
        "gs://, abfs:// and .csv or .parquet files with a column path",
    )
    add(
        "--allow-urls",
        action="store_true",
        help="PATH may be http(s)://, which is fetched: up to 64 MiB in up to 20 seconds",
    )
    add(
        "-o",
        "--output",
        metavar="TABLE",
        help=".csv, .jsonl or .parquet, with --engine ray a folder; without it the rows are "
        "printed, as CSV into a pipe",
    )
    add("--model", **MODEL)
    add(
        "--engine",
        action=Engine,
        metavar="local|ray",
        help="where the job runs: in this process, or on the machines of a Ray cluster",
    )
    add_runtime(parser, was_engine=False)
    add_tta(parser)
    add(
        "--prior",
        **PRIORS,
        dest="priors",
        help="how frequent the classes are among these faces: uniform, natural, the name of a "
        "source that taught the model, or shares of all classes; may be repeated",
    )
    add(
        "--detector",
        help="auto, yunet, centerface, mtcnn, none (each picture is one face) or "
        "the path of a YuNet .onnx file",
    )
    add("--offline", action="store_true", help="never download the detector's file")
    add(
        "--auto-rotate",
        action="store_true",
        help="pictures may lie on their sides or heads: find out and set faces upright",
    )
    add("--min-face", type=float, metavar="PIXELS", help="do not describe smaller faces")
    add(
        "--min-confidence",
        type=float,
        metavar="P",
        help="leave the answer empty where its probability is lower",
    )
    add(
        "--filter",
        **by_name(str),
        metavar="TASK=CLASS,…",
        help="faces that the model answers otherwise get the status rejected (is_face=yes)",
    )
    add("--every", metavar="TIME", help="distance between two frames of a video (1s)")
    add("--save-crops", metavar="DIR", help="write every face there")
    add("--annotate", metavar="DIR", help="write copies with boxes and answers there")
    add("--gallery", metavar="PAGE.html", help="write a page of faces by answer and confidence")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="threads that decode and detect; on a cluster: workers",
    )
    add("--batch-size", type=int, metavar="N", help="faces that go through the model at once")
    add(
        "--max-pixels",
        type=int,
        metavar="N",
        help="pictures with more pixels are unreadable (200000000)",
    )
    add("--resume", action="store_true", help="go on with the table of a job that was stopped")
    add(
        "--retry-unreadable",
        action="store_true",
        help="with --resume: try again what could not be read",
    )
    add("--overwrite", action="store_true", help="replace a table (and gallery) that is there")
    add(
        "--spreadsheet",
        action="store_true",
        help="the .csv is for a spreadsheet: a ' before texts that it would take for formulas",
    )
    add("--quiet", action="store_true", help="print errors only")
    add_cluster(parser)
    old_names(parser, {"--upright": "--auto-rotate", "--require": "--filter"})


ARTIFACTS = {"save_crops": "crops", "annotate": "annotated", "gallery": "gallery"}


def label(inputs, output=None, engine=LOCAL, quiet=False, **given) -> int:
    """Find the faces of many pictures and write a table of their attributes."""
    if "every" in given:
        given["every"] = duration(given["every"])
    console = Console(stderr=True, quiet=quiet, highlight=False, markup=False, soft_wrap=True)
    if engine == RAY:
        return label_on_cluster(inputs, output, console, given)
    must_be_local(given)
    if output is None:
        return _print_rows(inputs, given)
    from faceattr.images.inputs import Inputs
    from faceattr.inference.artifacts import Artifacts
    from faceattr.inference.label import label_to
    from faceattr.inference.table import TableOptions, validate_table_path

    taken = {name: given.pop(typed) for typed, name in ARTIFACTS.items() if typed in given}
    table = {f.name: given.pop(f.name) for f in fields(TableOptions) if f.name in given}
    # What is typed wrongly shall be told before the seconds that a model takes to load.
    artifacts, options = Artifacts(**taken), TableOptions(**table)
    validate_table_path(output, options)
    artifacts.validate(resume=options.resume, overwrite=options.overwrite)
    Inputs(inputs, allow_urls=given.get("allow_urls", False))
    attributes = open_attributes(given, Aside(console))
    finishing = partial(console.print, "finishing the batch; Ctrl-C once more stops at once")
    with bar_of(console) as bar, ctrl_c(finishing) as stopped, warnings.catch_warnings():
        # What Pillow thinks of a file's metadata would tear the bar and change nothing.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        summary = label_to(
            output,
            inputs,
            attributes,
            artifacts=artifacts,
            progress=LabelProgress(bar),
            stop=stopped.is_set,
            **table,
            **given,
        )
    found_with = attributes.detector.provenance["name"]
    for line in report(summary, output, found_with, artifacts.folders):
        console.print(line)
    return INTERRUPTED if summary.interrupted else 0


def _print_rows(inputs, given: dict) -> int:
    """The rows without a file: a table on a terminal, CSV anywhere else."""
    from faceattr.images.inputs import Inputs
    from faceattr.inference.label import describe_inputs
    from faceattr.inference.table import TableOptions

    for name in (*ARTIFACTS, *(f.name for f in fields(TableOptions))):
        if name in given:
            raise ValueError(f"--{name.replace('_', '-')} needs a table: give -o TABLE.")
    # What is not there is told before the model is opened.
    files = Inputs(inputs, allow_urls=given.pop("allow_urls", False))
    attributes = open_attributes(given, Aside())
    rows = describe_inputs(files, attributes, **given)
    if sys.stdout.isatty():
        show(_shown(rows, attributes.tasks))
        return 0
    try:
        for piece in _as_csv(rows, attributes.tasks):
            print(piece, end="", flush=True)
    except BrokenPipeError:  # whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _as_csv(rows, tasks) -> Iterator[str]:
    from faceattr.inference.schema import CsvSerializer, columns

    serializer = CsvSerializer(columns(tasks))
    yield serializer.header.decode()
    for row in rows:
        yield serializer.encode([row]).decode()


def _shown(rows, tasks) -> Table:
    """What a person wants to see of the rows: where, and the answers."""
    table = Table("path", "status", "face", "x0, y0, x1, y1", *(task.name for task in tasks))
    for row in rows:
        box = ", ".join(
            f"{row[side]:.0f}" for side in ("x0", "y0", "x1", "y1") if row[side] is not None
        )
        answers = ((row[task.name], row[f"{task.name}_prob"]) for task in tasks)
        told = [f"{name} {sure:.0%}" if name else "" for name, sure in answers]
        face = "" if row["face"] is None else str(row["face"])
        table.add_row(row["path"], row["reason"] or row["status"], face, box, *told)
    return table


class LabelProgress(Progress):
    """Moves a bar on: one step a file, however many frames a video has."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("labelling", total=None, faces=0)
        self._faces = 0
        self._last = ""

    def show(self, record) -> None:
        from faceattr.inference.label import Started

        if isinstance(record, Started):
            self._bar.update(self._task, total=record.files, completed=record.done)
            return
        self._faces += len(record.faces)
        step = record.file.path != self._last
        self._last = record.file.path
        self._bar.update(self._task, advance=int(step), faces=self._faces)
