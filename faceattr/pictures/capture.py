"""Frames of videos."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from faceattr.pictures.reading import PathLike

SECONDS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0}


def frames(
    path: PathLike, every: float = 1.0, start: float = 0.0
) -> Iterator[tuple[float, np.ndarray]]:
    """Take frames out of a video file at even distances.

    Args:
        path: A file that OpenCV's FFmpeg reads; its rotation is applied.
        every: Seconds between two frames; 0 gives every frame.
        start: Frames before this second are passed over.

    Yields:
        Seconds from the beginning and an RGB ``uint8`` frame ``(height, width, 3)``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No frame could be read.
    """
    with open(path, "rb"):
        pass
    with no_other_words():
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        yield from _sampled(video, path, every, start)
    finally:
        video.release()


@contextmanager
def no_other_words() -> Iterator[None]:
    """OpenCV and FFmpeg add no lines of their own to the one sentence about a bad video."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    loud = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(loud)


def _sampled(
    video: cv2.VideoCapture, path: PathLike, every: float, start: float
) -> Iterator[tuple[float, np.ndarray]]:
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    number, wanted = 0, 0.0
    # Counting frames is exact where a container's time stamps are not.
    while video.grab():
        second = number / rate
        number += 1
        if second + 0.5 / rate < wanted:
            continue
        wanted += every
        if second + 1e-6 >= start:
            readable, frame = video.retrieve()
            if readable:
                yield round(second, 3), cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    if number == 0:
        raise ValueError(f"{path}: not a video that OpenCV reads, or one without frames")


def seconds(text: str) -> float:
    """Read a distance in time: ``"1s"``, ``"500ms"``, ``"2min"``, ``"0.5"``.

    Raises:
        ValueError: It is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min|m|)\s*", text)
    if not match:
        raise ValueError(f"A time is written like 1s, 500ms or 2min. Received: {text!r}")
    return float(match[1]) * SECONDS[match[2]]
