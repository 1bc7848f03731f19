"""Who keeps faces apart: ours against the trackers of the package `trackers`, on drawn videos.

    pip install trackers
    python tests/bench/tracking.py [--every N ...] [--seed N]

The people of a scene are known, so three figures can be counted. *switches*: how often a person's
number changes. *mixed*: numbers that more than one person has had. *lost*: seconds in which a
visible person has no box that overlaps the true one by half. `--every 3` searches faces in every
third frame. The other trackers get the same detections, the seconds of their frames and the same
patience as ours, and their boxes are carried through the frames between by our optical flow: what
is compared is who is who. The scenes are those of `tests/test_tracks.py`, and harder ones.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from use_scenes import Person, Scene, attributes, hides

from faceattr.detection.base import Face
from faceattr.live.face_tracker import (
    FaceTracker,
    InferenceBudget,
    is_scene_cut,
    make_thumbnail,
    propagate_boxes,
)
from faceattr.live.tracking import Smoothing, overlap

Box = tuple[float, float, float, float]
Shown = list[tuple[int, Box]]  # number of a track and its box
OTHERS = {
    "SORT": "SORTTracker",
    "ByteTrack": "ByteTrackTracker",
    "OC-SORT": "OCSORTTracker",
    "BoT-SORT": "BoTSORTTracker",
    "C-BIoU": "CBIoUTracker",
}
LINE = "{:<26} {:>5}  {:<9} {:>8} {:>5} {:>7} {:>9}"


class Rough(Scene):
    """A scene whose detector is like a real one: boxes shake, and some faces are missed."""

    shake, missed, seed = 0.04, 0.2, 0

    def __call__(self, image: np.ndarray) -> list[Face]:
        faces = super().__call__(image)
        random = np.random.default_rng((self.seed, self.searched[-1]))
        found = [face for face in faces if random.random() >= self.missed]
        return [self._shaken(face, random) for face in found]

    def _shaken(self, face: Face, random: np.random.Generator) -> Face:
        moved = np.array(face.box) + random.normal(0, self.shake * face.side, 4)
        x0, y0, x1, y1 = map(float, moved)
        return replace(face, box=(x0, y0, x1, y1), score=float(random.uniform(0.6, 0.95)))


def scenes(kind: type[Scene] = Scene) -> Iterator[tuple[str, Scene]]:
    """The moving pictures by name."""
    yield "walks", kind(Person(0, lambda n: (40 + 4 * n, 90 + 20 * np.sin(n / 8))))
    yield "fast", kind(Person(0, lambda n: (160 + 60 * np.sin(n / 6), 90)), count=90)
    for speed in (3, 5, 8):
        right, left = _crossing(speed)
        yield f"cross, {speed} px a frame", kind(right, left, count=260 // speed)
    for turn in (20, 23, 29):
        yield f"meet, turn back at {turn}", kind(*_turning(turn), count=58)
    for away in (10, 20, 30):
        yield f"away {away / 25} s", kind(_away(away), count=80)
    yield "cut", kind(_until(30), _since(30), count=60, cut_at=30)
    yield "camera shakes", kind(*_row(lambda n: 12 * np.sin(n * 2.1)), count=75)
    yield "crowd of 18", kind(*_crowd(), count=75)


def _crossing(speed: int) -> tuple[Person, Person]:
    right = Person(0, lambda n: (30 + speed * n, 85))
    return right, Person(2, lambda n: (290 - speed * n, 95))


def _turning(turn: int) -> tuple[Person, Person]:
    def path(left: int, direction: int) -> Callable[[int], tuple[float, float]]:
        return lambda n: (left + direction * 4 * min(n, 2 * turn - n), 90)

    return Person(0, path(70, 1)), Person(1, path(250, -1))


def _away(frames: int) -> Person:
    return Person(0, lambda n: None if 20 <= n < 20 + frames else (100 + n, 90))


def _until(end: int) -> Person:
    return Person(0, lambda n: (100, 90) if n < end else None)


def _since(start: int) -> Person:
    return Person(1, lambda n: None if n < start else (105, 90))


def _row(moved: Callable[[int], float]) -> list[Person]:
    return [Person(i, lambda n, i=i: (60 + 90 * i + moved(n), 90 + moved(n + 1))) for i in range(3)]


def _crowd() -> list[Person]:
    places = [(x, y) for y in (30, 90, 150) for x in range(25, 320, 50)]
    return [
        Person(i % 3, lambda n, p=p, i=i: (p[0] + 12 * np.sin(n / 9 + i), p[1]), 24)
        for i, p in enumerate(places)
    ]


def ours(scene: Scene, every: int) -> Iterator[Shown]:
    tracker = FaceTracker(attributes(scene), InferenceBudget(detect_every=every))
    for frame in scene.frames():
        yield [(face.track, face.box) for face in tracker.update(frame).faces]


def theirs(name: str, scene: Scene, every: int) -> Iterator[Shown]:
    """Another tracker in the place of ours, with our flow between its detections."""
    tracker = _tracker(name)
    shown: Shown = []
    before, since = None, 0
    for frame in scene.frames():
        now = make_thumbnail(frame.image)
        if before is not None:
            moved = propagate_boxes(before, now, [box for _, box in shown])
            boxes = [box for _, box in shown]
            if is_scene_cut(before, now, boxes, moved):
                tracker.reset()
                shown = []
            else:
                shown = [(n, new or old) for (n, old), new in zip(shown, moved, strict=True)]
        before, since = now, since + 1
        if since >= every or not shown or frame.number == 0:
            shown, since = _updated(tracker, scene(frame.image), frame), 0
        yield shown


def _tracker(name: str):
    import trackers

    patience = {"lost_track_buffer": round(30 * Smoothing().patience), "frame_rate": Scene.rate}
    kind = getattr(trackers, OTHERS[name])
    try:
        return kind(**patience, minimum_consecutive_frames=1)
    except TypeError:
        return kind(**patience)


def _updated(tracker, faces: Sequence[Face], frame) -> Shown:
    import supervision as sv

    boxes = np.array([face.box for face in faces], float).reshape(-1, 4)
    scores = np.array([face.score for face in faces], float)
    found = sv.Detections(boxes, confidence=scores, class_id=np.zeros(len(faces), int))
    image = frame.image if "BoT" in type(tracker).__name__ else None
    known = tracker.update(found, image, timestamp=frame.time)
    pairs = zip(known.tracker_id, known.xyxy.tolist(), strict=True)
    return [(int(number), tuple(box)) for number, box in pairs if number >= 0]


def counted(scene: Scene, frames: Iterator[Shown]) -> tuple[int, int, float]:
    """Switches, mixed numbers and lost seconds."""
    last: dict[Person, int] = {}
    owners: dict[int, set[int]] = {}
    switches = lost = 0
    for number, shown in enumerate(frames):
        for person, box in _visible(scene, number):
            best = max(shown, key=lambda face: overlap(face[1], box), default=None)
            if best is None or overlap(best[1], box) < 0.5:
                lost += 1
                continue
            switches += last.get(person, best[0]) != best[0]
            last[person] = best[0]
            owners.setdefault(best[0], set()).add(scene.people.index(person))
    return switches, sum(len(own) > 1 for own in owners.values()), lost / scene.rate


def _visible(scene: Scene, number: int) -> list[tuple[Person, Box]]:
    boxes = [person.box(number) for person in scene.people]
    return [
        (person, box)
        for index, (person, box) in enumerate(zip(scene.people, boxes, strict=True))
        if box and not any(other and hides(other, box) for other in boxes[index + 1 :])
    ]


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--every", type=int, nargs="+", default=[1, 3, 6])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        import trackers  # noqa: F401
    except ImportError:
        sys.exit("The other trackers are not installed: pip install trackers")
    Rough.seed = options.seed
    print(LINE.format("scene", "every", "tracker", "switches", "mixed", "lost s", "ms a frame"))
    totals: dict[str, np.ndarray] = {}
    for rough, kind in (("", Scene), (", rough", Rough)):
        for every in options.every:
            for name, scene in scenes(kind):
                for tracker in ("ours", *OTHERS):
                    started = time.perf_counter()
                    follow = (
                        ours(scene, every) if tracker == "ours" else theirs(tracker, scene, every)
                    )
                    figures = counted(scene, follow)
                    each = 1000 * (time.perf_counter() - started) / scene.count
                    switches, mixed, lost = figures
                    where = f"{name}{rough}"
                    print(
                        LINE.format(
                            where, every, tracker, switches, mixed, f"{lost:.2f}", f"{each:.1f}"
                        )
                    )
                    sums = totals.setdefault(tracker, np.zeros(3))
                    sums += figures
    for tracker, (switches, mixed, lost) in totals.items():
        print(LINE.format("all", "", tracker, int(switches), int(mixed), f"{lost:.2f}", ""))


if __name__ == "__main__":
    main()
