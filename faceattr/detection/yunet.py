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
# By hash: the file that is fetched, and the one with which all figures of YuNet were measured.
KNOWN = {
    SHA256: "opencv_zoo's 2023mar, 232,589 bytes",
    "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0": (
        "as measured, 229,738 bytes"
    ),
}
TIMEOUT_SECONDS = 10


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
