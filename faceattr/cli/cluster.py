"""`faceattr label --engine ray`: the job runs on the machines of a cluster."""

from __future__ import annotations

import argparse
import io
import re
import sys
import warnings
from contextlib import redirect_stdout

from rich.console import Console

from faceattr.cli.label_report import ClusterProgress, bar_of, print_report
from faceattr.cli.options import INTERRUPTED, RUNTIMES, taken

LOCAL, RAY = PLACES = ("local", "ray")


class Place(argparse.Action):
    """``--engine local|ray``; what computes the network was typed here before ``--runtime`` was."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if values in RUNTIMES:
            print(
                f"faceattr: {option_string} {values} is called --runtime {values} now.",
                file=sys.stderr,
            )
            namespace.engine = values
        elif values in PLACES:
            namespace.place = values
        else:
            raise argparse.ArgumentError(
                self, f"a job runs on {', '.join(PLACES)}. Received: {values!r}"
            )


ON_CLUSTER = {"address": "--address", "cpus": "--cpus-per-worker", "gpus": "--num-gpus-per-worker"}
SHAPE = {"workers": "count", "cpus": "cpus", "gpus": "gpus"}
HERE_ALONE = ("allow_urls", "save_crops", "annotate", "gallery", "spreadsheet")


def add_cluster(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("on a cluster (--engine ray; -o is a folder)").add_argument
    add("--address", help="of Ray: auto on one of its machines, or host:port (this machine's own)")
    add("--cpus-per-worker", dest="cpus", type=int, metavar="N", help="threads of each worker")
    add("--num-gpus-per-worker", dest="gpus", type=float, metavar="X", help="GPUs of each (0)")


def must_be_local(given: dict) -> None:
    """Refuse what only a cluster understands."""
    for name, option in ON_CLUSTER.items():
        if name in given:
            raise ValueError(f"{option} is for a cluster: add --engine ray.")


def label_on_cluster(inputs, output, console: Console, given: dict) -> int:
    """The job on a cluster, its bar and its summary; `given` is as typed."""
    for name in HERE_ALONE:
        if name in given:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is for a job on this machine alone: leave it out.")
    if output is None:
        raise ValueError("A job on a cluster writes a folder of Parquet parts: give -o FOLDER.")
    from faceattr.inference.cluster import Workers, label_to
    from faceattr.inference.parts import Parts

    shape = {SHAPE[typed]: count for typed, count in taken(given, SHAPE).items()}
    with bar_of(console) as bar, redirect_stdout(RayLines(console)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(ray|PIL)\.")
        progress = ClusterProgress(bar)
        try:
            summary = label_to(output, inputs, workers=Workers(**shape), progress=progress, **given)
        except KeyboardInterrupt:
            console.print("Stopped. The same command with --resume (without --overwrite) goes on.")
            return INTERRUPTED
    detector = Parts(output).page()["settings"]["detector"]["name"]
    print_report(console, summary, output, detector)
    return 0


MOST_OF_RAY = 240  # characters


class RayLines(io.TextIOBase):
    """Ray prints pages about lost workers and machines on standard output: the console gets the
    first sentence of each.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str) -> int:
        words = " ".join(re.sub(r"\x1b\[\d*m|\(raylet\)", "", text).split())
        if words:
            self._console.print(f"Ray: {words.split('. ')[0][:MOST_OF_RAY].rstrip('.')}.")
        return len(text)
