"""A real Ray of two nodes on loopback, its processes, and detectors that workers can import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from use_toys import GreenSquares

HERE = Path(__file__).parent
STORE = 90 << 20  # bytes; Ray's least is 75 MiB


class SlowSquares(GreenSquares):
    """Takes a while for each picture, so that there is something to kill."""

    def __call__(self, image: np.ndarray) -> list:
        time.sleep(0.04)
        return super().__call__(image)


class DeadlySquares(GreenSquares):
    """The process dies of a picture with a black corner."""

    def __call__(self, image: np.ndarray) -> list:
        if not image[0, 0].any():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(image)


@contextmanager
def two_nodes(head: int = 2) -> Iterator:
    """A cluster of two nodes with two logical processors each, or as many as given for the head."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), str(HERE)]))
        from ray.cluster_utils import Cluster

        how = {"num_cpus": 2, "object_store_memory": STORE}
        first = how | {"num_cpus": head, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=first)
        try:
            cluster.add_node(**how)
            yield cluster
        finally:
            cluster.shutdown()


def processes(name: str) -> list[int]:
    """Processes whose title begins so; Ray's workers are called ``ray::Class``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if title.startswith(name):
            found.append(int(folder.name))
    return found


def workers() -> list[int]:
    """The processes that label."""
    return processes("ray::MapWorker(MapBatches(PartWorker))")
