"""From one frame after another to tracked, described faces: what `watch` does with a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from faceattr.detection.base import reduced
from faceattr.images.crop import Box
from faceattr.images.video import Frame
from faceattr.inference.predictor import FaceAttributes
from faceattr.live.tracking import LiveFace, Smoothing, Tracks

SEARCH_SECONDS = 0.25  # faces are searched at least this often
LONG_SIDE = 320
GRID = np.stack(np.meshgrid(np.linspace(0.15, 0.85, 6), np.linspace(0.15, 0.85, 6)), -1)
MIN_POINTS = 8
FLOW: dict[str, Any] = {"winSize": (15, 15), "maxLevel": 3, "criteria": (3, 12, 0.03)}
THUMB = (32, 18)


@dataclass(frozen=True)
class Thumbnail:
    """What is kept of a frame to compare it with a later one.

    Args:
        grey: ``uint8``, ``(h, w)``, the longer side 320 at most.
        share: Its size as a share of the frame's.
    """

    grey: np.ndarray
    share: float


def make_thumbnail(image: np.ndarray) -> Thumbnail:
    """The thumbnail of an RGB ``uint8`` image ``(h, w, 3)``."""
    small, share = reduced(image, LONG_SIDE)
    return Thumbnail(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), share)


def is_cut(
    before: Thumbnail, after: Thumbnail, boxes: Sequence[Box] = (), moved: Sequence[Box | None] = ()
) -> bool:
    """Whether two frames show different scenes.

    Light that changes is no cut, nor is anything through which a face goes on.

    Args:
        before, after: The frames.
        boxes: Faces in the earlier one, in pixels of the whole frame.
        moved: Where `propagate_boxes` brought them.
    """
    if before.grey.shape != after.grey.shape:
        return True
    a, b = (
        cv2.resize(s.grey, THUMB, interpolation=cv2.INTER_AREA).astype(float)
        for s in (before, after)
    )
    if np.abs(a - b).mean() < 12 or _correlation(a, b) > 0.4:
        return False
    pairs = [(old, new) for old, new in zip(boxes, moved, strict=True) if new is not None]
    patches = ((_patch(before, old), _patch(after, new)) for old, new in pairs)
    return not any(a is not None and b is not None and _correlation(a, b) > 0.7 for a, b in patches)


def _patch(thumbnail: Thumbnail, box: Box) -> np.ndarray | None:
    x0, y0, x1, y1 = (max(0, round(value * thumbnail.share)) for value in box)
    part = thumbnail.grey[y0:y1, x0:x1]
    return cv2.resize(part, (16, 16)).astype(float) if min(part.shape) >= 4 else None


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of two pictures of one size, at most 1."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-9))


def propagate_boxes(before: Thumbnail, after: Thumbnail, boxes: Sequence[Box]) -> list[Box | None]:
    """Move boxes along with what they show (sparse optical flow).

    Args:
        before: Of the frame that the boxes belong to.
        after: Of the frame to bring them to.
        boxes: In pixels of the whole frame.

    Returns:
        The boxes in the later frame; None where the picture does not tell.
    """
    if not boxes or before.grey.shape != after.grey.shape:
        return [None] * len(boxes)
    points = np.concatenate([_points(box, before.share) for box in boxes])
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before.grey, after.grey, points, None, **FLOW)  # type: ignore[call-overload]
    by_box = zip(
        boxes,
        np.split(points, len(boxes)),
        np.split(moved, len(boxes)),
        np.split(found.ravel() == 1, len(boxes)),
        strict=True,
    )
    return [_moved(box, old[ok], new[ok], after.share) for box, old, new, ok in by_box]


def _points(box: Box, share: float) -> np.ndarray:
    x0, y0, x1, y1 = box
    grid = GRID.reshape(-1, 2) * (x1 - x0, y1 - y0) + (x0, y0)
    return (grid * share).astype(np.float32)


def _moved(box: Box, old: np.ndarray, new: np.ndarray, share: float) -> Box | None:
    if len(old) < MIN_POINTS:
        return None
    change, fits = cv2.estimateAffinePartial2D(old, new, ransacReprojThreshold=1.5)
    if change is None or fits.sum() < MIN_POINTS:
        return None
    scale = float(np.hypot(change[0, 0], change[1, 0]))
    if not 0.7 < scale < 1.4:
        return None
    x0, y0, x1, y1 = box
    centre = np.array([x0 + x1, y0 + y1]) / 2 * share
    x, y = (change[:, :2] @ centre + change[:, 2]) / share
    right, down = scale * (x1 - x0) / 2, scale * (y1 - y0) / 2
    return float(x - right), float(y - down), float(x + right), float(y + down)


@dataclass(frozen=True)
class InferenceBudget:
    """How much is done for a frame.

    Args:
        detect_every: Faces are searched in every so many-th frame that is taken, and
            propagated in between. While there is no face, every frame is searched.
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

    def while_blurring(self) -> InferenceBudget:
        """The same with a search in every frame: a new face must not be visible for long."""
        return replace(self, detect_every=1)


