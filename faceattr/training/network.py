"""Where a network starts, how it is built for training, and what is saved of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from faceattr.data.dataset import LabeledDataset
from faceattr.files import to_jsonable
from faceattr.images.crop import CropRule
from faceattr.model import file as model_file
from faceattr.model import hub
from faceattr.model.build import POOLINGS, SHARINGS, build
from faceattr.model.file import Description
from faceattr.model.vgg16 import BACKBONES
from faceattr.model.weights import measure_norms, transfer
from faceattr.tasks import Task
from faceattr.training.config import IMAGENET, NOTHING, Network
from faceattr.training.devices import fastest_dtype

MEASURED = 256  # crops that give normalisation its first statistics
DEFAULTS = {"backbone": next(iter(BACKBONES)), "sharing": SHARINGS[0], "pooling": POOLINGS[0]}


def start_file(network: Network) -> Path | None:
    """The model file that a run starts from, if it does."""
    if network.weights in (IMAGENET, NOTHING) or network.weights.endswith(".h5"):
        return None
    return model_file.path_of(network.weights)


def _start(network: Network) -> Description | None:
    path = start_file(network)
    return model_file.describe(path) if path else None


def seed_salt(network: Network) -> tuple[int, ...]:
    """A number that tells what made the model file that a run starts from; empty without one.

    With the seed alone, a run that goes on with the same rows would see the same batches of
    the same changed crops again, which the start knows by heart.
    """
    start = _start(network)
    if start is None:
        return ()
    facts = [start.data, start.provenance.get("settings"), start.provenance.get("weights")]
    text = json.dumps(to_jsonable(facts), sort_keys=True)
    return (int(hashlib.sha256(text.encode()).hexdigest()[:8], 16),)


def licence(network: Network) -> str:
    """Terms that the new weights inherit."""
    start = _start(network)
    return start.licence if start else "not stated"


def resolved(network: Network) -> Network:
    """The same with what was left open: as the start has it, else the default."""
    start = _start(network)
    had = start.network if start else {}
    crop = network.crop or (start.crop if start else CropRule())
    own = {name: getattr(network, name) or had.get(name, it) for name, it in DEFAULTS.items()}
    return replace(network, crop=crop, weights=hub.pinned(network.weights), **own)


def with_old_heads(network: Network, old: Description) -> Network:
    """The same with everything that old heads need to answer as before; ValueError where another
    crop rule or architecture was asked for."""
    if moved := sorted({task.name for task in old.tasks} & set(network.feature_layers)):
        raise ValueError(
            "Old heads stay where they read, so --feature-layer is for new ones. "
            f"Received: {', '.join(moved)}"
        )
    if network.is_normalised_again:
        raise ValueError(
            "--norm batch lets the whole backbone go on learning, and old heads stay as they are: "
            "choose one."
        )
    kept = {name: value for name, value in old.network.items() if name != "dropout"}
    layers = {**network.feature_layers, **old.network.get("feature_layers", {})}
    own = {**DEFAULTS, **kept, "crop": old.crop, "feature_layers": layers}
    for name in ("crop", *DEFAULTS):
        if (asked := getattr(network, name)) not in (None, own[name]):
            raise ValueError(
                f"Old heads stay as they are, so {name} stays {own[name]}. Received: {asked}"
            )
    if own["sharing"] == "soft":
        raise ValueError("Heads are added to a model whose tasks share one backbone.")
    return replace(network, **own)


def crop_rule(network: Network) -> CropRule:
    """How faces are cropped, once that is `resolved`."""
    return network.crop or CropRule()


def architecture(network: Network) -> dict[str, Any]:
    """What `faceattr.model.build.build` needs for the same network, and a model file keeps."""
    own = {name: getattr(network, name) or usual for name, usual in DEFAULTS.items()}
    return {**own, "feature_layers": network.feature_layers, "dropout": network.dropout}


def dtype_of(network: Network) -> str:
    """What it computes in: as it says, else the faster one on this machine."""
    return network.dtype or fastest_dtype()


def new_model(network: Network, tasks: Sequence[Task], seed: int = 0) -> keras.Model:
    """A new model for training, its backbone as `network.weights` says."""
    if network.is_normalised_again:
        normed = new_model(replace(network, weights=NOTHING), tasks, seed)
        transfer(new_model(replace(network, norm=False), tasks, seed), normed)
        return normed
    if network.weights.endswith(".h5") and not Path(network.weights).is_file():
        raise FileNotFoundError(f"There is no weights file {network.weights}.")
    path = start_file(network)
    model = build(
        tasks,
        weights=None if path or network.weights == NOTHING else network.weights,
        norm=network.weights == NOTHING if network.norm is None else network.norm,
        dtype=dtype_of(network),
        seed=seed,
        **architecture(network),
    )
    if path:
        _copy_weights(model, path, tasks, network)
    return model


def _copy_weights(model: keras.Model, path: Path, tasks: Sequence[Task], network: Network) -> None:
    """Give a model the backbone of a model file, and its heads for tasks that are the same."""
    source, start = model_file.load(path)
    had = start.network.get("backbone", DEFAULTS["backbone"])
    if had != architecture(network)["backbone"]:
        raise ValueError(
            f"{path} has the backbone {had}, whose weights do not fit another. "
            "With --weights none it starts from nothing."
        )
    layers = start.network.get("feature_layers", {})
    same = [
        task.name
        for task in tasks
        if task in start.tasks and layers.get(task.name) == network.feature_layers.get(task.name)
    ]
    transfer(source, model, heads=same)


def measure_norm_statistics(network: Network, model: keras.Model, train: LabeledDataset) -> None:
    """Give normalisation statistics of some training rows, where the start had none."""
    if network.is_normalised_again:
        chosen = np.linspace(0, len(train) - 1, min(len(train), MEASURED)).astype(int)
        measure_norms(model, train.crops[train.index[chosen]])


def finished_model(network: Network, trained: keras.Model, tasks: Sequence[Task]) -> keras.Model:
    """The same model in float32, without normalisation and without an optimiser."""
    plain = build(tasks, weights=None, dtype="float32", **architecture(network))
    transfer(trained, plain)
    return plain
