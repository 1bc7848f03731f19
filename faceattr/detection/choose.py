"""Which detector finds the faces: by name, by a file, or the best one that can be had."""

from __future__ import annotations

from pathlib import Path

from faceattr.detection.base import Detector, WholePicture
from faceattr.detection.centerface import CenterFace
from faceattr.detection.mtcnn import Mtcnn
from faceattr.detection.yunet import YuNet, cached_yunet
from faceattr.progress import SILENT, Progress

NAMES = ("auto", "yunet", "centerface", "mtcnn", "none")


def choose_detector(
    name: str = "auto", *, offline: bool = False, progress: Progress = SILENT
) -> Detector:
    """The detector called `name`.

    Args:
        name: ``"yunet"``, ``"centerface"``, ``"mtcnn"``, ``"none"`` (the picture is the face),
            the path of a YuNet ``.onnx`` file, or ``"auto"``: YuNet where its file is in the
            user's cache or can be fetched, else CenterFace.
        offline: Forbid fetching.
        progress: Is shown one line when ``"auto"`` has to do without YuNet.

    Raises:
        ValueError: There is no such detector.
        OSError: YuNet was asked for and its file cannot be had.
    """
    if name.endswith(".onnx"):
        return YuNet(Path(name))
    if name not in NAMES:
        raise ValueError(
            f"A detector is one of {', '.join(NAMES)} or a YuNet .onnx file. Received: {name!r}"
        )
    if name in ("auto", "yunet"):
        return _yunet(offline, progress if name == "auto" else None)
    return {"centerface": CenterFace, "mtcnn": Mtcnn, "none": WholePicture}[name]()


def _yunet(offline: bool, instead: Progress | None) -> Detector:
    """YuNet with the file in the cache; CenterFace where it cannot be had and `instead` is told."""
    try:
        return YuNet(cached_yunet(offline=offline))
    except OSError as error:
        if instead is None:
            raise OSError(
                f"{error}. Give a YuNet file by its path (--detector FILE.onnx) or use --detector "
                "centerface, which needs none."
            ) from error
        instead.show(f"faces are found with centerface: {error}")
        return CenterFace()