@dataclass(frozen=True)
class FrameResult:
    """What is known of one frame.

    Args:
        number, time, captured: The frame's.
        thumbnail: To propagate the faces to later frames.
        faces: From left to right.
        asked: How many of them the model was asked about in this frame.
        lost: Faces that were there a moment ago and may come back.
        is_searched: Whether faces were searched in this frame, not only propagated to it.
    """

    number: int
    time: float
    captured: float
    thumbnail: Thumbnail
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
        now, before = make_thumbnail(image), [face.box for face in self.faces]
        boxes = propagate_boxes(self.thumbnail, now, before)
        if is_cut(self.thumbnail, now, before, boxes):
            return ()
        return tuple(
            face.at(box or _expected(face, time - self.time))
            for face, box in zip(self.faces, boxes, strict=True)
        )


def _expected(face: LiveFace, elapsed: float) -> tuple[float, float, float, float]:
    x, y = (speed * elapsed for speed in face.velocity)
    x0, y0, x1, y1 = face.box
    return x0 + x, y0 + y, x1 + x, y1 + y


class FaceTracker:
    """Takes the frames of one source, one after another.

    Args:
        attributes: Detector and model.
        budget: How much is done for a frame.
        smoothing: How answers settle.
    """

    def __init__(
        self,
        attributes: FaceAttributes,
        budget: InferenceBudget | None = None,
        smoothing: Smoothing | None = None,
    ) -> None:
        self.attributes = attributes
        self.budget = budget or InferenceBudget()
        smoothing = smoothing or Smoothing(min_confidence=attributes.min_confidence)
        self.tracks = Tracks(attributes.tasks, smoothing, attributes.min_face)
        self._thumbnail: Thumbnail | None = None
        self._since_search = 0
        self._searched = 0.0

    def warm_up(self) -> None:
        """Open the detector and compile the model for every size of batch there will be."""
        self.attributes.find(np.zeros((360, 640, 3), np.uint8))
        size, count = self.attributes.crop_rule.size, 1
        while count < 2 * self.budget.ask_at_once:
            self.attributes.predict(np.zeros((count, size, size, 3), np.uint8))
            count *= 2

    def update(self, frame: Frame) -> FrameResult:
        """Follow, find and describe the faces of the next frame."""
        now = make_thumbnail(frame.image)
        self._follow(frame, now)
        self._thumbnail = now
        self._since_search += 1
        is_searched = self._must_search(frame)
        if is_searched:
            self.tracks.find(frame.time, self.attributes.find(frame.image), frame.image)
            self._since_search, self._searched = 0, frame.time
        due = self._ask(frame)
        shown, lost = tuple(self.tracks.shown()), tuple(self.tracks.lost())
        about = (frame.number, frame.time, frame.captured)
        return FrameResult(*about, now, shown, due, lost, is_searched)

    def _must_search(self, frame: Frame) -> bool:
        # Where few frames are taken, propagation becomes a guess.
        return (
            self._since_search >= self.budget.detect_every
            or frame.time - self._searched > SEARCH_SECONDS
            or self.tracks.must_be_searched
        )

    def _follow(self, frame: Frame, now: Thumbnail) -> None:
        if self._thumbnail is None:
            return
        boxes = propagate_boxes(self._thumbnail, now, self.tracks.boxes)
        if is_cut(self._thumbnail, now, self.tracks.boxes, boxes):
            self.tracks.clear()
        else:
            self.tracks.propagate(frame.time, boxes)

    def _ask(self, frame: Frame) -> int:
        height, width = frame.image.shape[:2]
        due = [
            face
            for face in self.tracks.due(self.budget.ask_at_once)
            if _touches(face.box, width, height)
        ]
        crops = [self.attributes.cut(frame.image, face.face) for face in due]
        for face, answer in zip(due, self.attributes.predict(crops), strict=True):
            self.tracks.answer(face.track, frame.time, answer)
        return len(due)


def _touches(box: Box, width: int, height: int) -> bool:
    """Whether a propagated box still lies in the picture."""
    x0, y0, x1, y1 = box
    return x1 > 1 and y1 > 1 and x0 < width - 1 and y0 < height - 1
