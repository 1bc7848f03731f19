"""Where moving images and their answers go: a video file, a timeline."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from PIL import Image, ImageOps

from faceattr.files import refuse_existing, validate_output_path, write_errors
from faceattr.images.load import PathLike
from faceattr.images.video import Frame
from faceattr.live.tracking import LiveFace
from faceattr.tasks import Task, timeline_columns

VIDEO_SUFFIXES, TABLE_SUFFIXES = (".mp4", ".mkv", ".mov"), (".csv",)
FLUSH_SECONDS = 1.0
CODEC = "libx264" if "libx264" in av.codecs_available else "mpeg4"
QUALITY = {"preset": "ultrafast", "crf": "21"} if CODEC == "libx264" else {"qmax": "4"}
# A file in fragments plays up to its last second even when the whole machine stops.
FRAGMENTS = {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}


def validate_output(path: PathLike, overwrite: bool = False) -> None:
    """Raise ValueError or OSError where an output cannot be written or may not be replaced."""
    target = Path(path)
    if target.suffix.lower() not in VIDEO_SUFFIXES + TABLE_SUFFIXES:
        raise ValueError(
            f"An output is a video ({', '.join(VIDEO_SUFFIXES)}) or a timeline (.csv). "
            f"Received: {target}"
        )
    refuse_existing(target, overwrite=overwrite)
    validate_output_path(target)


class VideoFile:
    """An H.264 video at an even rate that plays everywhere, even if it is never finished.

    Args:
        path: Ends in ``.mp4``, ``.mkv`` or ``.mov``; its folder is made.
        rate: Frames a second. Frames that come faster are left out, slower ones repeated.
        gap: Seconds without a frame beyond which the video goes on rather than stands still.
    """

    def __init__(self, path: PathLike, rate: float, gap: float = math.inf) -> None:
        self.path, self._rate, self._gap = Path(path), rate, gap
        self.written = 0
        self._file: Any = None
        self._failure: OSError | None = None
        self._size = (0, 0)
        self._shift = self._last = 0.0

    def write(self, image: np.ndarray, second: float) -> None:
        """Add the frame of a second of the source: RGB ``uint8``, ``(height, width, 3)``.

        One of another size than the first is fitted into it. OSError: It cannot be written.
        """
        with self._reasons():
            if self._file is None:
                self._open(image, second)
            if second - self._last > self._gap:
                self._shift += second - self._last - 1 / self._rate
            self._last = second
            count = round((second - self._shift) * self._rate) + 1 - self.written
            if count > 0:
                self._encode(_fitted(image, self._size), count)

    def _open(self, image: np.ndarray, second: float) -> None:
        # H.264 stores colour for pixels by twos.
        self._size = image.shape[1] // 2 * 2, image.shape[0] // 2 * 2
        self.path.parent.mkdir(parents=True, exist_ok=True)
        form = {".mkv": "matroska"}.get(self.path.suffix.lower(), self.path.suffix.lower()[1:])
        # FFmpeg's own writing keeps a full disk to itself when a fragment is the last one.
        self._disk = open(self.path, "wb")  # noqa: SIM115
        fragments = FRAGMENTS if form != "matroska" else {}
        file = av.open(self._disk, "w", format=form, options={"flush_packets": "1", **fragments})
        rate = Fraction(self._rate).limit_denominator(1001)
        width, height = self._size
        how: dict[str, Any] = {"width": width, "height": height, "pix_fmt": "yuv420p"}
        self._stream: Any = file.add_stream(CODEC, rate, dict(QUALITY), gop_size=50, **how)
        self._file, self._shift, self._last = file, second, second

    def _encode(self, image: np.ndarray, count: int) -> None:
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
        for _ in range(count):
            frame.pts = self.written
            self._file.mux(self._stream.encode(frame))
            self.written += 1
        self._disk.flush()

    @contextmanager
    def _reasons(self) -> Iterator[None]:
        # FFmpeg crashes when it is given more after a failure.
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except (OSError, av.error.FFmpegError) as error:
            self._failure = OSError(f"{self.path} cannot be written: {error.strerror}.")
            raise self._failure from error

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is None:
            return
        if self._failure is not None:
            with suppress(OSError, av.error.FFmpegError), self._disk:  # what failed was told
                self._file.close()
            return
        with self._reasons(), self._disk, self._file:
            self._file.mux(self._stream.encode(None))


def _fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image brought to a size (w, h) without changing its shape; the rest is black."""
    width, height = size
    if image.shape[0] - height in (0, 1) and image.shape[1] - width in (0, 1):
        return np.ascontiguousarray(image[:height, :width])
    return np.array(ImageOps.pad(Image.fromarray(image), size))


class Timeline:
    """A CSV of who showed what when: one row a face and frame.

    Columns: ``time`` (seconds), ``frame``, ``track``, ``x0, y0, x1, y1``, ``detection``, then for
    every task ``<task>``, ``<task>_prob`` and ``<task>:<class>``, averaged over the track.
    """

    def __init__(self, path: PathLike, tasks: Sequence[Task]) -> None:
        self.path, self._tasks = Path(path), tuple(tasks)
        self.rows = 0
        with write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "wb", buffering=0)  # noqa: SIM115
        self._waiting = io.StringIO(newline="")
        self._table = csv.writer(self._waiting, lineterminator="\n")
        self._table.writerow(timeline_columns(tasks))
        self._flushed = time.monotonic()

    def write(self, frame: Frame, faces: Sequence[LiveFace]) -> None:
        self._table.writerows(_row(frame, face, self._tasks) for face in faces)
        self.rows += len(faces)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        """Bring what waits to the disk; where it is full, the last row there is a whole one."""
        lines = self._waiting.getvalue().encode()
        self._waiting.seek(0)
        self._waiting.truncate()
        self._flushed, written = time.monotonic(), 0
        with write_errors(self.path):
            try:
                while written < len(lines):
                    written += self._file.write(lines[written:])
            except OSError:
                torn = written - (lines.rfind(b"\n", 0, written) + 1)
                with suppress(OSError):
                    self._file.truncate(self._file.tell() - torn)
                raise

    def __enter__(self) -> Timeline:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._flush()
        finally:
            self._file.close()


def _row(frame: Frame, face: LiveFace, tasks: Sequence[Task]) -> list[Any]:
    row: list[Any] = [round(frame.time, 3), frame.number, face.track]
    row += [round(v, 1) for v in face.box] + [round(face.score, 4)]
    for task in tasks:
        answer = face[task.name]
        shares = [answer.probability, *map(answer.probabilities.get, task.classes)]
        row += [answer.label, *(None if share is None else round(share, 4) for share in shares)]
    return row


def save_snapshot(image: np.ndarray, folder: PathLike = ".") -> Path:
    """Write an RGB image as ``faceattr-YYYYMMDD-HHMMSS-mmm.png``; returns where it is."""
    stamp = f"{datetime.now():%Y%m%d-%H%M%S-%f}"[:-3]
    path = Path(folder, f"faceattr-{stamp}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        Image.fromarray(image).save(file, "PNG")
    return path
