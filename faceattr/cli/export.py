"""`faceattr export`."""

from __future__ import annotations

from functools import partial

from rich.table import Column, Table

from faceattr.cli.console import Terminal, show
from faceattr.cli.data_options import add_reading_options, reading_of
from faceattr.cli.options import command, start_keras


def add_command(commands) -> None:
    parser = command(
        commands, export, "write a model for another runtime and check that it answers alike"
    )
    add = parser.add_argument
    targets = ("onnx", "litert", "openvino", "saved_model", "web")
    add("model", metavar="MODEL", help="a .keras file, hf://user/model, shipped or shipped-slim")
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument(
        "--to",
        choices=targets,
        help="what to write for; web: a page that runs the model in the browser",
    )
    one.add_argument(
        "--embed",
        action="store_true",
        help="put a fast LiteRT copy into the model file itself, which label and live then use",
    )
    add(
        "-o",
        "--output",
        metavar="FILE",
        help="by default the model's name with another ending; with --embed the model itself; "
        "with --to web a folder",
    )
    add(
        "--on",
        nargs="+",
        metavar="[TASK=]PATH",
        help="labelled faces to compare on: manifest CSV or folder (made pictures)",
    )
    add("--int8", action="store_true", help="compute in 8 bits; needs --on")
    add("--rows", type=int, metavar="N", help="faces for each task in the comparison (1000)")
    add("--overwrite", action="store_true", help="replace an exported model that is there")
    add(
        "--web-runtime",
        dest="web_runtime_file",
        metavar="FILE",
        help="with --to web: the npm package onnxruntime-web (fetched once, and kept)",
    )
    add_reading_options(parser)


def export(model, to=None, embed=False, **given) -> int:
    """Write a model for another runtime. The file is kept only when it answers like the model; the
    comparison stands beside it in FILE.json. `faceattr label --model` takes the file."""
    if embed and "web_runtime_file" in given:
        raise ValueError("--web-runtime belongs to --to web")
    if embed and given.pop("int8", False):
        raise ValueError("--embed takes int8 by itself where that answers alike: leave --int8 away")
    start_keras()
    from faceattr.exporting import export as exporting
    from faceattr.exporting.parity import ParityReport

    show.register(ParityReport)(_show_parity)
    run = exporting.embed if embed else partial(exporting.export, to=to)
    run(model, **reading_of(given), progress=Terminal())
    return 0


def _show_parity(report) -> None:
    """How the file compares with its network."""
    show(f"the network and the file, asked about {report.crops}:")
    figures = ["mean change", "of 99 %", "largest", "same answer"]
    if any(found.labelled for found in report.heads.values()):
        figures += ["accuracy", "calibration error"]
    table = Table("task", *(Column(figure, justify="right") for figure in figures))
    for task, found in report.heads.items():
        changes = (found.mean_change, found.change_99, found.difference)
        shown = [*(f"{change:.2g}" for change in changes), f"{found.same_answer:.2%}"]
        table.add_row(task, *shown, *_labelled(found.labelled))
    show(table)
    for size, spent in report.milliseconds.items():
        network, file = spent["network"], spent["file"]
        crops = "1 crop" if size == 1 else f"{size} crops"
        show(f"{crops}: {network:.1f} ms, in the file {file:.1f} ms ({network / file:.2g} times)")


def _labelled(found) -> tuple[str, ...]:
    """Accuracy and calibration error of network and file, of a head whose labels are known."""
    if found is None:
        return ()
    low, high = (100 * bound for bound in found.lost)
    return (
        f"{found.accuracy_before:.1%} to {found.accuracy_after:.1%} "
        f"(lost {low:.1f} to {high:.1f} points)",
        f"{found.calibration_before:.1%} to {found.calibration_after:.1%}",
    )
