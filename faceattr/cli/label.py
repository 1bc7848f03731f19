"""`faceattr label`."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import fields
from functools import partial
from itertools import chain

from rich.console import Console
from rich.table import Table

from faceattr.cli.cluster import LOCAL, RAY, Place, add_cluster, label_on_cluster, must_be_local
from faceattr.cli.console import Aside, ctrl_c, on_stderr, show
from faceattr.cli.label_report import LabelProgress, bar_of, print_report
from faceattr.cli.options import (
    INTERRUPTED,
    USUAL,
    add_describing,
    command,
    duration,
    old_names,
    open_attributes,
    taken,
)


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
    add(
        "--engine",
        action=Place,
        metavar="local|ray",
        help="where the job runs: in this process, or on the machines of a Ray cluster",
    )
    add_describing(parser, *USUAL, "--flip", "--tta", "--prior", "--filter", "--batch-size")
    add("--every", metavar="TIME", help="distance between two frames of a video (1s; 0: each)")
    add("--save-crops", metavar="DIR", help="write every face there")
    add("--annotate", metavar="DIR", help="write copies with boxes and answers there")
    add("--gallery", metavar="PAGE.html", help="write a page of faces by answer and confidence")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="threads that decode and detect; on a cluster: workers",
    )
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


def label(inputs, output=None, place=LOCAL, quiet=False, **given) -> int:
    """Find the faces of many pictures and write a table of their attributes."""
    if "every" in given:
        given["every"] = duration(given["every"])
    console = on_stderr(quiet)
    if place == RAY:
        return label_on_cluster(inputs, output, console, given)
    must_be_local(given)
    if output is None:
        return _print_rows(inputs, given)
    return _write_table(inputs, output, console, given)


def _write_table(inputs, output, console: Console, given: dict) -> int:
    from faceattr.images.inputs import Inputs
    from faceattr.inference.artifacts import Artifacts
    from faceattr.inference.label import label_to
    from faceattr.inference.table import TableOptions, validate_table_path

    beside = {ARTIFACTS[typed]: path for typed, path in taken(given, ARTIFACTS).items()}
    table = taken(given, (field.name for field in fields(TableOptions)))
    # What is typed wrongly shall be told before the seconds that a model takes to load.
    artifacts, options = Artifacts(**beside), TableOptions(**table)
    validate_table_path(output, options)
    artifacts.validate(resume=options.resume, overwrite=options.overwrite)
    Inputs(inputs, allow_urls=given.get("allow_urls", False))
    attributes = open_attributes(given, Aside(console))
    finishing = partial(console.print, "finishing the batch; Ctrl-C once more stops at once")
    with bar_of(console) as bar, ctrl_c(finishing) as stopped, warnings.catch_warnings():
        # What Pillow thinks of a file's metadata would tear the bar and change nothing.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        given |= {"progress": LabelProgress(bar), "stop": stopped.is_set, **table}
        summary = label_to(output, inputs, attributes, artifacts=artifacts, **given)
    found_with = attributes.detector.provenance["name"]
    print_report(console, summary, output, found_with, artifacts.folders)
    return INTERRUPTED if summary.interrupted else 0


def _print_rows(inputs, given: dict) -> int:
    """The rows without a file: a table on a terminal, CSV anywhere else."""
    from faceattr.images.inputs import Inputs
    from faceattr.inference.label import describe_inputs
    from faceattr.inference.schema import CsvSerializer, columns
    from faceattr.inference.table import TableOptions

    for name in (*ARTIFACTS, *(f.name for f in fields(TableOptions))):
        if name in given:
            raise ValueError(f"--{name.replace('_', '-')} needs a table: give -o TABLE.")
    # What is not there is told before the model is opened.
    files = Inputs(inputs, allow_urls=given.pop("allow_urls", False))
    files.require_any()
    attributes = open_attributes(given, Aside())
    rows = describe_inputs(files, attributes, **given)
    if sys.stdout.isatty():
        show(_shown(rows, attributes.tasks))
        return 0
    serializer = CsvSerializer(columns(attributes.tasks))
    try:
        # Bytes, because a pipe's own encoding may lack a letter.
        out = sys.stdout.buffer
        for data in chain([serializer.header], (serializer.encode([row]) for row in rows)):
            out.write(data)
            out.flush()
    except BrokenPipeError:  # whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


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
