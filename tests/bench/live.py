"""How lively the live demo is: python tests/bench/live.py --help

A made camera gives 720p frames of 1, 5 and 20 real faces (scikit-image's astronaut) that move,
30 a second, to the demo and then to the plain loop that detects and describes every frame in order.
Latency is from the moment a frame exists until it has been drawn; of answers until they have been.
`--soak N` looks at N frames instead and prints the memory in between.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator

import cv2
import numpy as np
from skimage import data

from faceattr.images.draw import draw_faces
from faceattr.images.video import Frame
from faceattr.inference.predictor import FaceAttributes
from faceattr.live.overlay import View, draw_live
from faceattr.live.stream import watch

RATE, SIZE = 30.0, (720, 1280)
PLACES = {1: (1, 1), 5: (5, 1), 20: (7, 3)}


def crowd(count: int, frames: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Frames in which `count` faces sway."""
    height, width = size
    columns, rows = PLACES[count]
    side = min(width // columns, height // rows, height // 2)
    portrait = cv2.resize(data.astronaut()[0:260, 90:350], (side, side))
    images = []
    for number in range(frames):
        image = np.full((height, width, 3), (70, 100, 110), np.uint8)
        sway = round(0.05 * side * np.sin(2 * np.pi * number / frames))
        for face in range(count):
            row, column = divmod(face, columns)
            left = min(max(0, column * width // columns + sway), width - side)
            top = row * height // rows
            image[top : top + side, left : left + side] = portrait
        images.append(image)
    return images


class MadeCamera:
    """Goes on whether anybody looks or not."""

    name, rate, is_live = "made camera", RATE, True

    def __init__(self, images: list[np.ndarray], seconds: float) -> None:
        self._images = images
        self._seconds = seconds

    def frames(self, wanted=None) -> Iterator[Frame]:
        start, number = time.monotonic(), 0
        while number / RATE < self._seconds:
            due = start + number / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            image = self._images[number % len(self._images)].copy()
            yield Frame(image, number, number / RATE, due)
            number += 1


def measured(attributes: FaceAttributes, images: list[np.ndarray], seconds: float) -> str:
    """One line about the demo."""
    picture, answers, last, faces_seen = [], [], -1, []
    with watch(MadeCamera(images, seconds + 4), attributes) as watching:
        while watching.latest is None:
            watching.next()
        start, busy, looks = time.monotonic(), time.process_time(), watching.updates
        for frame, faces in watching:
            draw_live(frame.image, faces, View(), "30 frames/s")
            now = time.monotonic()
            picture.append(now - frame.captured)
            faces_seen.append(len(faces))
            if watching.latest.number != last:
                answers.append(now - watching.latest.captured)
                last = watching.latest.number
            if now - start > seconds:
                break
        wall, busy = time.monotonic() - start, time.process_time() - busy
        looks = watching.updates - looks
    return _line(
        "demo", len(picture) / wall, looks / wall, picture, answers, busy / wall, faces_seen
    )


def plain(attributes: FaceAttributes, images: list[np.ndarray], seconds: float) -> str:
    """One line about detecting and describing every frame in order."""
    for image in images[:3]:
        attributes(image)
    late, faces_seen = [], []
    start, busy = time.monotonic(), time.process_time()
    for frame in MadeCamera(images, seconds).frames():
        faces = attributes(frame.image)
        draw_faces(frame.image, faces)
        late.append(time.monotonic() - frame.captured)
        faces_seen.append(len(faces))
        if time.monotonic() - start > seconds:
            break
    wall, busy = time.monotonic() - start, time.process_time() - busy
    rate = len(late) / wall
    return _line("plain", rate, rate, late, late, busy / wall, faces_seen)


def _line(name, shown, looks, picture, answers, busy, faces) -> str:
    def parts(values):
        return " / ".join(f"{1000 * np.percentile(values, p):.0f}" for p in (50, 95, 99))

    return (
        f"{name:6} {np.mean(faces):5.1f} {shown:9.1f} {looks:8.1f}   {parts(picture):>18}   "
        f"{parts(answers):>18} {100 * busy / (os.cpu_count() or 1):6.0f} %"
    )


def memory() -> float:
    """What this process occupies, in MB (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Endless:
    """Frames over and over, as fast as they are taken."""

    name, rate, is_live = "endless", RATE, False

    def __init__(self, images: list[np.ndarray], count: int) -> None:
        self._images, self._count = images, count

    def frames(self, wanted=None) -> Iterator[Frame]:
        for number in range(self._count):
            yield Frame(self._images[number % len(self._images)], number, number / RATE)


def soak(attributes: FaceAttributes, count: int, faces: int) -> None:
    """Look at and draw many frames; prints the memory ten times."""
    images = crowd(faces, 60, (360, 640))
    for frame, found in watch(Endless(images, count), attributes):
        draw_live(frame.image, found, View(bars=frame.number % 2 == 0), f"{frame.number}")
        if frame.number % (count // 10) == count // 10 - 1:
            print(f"{frame.number + 1:7} frames  {memory():7.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="default: the shipped one")
    parser.add_argument("--detector", nargs="+", default=["auto"])
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--faces", type=int, nargs="+", default=[1, 5, 20], choices=list(PLACES))
    parser.add_argument("--soak", type=int, metavar="FRAMES")
    given = parser.parse_args()
    for detector in given.detector:
        attributes = FaceAttributes.load(given.model, detector)
        name = attributes.detector.provenance["name"]
        if given.soak:
            soak(attributes, given.soak, given.faces[0])
            continue
        print(f"\n{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(
            "       faces  frames/s  looks/s   picture p50/95/99 ms   answers p50/95/99 ms     CPU"
        )
        for count in given.faces:
            images = crowd(count, 90)
            print(measured(attributes, images, given.seconds))
            print(plain(attributes, images, given.seconds), flush=True)


if __name__ == "__main__":
    main()
