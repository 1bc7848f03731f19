"""Many at once: label jobs, trainings and a live page on one cache and one machine.

    python tests/campaigns/together.py --count 20    # jobs, and a fifth as many trainings

Every job runs once alone. Then all run at the same time, the trainings on one cache, while the
page is asked again and again. Nothing hangs, the page answers, and what each leaves equals what the
lone run left. Exit code 1 where it does not.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from common import main
from kills import JOBS, Job, errors_in, prepare, start

LABEL = ("label csv", "label jsonl", "label parquet", "label csv, crops, gallery")
TRAIN = ("train joint", "train frozen on features, then whole")
SLOWEST = 1800.0  # seconds until all have ended
ASKED = 0.5  # seconds between two requests


def on_cache(job: Job, cache: Path) -> Job:
    """The same job with a cache that others have as well."""
    words = tuple(str(cache) if word == "cache" else word for word in job.words)
    return Job(words, job.content, job.resume)


def alone(name: str, made: Path, root: Path) -> dict[str, str]:
    """What a lone run leaves, with a cache of its own."""
    folder = Path(shutil.copytree(made, root / f"alone {name}"))
    if start(JOBS[name].words, folder).wait(SLOWEST) != 0:
        raise RuntimeError(f"{name} alone: {errors_in(folder)}")
    return JOBS[name].content(folder)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def answers(port: int) -> bool:
    """Whether the page comes."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            return b"<html" in page.read()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def run(count: int, seed: int = 0, only: Collection[str] = ()) -> dict:
    """The campaign; `seed` decides nothing here, `only` are names of `kills.JOBS`."""
    with tempfile.TemporaryDirectory("-faceattr", ignore_cleanup_errors=True) as given:
        root = Path(given)
        prepare(root / "made")
        names = [LABEL[number % len(LABEL)] for number in range(count)]
        names += [TRAIN[number % len(TRAIN)] for number in range(count // 5)]
        names = [name for name in names if not only or name in only]
        expected = {name: alone(name, root / "made", root) for name in dict.fromkeys(names)}
        with live_page(root) as (page, port):
            return _together(names, expected, root, page, port)


@contextmanager
def live_page(root: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """A live page on a port of its own, ended at last."""
    folder, port = root / "page", free_port()
    folder.mkdir()
    model = ("--model", str(root / "made" / "toy.onnx"), "--detector", "none")
    process = start(("live", "--web", "--port", str(port), *model), folder)
    try:
        ends = time.monotonic() + 120
        while not answers(port) and time.monotonic() < ends:
            time.sleep(ASKED)
        yield process, port
    finally:
        process.kill()
        process.wait()


def _together(
    names: list[str],
    expected: dict[str, dict[str, str]],
    root: Path,
    page: subprocess.Popen,
    port: int,
) -> dict:
    began, asked, unanswered = time.monotonic(), 0, 0
    work = []
    for number, name in enumerate(names):
        folder = Path(shutil.copytree(root / "made", root / f"{number:03d}"))
        job = on_cache(JOBS[name], root / "cache")
        work.append((name, job, folder, start(job.words, folder)))
    while any(process.poll() is None for *_, process in work):
        if time.monotonic() - began > SLOWEST:
            break
        asked += 1
        unanswered += not answers(port)
        time.sleep(ASKED)
    seconds = time.monotonic() - began
    broken = [_fault(*one, expected) for one in work]
    broken += [f"the page does not answer {unanswered} of {asked} times"] * bool(unanswered)
    broken += ["the page has ended"] * (page.poll() is not None)
    return {
        "jobs": len(names),
        "seconds": round(seconds),
        "page_asked": asked,
        "broken": [fault for fault in broken if fault],
    }


def _fault(
    name: str,
    job: Job,
    folder: Path,
    process: subprocess.Popen,
    expected: dict[str, dict[str, str]],
) -> str | None:
    if process.poll() is None:
        process.kill()
        return f"{name}: hangs"
    if process.returncode:
        return f"{name}: exit code {process.returncode}: {errors_in(folder)}"
    left = job.content(folder)
    return None if left == expected[name] else f"{name}: differs"


if __name__ == "__main__":
    sys.exit(main(__doc__, run, 20, only=", ".join((*LABEL, *TRAIN))))
