"""Crops that were decoded, cut and resized once, kept on disk for every later epoch and run.

One store per crop size; a crop's key is the SHA-256 of the picture's content, the box and the
crop rule.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import platformdirs

from faceattr.data.manifest import Example
from faceattr.data.store import FORMAT, Store, alone
from faceattr.images.crop import CropRule, crop
from faceattr.images.load import read_image

CROP_VERSION = 1  # of the function that cuts; another one needs other crops
CROPS = ".crops"
TOGETHER = 512  # crops between two flushes


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


def default_folder() -> Path:
    """Where crops are kept unless told otherwise: the user's cache folder."""
    return Path(platformdirs.user_cache_dir("faceattr")) / "crops"


def cache_crops(
    examples: Sequence[Example],
    rule: CropRule,
    folder: Path | None = None,
    progress: Iterable[Example] | None = None,
) -> CachedCrops:
    """Cut every example's face, or find it in the cache.

    Args:
        examples: What to cut. A picture that cannot be read is left out and counted.
        rule: Size and margin of the crops.
        folder: The cache; `default_folder` unless given.
        progress: `examples` wrapped in a progress bar, if one shall be shown.
    """
    folder = folder or default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    keys: list[str] = []
    path, shape = folder / f"{rule.size}{FORMAT}{CROPS}", (rule.size, rule.size, 3)
    with alone(path.with_suffix(".lock")), Store(path, shape, "uint8") as store:
        found = _prepared(progress or examples, rule, store)
        while batch := list(islice(found, TOGETHER)):
            store.append([(key, face) for key, face, _ in batch if face is not None])
            keys.extend(key or f"!{reason}" for key, _, reason in batch)
        places = (None if key.startswith("!") else store.place_of(key) for key in keys)
        rows = np.array([-1 if place is None else place for place in places], dtype=np.int64)
        array = store.array()
    reasons = {place: key[1:] for place, key in enumerate(keys) if key.startswith("!")}
    return CachedCrops(array, rows, reasons)


Prepared = tuple[str, np.ndarray | None, str]


def _prepared(examples: Iterable[Example], rule: CropRule, store: Store) -> Iterator[Prepared]:
    """Key, crop (None where it is known or unusable) and reason for each example, in order."""

    def prepare(example: Example) -> Prepared:
        try:
            key = _key(example, rule)
            if store.place_of(key) is not None:
                return key, None, ""
            image = example.pixels if example.pixels is not None else read_image(example.path)
        except (OSError, ValueError):
            return "", None, "unreadable picture"
        try:
            return key, crop(image, example.box, rule, example.landmarks), ""
        except ValueError:
            return "", None, "box empty or outside the picture"

    # Decoding and resizing release the GIL. The pool works a bounded way ahead.
    iterator = iter(examples)
    with ThreadPoolExecutor() as pool:
        while ahead := list(islice(iterator, TOGETHER)):
            yield from pool.map(prepare, ahead)


def _key(example: Example, rule: CropRule) -> str:
    pixels = example.pixels
    content = example.path.read_bytes() if pixels is None else pixels.tobytes()
    digest = hashlib.sha256(content)
    digest.update(f"{CROP_VERSION} {example.box} {rule.size} {rule.margin}".encode())
    if rule.level and example.landmarks is not None:
        digest.update(f" level {example.landmarks}".encode())
    return digest.hexdigest()
