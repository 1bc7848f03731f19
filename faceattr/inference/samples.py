"""What a labelling job looks at: images, and frames out of videos, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec

import numpy as np

from faceattr.detection.base import Face
from faceattr.images.inputs import InputFile
from faceattr.images.load import PathLike, content_of, reason_of
from faceattr.inference.deaths import DIED, Deaths
from faceattr.inference.schema import by_place


@dataclass(frozen=True)
class Sample:
    """One picture to look at: a file, or a frame that was taken out of a video.

    Args:
        file: The file.
        time: Seconds into a video, None for a picture.
        frame: RGB ``uint8`` ``(h, w, 3)`` of a video, or of an image that is in memory.
        content: Gives what is in the file, or its path; None where `file` says it.
        reason: Why it cannot be read, where that is known already.
    """

    file: InputFile
    time: float | None = None
    frame: np.ndarray | None = None
    content: Callable[[], PathLike | bytes] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Detections:
    """The faces of a sample, in pixels of its full size, and the crops of the large ones."""

    sample: Sample
    faces: tuple[Face, ...] = ()
    crops: tuple[np.ndarray, ...] = ()


def samples_of(
    files: Iterable[InputFile],
    every: float,
    done: Mapping[str, set] | None = None,
    *,
    allow_urls: bool = False,
    deaths: Deaths | None = None,
) -> Iterator[Sample]:
    """The pictures, and the frames of the videos `every` so many seconds.

    What is `done` is left out: by name the times (None for a picture). `deaths` is told which video
    is read; one that it knows as deadly is left unread.
    """
    times_at = by_place(dict(done or {}))
    for file in files:
        finished = times_at.get(os.path.abspath(file.name), set())
        if None in finished:
            continue
        if file.is_video and deaths and deaths.is_deadly(file.name):
            yield Sample(file, reason=DIED)
        elif file.is_video:
            if deaths is not None:
                deaths.note(file.name)
            yield from _frames_of(file, every, finished)
        elif file.is_url:
            fetched = partial(content_of, file.path, allow_urls=allow_urls)
            yield Sample(file, content=cache(fetched))
        else:
            yield Sample(file)


def _frames_of(file: InputFile, every: float, finished: set) -> Iterator[Sample]:
    if find_spec("av") is None:
        yield Sample(file, reason="a video needs the package av, which is not installed")
        return
    # Few jobs have videos, and FFmpeg is large.
    from faceattr.images.video import BrokenOff, frames

    try:
        for second, frame in frames(file.path, every, start=max(finished, default=0.0)):
            if second not in finished:
                yield Sample(file, second, frame)
    except BrokenOff as error:
        if error.second not in finished:
            yield Sample(file, error.second, reason=reason_of(error, file.path))
    except (OSError, ValueError) as error:
        yield Sample(file, reason=reason_of(error, file.path))
