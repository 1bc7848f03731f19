"""The command line: one function a command, each a parse and one call.

Defaults live in the library; an option that was not typed is not passed on. Heavy imports
happen inside the commands, so that `faceattr --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from faceattr import __version__

WRONG_INPUT = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 2 wrong input, 130 interrupted)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    given = vars(_parser().parse_args(argv))
    command = given.pop("command")
    try:
        return command(**given)
    except KeyboardInterrupt:
        print("faceattr: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"faceattr: {error}", file=sys.stderr)
        return WRONG_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="faceattr", description="Read attributes off faces with a model of your own."
    )
    parser.add_argument("--version", action="version", version=f"faceattr {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_label, _add_live, _add_train, _add_evaluate):
        add(commands)
    return parser


def _command(commands, function, summary: str) -> argparse.ArgumentParser:
    """A sub-command whose untyped options stay away from its function."""
    parser = commands.add_parser(
        function.__name__,
        help=summary,
        description=function.__doc__,
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(command=function)
    return parser


def _add_label(commands) -> None:
    parser = _command(commands, label, "label the faces of a folder of pictures")
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="PATH",
        help="folders (read recursively), pictures, videos, quoted patterns like 'a/**/*.jpg', "
        "text files of paths, or - for paths on standard input",
    )
    add("-o", "--output", required=True, metavar="TABLE", help=".csv, .jsonl or .parquet")
    add("--model", metavar="FILE", help="a .keras file that `faceattr train` made")
    add(
        "--precision",
        choices=("float32", "bfloat16"),
        help="bfloat16 is twice as fast where the processor has it (float32)",
    )
    add(
        "--detector",
        help="auto, yunet, centerface, mtcnn, none (each picture is one face) or "
        "the path of a YuNet .onnx file",
    )
    add("--offline", action="store_true", help="never download the detector's file")
    add(
        "--upright",
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
    add("--every", metavar="TIME", help="distance between two frames of a video (1s)")
    add("--save-crops", metavar="DIR", help="write every face there")
    add("--annotate", metavar="DIR", help="write copies with boxes and answers there")
    add("--gallery", metavar="PAGE.html", help="write a page of faces by answer and confidence")
    add("--workers", type=int, metavar="N", help="threads that decode and detect")
    add("--batch-size", type=int, metavar="N", help="faces that go through the model at once")
    add("--resume", action="store_true", help="go on with the table of a job that was stopped")
    add("--overwrite", action="store_true", help="replace a table that is there")
    add("--quiet", action="store_true", help="print errors only")


def label(**given) -> int:
    """Find the faces of many pictures and write a table of their attributes."""
    from faceattr.labelling.console import run

    return run(**given)


def _add_live(commands) -> None:
    parser = _command(commands, live, "watch faces in a camera, video, stream or in the browser")
    add = parser.add_argument
    add(
        "source",
        nargs="?",
        help="camera number (0), video file, stream URL (rtsp://, http://) or folder of frames",
    )
    add(
        "-o",
        "--output",
        action="append",
        metavar="FILE",
        help="write the picture as drawn (.mp4, .mkv, .mov) or a timeline of all faces (.csv); "
        "may be given several times",
    )
    add("--headless", action="store_true", help="open no window; every frame of a file is used")
    add("--overwrite", action="store_true", help="replace outputs that are there")
    add("--model", metavar="FILE", help="a .keras file that `faceattr train` made")
    add("--detector", help="auto, yunet, centerface, mtcnn, none or a YuNet .onnx file")
    add(
        "--precision",
        choices=("float32", "bfloat16"),
        help="bfloat16 is twice as fast where the processor has it (float32)",
    )
    add("--offline", action="store_true", help="never download the detector's file")
    add("--upright", action="store_true", help="look at the picture on its sides and head as well")
    add("--min-face", type=float, metavar="PIXELS", help="do not describe smaller faces")
    add("--min-confidence", type=float, metavar="P", help="say 'unsure' below this probability")
    add("--rate", type=float, metavar="FPS", help="frames a second of a folder of frames (25)")
    add("--every-frame", action="store_true", help="show every frame of a file, however slowly")
    look = parser.add_argument_group("what is drawn (keys: b, p, m, h for help)")
    look.add_argument("--bars", action="store_true", help="bars for every class")
    look.add_argument("--blur", action="store_true", help="make faces unrecognisable")
    look.add_argument("--mirror", action="store_true", help="turn left and right round")
    look.add_argument("--snapshots", metavar="DIR", help="where key s saves pictures (here)")
    pace = parser.add_argument_group("effort and steadiness")
    add = pace.add_argument
    add("--detect-every", type=int, metavar="N", help="search faces in every N-th frame (3)")
    add("--ask-at-once", type=int, metavar="N", help="most faces described in one frame (4)")
    add("--memory", type=float, metavar="S", help="seconds over which answers are averaged (0.7)")
    add("--margin", type=float, metavar="P", help="lead another answer needs to be shown (0.1)")
    web = parser.add_argument_group("in the browser")
    web.add_argument("--web", action="store_true", help="serve a page with camera and drop field")
    web.add_argument("--host", help="address to serve on (127.0.0.1: this machine only)")
    web.add_argument("--port", type=int, help="port to serve on (8760)")
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def live(**given) -> int:
    """Watch faces live: boxes, answers averaged over each face's track, figures of the pace."""
    if given.pop("web", False):
        from faceattr.live.web import run as serve

        return serve(**given)
    from faceattr.live.show import run

    return run(**given)


def _pairs(kind):
    """A parser of ``name=value,name=value`` with values of one kind."""

    def parse(text: str) -> dict:
        try:
            pairs = [part.split("=") for part in text.split(",")]
            return {name.strip(): kind(value) for name, value in pairs}
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"expected name=value,name=value. Received: {text!r}"
            ) from None

    return parse


