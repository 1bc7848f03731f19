"""Faces in moving pictures: ``for frame, faces in live.watch(0): ...``."""

from faceattr.live.recognise import Effort
from faceattr.live.sinks import Timeline, VideoFile
from faceattr.live.tracks import LiveFace, Settling
from faceattr.live.watching import Watch, watch

__all__ = ["Effort", "LiveFace", "Settling", "Timeline", "VideoFile", "Watch", "watch"]
