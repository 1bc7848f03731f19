"""`faceattr live` as somebody at a screen or a terminal sees it: window, keys, outputs, figures."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from faceattr.images.camera import Source, is_live, open_feed
from faceattr.images.video import Frame
from faceattr.inference.predictor import open_typed
from faceattr.live.face_tracker import InferenceBudget
from faceattr.live.outputs import (
    TABLE_SUFFIXES,
    Timeline,
    VideoFile,
    save_snapshot,
    validate_output,
)
from faceattr.live.overlay import View, draw_live
from faceattr.live.stream import FpsMeter, Moment, Watch, watch
from faceattr.live.tracking import Smoothing
from faceattr.live.window import Window, require_screen

DONE, BROKE_OFF, INTERRUPTED = 0, 1, 130
SWITCHES = {"b": "bars", "p": "blur", "m": "mirror", "i": "figures", "h": "help"}
QUIT = ("q", "\x1b")
SIZES = {
    InferenceBudget: ("detect_every", "ask_at_once"),
    Smoothing: ("time_constant", "hysteresis", "min_confidence"),
}
TELL_SECONDS = 0.5


def run(source: Source = 0, *, quiet: bool = False, **given: Any) -> int:
    """Watch a source in a window, into files, or both; returns the exit code.

    Args:
        source: As for `faceattr.images.camera.open_feed`.
        quiet: Print nothing but errors.
        **given: What was typed, for `Outputs`, `View`, `InferenceBudget`, `Smoothing`, `watch` and
            `FaceAttributes.load`.
    """
    say: Callable[[str], None] = (
        (lambda line: None) if quiet else (lambda line: print(line, file=sys.stderr))
    )
    outputs = Outputs(**_taken(given, ("output", "headless", "overwrite", "snapshots")))
    view = View(**_taken(given, ("bars", "blur", "mirror")))
    how = {
        kind.__name__.lower(): kind(**found)
        for kind, names in SIZES.items()
        if (found := _taken(given, names))
    }
    for path in outputs.output:
        if not isinstance(source, int) and Path(path).absolute() == Path(source).absolute():
            raise ValueError(f"{path} is the source itself. Choose another output.")
    every_frame = given.pop("every_frame", outputs.headless and not is_live(source))
    # What is typed wrongly shall be told before the seconds that a model takes to load.
    with open_feed(source, **_taken(given, ("rate",))) as feed, _ctrl_c() as stopped:
        attributes = open_typed(given, say)
        with watch(feed, attributes, every_frame=every_frame, **how) as watching:
            return Viewer(watching, outputs, view, say, quiet).run(stopped)


def _taken(given: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: given.pop(name) for name in names if name in given}


@dataclass(frozen=True)
class Outputs:
    """Where to.

    Args:
        output: Videos (``.mp4``, ``.mkv``, ``.mov``) and timelines (``.csv``) to write.
        headless: Open no window.
        overwrite: Replace outputs that exist.
        snapshots: The folder for snapshots; it is made for the first one.

    Raises:
        ValueError, OSError: An output cannot be written, or there is no screen for a window.
    """

    output: Sequence[str | Path] = ()
    headless: bool = False
    overwrite: bool = False
    snapshots: str | Path = "."

    def __post_init__(self) -> None:
        for path in self.output:
            validate_output(path, self.overwrite)
        if Path(self.snapshots).exists() and not Path(self.snapshots).is_dir():
            raise NotADirectoryError(f"Snapshots need a folder, and {self.snapshots} is a file.")
        if not self.headless:
            require_screen()


class Viewer:
    """The loop that takes moments from a `Watch` and shows and writes them."""

    def __init__(
        self,
        watching: Watch,
        outputs: Outputs,
        view: View,
        say: Callable[[str], None],
        quiet: bool = False,
    ) -> None:
        self.watching = watching
        self.outputs = outputs
        self.view = view
        self.meter = FpsMeter(watching)
        self._budget = watching.tracker.budget
        self._say = say
        self._status = Console(stderr=True, quiet=quiet, highlight=False).status("watching")
        self._told = 0.0
        self._drawn: np.ndarray | None = None
        self._is_paused = False
        self._frames = 0
        self._search_more()

    def run(self, stopped: threading.Event) -> int:
        """Until the source ends, a key ends it or `stopped` is set; returns the exit code."""
        try:
            with ExitStack() as stack:
                window = None if self.outputs.headless else stack.enter_context(Window())
                if window is None:
                    stack.enter_context(self._status)
                code = self._loop(window, *self._opened(stack), stopped)
        except OSError as error:
            if not self._frames:
                raise
            happened = str(error).rstrip(".")
            print(f"faceattr: {happened}. What was written so far is whole.", file=sys.stderr)
            code = BROKE_OFF
        self._say_what_was_done()
        return code

    def _opened(self, stack: ExitStack) -> tuple[list[VideoFile], list[Timeline]]:
        videos, timelines = [], []
        for path in map(Path, self.outputs.output):
            if path.suffix.lower() in TABLE_SUFFIXES:
                tasks = self.watching.tracker.attributes.tasks
                timelines.append(stack.enter_context(Timeline(path, tasks)))
            else:
                videos.append(stack.enter_context(VideoFile(path, self.watching.feed.rate)))
        return videos, timelines

    def _loop(self, window, videos, timelines, stopped: threading.Event) -> int:
        while not stopped.is_set():
            try:
                moment = None if self._is_paused else self.watching.next(0.02)
            except StopIteration:
                return DONE
            if moment is not None:
                self._take(moment, window, videos, timelines)
            if window is not None and not self._obey(window):
                return DONE
        return INTERRUPTED

    def _take(self, moment: Moment, window, videos, timelines) -> None:
        frame, faces = moment
        self._frames += 1
        self.meter.tick(frame.captured)
        self._tell(frame)
        for timeline in timelines:
            timeline.write(frame, faces)
        if window is None and not videos:
            return
        seen = self.watching.latest
        figures = self.meter.line() if window is not None else ""
        self._drawn = draw_live(frame.image, faces, self.view, figures, seen.lost if seen else ())
        for video in videos:
            video.write(self._drawn, frame.time)
        if window is not None:
            window.show(self._drawn)

    def _tell(self, frame: Frame) -> None:
        """Keep somebody at a terminal without a window informed."""
        if self.outputs.headless and time.monotonic() - self._told > TELL_SECONDS:
            self._status.update(f"second {frame.time:.0f}   {self.meter.line()}")
            self._told = time.monotonic()

    def _obey(self, window: Window) -> bool:
        """Do what the pressed key asks for; False ends the show."""
        key = window.key(0.02 if self._is_paused else 0.001)
        if key in QUIT:
            return False
        if key in SWITCHES:
            name = SWITCHES[key]
            self.view = replace(self.view, **{name: not getattr(self.view, name)})
            self._search_more()
        elif key == " ":
            self._is_paused = not self._is_paused
            (self.watching.pause if self._is_paused else self.watching.resume)()
        elif key == "s" and self._drawn is not None:
            self._save(self._drawn)
        return True

    def _save(self, drawn: np.ndarray) -> None:
        try:
            self._say(f"saved {save_snapshot(drawn, self.outputs.snapshots)}")
        except OSError as error:  # what is being recorded goes on
            self._say(f"no snapshot was saved: {error}")

    def _search_more(self) -> None:
        """While faces are blurred, nothing is shown or written before it has been searched."""
        budget = self._budget.while_blurring() if self.view.blur else self._budget
        self.watching.tracker.budget = budget
        self.watching.only_searched = self.view.blur

    def _say_what_was_done(self) -> None:
        tracks = self.watching.tracker.tracks.count
        self._say(f"{self._frames} frames, {tracks} people; {self.meter.line()}")
        for path in self.outputs.output:
            if Path(path).exists():
                self._say(f"  -> {path}")


@contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or a request to end) sets; a second one stops at once."""
    stopped = threading.Event()

    def interrupt(*_: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
