"""Which detector is meant by a name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faceattr.detection.base import Detector, WholePicture
from faceattr.detection.detectors import CenterFace, Mtcnn, YuNet
from faceattr.detection.yunet import cached_yunet

NAMES = ("auto", "yunet", "centerface", "mtcnn", "none")


def choose_detector(
    name: str = "auto", *, offline: bool = False, say: Callable[[str], None] = lambda line: None
) -> Detector:
    """The detector called `name`.

    Args:
        name: ``"yunet"``, ``"centerface"``, ``"mtcnn"``, ``"none"`` (the picture is the face),
            the path of a YuNet ``.onnx`` file, or ``"auto"``: YuNet where its file is in the
            user's cache or can be fetched, else CenterFace.
        offline: Forbid fetching.
        say: Is told in one line when ``"auto"`` has to do without YuNet.

    Raises:
        ValueError: There is no such detector.
        OSError: YuNet was asked for and its file cannot be had.
    """
    if name.endswith(".onnx"):
        return YuNet(_existing(Path(name)))
    if name == "auto":
        return _best_at_hand(offline, say)
    if name == "yunet":
        return _yunet(offline)
    makers: dict[str, Callable[[], Detector]] = {
        "centerface": CenterFace,
        "mtcnn": Mtcnn,
        "none": WholePicture,
    }
    if name not in makers:
        raise ValueError(
            f"A detector is one of {', '.join(NAMES)} or a YuNet .onnx file. Received: {name!r}"
        )
    return makers[name]()


def _best_at_hand(offline: bool, say: Callable[[str], None]) -> Detector:
    try:
        return YuNet(cached_yunet(offline=offline))
    except OSError as error:
        say(f"faces are found with centerface: {error}")
        return CenterFace()


def _yunet(offline: bool) -> Detector:
    try:
        return YuNet(cached_yunet(offline=offline))
    except OSError as error:
        raise OSError(
            f"{error}. Give a YuNet file by its path (--detector FILE.onnx) or use --detector "
            "centerface, which needs none."
        ) from error


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"There is no detector file {path}")
    return path
