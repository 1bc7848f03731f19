"""Moving images of any kind behind one contract: camera, video file, stream, folder.

OpenCV reads cameras, `faceattr.images.video` files and streams.
"""

from __future__ import annotations

import math
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic
from typing import Protocol

import cv2
import numpy as np

from faceattr.images.inputs import Inputs
from faceattr.images.load import PathLike, load_image
from faceattr.images.video import CLOSE_SECONDS, RATE, Frame, Video, always, gone

Source = int | PathLike
A_SOURCE = "A source is a camera's number, a video file, a folder of frames or a stream's URL"


class Feed(Protocol):
    """Where frames come from: its name for people, its frames a second, and whether what is not
    taken now is gone (camera, stream).
    """

    name: str
    rate: float
    is_live: bool

    def frames(self, wanted: Callable[[float], bool] = always) -> Iterator[Frame]:
        """The frames in order; those whose second is not `wanted` are passed over undecoded.
        OSError: The source broke off.
        """


@contextmanager
def open_feed(source: Source | Feed, *, rate: float | None = None) -> Iterator[Feed]:
    """Open a camera, a video, a stream or a folder of frames.

    Args:
        source: A camera's number (``0`` or ``"0"``), a video file, a stream's URL
            (``rtsp://``, ``http://`` and so on), a folder of images in the order of their
            names, or a feed of your own.
        rate: Frames a second of a folder.

    Raises:
        FileNotFoundError, OSError: There is no such source, or it is busy.
        ValueError: It cannot be read as moving images.
    """
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"A folder has more than 0 frames a second. Received: {rate}")
    if hasattr(source, "frames"):
        yield source  # type: ignore[misc]
        return
    if not isinstance(source, int | str | os.PathLike):
        raise ValueError(f"{A_SOURCE}. Received: {type(source).__name__}")
    name = os.fspath(source) if not isinstance(source, int) else str(source)
    if os.path.isdir(name):
        yield _Folder(name, RATE if rate is None else rate)
        return
    with closing(_open(name)) as feed:
        yield feed


def is_live(source: Source | Feed) -> bool:
    """Whether a source is a camera or a stream, found out without opening it."""
    if hasattr(source, "frames"):
        return bool(source.is_live)  # type: ignore[union-attr]
    return str(source).isdecimal() or _is_url(str(source))


def _is_url(name: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]+://", name, re.IGNORECASE) is not None


def _open(name: str) -> _Camera | Video:
    if name.isdecimal():
        # OpenCV adds no lines of its own to the one sentence about a bad camera.
        loud = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            return _Camera(int(name))
        finally:
            cv2.utils.logging.setLogLevel(loud)
    if not _is_url(name) and not os.path.exists(name):
        raise FileNotFoundError(f"There is no video {name}. {A_SOURCE}.")
    return Video(name, is_live=_is_url(name))


def cameras_of() -> list[int] | None:
    """The numbers of this machine's cameras; None where the system does not tell unopened."""
    if not sys.platform.startswith("linux"):
        return None
    return sorted(int(path.name[5:]) for path in Path("/dev").glob("video[0-9]*"))


def why_not_permitted(number: int) -> str:
    """What permits a camera of Linux to this user; empty where it is permitted."""
    if os.access(f"/dev/video{number}", os.R_OK | os.W_OK):
        return ""
    return "`sudo usermod -aG video $USER` and a new login permit it."


def _why_no_camera(number: int) -> str:
    if not sys.platform.startswith("linux"):
        return (
            f"Camera {number} cannot be opened: there is none, another program uses it, or "
            "the system's privacy settings forbid it."
        )
    if number not in (found := cameras_of() or []):
        there = f"there are {', '.join(map(str, found))}" if found else "this machine has none"
        return f"There is no camera {number}; {there}. A video file or a stream will do as well."
    if cure := why_not_permitted(number):
        return f"Camera {number} may not be used by this user; {cure}"
    return f"Camera {number} cannot be opened: another program uses it, or it is no camera."


class _Camera:
    """What OpenCV opens by its number."""

    is_live = True

    def __init__(self, number: int) -> None:
        self.name, self.video = f"camera {number}", cv2.VideoCapture(number)
        if not self.video.isOpened():
            raise OSError(_why_no_camera(number))
        # Uncompressed, most USB cameras reach 10 frames/s at this size; a driver that cannot do
        # one of these keeps what it has.
        self.video.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        self.video.set(cv2.CAP_PROP_FRAME_WIDTH, 1280)
        self.video.set(cv2.CAP_PROP_FRAME_HEIGHT, 720)
        self.video.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        rate = self.video.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 1 <= rate <= 240 else RATE
        self._reading = threading.Lock()

    def frames(self, wanted: Callable[[float], bool] = always) -> Iterator[Frame]:
        start, number = monotonic(), 0
        while self._grab():
            second = monotonic() - start
            if wanted(second):
                readable, image = self.video.retrieve()
                if readable:
                    yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), number, second)
            number += 1
        raise gone(self.name, number)

    def _grab(self) -> bool:
        with self._reading:
            return bool(self.video.grab())

    def close(self) -> None:
        # OpenCV crashes when a capture is released under a thread that waits for an image;
        # one that waits for ever keeps it until the process ends.
        if self._reading.acquire(timeout=CLOSE_SECONDS):
            self.video.release()
            self._reading.release()


class _Folder:
    """The images of a folder as frames."""

    is_live = False

    def __init__(self, folder: str, rate: float) -> None:
        self.name, self.rate = folder, rate
        self._paths = [file.path for file in Inputs(folder) if not file.is_video]
        if not self._paths:
            raise ValueError(f"There are no images in {folder}.")

    def frames(self, wanted: Callable[[float], bool] = always) -> Iterator[Frame]:
        for number, path in enumerate(self._paths):
            if wanted(number / self.rate):
                yield Frame(self._image(path), number, number / self.rate)

    @staticmethod
    def _image(path: str) -> np.ndarray:
        try:
            return load_image(path)
        except ValueError as error:
            raise OSError(str(error)) from error
