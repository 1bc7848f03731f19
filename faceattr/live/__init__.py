"""Faces in moving pictures: ``for frame, faces in live.watch(0): ...``."""

from faceattr.live.face_tracker import Effort
from faceattr.live.outputs import Timeline, VideoFile
from faceattr.live.stream import Watch, watch
from faceattr.live.tracking import LiveFace, Settling

__all__ = ["Effort", "LiveFace", "Settling", "Timeline", "VideoFile", "Watch", "watch"]
