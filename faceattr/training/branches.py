"""Branches of a network by name: a task's head, the trunk, a block of it, a layer."""

from __future__ import annotations

import re
from collections.abc import Collection

import keras

from faceattr.model.learning import TRUNK


def _begins(branch: str) -> str:
    """A regular expression for how the paths of a branch's variables begin."""
    if branch == TRUNK:
        return r"block\d_conv"
    if re.fullmatch(r"block\d", branch):
        return f"{branch}_conv"
    if branch.startswith("block"):
        return f"{re.escape(branch)}[_/]"
    # The heads of auxiliary losses go with their task.
    return rf"(block\d_\w+_for_)?{re.escape(branch)}/"


def branch_pattern(branch: str, branches: Collection[str]) -> str:
    """A regular expression for the paths of a branch's variables.

    Args:
        branch: ``"trunk"``, a block such as ``"block5"``, a layer, or a task.
        branches: All that are asked for; the narrower ones among them keep their variables.
    """
    wide = "block" if branch == TRUNK else f"{branch}_"
    narrower = [
        other
        for other in branches
        if other != branch and branch.startswith((TRUNK, "block")) and other.startswith(wide)
    ]
    return "".join(f"(?!{_begins(other)})" for other in narrower) + _begins(branch) + ".*"


def check_branches(network: keras.Model, branches: Collection[str]) -> None:
    """Raise ValueError for a branch that the network does not have."""
    paths = [variable.path for variable in network.variables]
    for branch in branches:
        if not any(re.match(_begins(branch), path) for path in paths):
            raise ValueError(
                "A rate is for trunk, a block such as block5, a layer such as block5_conv1 or "
                f"one of the tasks {', '.join(network.output)}. Received: {branch!r}"
            )
