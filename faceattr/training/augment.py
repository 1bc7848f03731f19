"""How crops are changed at random while training, and mixed with each other.

Every data set is augmented alike. FER2013 is grey, small and tight; other sets are in colour with
a margin: unless every row gets random grey, resolution, margin and shift, a shared backbone learns
which set it looks at.
"""

from __future__ import annotations

import cv2
import numpy as np

from faceattr.data.dataset import Batch, class_prior
from faceattr.images.distort import compressed, shrunk, turned_away
from faceattr.training.config import Augmentation

BLACK = 20  # below it a pixel is black, also after lossy compression
LEAST_OUTSIDE, MOST_OUTSIDE = 0.03, 0.7  # share of a crop that a surrounding takes


def augment(
    crops: np.ndarray, size: int, how: Augmentation, generator: np.random.Generator
) -> np.ndarray:
    """Change crops at random.

    Args:
        crops: RGB ``uint8`` of shape ``(n, side, side, 3)``.
        size: Side of the result in pixels.
        how: What may happen to a crop.
        generator: The source of chance; the same state gives the same result.

    Returns:
        RGB ``uint8`` of shape ``(n, size, size, 3)``.
    """
    result = np.empty((len(crops), size, size, 3), "uint8")
    for row, face in enumerate(crops):
        if how.fill and generator.random() < how.fill:
            face = _filled(face, crops[row - 1], generator)
        face = _moved(face, size, how, generator)
        if generator.random() < how.grey:
            face = np.repeat(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        if generator.random() < how.blur:
            face = shrunk(face, int(generator.integers(min(how.smallest, size), size + 1)))
        face = _lit(face, how.light, generator)
        if how.dark and generator.random() < how.dark:
            face = cv2.convertScaleAbs(face, alpha=generator.uniform(0.15, 0.7))
        if how.jpeg and generator.random() < how.jpeg:
            face = compressed(face, int(generator.integers(10, 71)))
        if generator.random() < how.erase:
            _erase(face, generator)
        result[row] = face
    return result


def _moved(
    face: np.ndarray, size: int, how: Augmentation, generator: np.random.Generator
) -> np.ndarray:
    """Flip, turn, zoom, shift and resize in one affine warp, so pixels are resampled once."""
    side = face.shape[0]
    mirror = -1.0 if generator.random() < how.flip else 1.0
    angle = np.deg2rad(generator.uniform(-how.turn, how.turn))
    scale = size / side * (1 + generator.uniform(-how.zoom, how.zoom))
    shift = size * generator.uniform(-how.shift, how.shift, 2)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[mirror * cos, -sin], [mirror * sin, cos]])
    # Pixel centres: the middle of a side of n pixels is (n - 1) / 2.
    offset = (size - 1) / 2 + shift - linear @ np.full(2, (side - 1) / 2)
    matrix = np.column_stack([linear, offset])
    warp = cv2.warpAffine
    if how.yaw:
        far, mirrored = generator.uniform(0, how.yaw), generator.random() < 0.5
        matrix = np.vstack([matrix, [0, 0, 1]]) @ turned_away(side, far, mirrored=mirrored)
        warp = cv2.warpPerspective
    return warp(face, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _filled(face: np.ndarray, other: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The face with something else in place of a black surrounding, if it has one."""
    dark = (face.max(axis=2) < BLACK).astype("uint8")
    _, areas = cv2.connectedComponents(dark)
    border = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
    outside = np.isin(areas, border[border > 0]) & (dark > 0)
    if not LEAST_OUTSIDE < outside.mean() < MOST_OUTSIDE:
        return face
    outside = cv2.dilate(outside.astype("uint8"), np.ones((3, 3), "uint8")) > 0
    if generator.random() < 0.5:  # smooth noise: a wall, a sky, somebody behind
        coarse = generator.integers(0, 256, (*generator.integers(1, 9, 2), 3), dtype="uint8")
        other = cv2.resize(coarse, face.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(outside[..., None], other, face)


def _lit(face: np.ndarray, most: float, generator: np.random.Generator) -> np.ndarray:
    """Contrast around the mean and brightness."""
    contrast = 1 + generator.uniform(-most, most)
    brightness = 255 * generator.uniform(-most, most) / 2
    offset = face.mean() * (1 - contrast) + brightness
    table = np.clip(np.rint(np.arange(256) * contrast + offset), 0, 255).astype("uint8")
    return cv2.LUT(face, table)


def _erase(face: np.ndarray, generator: np.random.Generator) -> None:
    size = face.shape[0]
    height, width = generator.integers(size // 8, size // 2, 2)
    top, left = generator.integers(0, size - height + 1), generator.integers(0, size - width + 1)
    noise = generator.integers(0, 256, (height, width, 3), dtype="uint8")
    face[top : top + height, left : left + width] = noise


def mix_batch(batch: Batch, mixup: float, cutmix: float, generator: np.random.Generator) -> Batch:
    """Mix each row with another that knows the same tasks, so that no label meets an unknown one.

    One share is drawn for the whole batch, from a Beta distribution with the same parameter twice.
    Where both are asked for, chance says which.

    Args:
        batch: Crops RGB ``uint8`` ``(n, side, side, 3)``, targets and masks by task.
        mixup: Parameter of mixup (Zhang et al. 2018): a weighted mean of two crops; 0: never.
        cutmix: Parameter of CutMix (Yun et al. 2019): a rectangle of one in the other; 0: never.
        generator: The source of chance.

    Returns:
        A batch of the same form. A row that knows no task is mixed with others that know none.
    """
    kinds = [kind for kind in ((_mean, mixup), (_patch, cutmix)) if kind[1]]
    if not kinds:
        return batch
    mix, parameter = kinds[int(generator.integers(len(kinds)))]
    share = float(generator.beta(parameter, parameter))
    crops, targets, masks = batch
    partner = _partners(masks, generator)
    crops, share = mix(crops, crops[partner], share, generator)

    def both(values: np.ndarray) -> np.ndarray:
        return (share * values + (1 - share) * values[partner]).astype(values.dtype)

    every = {}
    for name, mask in masks.items():
        # A row that weighs more has more of the mixed label: weights and labels mixed one by one
        # would give rare classes less than their balance.
        weights, total = mask[:, None], both(mask)[:, None]
        target = both(weights * targets[name])
        every[name] = np.divide(target, total, out=np.zeros_like(target), where=total > 0)
        if (prior := class_prior(name)) in targets:  # shares are mixed as labels are
            shares = np.exp(targets[prior])
            mixed = both(weights * shares)
            every[prior] = np.log(np.divide(mixed, total, out=both(shares), where=total > 0))
    return crops, every, {name: both(values) for name, values in masks.items()}


def _partners(masks: dict[str, np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """For each row another one that knows the same tasks, or itself where there is none."""
    known = np.stack([mask > 0 for mask in masks.values()], axis=1)
    _, pattern = np.unique(known, axis=0, return_inverse=True)
    partner = np.arange(len(known))
    for kind in np.unique(pattern):
        rows = np.flatnonzero(pattern == kind)
        partner[rows] = generator.permutation(rows)
    return partner


def _mean(crops, others, share, generator) -> tuple[np.ndarray, float]:
    mean = share * crops.astype("float32") + (1 - share) * others
    return np.rint(mean).astype("uint8"), share


def _patch(crops, others, share, generator) -> tuple[np.ndarray, float]:
    """A rectangle of `others` in `crops`, and the share of the crops that is left."""
    side = crops.shape[1]
    length = round(side * float(np.sqrt(1 - share)))
    top, left = generator.integers(0, side - length + 1, 2)
    crops = crops.copy()
    crops[:, top : top + length, left : left + length] = others[
        :, top : top + length, left : left + length
    ]
    return crops, 1 - (length / side) ** 2
