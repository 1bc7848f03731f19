"""Crops that are mixed with another one of their batch, and labels with them (mixup, CutMix)."""

from __future__ import annotations

import numpy as np

from faceattr.data.dataset import Batch, prior_of


def mixed(batch: Batch, mixup: float, cutmix: float, generator: np.random.Generator) -> Batch:
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
    ways = [way for way, parameter in ((_mean, mixup), (_patch, cutmix)) if parameter]
    if not ways:
        return batch
    way = ways[int(generator.integers(len(ways)))]
    parameter = mixup if way is _mean else cutmix
    share = float(generator.beta(parameter, parameter))
    crops, targets, masks = batch
    partner = _partners(masks, generator)
    crops, share = way(crops, crops[partner], share, generator)

    def both(values: np.ndarray) -> np.ndarray:
        return (share * values + (1 - share) * values[partner]).astype(values.dtype)

    priors = {prior_of(name) for name in masks}
    every = {
        # Shares are mixed as labels are, not their logarithms.
        name: np.log(both(np.exp(values))) if name in priors else both(values)
        for name, values in targets.items()
    }
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
