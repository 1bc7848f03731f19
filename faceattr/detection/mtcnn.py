"""MTCNN, for comparison."""

from __future__ import annotations

import threading
from importlib.metadata import version

import numpy as np

from faceattr.detection.base import NetworkDetector
from faceattr.files import install_command

POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


class Mtcnn(NetworkDetector):
    """MTCNN of the package ``mtcnn`` (MIT), which carries its weights; slow.

    At 640 pixels it found 97.1 % of the faces of 57 photographs, 95.7 % of them right, in
    nine times the time of YuNet.

    Raises:
        ValueError: The package is not installed.
    """

    upright_score = 1.0  # it gives 0.97 to a face on its side

    def __init__(self, long_side: int = 640, threshold: float = 0.9) -> None:
        try:
            from mtcnn import MTCNN
        except ImportError:
            raise ValueError(
                f"The detector mtcnn is not installed; `{install_command('mtcnn')}` installs it."
            ) from None
        source = f"mtcnn {version('mtcnn')}"
        super().__init__("mtcnn", source, long_side=long_side, threshold=threshold)
        self._net = MTCNN()
        self._one_at_a_time = threading.Lock()

    def __reduce__(self) -> tuple:
        return type(self), (self.long_side, self.threshold)

    def detect(self, image: np.ndarray) -> np.ndarray:
        with self._one_at_a_time:
            answers = self._net.detect_faces(image, box_format="xyxy")
        rows = [
            (*a["box"], *np.ravel([a["keypoints"][name] for name in POINTS]), a["confidence"])
            for a in answers or ()
            if a["confidence"] >= self.threshold
        ]
        return np.array(rows, float)
