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

DETECT_SECONDS = 0.25  # the detector is asked at least this often
LONG_SIDE = 320
GRID = np.stack(np.meshgrid(np.linspace(0.15, 0.85, 6), np.linspace(0.15, 0.85, 6)), -1)
MIN_POINTS = 8
FLOW: dict[str, Any] = {"winSize": (15, 15), "maxLevel": 3, "criteria": (3, 12, 0.03)}
THUMB = (32, 18)


@dataclass(frozen=True)
class Thumbnail:
    """What is kept of a frame to compare it with a later one: `grey`, ``uint8`` ``(h, w)``, its
    longer side at most 320, and its size as a `share` of the frame's.
    """

    grey: np.ndarray
    share: float


def make_thumbnail(image: np.ndarray) -> Thumbnail:
    """The thumbnail of an RGB ``uint8`` image ``(h, w, 3)``."""
    small, share = reduced(image, LONG_SIDE)
    return Thumbnail(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), share)


def is_scene_cut(
    before: Thumbnail, after: Thumbnail, boxes: Sequence[Box] = (), moved: Sequence[Box | None] = ()
) -> bool:
    """Whether two frames show different scenes: light that changes is no cut, nor is anything
    through which a face goes on. `moved` is where `propagate_boxes` brought the earlier boxes.
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
    """The correlation of two grey images of one size, at most 1."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-9))


def propagate_boxes(before: Thumbnail, after: Thumbnail, boxes: Sequence[Box]) -> list[Box | None]:
    """Move boxes along with what they show, from one frame to a later one (sparse optical flow).

    Boxes are in pixels of the whole frame; None where the image does not tell.
    """
    if not boxes or before.grey.shape != after.grey.shape:
        return [None] * len(boxes)
    corners = np.array(boxes)[:, None, None]
    grids = corners[..., :2] + GRID * (corners[..., 2:] - corners[..., :2])
    points = (grids.reshape(-1, 2) * before.share).astype(np.float32)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before.grey, after.grey, points, None, **FLOW)  # type: ignore[call-overload]
    parts = (np.split(part, len(boxes)) for part in (points, moved, found.ravel() == 1))
    by_box = zip(boxes, *parts, strict=True)
    return [_moved(box, old[ok], new[ok], after.share) for box, old, new, ok in by_box]


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
        detect_every: The detector is asked about every so many-th frame that is taken, and faces
            are propagated in between. While there is no face, it is asked about every frame.
        ask_at_once: Most faces that the model is asked about in one frame; those of whom it
            was asked longest ago come first. This bounds the time that a crowd takes.
    """

    detect_every: int = 3
    ask_at_once: int = 4

    def __post_init__(self) -> None:
        if self.detect_every < 1 or self.ask_at_once < 1:
            raise ValueError(
                "Faces are detected in every 1st frame or less often, and at least 1 is asked "
                f"about. Received: {self.detect_every}, {self.ask_at_once}"
            )

    def while_blurring(self) -> InferenceBudget:
        """The same with a detection in every frame: a new face must not be visible for long."""
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
        is_detected: Whether the detector saw this frame; else faces were propagated to it.
    """

    number: int
    time: float
    captured: float
    thumbnail: Thumbnail
    faces: tuple[LiveFace, ...]
    asked: int = 0
    lost: tuple[LiveFace, ...] = ()
    is_detected: bool = False

    def faces_in(self, image: np.ndarray, time: float) -> tuple[LiveFace, ...]:
        """The faces where they are in a later frame; none if there is a scene cut between.

        The frame is RGB ``uint8`` ``(height, width, 3)``, `time` its second.
        """
        if not self.faces:
            return ()
        now, before = make_thumbnail(image), [face.box for face in self.faces]
        boxes = propagate_boxes(self.thumbnail, now, before)
        if is_scene_cut(self.thumbnail, now, before, boxes):
            return ()
        faces = zip(self.faces, boxes, strict=True)
        return tuple(face.at(box or face.expected(time - self.time)) for face, box in faces)


class FaceTracker:
    """Takes the frames of one source, one after another."""

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
        self._since_detection = 0
        self._detected = 0.0

    def warm_up(self) -> None:
        """Open the detector and compile the model for every size of batch there will be."""
        self.attributes.find(np.zeros((360, 640, 3), np.uint8))
        size, count = self.attributes.crop_rule.size, 1
        while count < 2 * self.budget.ask_at_once:
            self.attributes.predict(np.zeros((count, size, size, 3), np.uint8))
            count *= 2

    def update(self, frame: Frame) -> FrameResult:
        """Follow, detect and describe the faces of the next frame."""
        before, now = self._thumbnail, make_thumbnail(frame.image)
        if before is not None:
            boxes = propagate_boxes(before, now, self.tracks.boxes)
            if is_scene_cut(before, now, self.tracks.boxes, boxes):
                self.tracks.clear()
            else:
                self.tracks.propagate(frame.time, boxes)
        self._thumbnail = now
        is_detected = self._detect(frame)
        asked = self._ask(frame)
        shown, lost = tuple(self.tracks.shown()), tuple(self.tracks.lost())
        about = (frame.number, frame.time, frame.captured)
        return FrameResult(*about, now, shown, asked, lost, is_detected)

    def _detect(self, frame: Frame) -> bool:
        self._since_detection += 1
        is_due = (
            self._since_detection >= self.budget.detect_every
            # Where few frames are taken, propagation becomes a guess.
            or frame.time - self._detected > DETECT_SECONDS
            or self.tracks.needs_detection
        )
        if is_due:
            self.tracks.update(frame.time, self.attributes.find(frame.image), frame.image)
            self._since_detection, self._detected = 0, frame.time
        return is_due

    def _ask(self, frame: Frame) -> int:
        height, width = frame.image.shape[:2]

        def is_inside(box: Box) -> bool:  # a propagated box may have left the frame
            return box[2] > 1 and box[3] > 1 and box[0] < width - 1 and box[1] < height - 1

        due = [face for face in self.tracks.due(self.budget.ask_at_once) if is_inside(face.box)]
        crops = [self.attributes.cut(frame.image, face.face) for face in due]
        for face, answer in zip(due, self.attributes.predict(crops), strict=True):
            self.tracks.answer(face.track, frame.time, answer)
        return len(due)
