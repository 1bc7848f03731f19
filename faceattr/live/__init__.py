"""Faces in moving images: ``for frame, faces in live.watch(0): ...``."""

from faceattr.live.face_tracker import InferenceBudget
from faceattr.live.outputs import Timeline, VideoFile
from faceattr.live.stream import Watch, watch
from faceattr.live.tracking import LiveFace, Smoothing

__all__ = ["InferenceBudget", "LiveFace", "Smoothing", "Timeline", "VideoFile", "Watch", "watch"]
