"""Toys for the tests of the use street: drawn pictures, a detector that finds the green
squares in them, and a model that reads their colour in microseconds."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
from PIL import Image

from faceattr.detection.base import Face
from faceattr.images.crop import CropRule
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.schema import ImageResult
from faceattr.model.file import Description
from faceattr.progress import Progress
from faceattr.tasks import Task

MOOD = Task("mood", ("calm", "wild", "odd"))
SHADE = Task("shade", ("dark", "light"))
BESIDE = Path(__file__).parents[2] / "shared/models/face_detection_yunet.onnx"
YUNET = Path(os.environ.get("FACEATTR_YUNET", BESIDE))


class GreenSquares:
    """Every connected patch of strong green is a face."""

    provenance = MappingProxyType({"name": "green squares"})
    long_side = None
    upright_score = 0.95

    def __call__(self, image: np.ndarray) -> list[Face]:
        red, green, blue = np.moveaxis(image.astype(int), 2, 0)
        mask = (green > 150) & (red < 120) & (blue < 120)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        boxes = [(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h, _ in stats[1:]]
        return [Face(box, None, 0.9) for box in sorted(boxes) if box[2] - box[0] > 3]


class ColourModel:
    """Probabilities out of a crop's mean colour, a row at a time; counts its calls."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def predict_on_batch(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        self.shapes.append(crops.shape)
        means = np.stack([crop.reshape(-1, 3).mean(0) / 255 for crop in crops])
        return {"mood": _softmax(means * 5), "shade": _softmax(means[:, :2] * 3)}


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values)
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


class OnEach(Progress):
    """Calls a function with each record of a kind, by default the result of an input of a job."""

    def __init__(self, call, kind: type = ImageResult) -> None:
        self._call, self._kind = call, kind

    def show(self, record: object) -> None:
        if isinstance(record, self._kind):
            self._call(record)


def attributes(**how) -> FaceAttributes:
    """Detector and model of this page; `how` as for `FaceAttributes`."""
    how = {"batch_size": 4} | how
    detector = how.pop("detector", GreenSquares())
    description = Description((MOOD, SHADE), CropRule(32), scores=how.pop("scores", {}))
    return FaceAttributes(ColourModel(), description, detector, **how)


def draw(faces: int = 1, side: int = 40, size: tuple[int, int] = (90, 200), tint: int = 0):
    """A picture ``(height, width)`` with green squares side by side."""
    image = np.full((*size, 3), (230, 230, 240), np.uint8)
    for number in range(faces):
        left = 10 + number * (side + 8)
        image[20 : 20 + side, left : left + side] = (tint % 110, 160 + tint % 90, (tint * 7) % 110)
    return image


def save_pictures(folder: Path, count: int) -> Path:
    """A folder with pictures of none to three faces each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = draw(number % 4, tint=number * 13)
        Image.fromarray(image).save(folder / f"p{number:03}.png")
    return folder


def encoded(image: np.ndarray | Image.Image, form: str = "PNG", **how) -> bytes:
    """The file of a picture."""
    opened = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    opened.save(file, form, **how)
    return file.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header promises far more pixels than it has."""
    data = bytearray(encoded(np.zeros((1, 1), np.uint8)))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)
