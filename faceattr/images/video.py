"""Frames of video files and network streams, by the clock of their container.

FFmpeg reads them, through PyAV; cameras are in `faceattr.images.camera`.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import chain
from time import monotonic
from typing import Any

# Before av: loaded after it, OpenCV's windows take av's copy of libxcb and hang for ever.
import cv2  # isort: skip
import av
import av.error
import numpy as np

from faceattr.images.load import PathLike

RATE = 25.0  # of a folder of frames, and of a source that does not say
OPEN_SECONDS, SILENT_SECONDS, CLOSE_SECONDS = 10, 10, 2
# A container may promise so many frames more than it has; what misses more broke off.
SPARE_FRAMES = 5
# Beyond this distance it is cheaper to seek than to decode on.
SEEK_SECONDS = 5.0
RESTART = 0.5  # seconds that a clock goes back where it begins anew
WIDEST = 4  # as wide as high that a pixel may be: more is no video's, but a damaged file's


@dataclass(frozen=True)
class Frame:
    """One image of a moving one, RGB ``uint8`` ``(height, width, 3)``.

    Args:
        number: Counted from 0 in the source; frames that were passed over are counted, too.
        time: Seconds since the source began.
        captured: When it was read, in seconds of `time.monotonic`.
    """

    image: np.ndarray
    number: int
    time: float
    captured: float = field(default_factory=monotonic)


class BrokenOff(OSError):
    """A video ends before its container says so, at `second`."""

    def __init__(self, name: str, second: float, expected: float) -> None:
        super().__init__(f"{name}: breaks off after {second:.1f} of {expected:.1f} s")
        self.second = round(second, 3)


def frames(
    path: PathLike, every: float = 1.0, start: float = 0.0
) -> Iterator[tuple[float, np.ndarray]]:
    """Take frames out of a video file at even distances.

    Args:
        path: A file that FFmpeg reads; its rotation is applied.
        every: Seconds between two frames; 0 gives every frame. Where a video has no frame for
            longer, none is made up.
        start: Frames before this second are passed over.

    Yields:
        Seconds from the beginning, by the container's clock, and an RGB ``uint8`` frame
        ``(height, width, 3)``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No frame could be read.
        BrokenOff: The file ends too early.
    """
    with closing(Video(path)) as video:
        half_a_frame, taken = 0.5 / video.rate, -1

        def is_due(second: float) -> bool:
            nonlocal taken
            place = math.floor((second + half_a_frame) / every) if every else taken + 1
            is_next, taken = place > taken, max(place, taken)
            return is_next and second + 1e-6 >= start

        for frame in video.frames(is_due):
            yield round(frame.time, 3), frame.image


def frames_at(path: PathLike, seconds: Iterable[float]) -> Iterator[tuple[float, np.ndarray]]:
    """The frames that `frames` gave at these seconds, in order, without decoding all between them;
    none for a second past the end.
    """
    with closing(Video(path)) as video:
        here, timed = 0.0, video.timed()
        for wanted in sorted(set(seconds)):
            is_far = wanted > here + SEEK_SECONDS and video.can_seek
            if wanted < here or is_far:
                timed = video.timed_from(wanted)
            for here, decoded in timed:
                # Times in a table are rounded to milliseconds.
                if here + 0.001 >= wanted:
                    yield wanted, _as_shown(decoded, video.aspect)
                    break


def always(second: float) -> bool:
    return True


def gone(name: str, count: int) -> OSError:
    """What to raise when a camera or stream that never ends has ended after `count` frames."""
    return OSError(
        f"{name} gives no more images: it was unplugged or broke off after {count} frames."
    )


class Video:
    """A video file, or the URL of a live stream, of which what is not taken now is gone.

    Raises:
        OSError: There is no such file, or the stream does not answer.
        ValueError: The file is no video.
    """

    def __init__(self, source: PathLike, is_live: bool = False) -> None:
        self.name, self.is_live = os.fspath(source), is_live
        self._reading = threading.Lock()
        self._is_closed = False
        if not is_live:
            with open(self.name, "rb"):
                pass
        self._open()
        rates = (self._stream.guessed_rate, self._stream.average_rate)
        self.rate = next((float(rate) for rate in rates if rate and 1 <= rate <= 240), RATE)

    def frames(self, wanted: Callable[[float], bool] = always) -> Iterator[Frame]:
        """As `faceattr.images.camera.Feed.frames`."""
        start, number, end = monotonic(), 0, 0.0
        for second, decoded in self.timed():
            length = float((decoded.duration or 0) * (decoded.time_base or 0)) or 1 / self.rate
            end = max(end, second + length)
            second = monotonic() - start if self.is_live else second
            if wanted(second):
                yield Frame(_as_shown(decoded, self.aspect), number, second)
            number += 1
        self._must_be_the_end(number, end)

    def close(self) -> None:
        # FFmpeg crashes when it is closed under a thread that waits for an image; one that
        # waits longer than this is ended by its own time-out.
        if self._reading.acquire(timeout=CLOSE_SECONDS):
            self._is_closed = True
            self._container.close()
            self._reading.release()

    def _open(self) -> None:
        # An absolute path, because FFmpeg takes what stands before a colon for a protocol.
        address = self.name if self.is_live else os.path.abspath(self.name)
        is_rtsp = self.is_live and self.name.lower().startswith("rtsp")
        options = {"rtsp_transport": "tcp"} if is_rtsp else {}  # UDP loses packets, faces smear
        timeout = (OPEN_SECONDS, SILENT_SECONDS) if self.is_live else None
        container: Any = None
        stream: Any = None
        with suppress(av.error.FFmpegError):
            container = av.open(address, options=options, timeout=timeout)
            stream = container.streams.best("video")
        if stream is None:
            if container is not None:  # of sound alone
                container.close()
            raise self._no_video()
        if not self.is_live:
            stream.thread_type = "AUTO"  # by frames, too, which delays a live image
        self._container, self._stream = container, stream
        # Read here: a stream of a closed container is no more.
        self.aspect = stream.sample_aspect_ratio
        # As players count: what lies before 0 is not shown.
        self._origin = max(0.0, (self._container.start_time or 0) / av.time_base)
        self._heard = 0.0

    def _no_video(self) -> Exception:
        if self.is_live:
            return OSError(
                f"The stream {self.name} does not answer within {OPEN_SECONDS} s, or is none "
                "that FFmpeg reads."
            )
        return ValueError(
            f"{self.name}: not a video that FFmpeg reads, or it breaks off before its first frame"
        )

    def timed(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """The decoded frames from here on with their seconds."""
        every, second, shift = self._decoded(), -1 / self.rate, 0.0
        while True:
            with self._reading:
                decoded = None if self._is_closed else next(every, None)
            if decoded is None:
                return
            stamp = decoded.pts if decoded.pts is not None else decoded.dts
            before = second
            if stamp is None or decoded.time_base is None:
                second += 1 / self.rate
            else:
                second = max(0.0, float(stamp * decoded.time_base) - self._origin) + shift
            if second < before - RESTART:  # of two files that were joined
                shift += before + 1 / self.rate - second
                second = before + 1 / self.rate
            yield second, decoded

    def timed_from(self, second: float) -> Iterator[tuple[float, av.VideoFrame]]:
        """Decoded frames from a second on, or from a little before; from the start where there is
        no seeking.
        """
        try:
            # A second earlier, for the frames that depend on a keyframe may stand before it.
            target = (max(0.0, second - 1) + self._origin) / self._stream.time_base
            self._container.seek(int(target), stream=self._stream)
            timed = self.timed()
            first = next(timed, None) if self.can_seek else None
        except av.error.FFmpegError:
            first = None
        if first is not None and first[0] <= second + 0.001:
            return chain([first], timed)
        self._container.close()
        self._open()
        return self.timed()

    @cached_property
    def can_seek(self) -> bool:
        """Whether each second is one place: not where the clock begins anew, as in recordings that
        were joined. Nothing is decoded for it.
        """
        if not self._container.format.name.startswith("mpeg"):
            return True
        before = -math.inf
        with suppress(av.error.FFmpegError), av.open(os.path.abspath(self.name)) as whole:
            for packet in whole.demux(whole.streams.best("video")):
                if packet.dts is not None and packet.time_base is not None:
                    second = float(packet.dts * packet.time_base)
                    if second < before - RESTART:
                        return False
                    before = second
        return True

    def _decoded(self) -> Iterator[av.VideoFrame]:
        try:
            for packet in self._container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    self._heard = max(self._heard, float(end) - self._origin)
                if packet.stream_index == self._stream.index:
                    with suppress(av.error.FFmpegError):  # what follows a damaged spot may be whole
                        yield from packet.decode()  # type: ignore[misc]
        except av.error.FFmpegError:  # the end, which `_must_be_the_end` judges
            return

    def _must_be_the_end(self, count: int, end: float) -> None:
        if self._is_closed:
            return
        if self.is_live:
            raise gone(self.name, count)
        if count == 0:
            raise self._no_video()
        stream = self._stream
        if stream.duration and stream.time_base:
            expected = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
            reached = end
        else:
            # Some containers only know how long the longest of sound and images is.
            whole = self._container
            # Matroska counts its duration from 0, whenever the first frame is.
            start = 0 if "matroska" in whole.format.name else whole.start_time or 0
            expected = (start + (whole.duration or 0)) / av.time_base
            reached = max(end, self._heard)
        if reached + SPARE_FRAMES / self.rate < expected - self._origin:
            raise BrokenOff(self.name, end, expected - self._origin)


def _as_shown(decoded: av.VideoFrame, aspect: Fraction | None) -> np.ndarray:
    """A decoded frame as RGB ``uint8``, as players show it: `aspect` is how wide its pixels are,
    and the container says how it is turned and mirrored.
    """
    image: Any = decoded.to_ndarray(format="rgb24")
    if aspect and aspect != 1 and 1 / WIDEST <= aspect <= WIDEST:
        width = max(1, round(image.shape[1] * aspect))
        image = cv2.resize(image, (width, image.shape[0]), interpolation=cv2.INTER_LINEAR)
    if (matrix := decoded.side_data.get("DISPLAYMATRIX")) is None:
        return image
    # x' = a x + c y and y' = b x + d y, in 65,536ths.
    a, b, _, c, d = np.frombuffer(matrix, "int32")[:5]  # type: ignore[call-overload]
    if abs(b) > abs(a):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
