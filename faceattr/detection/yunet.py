"""YuNet, the fastest detector, and its file: given, in the user's cache, or downloaded once."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import platformdirs

from faceattr.detection.base import NetworkDetector, PerThread

NAME = "face_detection_yunet_2023mar.onnx"
ADDRESS = (
    "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/"
    f"face_detection_yunet/{NAME}"
)
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
# By hash: the file that is fetched, and the one with which all figures of YuNet were measured.
KNOWN = {
    SHA256: "opencv_zoo's 2023mar, 232,589 bytes",
    "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0": (
        "as measured, 229,738 bytes"
    ),
}
TIMEOUT_SECONDS = 10


class YuNet(NetworkDetector):
    """YuNet (MIT, Shiqi Yu) through OpenCV.

    At 640 pixels it found all faces of 57 photographs and nothing else; at 480 97.1 % (with the
    file of 229,738 bytes).

    Args:
        file: A ``face_detection_yunet`` ``.onnx`` file.
        long_side, threshold: As for `NetworkDetector`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: OpenCV cannot use it.
    """

    def __init__(self, file: Path, long_side: int = 640, threshold: float = 0.7) -> None:
        if not file.is_file():
            raise FileNotFoundError(f"There is no detector file {file}")
        known = known_as(file) or "another"
        super().__init__("yunet", file.name, file=known, long_side=long_side, threshold=threshold)
        self._own = PerThread(partial(_open, file, threshold))

    def detect(self, image: np.ndarray) -> np.ndarray:
        net = self._own.net
        net.setInputSize((image.shape[1], image.shape[0]))
        _, rows = net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if rows is None:
            return np.empty((0, 15))
        return np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:4], rows[:, 4:15]])


def _open(file: Path, threshold: float) -> Any:
    # OpenCV 5 warns of a default of its own that its new engine does not know.
    loud = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.FaceDetectorYN.create(str(file), "", (320, 320), score_threshold=threshold)
    except cv2.error as error:
        raise ValueError(f"{file} is not a YuNet file that OpenCV can use.") from error
    finally:
        cv2.utils.logging.setLogLevel(loud)


def cached_yunet(*, offline: bool = False) -> Path:
    """A known YuNet file in the user's cache; the OpenCV zoo's is fetched when none is there.

    Args:
        offline: Do not fetch it.

    Raises:
        OSError: It is not there and cannot be had; the message says why.
    """
    path = Path(platformdirs.user_cache_dir("faceattr"), NAME)
    if path.is_file() and known_as(path):
        return path
    if offline:
        raise FileNotFoundError(f"{path} is not there, and --offline forbids fetching it")
    import pooch

    pooch.get_logger().setLevel("ERROR")
    download = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)
    try:
        # pooch writes to a temporary file, checks it and renames it.
        pooch.retrieve(ADDRESS, f"sha256:{SHA256}", NAME, path.parent, downloader=download)
    except (OSError, ValueError) as error:
        raise OSError(f"{NAME} could not be fetched ({type(error).__name__})") from error
    return path


def known_as(path: Path) -> str | None:
    """Which known YuNet file this is, or None; whatever its name."""
    return KNOWN.get(hashlib.sha256(path.read_bytes()).hexdigest())
