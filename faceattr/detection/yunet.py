"""YuNet, the fastest detector, and its file: given, in the user's cache, or downloaded once."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from faceattr.detection.base import NetworkDetector
from faceattr.detection.onnx_network import OnnxNetwork, free_size
from faceattr.files import cache_folder, fetch_once

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
STRIDES = (8, 16, 32)
MULTIPLE = 32  # of pixels, that its sides must be
OUTPUTS = [f"{what}_{stride}" for what in ("cls", "obj", "bbox", "kps") for stride in STRIDES]
OVERLAP = 0.3  # IoU from which two boxes are of one face


class YuNet(NetworkDetector):
    """YuNet (MIT, Shiqi Yu), a ``face_detection_yunet`` ``.onnx`` file, in ONNX Runtime.

    At 640 pixels it found all faces of 57 photographs and nothing else; at 480 97.1 % (with the
    file of 229,738 bytes). Boxes are those of OpenCV's own `FaceDetectorYN`, in half its time;
    docs/detection.md has the table.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is none of YuNet's.
    """

    def __init__(self, file: Path, long_side: int = 640, threshold: float = 0.7) -> None:
        if not file.is_file():
            raise FileNotFoundError(f"There is no detector file {file}")
        known = known_as(file) or "another"
        super().__init__("yunet", file.name, file=known, long_side=long_side, threshold=threshold)
        self._net = _open(file)

    def detect(self, image: np.ndarray) -> np.ndarray:
        height, width = (-side % MULTIPLE for side in image.shape[:2])
        padded = cv2.copyMakeBorder(image, 0, height, 0, width, cv2.BORDER_CONSTANT)
        blob = cv2.dnn.blobFromImage(padded, swapRB=True)  # BGR, 0 to 255
        answers = self._net.run(OUTPUTS, {"input": blob})
        columns = [padded.shape[1] // stride for stride in STRIDES]
        rows = np.vstack(
            [
                _decoded(stride, count, self.threshold, *answers[place::3])
                for place, (stride, count) in enumerate(zip(STRIDES, columns, strict=True))
            ]
        )
        return rows[_strongest(rows, self.threshold)]


def _decoded(
    stride: int,
    columns: int,
    threshold: float,
    is_face: np.ndarray,
    is_there: np.ndarray,
    boxes: np.ndarray,
    points: np.ndarray,
) -> np.ndarray:
    """The rows ``(n, 15)`` of one of the network's three grids, as OpenCV decodes them.

    Args:
        stride: Pixels between two cells of the grid.
        columns: Cells in a row of it.
        threshold: As for `NetworkDetector`.
        is_face, is_there: Two probabilities a cell, ``(1, cells, 1)``.
        boxes: Centre and logarithm of width and height in strides, ``(1, cells, 4)``.
        points: Five landmarks in strides, ``(1, cells, 10)``.
    """
    scores = np.sqrt(np.clip(is_face, 0, 1) * np.clip(is_there, 0, 1)).ravel()
    cells = np.flatnonzero(scores >= threshold)
    corner = np.stack([cells % columns, cells // columns], axis=1)
    centre = corner + boxes[0, cells, :2]
    half = np.exp(boxes[0, cells, 2:]) / 2
    marks = points[0, cells] + np.tile(corner, 5)
    places = stride * np.hstack([centre - half, centre + half, marks])
    return np.hstack([places, scores[cells, None]])


def _strongest(rows: np.ndarray, threshold: float) -> np.ndarray:
    """Which of overlapping rows stay, by OpenCV's rule: boxes in whole pixels."""
    sides = np.hstack([rows[:, :2], rows[:, 2:4] - rows[:, :2]]).astype(int)
    kept = cv2.dnn.NMSBoxes(sides.tolist(), rows[:, 14].tolist(), threshold, OVERLAP)
    return np.array(kept, int)


def _open(file: Path) -> OnnxNetwork:
    network = OnnxNetwork(partial(_content, file))
    try:
        found = [output.name for output in network.session().get_outputs()]
    except Exception as error:  # the parser's and ONNX Runtime's own kinds
        raise ValueError(f"{file} is not a YuNet file, or damaged.") from error
    if missing := sorted(set(OUTPUTS) - set(found)):
        raise ValueError(f"{file} is not a YuNet file: it has no {', '.join(missing)}.")
    return network


def _content(file: Path) -> bytes:
    import onnx

    # The zoo's file names 640 x 640, which its layers do not need.
    return free_size(onnx.load(file)).SerializeToString()


def cached_yunet(*, offline: bool = False) -> Path:
    """A known YuNet file in the user's cache; the OpenCV zoo's is fetched when none is there.

    OSError: It is not there and cannot be had, or may not be fetched (`offline`).
    """
    path = cache_folder() / NAME
    if path.is_file() and known_as(path):
        return path
    if offline:
        raise FileNotFoundError(f"{path} is not there, and --offline forbids fetching it")
    try:
        fetch_once(ADDRESS, SHA256, path, TIMEOUT_SECONDS)
    except (OSError, ValueError) as error:
        raise OSError(f"{NAME} could not be fetched ({type(error).__name__})") from error
    return path


def known_as(path: Path) -> str | None:
    """Which known YuNet file this is, or None; whatever its name."""
    return KNOWN.get(hashlib.sha256(path.read_bytes()).hexdigest())
