"""The crops of labelled faces, cut once and kept on disk."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from faceattr.data.manifest import Example
from faceattr.data.store import CROPS, FORMAT, crops_folder, open_store
from faceattr.images.crop import CropRule, crop
from faceattr.images.load import read_image
from faceattr.progress import SILENT, Progress

CROP_VERSION = 1  # of the function that cuts; another one needs other crops
BATCH = 512  # crops that are written at once
UNREADABLE, OUTSIDE = "unreadable picture", "box empty or outside the picture"


@dataclass(frozen=True)
class CachedCrops:
    """Crops of examples, in their order.

    Args:
        array: Memory-mapped RGB ``uint8`` of shape ``(kept, size, size, 3)``; read-only.
        rows: For each example its row in `array`, -1 where the picture could not be used.
        reasons: Why a picture could not be used, by its place among the examples.
    """

    array: np.ndarray
    rows: np.ndarray
    reasons: Mapping[int, str] = field(default_factory=dict)

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many pictures could not be used, by reason."""
        return Counter(self.reasons.values())


def cache_crops(
    examples: Sequence[Example],
    rule: CropRule,
    cache: str | Path | None = None,
    progress: Progress = SILENT,
) -> CachedCrops:
    """Cut every example's face, or find it among those that are kept in the cache folder.

    A picture that cannot be read is left out and counted.
    """
    ahead = iter(progress.track(examples, "cutting faces"))
    keys: list[str] = []
    reasons = {"": UNREADABLE}
    # Decoding and resizing release the GIL.
    with open_store(crops_folder(cache)) as store, ThreadPoolExecutor() as pool:
        kept = store.rows(f"{rule.size}{FORMAT}{CROPS}", (rule.size, rule.size, 3), "uint8")
        while batch := list(islice(ahead, BATCH)):
            found = list(pool.map(lambda example: _key(example, rule), batch))
            places = kept.places(found)
            new = {
                k: e for k, e, place in zip(found, batch, places, strict=True) if k and place < 0
            }
            cut = dict(zip(new, pool.map(lambda e: _cut(e, rule), new.values()), strict=True))
            kept.put({key: face for key, face in cut.items() if isinstance(face, np.ndarray)})
            reasons |= {key: why for key, why in cut.items() if isinstance(why, str)}
            keys += found
        places, array = kept.places(keys), kept.array()
    why = {place: reasons[key] for place, key in enumerate(keys) if key in reasons}
    return CachedCrops(array, places, why)


def _key(example: Example, rule: CropRule) -> str:
    """What decides about a crop, as a hash; empty where the picture cannot be read."""
    pixels = example.pixels
    try:
        digest = hashlib.sha256(example.path.read_bytes() if pixels is None else pixels.tobytes())
    except OSError:
        return ""
    digest.update(f"{CROP_VERSION} {example.box} {rule.size} {rule.margin}".encode())
    if rule.align and example.landmarks is not None:
        digest.update(f" level {example.landmarks}".encode())
    return digest.hexdigest()


def _cut(example: Example, rule: CropRule) -> np.ndarray | str:
    """The crop, or why there is none."""
    try:
        image = example.pixels if example.pixels is not None else read_image(example.path)
    except (OSError, ValueError):
        return UNREADABLE
    try:
        return crop(image, example.box, rule, example.landmarks)
    except ValueError:
        return OUTSIDE
