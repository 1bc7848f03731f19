"""The crops of labelled faces, kept on disk from one run to the next."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from faceattr.data.manifest import Example, listed
from faceattr.data.store import CROPS, FORMAT, crops_folder, open_store
from faceattr.images.crop import CropRule, crop
from faceattr.images.load import load_image
from faceattr.progress import SILENT, Progress

CROP_VERSION = 1  # of `crop`; another one needs other crops
BATCH = 512  # crops that are written at once
UNREADABLE, OUTSIDE = "unreadable image", "box empty or outside the image"


@dataclass(frozen=True)
class CachedCrops:
    """Crops of examples, in their order.

    Args:
        array: Memory-mapped RGB ``uint8`` of shape ``(kept, size, size, 3)``; read-only.
        rows: For each example its row in `array`, -1 where the image could not be used.
        reasons: Why an image could not be used, by its place among the examples.
    """

    array: np.ndarray
    rows: np.ndarray
    reasons: Mapping[int, str] = field(default_factory=dict)

    def left_out(self, examples: Sequence[Example]) -> Mapping[str, int]:
        """How many of the examples could not be used, by reason and the first ones' names."""
        found: dict[str, list[Example]] = {}
        for place, reason in self.reasons.items():
            found.setdefault(reason, []).append(examples[place])
        return {f"{reason}: {listed(some)}": len(some) for reason, some in found.items()}


def cache_crops(
    examples: Sequence[Example],
    rule: CropRule,
    cache: str | Path | None = None,
    progress: Progress = SILENT,
) -> CachedCrops:
    """Crop every example's face, or take the crop that the cache folder keeps."""
    ahead = iter(progress.track(examples, "cropping faces"))
    keys: list[str] = []
    reasons = {"": UNREADABLE}
    # Decoding and resizing release the GIL.
    with open_store(crops_folder(cache)) as store, ThreadPoolExecutor() as pool:
        kept = store.rows(f"{rule.size}{FORMAT}{CROPS}", (rule.size, rule.size, 3), "uint8")
        while batch := list(itertools.islice(ahead, BATCH)):
            batch_keys = list(pool.map(lambda example: _key(example, rule), batch))
            known = zip(batch_keys, batch, kept.places(batch_keys), strict=True)
            new = {key: example for key, example, place in known if key and place < 0}
            made = dict(zip(new, pool.map(lambda e: _crop(e, rule), new.values()), strict=True))
            kept.put({key: face for key, face in made.items() if isinstance(face, np.ndarray)})
            reasons |= {key: why for key, why in made.items() if isinstance(why, str)}
            keys += batch_keys
        places, array = kept.places(keys), kept.array()
    why = {place: reasons[key] for place, key in enumerate(keys) if key in reasons}
    return CachedCrops(array, places, why)


def _key(example: Example, rule: CropRule) -> str:
    is_aligned = rule.align and example.landmarks is not None
    level = f" level {example.landmarks}" if is_aligned else ""
    return content_hash(example, f"{CROP_VERSION} {example.box} {rule.size} {rule.margin}{level}")


def content_hash(example: Example, about: str) -> str:
    """A hash of an example's image and a text; empty where the image cannot be read."""
    pixels = example.pixels
    try:
        digest = hashlib.sha256(example.path.read_bytes() if pixels is None else pixels.tobytes())
    except OSError:
        return ""
    digest.update(about.encode())
    return digest.hexdigest()


def _crop(example: Example, rule: CropRule) -> np.ndarray | str:
    try:
        image = example.pixels if example.pixels is not None else load_image(example.path)
    except (OSError, ValueError):
        return UNREADABLE
    try:
        return crop(image, example.box, rule, example.landmarks)
    except ValueError:
        return OUTSIDE
