"""`faceattr train`."""

from __future__ import annotations

import argparse
import datetime
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import TypeVar

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from faceattr.cli.console import ERR, OUT, Terminal, show
from faceattr.cli.data_options import (
    add_distillation,
    add_new_heads,
    add_reading_options,
    add_tasks,
    distillation_of,
    new_heads_of,
    reading_of,
)
from faceattr.cli.fields import add_fields
from faceattr.cli.options import (
    INTERRUPTED,
    PRIORS,
    Merged,
    by_name,
    command,
    old_names,
    pairs,
    start_keras,
)
from faceattr.cli.recipe import merge_options, read_recipe
from faceattr.progress import Bar
from faceattr.tasks import refuse_unknown
from faceattr.training.config import (
    FINETUNE,
    FROZEN,
    NO_AUGMENTATION,
    SCRATCH,
    WHOLE,
    Auxiliary,
    Network,
    Phase,
    Settings,
    TaskSampling,
    augmentation_with,
)

T = TypeVar("T")

COUNT_BY_PHASE = {**by_name(int, "frozen=3,finetune=3 (by phase)"), "metavar": "PHASE=N,…"}
BY_PHASE = {
    "epochs": COUNT_BY_PHASE,
    "learning_rate": {
        **by_name(float, "finetune=1e-5 (by phase) or block5=1e-6 (by branch)"),
        "flags": ("--lr", "--learning-rate"),
        "metavar": "PHASE=X|BRANCH=X,…",
    },
    "unfreeze_from": {
        **by_name(str, "finetune=block4_conv1 (by phase)"),
        "metavar": "PHASE=LAYER,…",
    },
    "patience": COUNT_BY_PHASE,
}
OLD_BRANCHES = {"trunk": "backbone"}  # as a layer and as a branch
OLD_NAMES = {
    "--trunk": "--backbone",
    "--tap": "--feature-layer",
    "--first": "--unfreeze-from",
    "--rate": "--learning-rate",
    "--branch-rates": "--learning-rate",
    "--copies": "--augment-repeats",
    "--tie": "--sharing-strength",
}


def add_command(commands) -> None:
    parser = command(commands, train, "train or fine-tune a model on labelled faces")
    add = parser.add_argument
    add("sources", nargs="*", metavar="[TASK=]PATH", help="manifest CSV or folder")
    add("-o", "--output", required=True, metavar="MODEL", help="the .keras file to write")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--overwrite", action="store_true", help="replace a model that is already there")
    add("--licence", metavar="TEXT", help="terms of the new weights, kept in the file")
    add("--recipe", metavar="FILE[:NAME]", help="options out of a TOML file; typed ones win")
    add(
        "--drop-near-duplicates",
        action="store_true",
        help="leave training rows out whose face is in val or test too",
    )
    add_tasks(parser)
    add_reading_options(parser)
    add_new_heads(parser)
    add_distillation(parser)
    add_options(parser)


def add_options(parser) -> None:
    """The options that a recipe may hold: what is trained, and how."""
    network = parser.add_argument_group("network")
    add = network.add_argument
    add("--size", type=int, metavar="N", help="side of the crops in pixels")
    share = "added around a face's box, as a share of its side"
    add("--margin", type=float, metavar="X", help=share)
    add_fields(network, Network, weights={"metavar": "MODEL"})
    kinds = ("backbone", "pooling", "dropout", "dtype")
    add_fields(network, Network, *kinds, norm={"choices": ("batch", "none")})
    add_fields(parser.add_argument_group("phases of the training"), Phase, **BY_PHASE)
    usual = ("batch_size", "balance", "label_smoothing", "mixup", "cutmix", "ema", "seed")
    add_fields(
        parser.add_argument_group("training"),
        Settings,
        *usual,
        source_smoothing={"metavar": "SOURCE=X,…"},
        source_weights={"flags": ("--source-weight", "--source-weights"), "metavar": "SOURCE=W,…"},
        priors={"flags": ("--prior",), **PRIORS},
        augmentation={
            "flags": ("--augment",),
            "action": Merged,
            "type": lambda text: None if text == "none" else pairs(float)(text),
            "metavar": "CHANGE=X,…",
            "help": "none, or other amounts than a face's: flip=0,erase=0 (flip, turn, shift, "
            "zoom, grey, blur, smallest, light, erase, fill, dark, jpeg, yaw)",
        },
        augment_repeats={},
    )
    several = parser.add_argument_group("several tasks; docs/tasks.md says what is for what")
    add_fields(
        several,
        Settings,
        schedule={},
        task_sampling={
            "flags": ("--mix", "--task-sampling"),
            "type": _task_sampling,
            "metavar": "RULE",
            "help": "equal, natural, a temperature, task=share,… or source=share,…",
        },
        combine={},
        loss_weights={"flags": ("--weight", "--loss-weights"), "metavar": "TASK=W,…"},
        sharing_strength={},
        auxiliary={"type": _auxiliary, "metavar": "TASK=LAYER[:W],…"},
    )
    layers = {"flags": ("--feature-layer",), "metavar": "TASK=LAYER,…"}
    add_fields(several, Network, sharing={}, feature_layers=layers)
    old_names(parser, OLD_NAMES)


