"""Long work stays flat: memory, open files and threads of a command that works for a long time.

    python tests/campaigns/long.py --count 200000              # images, and half as many frames
    python tests/campaigns/long.py --count 1000000 --only label

Images are hard links to a few hundred files; the video has one frame for each two images, spread
over 24 hours of its own clock; a toy is trained for one epoch for each 400 images. The process is
sampled while it works. After the first third, a line is fitted to its memory: what it grows by
over the whole work must be within the noise, or below 24 MiB. Exit code 1 where it is not, or where
the rows do not count up. Work of less than a minute is counted only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from common import main
from inputs import status_of
from kills import LABEL, TRAIN, errors_in, prepare, start
from scipy.stats import linregress

DIFFERENT = 400  # images on disk, the others are links to them
IN_A_FOLDER = 1000
DAY = 24 * 3600
GROWTH = 24 << 20  # bytes over the whole work that no leak needs to explain
BEGINNING = 1 / 3  # of the samples: caches fill, networks compile
PERIOD = 0.2  # seconds
SHORTEST = 60.0


@dataclass(frozen=True)
class Samples:
    """Moments in seconds, and then: bytes held, open files, threads; all ``(n,)``."""

    moments: np.ndarray
    memory: np.ndarray
    files: np.ndarray
    threads: np.ndarray

    def faults(self) -> list[str]:
        """What grows, in words; nothing of work that is over before it is warm."""
        if self.moments[-1] < SHORTEST:
            return []
        late = self.moments >= self.moments[-1] * BEGINNING
        moments, memory = self.moments[late], self.memory[late]
        line = linregress(moments, memory)
        grown, noise = (of * (moments[-1] - moments[0]) for of in (line.slope, 2 * line.stderr))
        faults = []
        if grown > max(GROWTH, noise):
            faults.append(f"memory grows by {grown / 2**20:.0f} MiB (noise {noise / 2**20:.0f})")
        for name in ("files", "threads"):
            first, last = np.array_split(getattr(self, name)[late], 2)
            if np.median(last) > np.median(first) + 2:
                faults.append(f"{name} rise from {np.median(first):.0f} to {np.median(last):.0f}")
        return faults

    def record(self) -> dict:
        late = self.moments >= self.moments[-1] * BEGINNING
        slope = linregress(self.moments[late], self.memory[late]).slope if late.sum() > 1 else 0
        return {
            "seconds": round(float(self.moments[-1])),
            "memory_MiB": [
                int(np.median(part)) >> 20 for part in np.array_split(self.memory, 6) if len(part)
            ],
            "growth_MiB": round(float(slope * self.moments[-1]) / 2**20, 1),
            "most_files": int(self.files.max()),
            "most_threads": int(self.threads.max()),
        }


def sampled(process: subprocess.Popen) -> Samples:
    """Sample a process until it ends."""
    rows, began, ended = [], time.monotonic(), threading.Event()
    waiter = threading.Thread(target=lambda: (process.wait(), ended.set()))
    waiter.start()
    while not ended.wait(PERIOD):
        memory, threads = (status_of(process.pid, name) for name in ("VmRSS", "Threads"))
        try:
            files = len(os.listdir(f"/proc/{process.pid}/fd"))
        except OSError:
            continue
        if memory:
            rows.append((time.monotonic() - began, memory << 10, files, threads))
    waiter.join()
    return Samples(*np.array(rows, float).T)


def make_images(folder: Path, count: int) -> None:
    """`count` names of a few hundred small images with a face."""
    names = sorted((folder / "inputs").iterdir())[:DIFFERENT]
    for number in range(count):
        inside = folder / "many" / f"{number // IN_A_FOLDER:04d}"
        if number % IN_A_FOLDER == 0:
            inside.mkdir(parents=True)
        (inside / f"{number:07d}.jpg").hardlink_to(names[number % len(names)])


def make_day(folder: Path, frames: int) -> None:
    """A video of one day with so many frames: a face that wanders."""
    face = cv2.cvtColor(cv2.imread(str(folder / "inputs/0000.jpg")), cv2.COLOR_BGR2RGB)
    with av.open(str(folder / "day.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(frames):
            image = np.full((96, 128, 3), 90, np.uint8)
            left = number % 64
            image[16:80, left : left + 64] = face
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base, frame.pts = Fraction(1, 25), number * DAY * 25 // frames
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def rows_of(table: Path) -> int:
    """Lines of a CSV file without its header."""
    with table.open("rb") as file:
        return sum(1 for _ in file) - 1


def label(folder: Path, count: int) -> tuple[tuple[str, ...], Callable[[], list[str]]]:
    make_images(folder, count)
    words = (LABEL[0], "many", *LABEL[2:-1], "32", "-o", "t.csv", "--quiet")

    def faults() -> list[str]:
        found = rows_of(folder / "t.csv")
        return [] if found == count else [f"{found} rows of {count} images"]

    return words, faults


def live(folder: Path, count: int) -> tuple[tuple[str, ...], Callable[[], list[str]]]:
    frames = max(2, count // 2)
    make_day(folder, frames)
    words = ("live", "day.mp4", "--headless", "--quiet", "-o", "day.csv", "--detector", "none")

    def faults() -> list[str]:
        found = rows_of(folder / "day.csv")
        return [] if found == frames else [f"{found} rows of {frames} frames"]

    return (*words, "--model", "toy.onnx"), faults


def train(folder: Path, count: int) -> tuple[tuple[str, ...], Callable[[], list[str]]]:
    epochs = max(2, count // 400)

    def faults() -> list[str]:
        found = rows_of(folder / "new.training" / "log.csv")
        return [] if found == epochs else [f"{found} rows of {epochs} epochs in the log"]

    return (*TRAIN, "--epochs", f"scratch={epochs}"), faults


WORK = {"label": label, "live": live, "train": train}


def run(count: int, seed: int = 0, only: Collection[str] = ()) -> dict:
    """The campaign; `seed` decides nothing here."""
    found = {}
    for name in only or WORK:
        with tempfile.TemporaryDirectory("-faceattr", ignore_cleanup_errors=True) as root:
            folder = Path(root, "work")
            prepare(folder)
            words, count_up = WORK[name](folder, count)
            process = start(words, folder)
            samples = sampled(process)
            faults = [f"exit code {process.returncode}: {errors_in(folder)}"]
            if process.returncode == 0:
                faults = [*samples.faults(), *count_up()]
            found[name] = {"count": count, **samples.record(), "broken": faults}
            print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main(__doc__, run, 200_000, only=", ".join(WORK)))
