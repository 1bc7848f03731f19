"""A full disk loses no finished row: jobs on a file system that is too small, gone on with later.

    python tests/campaigns/disk.py --count 50 --seed 1        # as root: it mounts a tmpfs

Each job runs once with room enough. Then it runs on a tmpfs that has room for a random share of
what it writes. It must end with one sentence and no traceback; with more room, the same command
with ``--resume`` must leave what the unbroken run left. Exit code 1 where it does not.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import numpy as np
from common import fault_of, is_time_left, main
from kills import JOBS, Job, errors_in, run_jobs, start

ROOM = 64 << 20  # bytes beside what a job needs


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A tmpfs of `size` bytes at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def enlarge(folder: Path, size: int) -> None:
    """More room on it."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def size_of(folder: Path) -> int:
    """Bytes that its files take on a tmpfs, in pages of 4 KiB."""
    return sum(-(-p.stat().st_size // 4096) * 4096 for p in folder.rglob("*") if p.is_file())


def campaign(job: Job, made: Path, count: int, seed: int) -> dict:
    """One job on `count` disks; counts of exit codes and what was promised and not kept."""
    rng, disk = np.random.default_rng(seed), made.parent / "disk"
    before = size_of(made)
    with small_disk(disk, before + ROOM):
        folder = Path(shutil.copytree(made, disk / "work"))
        if code := start(job.words, folder).wait():
            raise RuntimeError(f"The unbroken run ends with {code}: {errors_in(folder)}")
        expected, written = job.content(folder), size_of(folder) - before
    codes, broken, began = Counter(), [], time.monotonic()
    for number in takewhile(lambda _: is_time_left(began), range(count)):
        room = int(written * rng.uniform(0, 1))
        with small_disk(disk, before + room):
            folder = Path(shutil.copytree(made, disk / "work"))
            code = start(job.words, folder, errors=made.parent / "errors.txt").wait()
            codes[str(code)] += 1
            fault = fault_of(code, errors_in(made.parent), codes=(0, 1, 2))
            enlarge(disk, before + written + ROOM)
            fault = gone_on_with(job, folder, code, expected) or fault
        if fault:
            broken.append({"try": number, "room": room, "fault": fault})
    return {
        "count": codes.total(),
        "bytes_written": written,
        "codes": dict(codes),
        "broken": broken,
    }


def gone_on_with(job: Job, folder: Path, code: int, expected: dict[str, str]) -> str | None:
    """Go on with a job that ended with `code`; None where what it leaves is right, or the fault."""
    errors = folder.parent / "errors.txt"
    if code and start((*job.words, *job.resume), folder, errors=errors).wait():
        return f"not gone on with: {errors_in(folder.parent)}"
    return None if job.content(folder) == expected else "what is left differs"


ALONE = tuple(name for name, job in JOBS.items() if not job.beside)


def run(count: int, seed: int, only: Collection[str] = ()) -> dict:
    """The campaign."""
    return run_jobs(campaign, count, seed, only or ALONE)


if __name__ == "__main__":
    sys.exit(main(__doc__, run, 50, only=", ".join(ALONE)))
