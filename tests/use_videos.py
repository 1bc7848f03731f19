"""Videos for tests: written as they shall be, read by OpenCV; and a camera without hardware."""

from __future__ import annotations

from fractions import Fraction

import cv2

import av  # isort: skip
import numpy as np

from faceattr.live.outputs import VideoFile


def record(path, images, rate=25.0):
    """A video as `faceattr live` writes one."""
    with VideoFile(path, rate) as video:
        for number, image in enumerate(images):
            video.write(image, number / rate)
    return path


def write_video(path, images, times=None, sound=None, aspect=None, **how):
    """H.264 of frames at these seconds, by default 25 a second, with seconds of sound; `aspect` is
    how wide a pixel is."""
    tick = Fraction(1, 90_000)
    with av.open(str(path), "w", options=how) as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "10", "bf": "0"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", 5
        stream.codec_context.time_base = tick
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if sound:
            _add_sound(file, sound)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = round((times[number] if times else number / 25) / tick)
            frame.time_base = tick
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def write_sound(path, seconds=2):
    """A "video" that has sound alone."""
    with av.open(str(path), "w") as file:
        _add_sound(file, seconds)
    return path


def _add_sound(file, seconds):
    stream = file.add_stream("aac", rate=8000)
    stream.layout = "mono"
    silence = av.AudioFrame.from_ndarray(
        np.zeros((1, round(8000 * seconds)), np.float32), "fltp", "mono"
    )
    silence.sample_rate = 8000
    fifo = av.AudioFifo()
    fifo.write(silence)
    for frame in fifo.read_many(1024, partial=True):
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def frames_of(path):
    """RGB ``uint8`` images."""
    video, images = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        images.append(read[1][:, :, ::-1])
    return images


class FakeCamera:
    """Stands for `cv2.VideoCapture`: gives five pictures, then is unplugged."""

    left = 5

    def __init__(self, *_):
        pass

    def isOpened(self):
        return True

    def set(self, *_):
        return False

    def get(self, _):
        return 0.0

    def grab(self):
        self.left -= 1
        return self.left >= 0

    def retrieve(self):
        return True, np.full((48, 64, 3), (250, 0, 0), np.uint8)

    def release(self):
        self.is_released = True
