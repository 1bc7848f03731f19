"""Faces in moving pictures: ``for frame, faces in live.watch(0): ...``.

Capture, recognition and whoever draws go each at their own pace. A thread reads frames and
keeps only the newest, another looks at whichever is newest when it is ready, and the caller
gets every new frame at once, with the newest answers carried on to where the faces are now.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from faceattr.images.camera import Feed, Source, is_live, open_feed
from faceattr.images.video import SILENT_SECONDS, Frame, always
from faceattr.inference.predictor import FaceAttributes
from faceattr.live.face_tracker import Effort, Recogniser, Seen
from faceattr.live.newest import Clock, Newest
from faceattr.live.tracking import LiveFace, Settling

LATE = 0.05  # a file's frame that is later than this is passed over without decoding it
Moment = tuple[Frame, tuple[LiveFace, ...]]


def watch(
    source: Source | Feed,
    attributes: FaceAttributes | None = None,
    *,
    every_frame: bool | None = None,
    rate: float | None = None,
    effort: Effort | None = None,
    settling: Settling | None = None,
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
        effort: How much is done for a frame.
        settling: How a track's answers are averaged.

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
        recogniser = Recogniser(attributes or FaceAttributes.load(), effort, settling)
    except BaseException:
        opening.__exit__(None, None, None)
        raise
    kind = Watch if (every_frame if every_frame is not None else not live) else LiveWatch
    return kind(feed, recogniser, opening)


class Watch:
    """Every frame of a source in order, each with its own answers.

    `feed` is what is watched, `seen` what was last known of a frame. Whoever hides faces sets
    `only_searched`: then no frame is given before faces have been searched in it itself, however
    late it is.
    """

    def __init__(self, feed: Feed, recogniser: Recogniser, opening) -> None:
        self.feed = feed
        self.recogniser = recogniser
        self.seen: Seen | None = None
        self.looks = 0  # frames looked at
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

    def next(self, patience: float = 1.0) -> Moment | None:
        """The next frame, or None if there is none within `patience` seconds.

        Raises:
            StopIteration: The source has ended.
            OSError: The source broke off.
        """
        if self._frames is None:
            self.recogniser.warm_up()
            self._frames = self.feed.frames()
        frame = next(self._frames)
        self.seen = self.recogniser.look(frame)
        self.looks += 1
        return frame, self.seen.faces

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

    def __init__(self, feed: Feed, recogniser: Recogniser, opening) -> None:
        super().__init__(feed, recogniser, opening)
        self._newest: Newest[Frame] = Newest()
        self._known: Newest[tuple[Frame, Seen]] = Newest()
        self._clock = Clock()
        self._given = self._searched = 0  # as `Newest` counts them
        self._last = -1  # the number of the frame that was given last
        self._is_warm = threading.Event()
        self._threads = [
            threading.Thread(target=self._guarded, args=(work, place), daemon=True)
            for work, place in ((self._capture, self._newest), (self._recognise, self._known))
        ]
        for thread in self._threads:
            thread.start()

    def next(self, patience: float = 1.0) -> Moment | None:
        self._known.raise_error()
        moment = (self._next_searched if self.only_searched else self._next_frame)(patience)
        if moment is None:
            self._must_not_be_silent()
        elif moment[0].number > self._last:
            self._last = moment[0].number
            return moment
        return None

    def _next_frame(self, patience: float) -> Moment | None:
        taken = self._newest.after(self._given, patience)
        if taken is None:
            return None
        self._given, frame = taken
        if self._known.value is None:
            return frame, ()
        self.seen = self._known.value[1]
        return frame, self.seen.faces_in(frame.image, frame.time)

    def _next_searched(self, patience: float) -> Moment | None:
        try:
            taken = self._known.after(self._searched, patience)
        except StopIteration:
            self._newest.raise_error()
            raise
        if taken is None:
            return None
        self._searched, (frame, seen) = taken
        if not seen.is_searched:  # it was looked at before somebody wished to hide faces
            return None
        self.seen = seen
        return frame, seen.faces

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

    def _guarded(self, work: Callable[[], None], place: Newest) -> None:
        try:
            work()
        except StopIteration:
            place.end()
        except Exception as error:  # handed to whoever iterates
            place.end(error)
        else:
            place.end()

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

    def _recognise(self) -> None:
        try:
            self.recogniser.warm_up()
        finally:
            self._newest.moment = time.monotonic()
            self._is_warm.set()
        number = 0
        while not self._newest.is_ended:
            taken = self._newest.after(number, 0.2)
            if taken is not None:
                number, frame = taken
                self._known.put((frame, self.recogniser.look(frame)))
                self.looks += 1
