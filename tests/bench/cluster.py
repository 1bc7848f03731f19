"""What a cluster costs: the same pictures by one process, by `--engine local` and by Ray.

    python tests/bench/cluster.py PICTURES --count 2000 --rounds 1

One process with one thread, the job on this machine with all cores, Ray with one worker on all
cores and with two on half of them each. Memory is the peak of a process' own pages (RSS less what
is shared), of Ray that of the largest worker. Start-up is what a job takes beyond its pictures. A
job on 10 times as many pictures (--flat) tells whether a worker's memory grows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

FACEATTR = [sys.executable, "-c", "import sys; from faceattr.cli import main; sys.exit(main())"]
WORKER = "ray::MapWorker"
PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    given = arguments()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory("-faceattr") as root:
        copies(given.pictures, Path(root, "in"), given.count)
        print(f"{given.count} pictures, {cores} cores, {given.detector}, {given.rounds} rounds")
        print(f"{'way':<28} pictures/s of local start-up s     MB of local")
        rounds = [one_round(given, Path(root), cores) for _ in range(given.rounds)]
        print_table(rounds)
        if given.flat:
            print_flat(given, Path(root), cores)


def arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--detector", default="centerface")
    parser.add_argument("--flat", type=int, default=0, metavar="N", help="pictures of the long job")
    return parser.parse_args()


def copies(pictures: Path, folder: Path, count: int) -> None:
    """A folder of `count` links to the pictures, each again and again."""
    files = sorted(p for p in pictures.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    folder.mkdir()
    for number in range(count):
        file = files[number % len(files)]
        (folder / f"{number:06}{file.suffix}").symlink_to(file.absolute())


def one_round(given: Namespace, root: Path, cores: int) -> dict[str, dict[str, float]]:
    """Each way once, one after the other."""
    one = ("--workers", "1", "--threads", "1")
    ray = ("--engine", "ray", "--cpus-per-worker")
    ways = {
        "one process, one thread": (*one, "-o", "one.parquet"),
        "--engine local": ("-o", "local.parquet"),
        f"Ray, 1 worker of {cores}": (*ray, str(cores), "--workers", "1", "-o", "ray1"),
        f"Ray, 2 workers of {cores // 2}": (*ray, str(cores // 2), "--workers", "2", "-o", "ray2"),
    }
    return {name: measure(words, given.detector, root, given.count) for name, words in ways.items()}


def measure(words: tuple[str, ...], detector: str, root: Path, count: int) -> dict[str, float]:
    """Pictures a second once started, seconds of the start, peak megabytes of the process."""
    start, ended, peak = time.monotonic(), threading.Event(), [0.0]
    command = [*FACEATTR, "label", "in", "--detector", detector, "--overwrite", "--quiet", *words]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)
    is_ray = "ray" in words

    def watch() -> None:
        while not ended.wait(0.2):
            pids = workers() if is_ray else [process.pid]
            peak[0] = max([peak[0], *map(own_bytes, pids)])

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(command)} ends with {code}")
    wall, working = time.monotonic() - start, seconds_of(root / words[-1], is_ray)
    return {"speed": count / working, "start": wall - working, "memory": peak[0] / 1e6}


def workers() -> list[int]:
    """The processes of Ray that label."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(WORKER.encode()):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def own_bytes(pid: int) -> float:
    """A process' memory that it shares with nobody."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0.0
    return (int(resident) - int(shared)) * PAGE


def seconds_of(output: Path, is_ray: bool) -> float:
    """From the first picture to the last row."""
    if is_ray:
        return json.loads((output / "_metadata.json").read_text())["runs"][-1]["seconds_at_work"]
    about = output.with_name(f"{output.name}.about.json")
    return json.loads(about.read_text())["runs"][-1]["seconds"]


def print_table(rounds: list[dict[str, dict[str, float]]]) -> None:
    for name in rounds[0]:
        best = max((one[name] for one in rounds), key=lambda found: found["speed"])
        local = max((one["--engine local"] for one in rounds), key=lambda found: found["speed"])
        print(
            f"{name:<28} {best['speed']:10.1f} {best['speed'] / local['speed']:8.0%} "
            f"{best['start']:10.1f} {best['memory']:6.0f} {best['memory'] / local['memory']:8.2f}"
        )


def print_flat(given: Namespace, root: Path, cores: int) -> None:
    """The memory of a worker over a job that is much longer."""
    (root / "in").rename(root / "short")
    copies(given.pictures, root / "in", given.flat)
    words = ("--engine", "ray", "--cpus-per-worker", str(cores), "--workers", "1", "-o", "long")
    found = measure(words, given.detector, root, given.flat)
    print(f"{given.flat} pictures, Ray, 1 worker: {found['memory']:.0f} MB, {found['speed']:.1f}/s")


if __name__ == "__main__":
    main()
