"""The server under load, beside the folder job on the same photographs.

    python tests/bench/serve_load.py PICTURES --seconds 60 --clients 8

Rounds of the folder job and of the server take turns, so that whatever else the machine does hits
both. The clients are a process of their own that keeps its connections and has all bodies ready.
One request in 40 is malformed. Told are pictures a second, the time of an answer, the server's
memory after the first and after the last round, and what went wrong.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from faceattr.detection.choose import choose_detector
from faceattr.model.file import shipped_model
from faceattr.model.runtime import sha256_of

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from figures import add_write, of_detectors, record
from use_street import copies

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "faceattr")
FOLDER = """
import sys
from faceattr.inference.label import label_to
from faceattr.inference.predictor import FaceAttributes
attributes = FaceAttributes.load(sys.argv[3] or None, sys.argv[4], offline=True)
summary = label_to(sys.argv[2], sys.argv[1], attributes, overwrite=True)
print(summary.inputs / summary.seconds)
"""
EVERY = 40  # requests, of which one is malformed
MALFORMED = (
    ("/analyze", "image/jpeg", b"no picture"),
    ("/analyze", "image/jpeg", b""),
    ("/analyze", "application/json", b'{"image": '),
    ("/analyze", "application/json", b'{"image": "%%%"}'),
    ("/analyze", "multipart/form-data; boundary=x", b"--x\r\nrubbish"),
    ("/analyze", "text/plain", b"words"),
    ("/analyze/batch", "application/json", b"[" * 100_000),
)


COLUMNS = ["folder job", "server", "an answer, median"]
COLUMNS += ["99th percentile", "answered", "lost", "answered otherwise than before"]
COLUMNS += ["malformed, refused with 4xx", "memory after the first and last round"]


def main() -> None:
    options = parse()
    if options.port:
        print(json.dumps(load(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder, "pictures")
        copies(options.pictures, pictures, options.copies)
        with server(options) as (process, port):
            jobs, rounds, memory = [], [], []
            for _ in range(options.rounds):
                jobs.append(folder_job(pictures, Path(folder, "faces.csv"), options))
                rounds.append(clients(port, options))
                memory.append(resident(process.pid))
    row = show(jobs, rounds, memory, options)
    detector = choose_detector(options.detector, offline=True)
    of = {"model": sha256_of(options.model or shipped_model()), **of_detectors(detector)}
    rows = [list(pair) for pair in zip(COLUMNS, row, strict=True)]
    record(options.write, "serve", ["", f"{options.clients} clients"], rows, of)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--seconds", type=float, default=60, help="under load, over all rounds")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="")
    parser.add_argument("--detector", default="centerface")
    parser.add_argument("--copies", type=int, default=10, help="of each for the folder job")
    add_write(parser)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)  # of the clients' process
    return parser.parse_args()


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


@contextmanager
def server(options):
    """`faceattr serve` in a process of its own, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", "--port", str(port), "--detector", options.detector, "--offline", "--quiet"]
    words += ["--model", options.model] if options.model else []
    process = subprocess.Popen([*COMMAND, *words], env=environment())
    try:
        wait_for(port, process)
        yield process, port
    finally:
        process.terminate()
        process.wait(60)


def wait_for(port: int, process, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("The server does not answer.")


def folder_job(pictures: Path, table: Path, options) -> float:
    """Pictures a second of a folder job, without the seconds in which it opens the model."""
    words = [str(pictures), str(table), options.model, options.detector]
    done = subprocess.run(
        [sys.executable, "-c", FOLDER, *words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return float(done.stdout)


def clients(port: int, options) -> dict:
    """What the clients, in a process of their own, saw in one round."""
    words = [options.pictures, "--port", port, "--clients", options.clients]
    words += ["--seconds", options.seconds / options.rounds]
    command = [sys.executable, __file__, *map(str, words)]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def resident(pid: int) -> float:
    """Megabytes of memory that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def load(options) -> dict:
    """Ask from `--clients` threads for `--seconds`."""
    bodies = [path.read_bytes() for path in sorted(options.pictures.rglob("*.jpg"))]
    seen = Seen(bodies)
    deadline = time.monotonic() + options.seconds
    threads = [
        threading.Thread(target=seen.ask, args=(options.port, number, deadline))
        for number in range(options.clients)
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    return {"seconds": seconds, "times": seen.times, **seen.counts}


class Seen:
    """What the clients' threads count."""

    def __init__(self, bodies: list[bytes]) -> None:
        self._bodies = bodies
        self._known: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self.times: list[float] = []
        self.counts: Counter = Counter()

    def ask(self, port: int, number: int, deadline: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        place = number * 7919
        while time.monotonic() < deadline:
            place += 1
            if place % EVERY == 0:
                self._malformed(connection, MALFORMED[place // EVERY % len(MALFORMED)])
            else:
                self._picture(connection, place % len(self._bodies))
        connection.close()

    def _picture(self, connection, which: int) -> None:
        start = time.monotonic()
        status, text = post(connection, "/analyze", "image/jpeg", self._bodies[which])
        spent = time.monotonic() - start
        with self._lock:
            if status == 200:
                self.times.append(spent)
                self.counts["differ"] += self._known.setdefault(which, text) != text
            self.counts["answered" if status == 200 else "lost" if status == 0 else status] += 1

    def _malformed(self, connection, request) -> None:
        status, _ = post(connection, *request)
        with self._lock:
            self.counts["malformed"] += 1
            self.counts["malformed_4xx"] += 400 <= status < 500
            self.counts["lost"] += status == 0


def post(connection, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of an answer; 0 where there is none."""
    try:
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0, b""


def show(jobs: list[float], rounds: list[dict], memory: list[float], options) -> list[str]:
    """Print what was seen; gives the row of the page's table."""
    served = [found.get("answered", 0) / found["seconds"] for found in rounds]
    times = sorted(time for found in rounds for time in found["times"])
    total: Counter = Counter()
    for found in rounds:
        total.update({name: n for name, n in found.items() if name not in ("seconds", "times")})
    job, rate = statistics.median(jobs), statistics.median(served)
    share = f"{rate / job:.0%} of the folder job, {options.clients} clients"
    print(f"folder job  {job:.1f} pictures/s, median of {[round(one, 1) for one in jobs]}")
    print(f"server      {rate:.1f} pictures/s, median of {[round(one, 1) for one in served]}")
    print(f"            {share}")
    middle, last = (1000 * times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
    print(f"answers     median {middle:.0f} ms, 99th percentile {last:.0f} ms")
    print(f"memory      {memory[0]:.0f} MB after the first round, {memory[-1]:.0f} MB at the end")
    print(f"requests    {len(times):,} answered, {total['lost']} lost, {total['differ']} differ")
    print(f"malformed   {total['malformed_4xx']} of {total['malformed']} refused with 4xx")
    print(f"others      { {name: n for name, n in total.items() if name.isdigit()} }")
    row = [f"{job:.1f} pictures/s", f"{rate:.1f} ({rate / job:.0%})", f"{middle:.0f} ms"]
    row += [f"{last:.0f} ms", f"{len(times):,}", str(total["lost"]), str(total["differ"])]
    row += [f"{total['malformed_4xx']} of {total['malformed']}"]
    return [*row, f"{memory[0]:.0f}, {memory[-1]:.0f} MB"]


if __name__ == "__main__":
    main()
