"""What a cluster costs: the same pictures by one process, by `--engine local` and by Ray.

    python tests/bench/cluster.py PICTURES --count 2000 --rounds 1

One process with one thread, the job on this machine with all cores, Ray with one worker on all
cores and with two on half of them each. Beside other work the wall clock says little: the
processor's time a picture, of all processes of a job from its first picture to its last, is then
what can be compared; "others" is the part of it that Ray's own processes and the driver take.
Memory is the peak of a process' own pages (RSS less what is shared), of Ray that of the largest
worker. Start-up is what a job takes beyond its pictures. A longer job (--flat) tells whether a
worker's memory grows; --rounds 0 measures that alone. --write notes what is printed in
docs/figures.json, for docs/cluster.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from faceattr.detection.choose import choose_detector
from faceattr.model.file import shipped_model
from faceattr.model.runtime import sha256_of

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from figures import add_write, of_detectors, record

FACEATTR = [sys.executable, "-m", "faceattr"]
WORKER = "ray::MapWorker"
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
COLUMNS = ["way", "core-ms a picture", "of local", "Ray's own and the driver's"]
COLUMNS += ["pictures/s", "start and end", "memory of a process", "of local"]
FLAT_COLUMNS = ["way", "pictures", "memory at most", "in the first half", "pictures/s"]


def main() -> None:
    given = arguments()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory("-faceattr") as root:
        copies(given.pictures, Path(root, "in"), given.count)
        print(f"{given.count} pictures, {cores} cores, {given.detector}, {given.rounds} rounds")
        rounds = [one_round(given, Path(root), cores) for _ in range(given.rounds)]
        detector = choose_detector(given.detector, offline=True)
        of = {"model": sha256_of(shipped_model()), **of_detectors(detector)}
        if rounds:
            record(given.write, "cluster", COLUMNS, list(print_table(rounds)), of)
        if given.flat:
            flat = [print_flat(given, Path(root), cores)]
            record(given.write, "cluster_flat", FLAT_COLUMNS, flat, of)


def arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--detector", default="centerface")
    parser.add_argument("--flat", type=int, default=0, metavar="N", help="pictures of the long job")
    add_write(parser)
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
    found = {}
    for name, words in ways.items():
        found[name] = measure(words, given.detector, root, given.count)
        print(name, {what: round(value, 1) for what, value in found[name].items()}, file=sys.stderr)
    return found


def measure(words: tuple[str, ...], detector: str, root: Path, count: int) -> dict[str, float]:
    """Pictures a second once started, processor's ms a picture, peak MB of a labelling process."""
    start, ended, peaks = time.monotonic(), threading.Event(), []
    command = [*FACEATTR, "label", "in", "--detector", detector, "--overwrite", "--quiet", *words]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)
    is_ray, looks = "ray" in words, []

    def watch() -> None:
        while not ended.wait(0.25):
            found = family(process.pid)
            pids = [pid for pid in found if is_worker(pid)] if is_ray else [process.pid]
            peaks.append(max(map(own_bytes, pids), default=0.0) / 1e6)
            looks.append((time.time(), found, set(pids)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(command)} ends with {code}")
    wall, working = time.monotonic() - start, seconds_of(root / words[-1], is_ray)
    spent, others = seconds_spent(looks, root / words[-1], working)
    times = {"cpu": 1000 * spent / count, "others": 1000 * others / count}
    half = max(peaks[: len(peaks) // 2])
    memory = {"memory": max(peaks), "half": half}
    return {"speed": count / working, "start": wall - working, **memory, **times}


def family(pid: int) -> dict[int, float]:
    """A process and all that it has started, and the processor's seconds that each has taken."""
    parents, seconds = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        one = int(file.parent.name)
        parents[one], seconds[one] = int(words[1]), (int(words[11]) + int(words[12])) / TICKS
    found = {pid}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return {one: seconds[one] for one in found if one in seconds}


def is_worker(pid: int) -> bool:
    """Whether a process is one of Ray's that label."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(WORKER.encode())
    except OSError:
        return False


def seconds_spent(looks: list, output: Path, working: float) -> tuple[float, float]:
    """The processor's seconds while pictures were worked at: of all, and of who labels nothing."""
    tables = output.glob("part-*") if output.is_dir() else [output]
    end = max(table.stat().st_mtime for table in tables)
    within = [look for look in looks if end - working <= look[0] <= end]
    labelling = set().union(*(pids for _, _, pids in within))
    first, last = {}, {}
    for _, found, _ in within:
        first, last = {**found, **first}, {**last, **found}
    spent = {pid: last[pid] - first[pid] for pid in last}
    return sum(spent.values()), sum(spent[pid] for pid in spent if pid not in labelling)


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


def print_table(rounds: list[dict[str, dict[str, float]]]) -> Iterator[list[str]]:
    """The median of the rounds; gives the rows of the page's table."""
    found = {
        name: {
            what: statistics.median(one[name][what] for one in rounds) for what in rounds[0][name]
        }
        for name in rounds[0]
    }
    local = found["--engine local"]
    print(*COLUMNS, sep=", ")
    for name, one in found.items():
        cpu, memory = one["cpu"] / local["cpu"], one["memory"] / local["memory"]
        row = [name, f"{one['cpu']:.1f}", f"{cpu:.2f}", f"{one['others']:.1f}"]
        row += [f"{one['speed']:.1f}", f"{one['start']:.1f} s"]
        row += [f"{one['memory']:.0f} MB", f"{memory:.2f}"]
        print(*row, sep="  ")
        yield row


def print_flat(given: Namespace, root: Path, cores: int) -> list[str]:
    """The memory of a worker over a job that is much longer; gives the row of the page's table."""
    (root / "in").rename(root / "short")
    copies(given.pictures, root / "in", given.flat)
    words = ("--engine", "ray", "--cpus-per-worker", str(cores), "--workers", "1", "-o", "long")
    found = measure(words, given.detector, root, given.flat)
    row = [f"Ray, 1 worker of {cores}", f"{given.flat:,}", f"{found['memory']:.0f} MB"]
    row += [f"{found['half']:.0f} MB", f"{found['speed']:.1f}"]
    print(*FLAT_COLUMNS, *row, sep="  ")
    return row


if __name__ == "__main__":
    main()
