"""Nothing is lost by a power cut: killed jobs whose unsynced writes are dropped, gone on with.

    python tests/campaigns/power.py --kills 100 --seed 1

As `kills.py`, and after each kill every file of the job loses a random part of what was not yet
synced to the disk when the job was killed (`shim/sitecustomize.py` notes it). Exit code 1 where the
resumed work differs from unbroken work. The cache of crops, a database, syncs in its own way and is
left alone. Crops and annotated copies of the last ten seconds are not promised.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
from common import main
from kills import JOBS, campaign, run_jobs

GIVEN = ("inputs", "mood", "hair", "toy.keras", "toy.onnx", "toy.onnx.json", "cache")
GIVEN += ("recipe.toml", "errors.txt", "errors_beside.txt")
SYNCS = ".syncs"
PROMISED = tuple(name for name in JOBS if "crops" not in name)
SHIM = Path(__file__).parent / "shim"


def drop_unsynced(folder: Path, rng: np.random.Generator) -> int:
    """Cut every file somewhere between what was synced and all of it; how many lost something."""
    sizes, everything = synced(folder / SYNCS)
    own = [path for path in folder.iterdir() if path.name not in (*GIVEN, SYNCS)]
    files = [file for path in own for file in (path, *path.rglob("*")) if file.is_file()]
    cut = 0
    for path in files:
        about = path.stat()
        kept = min(sizes.get(about.st_ino, 0), about.st_size)
        if about.st_mtime_ns > everything and kept < about.st_size:
            os.truncate(path, int(rng.integers(kept, about.st_size + 1)))
            cut += 1
    return cut


def synced(log: Path) -> tuple[dict[int, int], int]:
    """By inode, how many bytes are on the disk; and the time until which everything is."""
    sizes, everything = {}, 0
    for line in log.read_text().splitlines() if log.exists() else ():
        inode, value = line.split()
        if inode == "all":
            everything = int(value)
        else:
            sizes[int(inode)] = int(value)
    return sizes, everything


def run(count: int, seed: int, only=()) -> dict:
    """The campaign; the jobs note what they sync in their own folder."""
    os.environ["FACEATTR_SYNCS"] = SYNCS
    paths = [str(SHIM), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return run_jobs(partial(campaign, after_kill=drop_unsynced), count, seed, only or PROMISED)


if __name__ == "__main__":
    sys.exit(main(__doc__, run, 100, counted="kills", only=", ".join(PROMISED)))
