"""What the page in the browser and faceattr tell each other."""

from __future__ import annotations

import io
import math
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from faceattr.inference.predictor import FaceAttributes
from faceattr.live.face_tracker import Seen
from faceattr.live.outputs import timeline_columns
from faceattr.live.pen import COLOURS
from faceattr.live.tracking import LiveFace

MOST_BYTES, MOST_PIXELS = 4 << 20, 16_000_000
TOO_BIG, NO_PICTURE = "is larger than the page sends", "is no JPEG picture"


def about_page(attributes: FaceAttributes, looks: list[str]) -> dict[str, Any]:
    """What the page has to know before the first frame."""
    return {
        "tasks": [{"name": task.name, "classes": task.classes} for task in attributes.tasks],
        "detector": attributes.detector.about["name"],
        "long_side": max(640, attributes.detector.long_side or 0),
        "columns": timeline_columns(attributes.tasks),
        "colours": [f"rgb{colour}" for colour in COLOURS],
        "looks": looks,
        "most_bytes": MOST_BYTES,
    }


def frame_of(message: bytes) -> tuple[float, np.ndarray]:
    """Read a page's message: eight bytes with the second (float64, little endian), a JPEG.

    Returns:
        The second and the RGB ``uint8`` image.

    Raises:
        ValueError: It is none, or too large.
    """
    second = float(np.frombuffer(message[:8], "<f8")[0]) if len(message) > 8 else math.nan
    size = _jpeg_size(message[8:])
    if size is None or not math.isfinite(second) or second < 0:
        raise ValueError(f"What was sent {NO_PICTURE}.")
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"The picture {TOO_BIG}: {size[0]}x{size[1]} pixels.")
    image = cv2.imdecode(np.frombuffer(message, np.uint8, offset=8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError(f"What was sent {NO_PICTURE}.")
    return second, image


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height out of a JPEG's head, before its pixels take any memory."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return image.size
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None


def answer_of(seen: Seen, seconds: float) -> dict[str, Any]:
    """What the page is told about a frame that took so many seconds."""
    return {
        "time": seen.time,
        "frame": seen.number,
        "milliseconds": round(1000 * seconds, 1),
        "faces": [_plain(face) for face in seen.faces],
        "lost": [_box(face) for face in seen.lost],
    }


def _plain(face: LiveFace) -> dict[str, Any]:
    return {
        "track": face.track,
        "box": _box(face),
        "velocity": [round(speed, 1) for speed in face.velocity],
        "detection": round(face.score, 4),
        "too_small": face.too_small,
        "answers": {
            task: {
                "label": answer.label,
                "probability": answer.probability,
                "probabilities": {name: round(p, 4) for name, p in answer.probabilities.items()},
            }
            for task, answer in face.predictions.items()
        },
    }


def _box(face: LiveFace) -> list[float]:
    return [round(value, 1) for value in face.box]
