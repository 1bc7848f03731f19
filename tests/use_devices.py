"""Trainings on some of JAX' virtual devices, in a process of their own.

    python tests/use_devices.py FOLDER one=1 four=4 begun=4:2 begun=2

Each ``NAME=DEVICES`` trains into ``FOLDER/NAME``; ``:2`` stops it in the second epoch, and a
name that is there already goes on.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import keras
import numpy as np
from conftest import SHADE, TINT, noted_epochs, shaded, toy_network

from faceattr.data.dataset import LabeledDataset
from faceattr.training.config import NO_AUGMENTATION, Phase, Settings, TaskSampling
from faceattr.training.devices import begin, on_all_devices
from faceattr.training.trainer import fit

# Of 16 rows 2 know the tint: most of 4 devices have none.
SETTINGS = Settings(
    phases=(Phase("scratch", epochs=2, learning_rate=0.02, unfreeze_from="block1_conv1"),),
    batch_size=16,
    task_sampling=TaskSampling(shares={"shade": 0.875, "tint": 0.125}),
    augmentation=NO_AUGMENTATION,
    combine="sum",
)


class Losses(keras.callbacks.Callback):
    """What each step reports."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append({name: float(value) for name, value in (logs or {}).items()})


def rows(count: int) -> LabeledDataset:
    """Most know how light they are, the others what colour they have."""
    levels = np.random.default_rng(0).integers(0, 255, count)
    crops = np.stack([shaded(int(level), seed=i) for i, level in enumerate(levels)])
    light = np.eye(2, dtype="float32")[(levels > 128).astype(int)]
    tint = np.eye(3, dtype="float32")[np.arange(count) % 3]
    light[: count // 4], tint[count // 4 :] = 0, 0
    return LabeledDataset(crops, np.arange(count), {"shade": light, "tint": tint})


def train(folder: Path, devices: int, epochs: int | None) -> None:
    """Train on the first devices; keep losses and weights."""
    losses, (_, progress) = Losses(), noted_epochs(epochs)
    with on_all_devices(most=devices), contextlib.suppress(KeyboardInterrupt):
        network = toy_network((SHADE, TINT), seed=0)
        tasks, resume = (SHADE, TINT), folder.exists()
        how = {"resume": resume, "callbacks": [losses], "progress": progress}
        fit(network, tasks, rows(96), rows(41), SETTINGS, folder, **how)
    sharded = {len(v.value.sharding.device_set) for v in network.variables}
    (folder / "steps.json").write_text(json.dumps({"steps": losses.steps, "on": sorted(sharded)}))
    np.savez(folder / "weights.npz", *map(np.asarray, network.get_weights()))


if __name__ == "__main__":
    begin()
    for word in sys.argv[2:]:
        name, _, how = word.partition("=")
        count, _, epochs = how.partition(":")
        train(Path(sys.argv[1], name), int(count), int(epochs) if epochs else None)