def _task_sampling(text: str) -> dict:
    """``equal``, ``natural``, a temperature, or shares by task."""
    if "=" in text:
        return {"shares": pairs(float)(text)}
    try:
        return {"temperature": {"equal": math.inf, "natural": 1.0}.get(text) or float(text)}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected equal, natural, a temperature or task=share,…. Received: {text!r}"
        ) from None


def _auxiliary(text: str) -> list[tuple]:
    """``task=layer:weight,…`` with or without a weight; a task may have several."""
    found = []
    try:
        for part in text.split(","):
            task, place = part.split("=")
            layer, colon, weight = place.partition(":")
            found.append((task.strip(), layer, *([float(weight)] if colon else [])))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected task=layer or task=layer:weight. Received: {text!r}"
        ) from None
    return found


def train(output, sources=(), **given) -> int:
    """Train a model: TASK=PATH takes one task from a manifest CSV or a folder, PATH every task
    of a manifest CSV. Any number of sources train together, whichever labels they have."""
    start_keras(on_several_machines=True)
    from faceattr.training.train import train as run

    if "recipe" in given:
        given = merge_options(read_recipe(given.pop("recipe"), add_options), given)
    network, distillation = network_of(given), distillation_of(given)
    new_heads, phases = new_heads_of(sources, distillation, given), network.phases
    if new_heads:  # the backbone is opened only if that is typed; other names are refused later
        opened = given.get("epochs", {})
        phases = tuple(p for p in phases if not p.unfreeze_from or p.name in opened) or phases
    how = {"network": network, "settings": settings_of(phases, given), "new_heads": new_heads}
    given = reading_of(given)
    try:
        with TrainingTerminal() as progress:
            result = run(
                sources, output, distillation=distillation, progress=progress, **how, **given
            )
    except KeyboardInterrupt:
        print("faceattr: stopped. The same command with --resume goes on.", file=sys.stderr)
        return INTERRUPTED
    print_result(result)
    return 0


def network_of(given: dict) -> Network:
    """The network that options ask for; takes them out of `given`."""
    rule = {name: given.pop(name) for name in ("size", "margin") if name in given}
    if "sharing_strength" in given and given.get("sharing") != "soft":
        raise ValueError(
            "--sharing-strength draws the backbones of --sharing soft together, and there is but "
            "one backbone."
        )
    own = {field.name: given.pop(field.name) for field in fields(Network) if field.name in given}
    if "norm" in own:
        own["norm"] = own["norm"] == "batch"
    network = Network(**own)
    if not rule:
        return network
    from faceattr.training.network import crop_rule, resolved

    return replace(network, crop=replace(crop_rule(resolved(network)), **rule))


def settings_of(phases: Sequence[Phase], given: dict) -> Settings:
    """The settings that options ask for; takes them out of `given`."""
    phases = tuple(_phases(phases, given))
    own = {field.name: given.pop(field.name) for field in fields(Settings) if field.name in given}
    if "auxiliary" in own:
        own["auxiliary"] = tuple(Auxiliary(*one) for one in own["auxiliary"])
    if "task_sampling" in own:
        own["task_sampling"] = TaskSampling(**own["task_sampling"])
    if "augmentation" in own:
        amounts = own["augmentation"]
        own["augmentation"] = NO_AUGMENTATION if amounts is None else augmentation_with(amounts)
    return Settings(phases=phases, **own)


def _phases(phases: Sequence[Phase], given: dict) -> Iterator[Phase]:
    """The default phases with what was typed for them; a phase of 0 epochs is left out."""
    names = [phase.name for phase in phases]
    typed = {field: dict(given.pop(field, {})) for field in BY_PHASE}
    opened, rates = typed["unfreeze_from"], typed["learning_rate"]
    opened.update({name: OLD_BRANCHES.get(of, of) for name, of in opened.items()})
    of_phases = {*names, *(phase.name for phase in (FROZEN, FINETUNE, SCRATCH, WHOLE))}
    branches = {OLD_BRANCHES.get(n, n): rates.pop(n) for n in list(rates) if n not in of_phases}
    given_to = {name for values in typed.values() for name in values}
    refuse_unknown("phase", given_to, names, "in this run")
    for phase in phases:
        own = {field: values[phase.name] for field, values in typed.items() if phase.name in values}
        if own.get("epochs") != 0:
            yield replace(phase, branch_rates=branches, **own)


