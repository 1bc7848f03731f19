"""Faces in moving images: ``for frame, faces in live.watch(0): ...``.

Capture, tracking and whoever draws go each at their own pace. A thread reads frames and
keeps only the newest, another takes whichever is newest when it is ready, and the caller
gets every new frame at once, with the newest answers propagated to where the faces are now.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Generic, TypeVar

from faceattr.images.camera import Feed, Source, is_live, open_feed
from faceattr.images.video import SILENT_SECONDS, Frame, always
from faceattr.inference.predictor import FaceAttributes
from faceattr.live.face_tracker import FaceTracker, FrameResult, InferenceBudget
from faceattr.live.tracking import LiveFace, Smoothing

T = TypeVar("T")


class LatestValue(Generic[T]):
    """A place for one value that a thread replaces and others wait for."""

    def __init__(self) -> None:
        self.value: T | None = None
        self.moment = time.monotonic()
        self.is_ended = False
        self._count = 0
        self._error: Exception | None = None
        self._changed = threading.Condition()

    def put(self, value: T) -> None:
        with self._changed:
            self.value, self.moment = value, time.monotonic()
            self._count += 1
            self._changed.notify_all()

    def after(self, count: int, timeout: float) -> tuple[int, T] | None:
        """A value newer than the `count`-th with its own count; None after `timeout` seconds;
        StopIteration where there will be none.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._count > count or self.is_ended, timeout)
            if self._count > count and self.value is not None:
                return self._count, self.value
            self.raise_error()
            if self.is_ended:
                raise StopIteration
            return None

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def end(self, error: Exception | None = None) -> None:
        with self._changed:
            self.is_ended, self._error = True, self._error or error
            self._changed.notify_all()


class PlaybackClock:
    """Seconds since the first frame, standing still while paused."""

    _start: float | None = None
    _paused_at: float | None = None

    @property
    def is_paused(self) -> bool:
        return self._paused_at is not None

    def start(self, second: float) -> None:
        if self._start is None:
            self._start = time.monotonic() - second

    def now(self) -> float:
        if self._start is None:
            return 0.0
        return (self._paused_at or time.monotonic()) - self._start

    def pause(self) -> None:
        self._paused_at = self._paused_at or time.monotonic()

    def resume(self) -> None:
        if self._paused_at is not None and self._start is not None:
            self._start += time.monotonic() - self._paused_at
        self._paused_at = None


METER_SECONDS = 2.0


class FpsMeter:
    """How fast it goes over the last two seconds, and how late images and answers are."""

    def __init__(self, watching: Watch) -> None:
        self._watching = watching
        self._ticks: deque[tuple[float, int]] = deque()  # moment, frames analysed until then
        self._image_delay = self._answer_delay = 0.0
        self._last_update = -1

    def tick(self, captured: float) -> None:
        """Count a frame that is being shown, captured at that moment of `time.monotonic`."""
        now = time.monotonic()
        self._ticks.append((now, self._watching.updates))
        while now - self._ticks[0][0] > METER_SECONDS:
            self._ticks.popleft()
        self._image_delay = 0.9 * self._image_delay + 0.1 * (now - captured)
        latest = self._watching.latest
        if latest is not None and latest.number != self._last_update:
            late = now - latest.captured
            is_first = self._last_update < 0
            self._answer_delay = late if is_first else 0.8 * self._answer_delay + 0.2 * late
            self._last_update = latest.number

    def line(self) -> str:
        ticks = self._ticks or [(0.0, 0)]
        spent = ticks[-1][0] - ticks[0][0] or math.inf
        shown, analysed = (len(ticks) - 1) / spent, (ticks[-1][1] - ticks[0][1]) / spent
        return (
            f"{shown:.0f} frames/s   {analysed:.0f} looks/s   "
            f"image {1000 * self._image_delay:.0f} ms   "
            f"answers {1000 * self._answer_delay:.0f} ms   "
            f"{self._watching.tracker.attributes.detector.provenance['name']}"
        )


TICK = 0.02  # seconds after which a waiting file looks at the clock again
LATE = 0.05  # seconds; a file's frame that is later than this is passed over undecoded
Moment = tuple[Frame, tuple[LiveFace, ...]]


def watch(
    source: Source | Feed,
    attributes: FaceAttributes | None = None,
    *,
    every_frame: bool | None = None,
    rate: float | None = None,
    budget: InferenceBudget | None = None,
    smoothing: Smoothing | None = None,
) -> Watch:
    """Watch faces in a camera, a video file, a stream or a folder of frames.

    Args:
        source: As for `faceattr.images.camera.open_feed`: ``0``, ``"clip.mp4"``,
            ``"rtsp://..."``, ``"frames/"``.
        attributes: Detector and model, by default `FaceAttributes.load()`.
        every_frame: Give every frame in order, however long it takes, with its own answers;
            else go with the clock and drop frames rather than fall behind. By default the
            former for files, the latter for cameras and streams.
        rate: Frames a second of a folder.
        budget: How much is done for a frame.
        smoothing: How a track's answers are averaged.

    Returns:
        An iterator of ``(frame, faces)``: `frame.image` is RGB ``uint8``, each face a
        `LiveFace` with its track number and averaged answers. It closes the source at its
        end and when a loop over it is left; held by ``with``, at the end of that.

    Raises:
        OSError, ValueError: The source cannot be opened (now) or breaks off (while iterating).
    """
    live = is_live(source)
    if live and every_frame:
        raise ValueError(f"{source} goes on by itself: it cannot wait until a frame is done.")
    with ExitStack() as stack:
        feed = stack.enter_context(open_feed(source, rate=rate))
        tracker = FaceTracker(attributes or FaceAttributes.load(), budget, smoothing)
        kind = LiveWatch if every_frame is False or live else Watch
        return kind(feed, tracker, stack.pop_all())


