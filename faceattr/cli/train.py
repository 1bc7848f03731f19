"""`faceattr train`."""

from __future__ import annotations

import argparse
import sys

from faceattr.cli.options import (
    INTERRUPTED,
    Merged,
    add_adding,
    add_distillation,
    add_face_options,
    add_label_options,
    adding_of,
    by_name,
    command,
    detector_of,
    distillation_of,
    label_map_of,
    names,
    pairs,
    start_keras,
)
from faceattr.cli.recipe import read_recipe


def add_ways(parser: argparse.ArgumentParser) -> None:
    """Declare them as a group of their own; docs/ways.md says which is for what."""
    ways = parser.add_argument_group("ways of training several tasks")
    add = ways.add_argument
    add("--schedule", choices=("joint", "alternating"), help="all tasks in a step, or one")
    add(
        "--mix",
        type=_mix,
        metavar="RULE",
        help="equal, natural, a temperature, task=share,… or source=share,…",
    )
    add("--combine", metavar="HOW", help="losses into one: sum, log, uncertainty, random")
    add(
        "--loss-weights",
        "--weight",
        **by_name(float),
        metavar="TASK=W,…",
        help="in the sum",
    )
    add(
        "--branch-rates",
        "--lr",
        **by_name(float),
        metavar="BRANCH=X,…",
        help="highest learning rate of a task's head, trunk, block5, a layer",
    )
    add("--sharing", choices=("hard", "soft"), help="one trunk, or one for each task")
    add("--tie", type=float, help="of soft sharing: 0 independent, inf equal trunks")
    add(
        "--tap",
        dest="taps",
        **by_name(str),
        metavar="TASK=LAYER,…",
        help="the head reads block2_pool, …",
    )
    add(
        "--auxiliary",
        type=_auxiliary,
        metavar="TASK=LAYER[:W],…",
        help="one more loss at an earlier layer, while training",
    )


def _mix(text: str):
    """``equal``, ``natural``, a temperature, or shares by task."""
    if text == "equal":
        return {"temperature": float("inf")}
    if text == "natural":
        return {"temperature": 1.0}
    if "=" in text:
        return {"shares": pairs(float)(text)}
    try:
        return {"temperature": float(text)}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected equal, natural, a temperature or task=share,…. Received: {text!r}"
        ) from None


