"""Nothing is lost on a cluster: workers, whole nodes and drivers are killed at random moments.

    python tests/campaigns/cluster.py --kills 10 --seed 1

A Ray of a head and two nodes labels a folder, again and again. A killed worker and a killed node
are Ray's to replace (a new node comes); a killed driver is started again with ``--resume``. The
sorted table of every end must equal, in all values, that of a job without any cluster. Exit code 1
where it does not. Its short form is in `tests/test_cluster.py`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from common import FACEATTR, fault_of, main
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback alone

from use_ray import STORE, two_nodes, workers

IMAGES = 240
ORDER = ["path", "time", "face"]
LABEL = ("label", "in", "--detector", "centerface", "--quiet")


def prepare(folder: Path, images: int) -> pd.DataFrame:
    """Pictures, and their table by a job without a cluster."""
    face = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)
    (folder / "in").mkdir()
    for number in range(images):
        cv2.imwrite(str(folder / f"in/{number:04d}.jpg"), np.roll(face, 3 * number, 1))
    (folder / "in/broken.jpg").write_bytes(b"no picture")
    subprocess.run([*FACEATTR, *LABEL, "-o", "local.parquet"], cwd=folder, check=True)
    return sorted_table(folder / "local.parquet")


def sorted_table(place: Path) -> pd.DataFrame:
    return pd.read_parquet(place).sort_values(ORDER, ignore_index=True)


def kill_worker(cluster, driver: subprocess.Popen, rng: random.Random) -> bool:
    """One process that labels."""
    if there := workers():
        os.kill(rng.choice(there), signal.SIGKILL)
    return bool(there)


def kill_node(cluster, driver: subprocess.Popen, rng: random.Random) -> bool:
    """A node with all its processes; another one takes its place."""
    node = rng.choice([one for one in cluster.list_all_nodes() if one is not cluster.head_node])
    cluster.remove_node(node, allow_graceful=False)
    add_node(cluster)
    return True


def add_node(cluster, tries: int = 5) -> None:
    """On a busy machine Ray gives up to wait for a node that starts."""
    for left in reversed(range(tries)):
        try:
            cluster.add_node(num_cpus=2, object_store_memory=STORE)
            return
        except Exception:  # Ray raises no narrower one
            if not left:
                raise


def kill_driver(cluster, driver: subprocess.Popen, rng: random.Random) -> bool:
    """The command itself."""
    driver.kill()
    return True


KILLS: dict[str, Callable] = {"worker": kill_worker, "node": kill_node, "driver": kill_driver}


def campaign(
    kind: str, cluster, folder: Path, expected: pd.DataFrame, count: int, seed: int, seconds: float
) -> dict:
    """Jobs, each of so many seconds, until so many kills: their ends, and what is broken."""
    rng, done, ends, broken = random.Random(seed), 0, 0, []
    while done < count:
        shutil.rmtree(folder / "out", ignore_errors=True)
        driver = start(folder, cluster)
        while True:
            try:
                code = driver.wait(rng.uniform(0.1, 0.8) * seconds if done < count else None)
                if code != -signal.SIGKILL:
                    break
                driver = start(folder, cluster, "--resume")
            except subprocess.TimeoutExpired:
                done += KILLS[kind](cluster, driver, rng)
                print(kind, done, file=sys.stderr, flush=True)
        ends += 1
        said = (folder / "said.txt").read_text()
        if printed := (folder / "printed.txt").read_text():
            broken.append({"end": ends, "fault": f"on standard output: {printed[:500]}"})
        if fault := fault_of(code, said, (0,)):
            broken.append({"end": ends, "fault": fault[-1500:]})
        elif not sorted_table(folder / "out").equals(expected):
            broken.append({"end": ends, "fault": "the table differs"})
    return {"kills": done, "ends": ends, "broken": broken}


def start(folder: Path, cluster, *more: str) -> subprocess.Popen:
    """The command on the cluster; what it says goes into a file."""
    how = ("--engine", "ray", "--address", cluster.address, "-o", "out", "--workers", "2")
    command = [*FACEATTR, *LABEL, *how, *more]
    with open(folder / "said.txt", "w") as said, open(folder / "printed.txt", "w") as printed:
        return subprocess.Popen(command, cwd=folder, stdout=printed, stderr=said)


def run(count: int, seed: int, only: Collection[str] = (), images: int = IMAGES) -> dict:
    """Every kind of kill, or some."""
    found = {}
    with tempfile.TemporaryDirectory("-faceattr", ignore_cleanup_errors=True) as root:
        folder = Path(root)
        expected = prepare(folder, images)
        with two_nodes(head=0) as cluster:  # the head labels nothing, so every node's loss is felt
            add_node(cluster)
            began = time.monotonic()
            if start(folder, cluster).wait():
                raise SystemExit((folder / "said.txt").read_text())
            seconds = time.monotonic() - began
            for kind in only or KILLS:
                found[kind] = campaign(kind, cluster, folder, expected, count, seed, seconds)
                print(kind, found[kind], file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main(__doc__, run, 10, counted="kills", only=", ".join(KILLS)))
