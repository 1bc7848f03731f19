"""The loop that shows and writes what is watched: a window and its keys, videos, timelines."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from faceattr.files import is_same_file
from faceattr.live.outputs import (
    TABLE_SUFFIXES,
    Timeline,
    VideoFile,
    save_snapshot,
    validate_output,
)
from faceattr.live.overlay import View, draw_live
from faceattr.live.stream import FpsMeter, Moment, Watch
from faceattr.progress import SILENT, Progress

SWITCHES = {"b": "bars", "p": "blur", "m": "mirror", "i": "figures", "h": "help"}
ESCAPE = "\x1b"
STATUS_SECONDS = 0.5
GAP = 1.0  # seconds: a camera that gave nothing for longer was away, a window late, neither still
NO_KEY = -1
# Opens a window and is gone; what would abort this process aborts only that one.
ATTEMPT = "import cv2; cv2.namedWindow('…'); cv2.waitKey(1); cv2.destroyAllWindows()"
INSTEAD = "Use --headless with -o out.mp4 or -o faces.csv, or --web to watch in the browser."


@dataclass(frozen=True)
class Outputs:
    """Videos and timelines to write, a folder for snapshots, and whether there is a window.
    ValueError or OSError where something of it cannot be.
    """

    output: Sequence[str | Path] = ()
    headless: bool = False
    overwrite: bool = False
    snapshots: str | Path = "."

    def __post_init__(self) -> None:
        if any(is_same_file(*pair) for pair in combinations(self.output, 2)):
            raise ValueError(
                "Every output is a file of its own. Received: " + ", ".join(map(str, self.output))
            )
        for path in self.output:
            validate_output(path, self.overwrite)
        if Path(self.snapshots).exists() and not Path(self.snapshots).is_dir():
            raise NotADirectoryError(f"Snapshots need a folder, and {self.snapshots} is a file.")
        if not self.headless:
            require_screen()


class Status(str):
    """How fast it goes just now: a line that takes the place of the one before."""


@dataclass(frozen=True)
class ViewerSummary:
    """How many frames were shown and how many tracks there were, how fast it went at the end, the
    outputs that exist, whether it was asked to stop, and why it broke off.
    """

    frames: int
    people: int
    figures: str
    written: tuple[Path, ...]
    is_interrupted: bool
    failure: str | None = None


class Viewer:
    """The loop that takes moments from a `Watch` and shows and writes them. `progress` is shown a
    line for each snapshot and, where there is no window, a `Status` now and then.
    """

    def __init__(
        self, watching: Watch, outputs: Outputs, view: View, progress: Progress = SILENT
    ) -> None:
        self.watching, self.outputs, self.view = watching, outputs, view
        self.meter = FpsMeter(watching)
        self._budget = watching.tracker.budget
        self._progress = progress
        self._last_status = 0.0
        self._drawn: np.ndarray | None = None
        self._is_paused = False
        self._frames = 0
        self._set_budget()

    def run(self, stopped: threading.Event) -> ViewerSummary:
        """Until the source ends, a key ends it, `stopped` is set or something breaks off; OSError
        where that was before the first frame.
        """
        failure = None
        try:
            with ExitStack() as stack:
                window = None if self.outputs.headless else stack.enter_context(Window())
                sinks = [stack.enter_context(self._open(path)) for path in self.outputs.output]
                while not stopped.is_set() and self._step(window, sinks):
                    pass
        except OSError as error:
            if not self._frames:
                raise
            failure = str(error).rstrip(".")
        people, figures = self.watching.tracker.tracks.count, self.meter.line()
        written = tuple(path for path in map(Path, self.outputs.output) if path.exists())
        return ViewerSummary(self._frames, people, figures, written, stopped.is_set(), failure)

    def _open(self, path: str | Path) -> VideoFile | Timeline:
        if Path(path).suffix.lower() in TABLE_SUFFIXES:
            return Timeline(path, self.watching.tracker.attributes.tasks)
        feed = self.watching.feed
        stands_still = self.outputs.headless and not feed.is_live
        return VideoFile(path, feed.rate, math.inf if stands_still else GAP)

    def _step(self, window, sinks) -> bool:
        """Take the next moment and do what the pressed key asks for; False ends the loop."""
        try:
            moment = None if self._is_paused else self.watching.next(0.02)
        except StopIteration:
            return False
        if moment is not None:
            self._take(moment, window, sinks)
        return window is None or self._obey(window)

    def _take(self, moment: Moment, window, sinks) -> None:
        frame, faces = moment
        self._frames += 1
        self.meter.tick(frame.captured)
        if window is None and time.monotonic() - self._last_status > STATUS_SECONDS:
            self._progress.show(Status(f"second {frame.time:.0f}   {self.meter.line()}"))
            self._last_status = time.monotonic()
        videos = [sink for sink in sinks if not isinstance(sink, Timeline)]
        for timeline in (sink for sink in sinks if isinstance(sink, Timeline)):
            timeline.write(frame, faces)
        if window is None and not videos:
            return
        latest = self.watching.latest
        figures = self.meter.line() if window is not None else ""
        lost = latest.lost if latest else ()
        self._drawn = draw_live(frame.image, faces, self.view, figures, lost)
        for video in videos:
            video.write(self._drawn, frame.time)
        if window is not None:
            window.show(self._drawn)

    def _obey(self, window: Window) -> bool:
        """Do what the pressed key asks for; False ends the loop."""
        key = window.key(0.02 if self._is_paused else 0.001)
        if key in ("q", ESCAPE):
            return False
        if key in SWITCHES:
            name = SWITCHES[key]
            self.view = replace(self.view, **{name: not getattr(self.view, name)})
            self._set_budget()
        elif key == " ":
            self._is_paused = not self._is_paused
            (self.watching.pause if self._is_paused else self.watching.resume)()
        elif key == "s" and self._drawn is not None:
            try:
                line = f"saved {save_snapshot(self._drawn, self.outputs.snapshots)}"
            except OSError as error:  # what is being recorded goes on
                line = f"no snapshot was saved: {error}"
            self._progress.show(line)
        return True

    def _set_budget(self) -> None:
        """While faces are blurred, nothing is shown or written that the detector has not seen."""
        budget = self._budget.while_blurring() if self.view.blur else self._budget
        self.watching.tracker.budget = budget
        self.watching.only_detected = self.view.blur


def require_screen() -> None:
    """Raise OSError where no window can open: OpenCV would end the whole process."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not screen:
        missing = "There is no screen for a window: neither DISPLAY nor WAYLAND_DISPLAY is set."
        raise OSError(f"{missing} {INSTEAD}")
    attempt = subprocess.run(
        [sys.executable, "-c", ATTEMPT], capture_output=True, timeout=60, check=False
    )
    if attempt.returncode != 0:
        name = screen or "of this machine"
        raise OSError(f"No window can be opened on the screen {name}. {INSTEAD}")


class Window:
    """A window that can be resized and tells keys; it opens with its first image."""

    title = "faceattr"
    _is_open = False

    def show(self, image: np.ndarray) -> None:
        if not self._is_open:
            flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
            cv2.namedWindow(self.title, flags)
            cv2.resizeWindow(self.title, image.shape[1], image.shape[0])
            self._is_open = True
        cv2.imshow(self.title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def key(self, timeout: float = 0.001) -> str:
        """The key pressed within so many seconds, ``""`` for none; closing the window is Escape."""
        if not self._is_open:
            return ""
        code = cv2.waitKey(max(1, round(1000 * timeout)))
        if code == NO_KEY:
            return "" if self._is_visible() else ESCAPE
        return chr(code & 0xFF).lower()

    def _is_visible(self) -> bool:
        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:
            return False

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_open and self._is_visible():
            cv2.destroyWindow(self.title)
            cv2.waitKey(1)
