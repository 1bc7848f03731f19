"""Where YuNet's file is: given, in the user's cache, or downloaded once and checked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import platformdirs

NAME = "face_detection_yunet_2023mar.onnx"
ADDRESS = (
    "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/"
    f"face_detection_yunet/{NAME}"
)
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
SIZE = 232_589
TIMEOUT_SECONDS = 10


def cached_yunet(*, offline: bool = False) -> Path:
    """The OpenCV zoo's YuNet file in the user's cache; it is fetched when it is not there.

    Args:
        offline: Do not fetch it.

    Raises:
        OSError: It is not there and cannot be had; the message says why.
    """
    path = Path(platformdirs.user_cache_dir("faceattr"), NAME)
    if _is_right(path):
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


def _is_right(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size != SIZE:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
