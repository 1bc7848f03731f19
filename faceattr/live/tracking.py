"""Faces that keep their number, and one smoothed answer a track.

A track is followed from detection to detection by where it is, where it was going and what
it looks like. Between detections its box is propagated (`faceattr.live.face_tracker`).

Measured with `tests/bench/tracking.py` on 84 synthetic videos (identity switches, numbers that two
people share, seconds lost): this 48, 12, 86; SORT 392, 31, 103; ByteTrack 82, 26, 105; OC-SORT 344,
26, 96; BoT-SORT 344, 18, 103; C-BIoU 56, 27, 96.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from faceattr.detection.base import Face
from faceattr.images.crop import Box, CropRule, crop
from faceattr.images.draw import shared
from faceattr.inference.results import NO_ANSWER, DescribedFace, Prediction
from faceattr.tasks import Task

APPEARANCE_RULE = CropRule(32)
IMPOSSIBLE = 1e6
HIDDEN_BY = 0.25  # share of the smaller box under another from which it is not asked about


@dataclass(frozen=True)
class LiveFace(DescribedFace):
    """A face of a moving image: what `DescribedFace` has, averaged over its track.

    Args:
        track: The face's number, the same from frame to frame, from 1.
        asked: The second of the frame that the newest answer is about, or None.
        velocity: Of the box's centre, in pixels a second.
    """

    track: int = 0
    asked: float | None = None
    velocity: tuple[float, float] = (0.0, 0.0)

    def at(self, box: Box) -> LiveFace:
        """The same face with its box somewhere else; the landmarks move along."""
        return replace(self, face=_moved_to(self.face, box))

    def expected(self, elapsed: float) -> Box:
        """Its box after some seconds if it goes on as before."""
        return _shifted(self.box, *(speed * elapsed for speed in self.velocity))


@dataclass(frozen=True)
class Smoothing:
    """How a track's answers are averaged.

    Args:
        time_constant: Seconds over which a track's probabilities are averaged.
        hysteresis: What another class must be ahead of the shown one before it takes its place.
        max_age: Seconds for which a face that is not detected keeps its number.
        min_confidence: Answers of a lower average probability are withheld.
    """

    time_constant: float = 0.7
    hysteresis: float = 0.1
    max_age: float = 1.5
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        if self.time_constant < 0 or self.hysteresis < 0 or self.max_age < 0:
            raise ValueError(
                "Time constant, hysteresis and maximal age are not negative. Received: "
                f"{self.time_constant}, {self.hysteresis}, {self.max_age}"
            )
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"A confidence lies between 0 and 1. Received: {self.min_confidence}")


class Tracks:
    """The faces of one moving image. Smaller ones than `min_face`, the longer side in pixels, are
    followed, but the model is not asked about them.
    """

    def __init__(
        self, tasks: Sequence[Task], smoothing: Smoothing | None = None, min_face: float = 0.0
    ) -> None:
        self.count = 0  # of all tracks that there were
        self._tasks = tuple(tasks)
        self._smoothing = smoothing or Smoothing()
        self._min_face = min_face
        self._tracks: list[_Track] = []

    @property
    def needs_detection(self) -> bool:
        """Whether there may be more faces: there is none, or one was missed just now."""
        return not self._tracks or any(track.missed == 1 for track in self._tracks)

    @property
    def boxes(self) -> list[Box]:
        """Where the faces are, those lately missed included."""
        return [track.face.box for track in self._tracks]

    def clear(self) -> None:
        """Forget all faces, as at a scene cut; their numbers are not given again."""
        self._tracks.clear()

    def propagate(self, time: float, boxes: Sequence[Box | None]) -> None:
        """Move every track to the frame of another second.

        `boxes` says where each of `self.boxes` went, None where unknown. A face that overlaps
        another goes on as it went before: there the image shows the one in front.
        """
        overlapped = [self._is_hidden(track) for track in self._tracks]
        for track, box, hidden in zip(self._tracks, boxes, overlapped, strict=True):
            known = None if hidden or track.missed else box
            track.face = _moved_to(track.face, track.expected(time) if known is None else known)
            track.time = time

    def update(self, time: float, faces: Sequence[Face], image: np.ndarray) -> None:
        """Continue tracks with the faces that were detected in a frame, and begin new ones.

        The tracks have been propagated to the frame's second. Boxes are in pixels of its RGB
        ``uint8`` image ``(height, width, 3)``.
        """
        appearances = [_appearance_of(image, face.box) for face in faces]
        pairs = match(self._tracks, time, faces, appearances)
        for number, track in enumerate(self._tracks):
            if number in pairs:
                track.continue_with(time, faces[pairs[number]], appearances[pairs[number]])
            else:
                track.missed += 1
        oldest = time - self._smoothing.max_age
        self._tracks = [
            track
            for track in self._tracks
            # What was detected a single time is more often a mistake than a face that hid.
            if not track.missed or (track.sightings > 1 and track.last_seen >= oldest)
        ]
        for index in sorted(set(range(len(faces))) - set(pairs.values())):
            self.count += 1
            self._tracks.append(_Track(self.count, time, faces[index], appearances[index]))

    def due(self, count: int) -> list[LiveFace]:
        """The faces to be asked about next: new ones, then those asked longest ago."""
        ready = [
            track
            for track in self._tracks
            if not track.missed and track.face.side >= self._min_face and not self._is_hidden(track)
        ]
        ready.sort(key=lambda track: -np.inf if track.asked is None else track.asked)
        return [self._shown(track) for track in ready[:count]]

    def answer(self, number: int, time: float, answer: Mapping[str, np.ndarray]) -> None:
        """Take the model's answer, probabilities ``(classes,)`` by task, into a track's average."""
        for track in self._tracks:
            if track.number == number:
                track.smooth(time, answer, self._tasks, self._smoothing)

    def shown(self) -> list[LiveFace]:
        """The faces that are in the image now, from left to right."""
        faces = [self._shown(track) for track in self._tracks if not track.missed]
        return sorted(faces, key=lambda face: face.box[:2])

    def lost(self) -> list[LiveFace]:
        """The faces that were there a moment ago and may come back."""
        return [self._shown(track) for track in self._tracks if track.missed]

    def _shown(self, track: _Track) -> LiveFace:
        too_small = track.face.side < self._min_face
        known = {} if too_small else track.predictions
        answers = {task.name: known.get(task.name, NO_ANSWER) for task in self._tasks}
        x, y = map(float, track.velocity)
        return LiveFace(track.face, answers, too_small, False, track.number, track.asked, (x, y))

    def _is_hidden(self, track: _Track) -> bool:
        box = track.face.box
        others = (one.face.box for one in self._tracks if one is not track)
        return any(
            shared(box, [other]) > HIDDEN_BY * min(_area(box), _area(other)) for other in others
        )


class _Track:
    def __init__(self, number: int, time: float, face: Face, appearance: np.ndarray) -> None:
        self.number = number
        self.face = face
        self.appearance = appearance
        self.time = self.last_seen = time
        self.last_centre = _centre_of(face.box)
        self.sightings, self.missed = 1, 0
        self.velocity = np.zeros(2)
        self.asked: float | None = None
        self.predictions: dict[str, Prediction] = {}
        self._averages: dict[str, np.ndarray] = {}
        self._classes: dict[str, int] = {}  # that are shown
        self._answers = 0

    def expected(self, time: float) -> Box:
        """Where the face is if it goes on as before."""
        return _shifted(self.face.box, *map(float, self.velocity * (time - self.time)))

    def continue_with(self, time: float, face: Face, appearance: np.ndarray) -> None:
        elapsed = time - self.last_seen
        if elapsed > 0:
            now = (_centre_of(face.box) - self.last_centre) / elapsed
            share = 1.0 if self.sightings == 1 else 0.5
            self.velocity = (1 - share) * self.velocity + share * now
        self.face, self.time, self.last_seen = face, time, time
        self.last_centre = _centre_of(face.box)
        self.appearance = 0.8 * self.appearance + 0.2 * appearance
        self.sightings, self.missed = self.sightings + 1, 0

    def smooth(
        self, time: float, answer: Mapping[str, np.ndarray], tasks: Sequence[Task], how: Smoothing
    ) -> None:
        self._answers += 1
        elapsed = 0.0 if self.asked is None else time - self.asked
        newest = 1 - np.exp(-elapsed / how.time_constant) if how.time_constant else 1.0
        # The first answers count alike, or the very first would linger.
        share = max(1 / self._answers, newest)
        for task in tasks:
            now = np.asarray(answer[task.name], float)
            before = self._averages.get(task.name, now)
            self._averages[task.name] = (1 - share) * before + share * now
            self.predictions[task.name] = self._prediction(task, how)
        self.asked = time

    def _prediction(self, task: Task, how: Smoothing) -> Prediction:
        average, shown = self._averages[task.name], self._classes.get(task.name)
        best = int(average.argmax())
        if shown is None or average[best] > average[shown] + how.hysteresis:
            self._classes[task.name] = shown = best
        was_sure = self.predictions.get(task.name, NO_ANSWER).label is not None
        is_sure = average[shown] >= how.min_confidence - was_sure * how.hysteresis / 2
        by_class = dict(zip(task.classes, average.tolist(), strict=True))
        return Prediction(task.classes[shown] if is_sure else None, float(average[shown]), by_class)


def _moved_to(face: Face, box: Box) -> Face:
    """A face in another place and size, its landmarks with it."""
    (x0, y0, x1, y1), (a0, b0, a1, b1) = face.box, box
    x_scale, y_scale = (a1 - a0) / (x1 - x0), (b1 - b0) / (y1 - y0)
    moved = face.moved(lambda x, y: (a0 + (x - x0) * x_scale, b0 + (y - y0) * y_scale))
    return replace(moved, box=box)


def match(
    tracks: Sequence[_Track], time: float, faces: Sequence[Face], appearances: Sequence[np.ndarray]
) -> dict[int, int]:
    """Which track continues with which face, by their places in the lists: the cheapest pairs."""
    if not tracks or not faces:
        return {}
    detected = list(zip(faces, appearances, strict=True))
    costs = np.array([[_cost(track, time, *one) for one in detected] for track in tracks])
    rows, columns = linear_sum_assignment(costs)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {row: column for row, column in pairs if costs[row, column] < IMPOSSIBLE}


def _cost(track: _Track, time: float, face: Face, appearance: np.ndarray) -> float:
    """How badly a face fits a track: overlap, distance and appearance; 0 is the same."""
    a, b = track.face.box, face.box
    side = (track.face.side + face.side) / 2
    distance = float(np.linalg.norm(_centre_of(a) - _centre_of(b))) / side
    # The longer ago it was seen, the further it may have come, in widths of itself.
    reach = min(2.5, 0.8 + 4 * (time - track.last_seen))
    if distance > reach or not 0.5 < track.face.side / face.side < 2:
        return IMPOSSIBLE
    lengths = np.linalg.norm(track.appearance) * np.linalg.norm(appearance) + 1e-9
    # Bhattacharyya's distance of two histograms' roots, 0-1.
    difference = float(np.sqrt(max(0.0, 1.0 - track.appearance @ appearance / lengths)))
    return (1 - overlap(a, b)) / 2 + distance / 2 + difference


def _appearance_of(image: np.ndarray, box: Box) -> np.ndarray:
    """How a face looks, to tell it from others: roots of a colour histogram, ``(128,)``."""
    hsv = cv2.cvtColor(crop(image, box, APPEARANCE_RULE), cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 4, 4], [0, 180, 0, 256, 0, 256])
    return np.sqrt(counts.ravel() / counts.sum())


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0-1."""
    both = shared(a, [b])
    return both / (_area(a) + _area(b) - both)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shifted(box: Box, x: float, y: float) -> Box:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def _centre_of(box: Box) -> np.ndarray:
    """``(x, y)``."""
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