class TrainingTerminal(Terminal):
    """A bar over all steps of a run, with the time to go, and a line per finished epoch."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn())
        done = TextColumn("{task.completed}/{task.total}")
        self._bar = Bar(*columns, done, TimeRemainingColumn(), console=ERR)

    def __enter__(self) -> TrainingTerminal:
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def track(self, items: Sequence[T], what: str) -> Iterable[T]:
        self._bar.start()
        yield from self._bar.follow(items, what)
        # A bar that is live takes what is printed on standard output to standard error.
        if not self._bar.tasks:
            self._bar.stop()

    def show(self, record: object) -> None:
        from faceattr.training.checkpoint import Epoch
        from faceattr.training.train import RowsRead
        from faceattr.training.trainer import TrainingStarted

        if isinstance(record, TrainingStarted):
            self._run, self._began, self._first = record, time.monotonic(), 0
            val = "bal" if record.balanced else "val"
            heads = "".join(f" | {name:>12}: loss   acc    {val}" for name in record.tasks)
            if record.balanced:
                OUT.print("bal: balanced accuracy on val, which chooses the best epoch")
            OUT.print(f"epoch phase    size{heads} | minutes  to go")
        elif isinstance(record, Epoch):
            self._show_epoch(record)
        elif isinstance(record, RowsRead):
            print_rows(record)
        else:
            show(record)

    def _show_epoch(self, epoch) -> None:
        self._first = self._first or epoch.number
        done = epoch.number - self._first + 1
        left = (time.monotonic() - self._began) / done * (self._run.epochs - epoch.number)
        balanced = self._run.balanced
        cells = "".join(_cell(name, epoch, balanced=balanced) for name in self._run.tasks)
        OUT.print(
            f"{epoch.number:>5} {epoch.phase:<9}{epoch.size:>4}{cells} | {epoch.seconds / 60:>7.1f}"
            f" {datetime.timedelta(seconds=round(left))!s:>7}{' best' if epoch.is_best else ''}"
        )


def _cell(name: str, epoch, *, balanced: bool) -> str:
    # Keras names a figure after its head only where there are several.
    unnamed = {what: epoch.logs.get(what, float("nan")) for what in ("loss", "accuracy")}
    loss = epoch.logs.get(f"{name}_loss", unnamed["loss"])
    accuracy = epoch.logs.get(f"{name}_accuracy", unnamed["accuracy"])
    score = epoch.scores.get(name)
    if not score or not score.n:
        val = "     -"
    else:
        val = f"{score.balanced_accuracy if balanced else score.accuracy:6.1%}"
    return f" | {'':>12} {loss:6.3f} {accuracy:6.1%} {val}"


def print_rows(read) -> None:
    """Print the faces that can be used, by split, task and class, and what is worth a note."""
    from faceattr.cli.tables import print_left_out
    from faceattr.data.dataset import summarize

    show(summarize(read.rows, read.tasks))
    print_left_out(read.left_out)
    for note in read.notes:
        OUT.print(f"note: {note}")


def print_result(result) -> None:
    """Print what a training brought."""
    from faceattr.cli import tables  # noqa: F401

    for name, found in result.half_precision.items():
        OUT.print(
            f"{name}: stored in half precision; on val the same answer for "
            f"{found['same_answer']:.2%}, largest difference of a probability "
            f"{found['largest']:.4f}"
        )
    for name, calibration in result.calibration.items():
        OUT.print(f"{name}: {calibration}")
    if result.changes:
        _print_changes(result.changes)
    show(result.evaluation)
    OUT.print(f"  -> {result.model}")
    OUT.print(f"  -> {result.model.with_suffix('.training') / 'report.html'}")


def _print_changes(found: Sequence) -> None:
    """Print the forgetting table: every old head before and after."""
    table = Table("old head", "n", "before", "after", "change", "lost", "won", "same answer")
    for change in found:
        cells = ["-"] * 5
        if change.n:
            (low, high), (new_low, new_high) = change.before_interval, change.after_interval
            cells = [
                f"{change.before:.1%} ({low:.1%} to {high:.1%})",
                f"{change.after:.1%} ({new_low:.1%} to {new_high:.1%})",
                f"{100 * (change.after - change.before):+.1f} points",
                f"{change.lost:,}",
                f"{change.won:,}",
            ]
        same = f"{change.same:.2%} of {change.seen:,}" if change.largest else "to the last bit"
        table.add_row(change.task, f"{change.n:,}", *cells, same)
    OUT.print(table)
