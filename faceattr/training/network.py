"""Which network is trained, and where its trunk starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from faceattr.data.dataset import LabeledDataset
from faceattr.images.crop import CropRule
from faceattr.model import file as model_file
from faceattr.model.build import POOLINGS, SHARINGS, build
from faceattr.model.file import Description
from faceattr.model.vgg16 import TRUNKS
from faceattr.model.weights import measure_norms, transfer
from faceattr.tasks import Task
from faceattr.training.config import FINETUNE, FROZEN, SCRATCH, WHOLE, Phase

IMAGENET = "imagenet"
NOTHING = "none"
MEASURED = 256  # crops that give normalisation its first statistics
CPUINFO = Path("/proc/cpuinfo")
BFLOAT16_SINCE = (8, 0)  # CUDA's compute capability: Ampere; T4 is 7.5, V100 7.0
USUAL = {"trunk": next(iter(TRUNKS)), "sharing": SHARINGS[0], "pooling": POOLINGS[0]}


@dataclass(frozen=True)
class Network:
    """What is trained.

    Args:
        weights: Where the trunk starts: ``"shipped"`` (the model that comes with the
            package), ``"imagenet"``, ``"none"``, a model file of ours, or a weights file of
            ``keras.applications.VGG16``.
        crop: How faces are cut; None for as the model file says that it starts from.
        trunk: ``"vgg16"``, or ``"vgg16-slim"`` with a quarter of the channels.
        sharing: ``"hard"``, one trunk for all tasks, or ``"soft"``, one for each.
        pooling: ``"max"`` or ``"avg"``. None, like None of trunk and sharing, stands for what the
            model file has that it starts from, else for the first of these.
        taps: By task, the layer that its head reads if not the last one.
        dropout: Before the heads.
        norm: Batch normalisation while training; None for wherever the trunk starts from nothing.
            With a trunk that has learnt already, all of it goes on learning.
        dtype: ``"float32"``, ``"mixed_bfloat16"``, or None for the faster one on this machine.
    """

    weights: str = model_file.SHIPPED
    crop: CropRule | None = None
    trunk: str | None = None
    sharing: str | None = None
    pooling: str | None = None
    taps: Mapping[str, str] = field(default_factory=dict)
    dropout: float = 0.5
    norm: bool | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"Dropout is a share from 0 to below 1. Received: {self.dropout}")

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases that suit the start."""
        if self.weights == NOTHING:
            return (SCRATCH,)
        return (WHOLE,) if self._gets_norm_back else (FROZEN, FINETUNE)

    @property
    def _gets_norm_back(self) -> bool:
        """Whether a trunk that has learnt is normalised again."""
        return bool(self.norm) and self.weights != NOTHING

    @property
    def start(self) -> Path | None:
        """The model file that it starts from, if it does."""
        if self.weights in (IMAGENET, NOTHING) or self.weights.endswith(".h5"):
            return None
        return model_file.path_of(self.weights)

    @property
    def draws(self) -> tuple[int, ...]:
        """A number that tells what made the model file that it starts from; empty without one.

        With the seed alone, a run that goes on with the same rows would see the same batches of
        the same changed crops again, which the start knows by heart.
        """
        if self.start is None:
            return ()
        about = model_file.describe(self.start)
        facts = [about.data, about.made.get("settings"), about.made.get("weights")]
        text = json.dumps(model_file.to_jsonable(facts), sort_keys=True)
        return (int(hashlib.sha256(text.encode()).hexdigest()[:8], 16),)

    @property
    def licence(self) -> str:
        """Terms that the new weights inherit."""
        return model_file.describe(self.start).licence if self.start else "not stated"

    def settled(self) -> Network:
        """The same with what was left open: as the start has it, else the default."""
        about = model_file.describe(self.start) if self.start else None
        crop = self.crop or (about.crop if about else CropRule())
        had = about.network if about else {}
        own = {name: getattr(self, name) or had.get(name, usual) for name, usual in USUAL.items()}
        return replace(self, crop=crop, **own)

    def extending(self, about: Description) -> Network:
        """The same with everything that old heads need to answer as before.

        Args:
            about: The description of the model that gets new heads.

        Raises:
            ValueError: Another crop rule or architecture was asked for.
        """
        if tapped := sorted({task.name for task in about.tasks} & set(self.taps)):
            raise ValueError(
                "Old heads stay where they read, so --tap is for new ones. "
                f"Received: {', '.join(tapped)}"
            )
        if self._gets_norm_back:
            raise ValueError(
                "--norm batch lets the whole trunk go on learning, and old heads stay as they are: "
                "choose one."
            )
        own = {
            **USUAL,
            **{name: value for name, value in about.network.items() if name != "dropout"},
            "crop": about.crop,
            "taps": {**self.taps, **about.network.get("taps", {})},
        }
        for name in ("crop", *USUAL):
            if getattr(self, name) not in (None, own[name]):
                raise ValueError(
                    f"Old heads stay as they are, so {name} stays {own[name]}. "
                    f"Received: {getattr(self, name)}"
                )
        if own.get("sharing") == "soft":
            raise ValueError("Heads are added to a model whose tasks share one trunk.")
        return replace(self, **own)

    @property
    def rule(self) -> CropRule:
        """How faces are cut, once that is settled."""
        return self.crop or CropRule()

    @property
    def architecture(self) -> dict[str, Any]:
        """What `faceattr.model.build` needs to make the same network, and a model file keeps."""
        own = {name: getattr(self, name) or usual for name, usual in USUAL.items()}
        return {**own, "taps": self.taps, "dropout": self.dropout}

    def build(self, tasks: Sequence[Task], seed: int = 0) -> keras.Model:
        """A new network for training, its trunk as `weights` says."""
        if self._gets_norm_back:
            normed = replace(self, weights=NOTHING).build(tasks, seed)
            transfer(replace(self, norm=False).build(tasks, seed), normed)
            return normed
        keras_reads = self.weights == IMAGENET or self.weights.endswith(".h5")
        if self.weights.endswith(".h5") and not Path(self.weights).is_file():
            raise FileNotFoundError(f"There is no weights file {self.weights}.")
        model = build(
            tasks,
            weights=self.weights if keras_reads else None,
            norm=self.weights == NOTHING if self.norm is None else self.norm,
            dtype=self.dtype or fastest_dtype(),
            seed=seed,
            **self.architecture,
        )
        if self.start:
            self._start_from_model(model, self.start, tasks)
        return model

    def measure(self, model: keras.Model, train: LabeledDataset) -> None:
        """Give normalisation statistics, where the trunk has learnt without any.

        Args:
            model: What `build` gave.
            train: The training rows; some of them are measured.
        """
        if self._gets_norm_back:
            chosen = np.linspace(0, len(train) - 1, min(len(train), MEASURED)).astype(int)
            measure_norms(model, train.crops[train.index[chosen]])

    def _start_from_model(self, model: keras.Model, path: Path, tasks: Sequence[Task]) -> None:
        """Take over the trunk of a model file, and its heads for tasks that are the same."""
        source, description = model_file.load(path)
        had = description.network.get("trunk", USUAL["trunk"])
        if had != self.architecture["trunk"]:
            raise ValueError(
                f"{path} has the trunk {had}, whose weights do not fit another. "
                "With --weights none it starts from nothing."
            )
        taps = description.network.get("taps", {})
        same = [
            task.name
            for task in tasks
            if task in description.tasks and taps.get(task.name) == self.taps.get(task.name)
        ]
        transfer(source, model, heads=same)

    def finished(self, trained: keras.Model, tasks: Sequence[Task]) -> keras.Model:
        """The same network in float32, without normalisation and without an optimiser."""
        plain = build(tasks, weights=None, dtype="float32", **self.architecture)
        transfer(trained, plain)
        return plain


def fastest_dtype() -> str:
    """``"mixed_bfloat16"`` where every GPU, or without one the processor, computes with it.

    Else ``"float32"``: a GPU without bfloat16 would be slower with it, or refuse.
    """
    if gpus := _gpu_capabilities():
        return "mixed_bfloat16" if min(gpus) >= BFLOAT16_SINCE else "float32"
    flags = CPUINFO.read_text() if CPUINFO.is_file() else ""
    return "mixed_bfloat16" if "amx_bf16" in flags or "avx512_bf16" in flags else "float32"


def _gpu_capabilities() -> list[tuple[int, ...]]:
    """CUDA's compute capability of every GPU, ``(8, 0)``; ``()`` of one that does not say."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details
        found = [details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
        return [tuple(about.get("compute_capability") or ()) for about in found]
    if keras.backend.backend() == "torch":
        import torch

        numbers = range(torch.cuda.device_count())
        return [torch.cuda.get_device_capability(number) for number in numbers]
    import jax

    gpus = [device for device in jax.devices() if device.platform == "gpu"]
    said = [str(getattr(gpu, "compute_capability", "")).split(".") for gpu in gpus]
    return [tuple(int(part) for part in parts if part.isdigit()) for parts in said]
