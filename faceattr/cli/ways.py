"""The options of `faceattr train` that say how several tasks train together."""

from __future__ import annotations

import argparse

from faceattr.cli.options import by_name, pairs


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