def _mix(text: str):
    """``equal``, ``natural``, a temperature, or shares by task."""
    if text == "equal":
        return {"temperature": float("inf")}
    if text == "natural":
        return {"temperature": 1.0}
    return {"shares": _pairs(float)(text)} if "=" in text else {"temperature": float(text)}


def _add_train(commands) -> None:
    parser = _command(commands, train, "train or fine-tune a model on labelled faces")
    add = parser.add_argument
    add("sources", nargs="+", metavar="[TASK=]PATH", help="manifest CSV or folder")
    add("-o", "--output", required=True, metavar="MODEL", help="the .keras file to write")
    add("--tasks", type=lambda text: text.split(","), help="columns to take from bare manifests")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--overwrite", action="store_true", help="replace a model that is already there")
    add("--cache", metavar="DIR", help="folder of the crop cache")
    add("--licence", metavar="TEXT", help="terms of the new weights, kept in the file")
    network = parser.add_argument_group("network")
    add = network.add_argument
    add("--weights", metavar="START", help="shipped, imagenet, none, or a file")
    add("--size", type=int, help="side of the crops in pixels")
    add("--margin", type=float, help="added around a face's box, as a share of its side")
    add("--pooling", choices=("max", "avg"))
    add("--dropout", type=float)
    add("--norm", choices=("batch", "none"), help="while training; folded away when saved")
    add("--dtype", choices=("float32", "mixed_bfloat16"), help="default: the faster one here")
    course = parser.add_argument_group("course of the training")
    add = course.add_argument
    add("--epochs", type=_pairs(int), metavar="PHASE=N,…", help="frozen=5,finetune=5 or scratch=10")
    add("--rate", type=_pairs(float), metavar="PHASE=X,…", help="highest learning rate")
    add("--first", type=_pairs(str), metavar="PHASE=LAYER,…", help="first layer that learns")
    add("--batch-size", type=int)
    add("--mix", type=_mix, metavar="RULE", help="equal, natural, a temperature, or task=share,…")
    add("--label-smoothing", type=float)
    add("--loss-weights", type=_pairs(float), metavar="TASK=W,…")
    add("--schedule", choices=("joint", "alternating"), help="all tasks in a step, or one")
    add("--combine", choices=("sum", "log", "uncertainty", "random"), help="losses into one")
    add("--branch-rates", type=_pairs(float), metavar="BRANCH=X,…", help="task, block5, …")
    add("--seed", type=int)


def train(sources, output, **given) -> int:
    """Train a model: TASK=PATH takes one task from a manifest CSV or a folder, PATH every task
    of a manifest CSV. Any number of sources train together, whichever labels they have."""
    _start_keras()
    from faceattr.training.train import train as run

    network = _network(given)
    settings = _settings(network.phases, given)
    try:
        run(sources, output, network=network, settings=settings, **given)
    except KeyboardInterrupt:
        print("faceattr: stopped. The same command with --resume goes on.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _start_keras() -> None:
    """Import Keras and let TensorFlow say its greetings unheard."""
    from faceattr.labelling.opening import silence

    with silence():
        import keras

        keras.ops.zeros(1)


def _network(given: dict):
    from faceattr.pictures.crop import CropRule
    from faceattr.training.network import Network

    rule = {name: given.pop(name) for name in ("size", "margin") if name in given}
    names = ("weights", "pooling", "dropout", "dtype")
    fields = {name: given.pop(name) for name in names if name in given}
    if "norm" in given:
        fields["norm"] = given.pop("norm") == "batch"
    return Network(crop=CropRule(**rule), **fields)


def _settings(phases, given: dict):
    from faceattr.training.dataset import Mix
    from faceattr.training.settings import Settings

    names = ("batch_size", "label_smoothing", "loss_weights", "schedule", "combine", "seed")
    fields = {name: given.pop(name) for name in names if name in given}
    if "mix" in given:
        fields["mix"] = Mix(**given.pop("mix"))
    return Settings(phases=_phases(phases, given), **fields)


def _phases(phases, given: dict):
    """The default phases with what was typed for them; a phase of 0 epochs is left out."""
    from dataclasses import replace

    changes = {"epochs": "epochs", "rate": "learning_rate", "first": "first"}
    typed = {fields: given.pop(name, {}) for name, fields in changes.items()}
    branches = given.pop("branch_rates", {})
    names = [phase.name for phase in phases]
    for values in typed.values():
        if strangers := sorted(set(values) - set(names)):
            raise ValueError(
                f"This run has no phase {', '.join(strangers)}; it has {', '.join(names)}."
            )
    changed = []
    for phase in phases:
        own = {field: values[phase.name] for field, values in typed.items() if phase.name in values}
        if own.get("epochs") != 0:
            changed.append(replace(phase, rates=branches, **own))
    return tuple(changed)


def _add_evaluate(commands) -> None:
    parser = _command(commands, evaluate, "score a model on labelled faces")
    add = parser.add_argument
    add("model", help="a .keras file, or 'shipped'")
    add("sources", nargs="+", metavar="[TASK=]PATH", help="manifest CSV or folder")
    splits = ("train", "val", "test", "all")
    add("--split", choices=splits, help="rows to score (val where there are some, else all)")
    add("-o", "--output", metavar="DIR", help="where scores.json and confusions.png go")
    add("--cache", metavar="DIR", help="folder of the crop cache")


def evaluate(model, sources, **given) -> int:
    """Score a model on labelled faces: exact figures over the rows that know each task."""
    _start_keras()
    from faceattr.training.report import report

    report(model, sources, **given)
    return 0
