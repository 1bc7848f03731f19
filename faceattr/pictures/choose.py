"""Which detector is meant by a name."""

from __future__ import annotations

from faceattr.pictures.detect import Detector, WholePicture
from faceattr.pictures.detectors import CenterFace


def choose_detector(name: str = "auto", *, offline: bool = False) -> Detector:
    """The detector called `name`."""
    if name == "none":
        return WholePicture()
    return CenterFace()
