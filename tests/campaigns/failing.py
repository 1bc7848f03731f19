"""A disk that fails loses no finished row: jobs whose writes fail from some byte on, gone on with.

    python tests/campaigns/failing.py --count 50 --seed 1        # needs a C compiler

Each job runs once unbroken. Then it runs on a disk that answers, once a random share of the job's
bytes is written, every write and every open for writing with an error: the device's (EIO), that of
a file system that was mounted read-only meanwhile (EROFS), that of a network share that is gone
(ESTALE). The job must end with one sentence and no traceback; on a good disk the same command with
``--resume`` must leave what the unbroken run left. Exit code 1 where it does not.
"""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection
from itertools import takewhile
from pathlib import Path

import numpy as np
from common import fault_of, is_time_left, main
from disk import ALONE, gone_on_with, size_of
from kills import Job, errors_in, fresh, run_jobs, start, unbroken

SHIM = Path(__file__).parent / "shim/failing.c"
ERRORS = (errno.EIO, errno.EROFS, errno.ESTALE)
MOST = 1.2  # of the bytes that a job leaves: some are written twice


def campaign(job: Job, made: Path, count: int, seed: int) -> dict:
    """One job on `count` disks; counts of exit codes and what was promised and not kept."""
    rng, work, shim = np.random.default_rng(seed), made.parent / "work", made.parent / "failing.so"
    if not shim.exists():
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", shim, SHIM, "-ldl"], check=True)
    expected, _ = unbroken(job, made, work)
    written = size_of(work) - size_of(made)
    codes, broken, began = Counter(), [], time.monotonic()
    for number in takewhile(lambda _: is_time_left(began), range(count)):
        folder, error = fresh(made, work), ERRORS[number % len(ERRORS)]
        after = int(written * rng.uniform(0, MOST))
        disk = {"FAILING_UNDER": str(folder), "FAILING_AFTER": str(after), "LD_PRELOAD": str(shim)}
        errors = made.parent / "errors.txt"
        code = start(job.words, folder, errors, **disk, FAILING_ERRNO=str(error)).wait()
        codes[f"{errno.errorcode[error]}: {code}"] += 1
        fault = fault_of(code, errors_in(made.parent), codes=(0, 1, 2))
        fault = gone_on_with(job, folder, code, expected) or fault
        if fault:
            broken.append({"try": number, "after": after, "error": error, "fault": fault})
    return {"count": codes.total(), "codes": dict(codes), "broken": broken}


def run(count: int, seed: int, only: Collection[str] = ()) -> dict:
    """The campaign."""
    return run_jobs(campaign, count, seed, only or ALONE)


if __name__ == "__main__":
    sys.exit(main(__doc__, run, 50, only=", ".join(ALONE)))
