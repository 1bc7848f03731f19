"""All devices of a machine, and of several machines, on JAX: they share the rows of each batch.

A step is the same as on one device: JAX computes over the whole batch, wherever its rows lie, so
the mean of a masked loss is that over all labelled rows. Every device has all weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import keras
import numpy as np

from faceattr.progress import SILENT, Progress

T = TypeVar("T")
MACHINES = "KERAS_DISTRIBUTION_NUM_PROCESSES"


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
    """Meet the other machines of a run, if the environment names some; before JAX computes.

    Raises:
        ValueError: The backend is not JAX.
    """
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
    if not is_jax and (count := _gpu_count()) > 1:
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
    """Refuse a batch whose rows do not go evenly into the devices.

    Raises:
        ValueError: They do not.
    """
    shared = _shared()
    count = shared.num_model_replicas if shared else 1
    if batch_size % count:
        near = max(count, batch_size // count * count)
        raise ValueError(
            f"A batch of {batch_size} rows does not go evenly into {count} devices. Choose "
            f"--batch-size {near} or {near + count}."
        )


@contextmanager
def training() -> Iterator[None]:
    """Meanwhile batches hold this machine's own rows."""
    with _set_training(True):
        yield


def answering(ask: Callable[..., T]) -> Callable[..., T]:
    """The same function, called while a network trains: every machine asks all of it."""

    def asked(*given: Any, **named: Any) -> T:
        with _set_training(False):
            return ask(*given, **named)

    return asked


@contextmanager
def _set_training(value: bool) -> Iterator[None]:
    shared = _shared()
    if shared is None:
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


def _gpu_count() -> int:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return len(tf.config.list_physical_devices("GPU"))
    import torch

    return torch.cuda.device_count()
