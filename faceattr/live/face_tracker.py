"""From one frame after another to tracked, described faces: what `watch` does with a frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from faceattr.images.video import Frame
from faceattr.inference.predictor import FaceAttributes
from faceattr.live.motion import Sketch, carried, is_cut, sketch
from faceattr.live.tracking import LiveFace, Settling, Tracks

SEARCH_SECONDS = 0.25  # faces are searched at least this often


@dataclass(frozen=True)
class Effort:
    """How much is done for a frame.

    Args:
        detect_every: Faces are searched in every so many-th frame that is looked at, and
            carried along in between. While there is no face, every frame is searched.
        ask_at_once: Most faces that the model is asked about in one frame; those of whom it
            was asked longest ago come first. This bounds the time that a crowd takes.
    """

    detect_every: int = 3
    ask_at_once: int = 4

    def __post_init__(self) -> None:
        if self.detect_every < 1 or self.ask_at_once < 1:
            raise ValueError(
                "Faces are searched in every 1st frame or less often, and at least 1 is asked "
                f"about. Received: {self.detect_every}, {self.ask_at_once}"
            )

    def while_blurring(self) -> Effort:
        """The same with a search in every frame: a new face must not be seen for long."""
        return replace(self, detect_every=1)


@dataclass(frozen=True)
class Seen:
    """What is known of one frame.

    Args:
        number, time, captured: The frame's.
        sketch: To carry the faces on to later frames.
        faces: From left to right.
        asked: How many of them the model was asked about in this frame.
        lost: Faces that were there a moment ago and may come back.
        is_searched: Whether faces were searched in this frame, not only carried on to it.
    """

    number: int
    time: float
    captured: float
    sketch: Sketch
    faces: tuple[LiveFace, ...]
    asked: int = 0
    lost: tuple[LiveFace, ...] = ()
    is_searched: bool = False

    def faces_in(self, image: np.ndarray, time: float) -> tuple[LiveFace, ...]:
        """The faces where they are in a later frame; none if the scene was cut between.

        Args:
            image: The later frame, RGB ``uint8``, ``(height, width, 3)``.
            time: Its second.
        """
        if not self.faces:
            return ()
        now, before = sketch(image), [face.box for face in self.faces]
        boxes = carried(self.sketch, now, before)
        if is_cut(self.sketch, now, before, boxes):
            return ()
        return tuple(
            face.at(box or _expected(face, time - self.time))
            for face, box in zip(self.faces, boxes, strict=True)
        )


def _expected(face: LiveFace, elapsed: float) -> tuple[float, float, float, float]:
    x, y = (speed * elapsed for speed in face.velocity)
    x0, y0, x1, y1 = face.box
    return x0 + x, y0 + y, x1 + x, y1 + y


class Recogniser:
    """Looks at the frames of one source, one after another.

    Args:
        attributes: Detector and model.
        effort: How much is done for a frame.
        settling: How answers settle.
    """

    def __init__(
        self,
        attributes: FaceAttributes,
        effort: Effort | None = None,
        settling: Settling | None = None,
    ) -> None:
        self.attributes = attributes
        self.effort = effort or Effort()
        settling = settling or Settling(min_confidence=attributes.min_confidence)
        self.tracks = Tracks(attributes.tasks, settling, attributes.min_face)
        self._sketch: Sketch | None = None
        self._since_search = 0
        self._searched = 0.0

    def warm_up(self) -> None:
        """Open the detector and compile the model for every size of batch there will be."""
        self.attributes.find(np.zeros((360, 640, 3), np.uint8))
        size, count = self.attributes.crop_rule.size, 1
        while count < 2 * self.effort.ask_at_once:
            self.attributes.predict(np.zeros((count, size, size, 3), np.uint8))
            count *= 2

    def look(self, frame: Frame) -> Seen:
        """Follow, find and describe the faces of the next frame."""
        now = sketch(frame.image)
        self._follow(frame, now)
        self._sketch = now
        self._since_search += 1
        is_searched = self._must_search(frame)
        if is_searched:
            self.tracks.find(frame.time, self.attributes.find(frame.image), frame.image)
            self._since_search, self._searched = 0, frame.time
        due = self._ask(frame)
        shown, lost = tuple(self.tracks.shown()), tuple(self.tracks.lost())
        return Seen(frame.number, frame.time, frame.captured, now, shown, due, lost, is_searched)

    def _must_search(self, frame: Frame) -> bool:
        # Where few frames are looked at, carrying along becomes a guess.
        return (
            self._since_search >= self.effort.detect_every
            or frame.time - self._searched > SEARCH_SECONDS
            or not len(self.tracks)
        )

    def _follow(self, frame: Frame, now: Sketch) -> None:
        if self._sketch is None:
            return
        boxes = carried(self._sketch, now, self.tracks.boxes)
        if is_cut(self._sketch, now, self.tracks.boxes, boxes):
            self.tracks.clear()
        else:
            self.tracks.carry(frame.time, boxes)

    def _ask(self, frame: Frame) -> int:
        due = [
            face
            for face in self.tracks.due(self.effort.ask_at_once)
            if _touches(face, frame.image.shape)
        ]
        crops = [self.attributes.cut(frame.image, face.face) for face in due]
        for face, answer in zip(due, self.attributes.predict(crops), strict=True):
            self.tracks.answer(face.track, frame.time, answer)
        return len(due)


def _touches(face: LiveFace, shape: tuple[int, ...]) -> bool:
    """Whether a carried box still lies in the picture, whose shape is (h, w, 3)."""
    x0, y0, x1, y1 = face.box
    return x1 > 1 and y1 > 1 and x0 < shape[1] - 1 and y0 < shape[0] - 1
