"""Faces in moving pictures: ``for frame, faces in live.watch(0): ...``.

Capture, tracking and whoever draws go each at their own pace. A thread reads frames and
keeps only the newest, another takes whichever is newest when it is ready, and the caller
gets every new frame at once, with the newest answers propagated to where the faces are now.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
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
        """A value newer than the `count`-th with its own count; None after `timeout` seconds.

        Raises:
            StopIteration: There will be none.
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
            self.is_ended = True
            self._error = self._error or error
            self._changed.notify_all()


class PlaybackClock:
    """Seconds since the first frame, standing still while paused."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._paused_at: float | None = None
        self._stopped = False
        self._changed = threading.Condition()

    @property
    def is_paused(self) -> bool:
        return self._paused_at is not None

    def now(self) -> float:
        if self._start is None:
            return 0.0
        return (self._paused_at or time.monotonic()) - self._start

    def pause(self) -> None:
        with self._changed:
            self._paused_at = self._paused_at or time.monotonic()

    def resume(self) -> None:
        with self._changed:
            if self._paused_at is not None and self._start is not None:
                self._start += time.monotonic() - self._paused_at
            self._paused_at = None
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait_until(self, second: float) -> None:
        with self._changed:
            if self._start is None:
                self._start = time.monotonic() - second
            while not self._stopped and (self.is_paused or self.now() < second):
                self._changed.wait(None if self.is_paused else second - self.now())


METER_SECONDS = 2.0


class FpsMeter:
    """How fast it goes: frames shown and analysed a second, how late picture and answers are."""

    def __init__(self, watching: Watch) -> None:
        self._watching = watching
        self._ticks: deque[tuple[float, int]] = deque()  # moment, frames analysed until then
        self._picture = 0.0
        self._answer = 0.0
        self._last_update = -1

    def tick(self, captured: float) -> None:
        """Count a frame that is being shown, captured at that moment of `time.monotonic`."""
        now = time.monotonic()
        self._ticks.append((now, self._watching.updates))
        while now - self._ticks[0][0] > METER_SECONDS:
            self._ticks.popleft()
        self._picture = 0.9 * self._picture + 0.1 * (now - captured)
        latest = self._watching.latest
        if latest is not None and latest.number != self._last_update:
            late = now - latest.captured
            self._answer = late if self._last_update < 0 else 0.8 * self._answer + 0.2 * late
            self._last_update = latest.number

    @property
    def frames_per_second(self) -> float:
        """Frames shown, over the last two seconds."""
        return self._per_second(len(self._ticks) - 1)

    @property
    def updates_per_second(self) -> float:
        """Frames analysed, over the last two seconds."""
        return self._per_second(self._ticks[-1][1] - self._ticks[0][1] if self._ticks else 0)

    def _per_second(self, count: int) -> float:
        spent = self._ticks[-1][0] - self._ticks[0][0] if self._ticks else 0.0
        return count / spent if spent else 0.0

    def line(self) -> str:
        """All of it in one line."""
        detector = self._watching.tracker.attributes.detector.provenance["name"]
        return (
            f"{self.frames_per_second:.0f} frames/s   {self.updates_per_second:.0f} looks/s   "
            f"picture {1000 * self._picture:.0f} ms   answers {1000 * self._answer:.0f} ms   "
            f"{detector}"
        )


LATE = 0.05  # a file's frame that is later than this is passed over without decoding it
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
    opening = open_feed(source, rate=rate)
    feed = opening.__enter__()
    try:
        tracker = FaceTracker(attributes or FaceAttributes.load(), budget, smoothing)
    except BaseException:
        opening.__exit__(None, None, None)
        raise
    kind = Watch if (every_frame if every_frame is not None else not live) else LiveWatch
    return kind(feed, tracker, opening)


class Watch:
    """Every frame of a source in order, each with its own answers.

    `feed` is what is watched, `latest` what was last known of a frame. Whoever hides faces sets
    `only_searched`: then no frame is given before faces have been searched in it itself, however
    late it is.
    """

    def __init__(self, feed: Feed, tracker: FaceTracker, opening) -> None:
        self.feed = feed
        self.tracker = tracker
        self.latest: FrameResult | None = None
        self.updates = 0  # frames analysed
        self.only_searched = False
        self._is_held = False
        self._opening = opening
        self._frames: Iterator[Frame] | None = None

    def __iter__(self) -> Iterator[Moment]:
        try:
            yield from iter(self.__next__, None)
        finally:
            if not self._is_held:
                self.close()

    def __next__(self) -> Moment:
        try:
            moment = self.next()
            while moment is None:
                moment = self.next()
        except BaseException:
            self.close()
            raise
        return moment

    def next(self, timeout: float = 1.0) -> Moment | None:
        """The next frame, or None if there is none within `timeout` seconds.

        Raises:
            StopIteration: The source has ended.
            OSError: The source broke off.
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
        """Give the source back."""
        self._opening.__exit__(None, None, None)

    def __enter__(self) -> Watch:
        self._is_held = True
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LiveWatch(Watch):
    """The newest frame of a source with the newest answers: late rather than slow."""

    def __init__(self, feed: Feed, tracker: FaceTracker, opening) -> None:
        super().__init__(feed, tracker, opening)
        self._newest: LatestValue[Frame] = LatestValue()
        self._known: LatestValue[tuple[Frame, FrameResult]] = LatestValue()
        self._clock = PlaybackClock()
        self._given = self._searched = 0  # as `LatestValue` counts them
        self._last = -1  # the number of the frame that was given last
        self._is_warm = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=(work, place), daemon=True)
            for work, place in ((self._capture, self._newest), (self._track, self._known))
        ]
        for thread in self._threads:
            thread.start()

    def next(self, timeout: float = 1.0) -> Moment | None:
        self._known.raise_error()
        moment = (self._next_searched if self.only_searched else self._next_frame)(timeout)
        if moment is None:
            self._must_not_be_silent()
        elif moment[0].number > self._last:
            self._last = moment[0].number
            return moment
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

    def _next_searched(self, timeout: float) -> Moment | None:
        try:
            taken = self._known.after(self._searched, timeout)
        except StopIteration:
            self._newest.raise_error()
            raise
        if taken is None:
            return None
        self._searched, (frame, result) = taken
        if not result.is_searched:  # it was taken before somebody wished to hide faces
            return None
        self.latest = result
        return frame, result.faces

    def _must_not_be_silent(self) -> None:
        silent = time.monotonic() - self._newest.moment
        is_waiting = self._clock.is_paused or not self._is_warm.is_set()
        if silent > SILENT_SECONDS and not is_waiting:
            raise OSError(f"{self.feed.name} has given no picture for {silent:.0f} s.")

    def pause(self) -> None:
        self._clock.pause()

    def resume(self) -> None:
        self._clock.resume()

    def close(self) -> None:
        self._newest.end()
        self._is_warm.set()
        self._clock.stop()
        for thread in self._threads:
            thread.join(timeout=2)
        super().close()

    def _guarded(self, work: Callable[[], None], place: LatestValue) -> None:
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
            self._is_warm.wait()  # a file can wait for the model, a camera's picture need not
        wanted = always if self.feed.is_live else self._in_time
        for frame in self.feed.frames(wanted):
            if self._newest.is_ended:
                return
            if not self.feed.is_live:
                self._clock.wait_until(frame.time)
            self._newest.put(frame)

    def _in_time(self, second: float) -> bool:
        return self._newest.is_ended or self._clock.now() <= second + LATE

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