class Watch:
    """Every frame of a source in order, each with its own answers.

    `feed` is what is watched, `latest` what was last known of a frame. Whoever hides faces sets
    `only_detected`: then no frame is given before the detector has seen it itself, however late
    it is.
    """

    def __init__(self, feed: Feed, tracker: FaceTracker, opened: ExitStack) -> None:
        self.feed, self.tracker = feed, tracker
        self.latest: FrameResult | None = None
        self.updates = 0  # frames analysed
        self.only_detected = False
        self._is_held = False
        self._opened = opened
        self._frames: Iterator[Frame] | None = None

    def __iter__(self) -> Iterator[Moment]:
        try:
            yield from iter(self.__next__, None)
        finally:
            if not self._is_held:
                self.close()

    def __next__(self) -> Moment:
        try:
            while (moment := self.next()) is None:
                pass
        except BaseException:
            self.close()
            raise
        return moment

    def next(self, timeout: float = 1.0) -> Moment | None:
        """The next frame, or None if there is none within `timeout` seconds; StopIteration where
        the source has ended, OSError where it broke off.
        """
        if self._frames is None:
            self.tracker.warm_up()
            self._frames = self.feed.frames()
        frame = next(self._frames)
        self.latest = self.tracker.update(frame)
        self.updates += 1
        return frame, self.latest.faces

    def pause(self) -> None:
        """Let the source wait."""

    def resume(self) -> None:
        """Go on after `pause`."""

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Watch:
        self._is_held = True
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LiveWatch(Watch):
    """The newest frame of a source with the newest answers: late rather than slow."""

    def __init__(self, feed: Feed, tracker: FaceTracker, opened: ExitStack) -> None:
        super().__init__(feed, tracker, opened)
        self._newest: LatestValue[Frame] = LatestValue()
        self._known: LatestValue[tuple[Frame, FrameResult]] = LatestValue()
        self._clock = PlaybackClock()
        self._given = self._detected = 0  # as `LatestValue` counts them
        self._last = -1  # the number of the frame that was given last
        self._is_warm = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(work, place), daemon=True)
            for work, place in ((self._capture, self._newest), (self._track, self._known))
        ]
        for thread in self._threads:
            thread.start()

    def next(self, timeout: float = 1.0) -> Moment | None:
        self._known.raise_error()
        moment = (self._next_detected if self.only_detected else self._next_frame)(timeout)
        if moment is not None and moment[0].number > self._last:
            self._last = moment[0].number
            return moment
        silent = time.monotonic() - self._newest.moment
        # A file's next frame may be due in a minute.
        is_expected = self.feed.is_live and self._is_warm.is_set() and not self._clock.is_paused
        if moment is None and silent > SILENT_SECONDS and is_expected:
            raise OSError(f"{self.feed.name} has given no image for {silent:.0f} s.")
        return None

    def _next_frame(self, timeout: float) -> Moment | None:
        taken = self._newest.after(self._given, timeout)
        if taken is None:
            return None
        self._given, frame = taken
        if self._known.value is None:
            return frame, ()
        self.latest = self._known.value[1]
        return frame, self.latest.faces_in(frame.image, frame.time)

    def _next_detected(self, timeout: float) -> Moment | None:
        try:
            taken = self._known.after(self._detected, timeout)
        except StopIteration:
            self._newest.raise_error()
            raise
        if taken is None:
            return None
        self._detected, (frame, result) = taken
        if not result.is_detected:  # it was taken before somebody wished to hide faces
            return None
        self.latest = result
        return frame, result.faces

    def pause(self) -> None:
        self._clock.pause()

    def resume(self) -> None:
        self._clock.resume()

    def close(self) -> None:
        self._newest.end()
        self._is_warm.set()
        for thread in self._threads:
            thread.join(timeout=2)
        super().close()

    def _work(self, work: Callable[[], None], place: LatestValue) -> None:
        failure = None
        try:
            work()
        except StopIteration:
            pass
        except Exception as error:  # handed to whoever iterates
            failure = error
        place.end(failure)

    def _capture(self) -> None:
        if not self.feed.is_live:
            self._is_warm.wait()  # a file can wait for the model, a camera cannot

        def in_time(second: float) -> bool:
            return self._newest.is_ended or self._clock.now() <= second + LATE

        for frame in self.feed.frames(always if self.feed.is_live else in_time):
            if self._newest.is_ended:
                return
            if not self.feed.is_live:
                self._wait_until(frame.time)
            self._newest.put(frame)

    def _wait_until(self, second: float) -> None:
        self._clock.start(second)
        while not self._newest.is_ended:
            early = second - self._clock.now()
            if early <= 0 and not self._clock.is_paused:
                return
            time.sleep(min(early, TICK) if early > 0 else TICK)

    def _track(self) -> None:
        try:
            self.tracker.warm_up()
        finally:
            self._newest.moment = time.monotonic()
            self._is_warm.set()
        number = 0
        while not self._newest.is_ended:
            taken = self._newest.after(number, 0.2)
            if taken is not None:
                number, frame = taken
                self._known.put((frame, self.tracker.update(frame)))
                self.updates += 1
