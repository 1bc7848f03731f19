"""What a model's answer to is_face does to a detector's false alarms.

    python tests/bench/is_face.py MODEL FACES.csv [--yunet FILE.onnx]

Measured on every second photograph of `FACES.csv`, on none of those that
`examples/is_face/make.py` took rows from. A detection is right when its centre lies in a box that
no other detection has taken; boxes of faces that the model drops are missed faces.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[2] / "examples/is_face"))

from detectors import score
from make import photographs

from faceattr import FaceAttributes
from faceattr.detection.base import Detector
from faceattr.detection.centerface import CenterFace
from faceattr.detection.yunet import YuNet
from faceattr.images.load import read_image

THRESHOLDS = (0.4, 0.1, 0.05, 0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--yunet", type=Path, help="a YuNet file")
    given = parser.parse_args()
    pictures = list(photographs(given.faces, odd=True))
    truth = {str(path): [tuple(box) for box in boxes] for path, boxes in pictures}
    images = {path: read_image(path) for path in truth}
    describe = FaceAttributes.load(
        given.model, CenterFace(), filter={"is_face": "yes"}, min_face=0.0
    )
    print(f"{len(images)} photographs, {sum(map(len, truth.values()))} faces")
    print(
        "detector    threshold |   alone: found  recall precision | is_face: kept  recall precision"
    )
    for threshold in THRESHOLDS:
        detectors: list[Detector] = [CenterFace(threshold=threshold)]
        detectors += [YuNet(given.yunet, threshold=threshold)] if given.yunet else []
        for describe.detector in detectors:
            faces = {path: describe(image) for path, image in images.items()}
            kept = {
                path: [face for face in some if not face.rejected] for path, some in faces.items()
            }
            name = describe.detector.provenance["name"]
            print(f"{name:<12}{threshold:>9} | {_line(faces, truth)} | {_line(kept, truth)}")


def _line(found, truth) -> str:
    right, wrong, there = score(found, truth)
    precision = right / max(1, right + wrong)
    return f"{right + wrong:>13} {right / there:>7.1%} {precision:>9.1%}"


if __name__ == "__main__":
    main()