def _auxiliary(text: str) -> list[tuple]:
    """``task=layer:weight,…`` with or without a weight; a task may have several."""
    try:
        return [_one_auxiliary(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected task=layer or task=layer:weight. Received: {text!r}"
        ) from None


def _one_auxiliary(text: str) -> tuple:
    task, place = text.split("=")
    layer, colon, weight = place.partition(":")
    return (task.strip(), layer, float(weight)) if colon else (task.strip(), layer)


def _augment(text: str):
    """``none``, or amounts by name."""
    return None if text == "none" else pairs(float)(text)


def add_command(commands) -> None:
    parser = command(commands, train, "train or fine-tune a model on labelled faces")
    add = parser.add_argument
    add("sources", nargs="*", metavar="[TASK=]PATH", help="manifest CSV or folder")
    add("-o", "--output", required=True, metavar="MODEL", help="the .keras file to write")
    add("--tasks", action="extend", type=names, help="columns to take from bare manifests")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--overwrite", action="store_true", help="replace a model that is already there")
    add("--cache", metavar="DIR", help="folder of the crop cache")
    add("--licence", metavar="TEXT", help="terms of the new weights, kept in the file")
    add("--recipe", metavar="FILE[:NAME]", help="options out of a TOML file; typed ones win")
    add(
        "--drop-near-duplicates",
        action="store_true",
        help="leave training rows out whose face is in val or test too",
    )
    add_face_options(parser)
    add_adding(parser)
    add_label_options(parser)
    add_distillation(parser)
    add_options(parser)


def add_options(parser) -> None:
    """The options that a recipe may hold: what is trained, and how."""
    network = parser.add_argument_group("network")
    add = network.add_argument
    add("--weights", metavar="START", help="shipped, imagenet, none, or a file")
    add("--trunk", choices=("vgg16", "vgg16-slim"), help="slim: a quarter of the channels")
    add("--size", type=int, help="side of the crops in pixels")
    add("--margin", type=float, help="added around a face's box, as a share of its side")
    add("--pooling", choices=("max", "avg"))
    add("--dropout", type=float)
    add("--norm", choices=("batch", "none"), help="while training; folded away when saved")
    add("--dtype", choices=("float32", "mixed_bfloat16"), help="default: the faster one here")
    course = parser.add_argument_group("course of the training")
    add = course.add_argument
    add(
        "--epochs",
        **by_name(int),
        metavar="PHASE=N,…",
        help="frozen=5,finetune=5; scratch=10; whole=10",
    )
    add(
        "--rate",
        **by_name(float),
        metavar="PHASE=X,…",
        help="highest learning rate",
    )
    add(
        "--first",
        **by_name(str),
        metavar="PHASE=LAYER,…",
        help="first layer that learns",
    )
    add("--batch-size", type=int)
    add(
        "--balance", choices=("weights", "sampling", "none"), help="rare classes count or come more"
    )
    add("--label-smoothing", type=float)
    add(
        "--prior",
        dest="priors",
        **by_name(str),
        metavar="TASK=PRIOR,…",
        help="how frequent a head takes its classes to be: uniform, natural or a source's name; "
        "without one it learns that from its rows",
    )
    add("--mixup", type=float, metavar="A", help="mix crops and labels: 0.2 (0)")
    add("--cutmix", type=float, metavar="A", help="patches of one crop in another: 1 (0)")
    add("--ema", type=float, metavar="DECAY", help="average the weights: 0.998, 0 (0)")
    add(
        "--augment",
        action=Merged,
        type=_augment,
        metavar="CHANGE=X,…",
        help="none, or other amounts than a face's: flip=0,erase=0 (flip, turn, shift, zoom, "
        "grey, blur, smallest, light, erase, fill, dark, jpeg, yaw)",
    )
    add(
        "--patience",
        **by_name(int),
        metavar="PHASE=N,…",
        help="epochs without a new best",
    )
    add("--copies", type=int, help="augmented copies of a face in the feature cache; 0: none")
    add("--seed", type=int)
    add_ways(parser)


def train(output, sources=(), **given) -> int:
    """Train a model: TASK=PATH takes one task from a manifest CSV or a folder, PATH every task
    of a manifest CSV. Any number of sources train together, whichever labels they have."""
    start_keras()
    from faceattr.training.train import train as run

    if "recipe" in given:
        given = read_recipe(given.pop("recipe"), add_options) | given
    network = network_of(given)
    adding, label_map = adding_of(sources, given), label_map_of(given)
    phases = _offered(network.phases, adding, given.get("epochs", {}))
    settings = settings_of(phases, given)
    data = {"adding": adding, "label_map": label_map, "detector": detector_of(given)}
    data["distillation"] = distillation_of(given)
    try:
        run(sources, output, network=network, settings=settings, **data, **given)
    except KeyboardInterrupt:
        print("faceattr: stopped. The same command with --resume goes on.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _offered(phases, adding, epochs):
    """The phases of a run; where heads are added, the trunk is opened only if that is typed."""
    if adding is None:
        return phases
    # What has no such phase is refused later, in words of its own.
    return tuple(p for p in phases if p.first is None or p.name in epochs) or phases


def network_of(given: dict):
    """The network that options ask for; takes them out of `given`."""
    from dataclasses import replace

    from faceattr.training.network import Network

    rule = {name: given.pop(name) for name in ("size", "margin") if name in given}
    if "tie" in given and given.get("sharing") != "soft":
        raise ValueError("--tie ties the trunks of --sharing soft, and there is but one trunk.")
    typed = ("weights", "trunk", "sharing", "taps", "pooling", "dropout", "dtype")
    fields = {name: given.pop(name) for name in typed if name in given}
    if "norm" in given:
        fields["norm"] = given.pop("norm") == "batch"
    network = Network(**fields)
    if rule:
        network = replace(network, crop=replace(network.settled().rule, **rule))
    return network


def settings_of(phases, given: dict):
    """The settings that options ask for; takes them out of `given`."""
    from faceattr.training.augment import NO_AUGMENTATION, changed
    from faceattr.training.batches import TaskSampling
    from faceattr.training.config import Settings
    from faceattr.training.losses import Auxiliary

    names = (
        "batch_size",
        "balance",
        "label_smoothing",
        "mixup",
        "cutmix",
        "priors",
        "ema",
        "loss_weights",
        "schedule",
        "combine",
        "tie",
        "copies",
        "seed",
    )
    fields = {name: given.pop(name) for name in names if name in given}
    if "auxiliary" in given:
        fields["auxiliary"] = tuple(Auxiliary(*one) for one in given.pop("auxiliary"))
    if "mix" in given:
        fields["mix"] = TaskSampling(**given.pop("mix"))
    if "augment" in given:
        amounts = given.pop("augment")
        fields["augmentation"] = NO_AUGMENTATION if amounts is None else changed(amounts)
    return Settings(phases=_phases(phases, given), **fields)


def _phases(phases, given: dict):
    """The default phases with what was typed for them; a phase of 0 epochs is left out."""
    from dataclasses import replace

    changes = {
        "epochs": "epochs",
        "rate": "learning_rate",
        "first": "first",
        "patience": "patience",
    }
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
