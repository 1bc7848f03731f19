"""Several finished models as one: the mean of their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from faceattr.images.load import PathLike, as_paths
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.file import Description
from faceattr.model.priors import granted_shares


def _priors(about: Description) -> dict[str, dict[str, float]]:
    """By head, the class shares of its prior: one name stands for other shares in other models."""
    granted = ((task, granted_shares(about.provenance, task)) for task in about.tasks)
    return {
        task.name: dict(zip(task.classes, shares.round(6).tolist(), strict=True))
        for task, shares in granted
        if shares is not None
    }


# What must be equal. A head's bias holds the class shares that it takes for granted.
ALIKE: dict[str, Callable[[Description], Any]] = {
    "heads": lambda about: {task.name: task.classes for task in about.tasks},
    "crop rule": lambda about: about.crop,
    "network": lambda about: {k: v for k, v in about.network.items() if k != "dropout"},
    "priors": _priors,
}


def average(
    models: Sequence[PathLike], output: str | Path, *, overwrite: bool = False
) -> Description:
    """Write a model file whose weights are the mean of those of several model files.

    It helps where the models went on from one start, so that they lie in one valley of the loss
    (Wortsman et al. 2022, "Model soups"); models of different starts average to nothing. The new
    file has no scores, for nothing was measured: `faceattr.evaluate` tells what it is worth.

    Args:
        models: Two or more model files of the same tasks, crop rule and network.
        output: The model file to write.
        overwrite: Replace a file that is already there.

    Returns:
        What the new file says about itself: the first model's description, without scores.
    """
    paths, output = [model_file.path_of(path) for path in as_paths(models)], Path(output)
    if len(paths) < 2:
        raise ValueError(f"An average is of two or more models. Received: {len(paths)}")
    model_file.validate_output(output, overwrite=overwrite)
    first, *others = (model_file.describe(path) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        for what, of in ALIKE.items():
            if of(first) != of(other):
                raise ValueError(
                    f"Models can be averaged where they have the same {what}. "
                    f"{paths[0].name}: {of(first)}; {path.name}: {of(other)}."
                )
    averaged = [{"file": path.name, "sha256": runtime.sha256_of(path)} for path in paths]
    provenance = {**first.provenance, "average_of": averaged}
    description = replace(first, scores={}, provenance=provenance)
    half = all(map(model_file.is_stored_in_half, paths))
    model_file.save(_mean_network(paths), description, output, half=half)
    return description


def _mean_network(paths: Sequence[Path]) -> keras.Model:
    """The first network with the mean of all weights; float32 while it is summed.

    What is no number of the network, such as a seed, stays that of the first model.
    """
    network = model_file.load(paths[0])[0]
    weights = network.get_weights()
    is_float = [np.issubdtype(own.dtype, np.floating) for own in weights]
    for path in paths[1:]:
        given = model_file.load(path)[0].get_weights()
        if [w.shape for w in given] != [w.shape for w in weights]:
            raise ValueError(f"{path} has other layers than {paths[0]}: they cannot be averaged.")
        pairs = zip(weights, given, is_float, strict=True)
        weights = [own + other if mixed else own for own, other, mixed in pairs]
    network.set_weights(
        [own / len(paths) if mixed else own for own, mixed in zip(weights, is_float, strict=True)]
    )
    return network
