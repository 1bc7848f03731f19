"""All devices of a machine, and of several machines, on JAX: they share the rows of each batch;
and what a machine computes in.

A step is the same as on one device: JAX computes over the whole batch, wherever its rows lie, so
the mean of a masked loss is that over all labelled rows. Every device has all weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from faceattr.progress import SILENT, Progress

MACHINES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
CPUINFO = Path("/proc/cpuinfo")
BFLOAT16_SINCE = (8, 0)  # CUDA's compute capability: Ampere; T4 is 7.5, V100 7.0


class AllDevices(keras.distribution.DataParallel):
    """Shares out a batch where its rows go evenly into the devices; else all compute all of it.

    Several machines train on their own rows of a batch each, and answer all questions alike.
    """

    is_training = False

    def get_data_layout(self, data_shape):
        rows = data_shape[0] * _processes()
        if rows % self.num_model_replicas or not (self.is_training or _processes() == 1):
            return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)
        return super().get_data_layout(data_shape)


def begin() -> None:
    """Meet the other machines of a run, if the environment names some; before JAX computes."""
    if int(os.environ.get(MACHINES, 1)) < 2:
        return
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"{MACHINES} names several machines, which train on JAX alone: set KERAS_BACKEND=jax."
        )
    keras.distribution.initialize()


@contextmanager
def on_all_devices(progress: Progress = SILENT, most: int | None = None) -> Iterator[None]:
    """What is built and trained meanwhile is so on all devices, or on the first few of them."""
    is_jax = keras.backend.backend() == "jax"
    devices = keras.distribution.list_devices()[:most] if is_jax else []
    if not is_jax and (count := len(gpu_capabilities())) > 1:
        progress.show(
            f"note: {keras.backend.backend()} trains on one of {count} GPUs here; with "
            "KERAS_BACKEND=jax all of them share each batch"
        )
    if len(devices) < 2:
        yield
        return
    with AllDevices(devices=devices, auto_shard_dataset=False).scope():
        yield


def check_batch_size(batch_size: int) -> None:
    """Raise ValueError for a batch whose rows do not go evenly into the devices."""
    shared = _shared()
    count = shared.num_model_replicas if shared else 1
    if batch_size % count:
        near = max(count, batch_size // count * count)
        raise ValueError(
            f"A batch of {batch_size} rows does not go evenly into {count} devices. Choose "
            f"--batch-size {near} or {near + count}."
        )


@contextmanager
def batches_are_shared(value: bool) -> Iterator[None]:
    """Whether batches hold this machine's own rows meanwhile, as those of a training step do;
    otherwise every machine asks all of it. It decorates functions as well."""
    if (shared := _shared()) is None:
        yield
        return
    before, shared.is_training = shared.is_training, value
    try:
        yield
    finally:
        shared.is_training = before


def own_share() -> tuple[int, int]:
    """Which of how many machines this is; asked by the thread that trains, others do not know."""
    if _processes() == 1:
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def rows_of_share(batch: Any, share: tuple[int, int]) -> Any:
    """Of a batch the rows of one machine, every array cut alike."""
    number, machines = share
    return keras.tree.map_structure(lambda rows: np.split(rows, machines)[number], batch)


def _shared() -> AllDevices | None:
    found = keras.distribution.distribution()
    return found if isinstance(found, AllDevices) else None


def _processes() -> int:
    """Machines that train together; 1 outside of such a run."""
    if _shared() is None:
        return 1
    import jax

    return jax.process_count()


def gpu_capabilities() -> list[tuple[int, ...]]:
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


def fastest_dtype() -> str:
    """``"mixed_bfloat16"`` where every GPU, or without one the processor, computes with it.

    Else ``"float32"``: a GPU without bfloat16 would be slower with it, or refuse.
    """
    if gpus := gpu_capabilities():
        return "mixed_bfloat16" if min(gpus) >= BFLOAT16_SINCE else "float32"
    flags = CPUINFO.read_text("utf-8") if CPUINFO.is_file() else ""
    return "mixed_bfloat16" if "amx_bf16" in flags or "avx512_bf16" in flags else "float32"
