"""How frequent a head takes its classes to be, and answers under other class shares.

A head that was trained with a prior has known class shares in its bias (logit adjustment, Menon et
al. 2021): its answers can be put to any others, exactly, by one multiplication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from faceattr.model.file import Description
from faceattr.tasks import Task

if TYPE_CHECKING:
    import keras

# "uniform", "natural" or the name of a source; or shares by class.
Prior = str | Mapping[str, float]


def class_shares(
    prior: Prior, known: Mapping[str, Sequence[float]], classes: Sequence[str]
) -> np.ndarray:
    """The class shares that a prior stands for, ``(classes,)``, in the head's order.

    `known` has class shares by name, as `faceattr train --prior` keeps them in a model file. Shares
    by class are above 0 and need not sum to 1.
    """
    if isinstance(prior, str):
        if prior not in known:
            raise ValueError(
                f"A prior is {', '.join(known)}, or shares by class. Received: {prior!r}"
            )
        return np.array(known[prior])
    shares = np.array([prior.get(name, 0.0) for name in classes], float)
    if set(prior) != set(classes) or not (np.isfinite(shares) & (shares > 0)).all():
        raise ValueError(
            f"Shares are numbers above 0 for each of {', '.join(classes)}. Received: {dict(prior)}"
        )
    return shares / shares.sum()


def granted_shares(made: Mapping[str, Any], task: Task) -> np.ndarray | None:
    """The class shares that a head trained with a prior takes for granted, ``(classes,)``, by the
    provenance of its file; None where it was trained without one.
    """
    prior = made.get("priors", {}).get(task.name)
    if prior is None:
        return None
    known = made.get("class_shares", {}).get(task.name, {})
    return class_shares(prior, known, task.classes)


def log_ratios(about: Description, priors: Mapping[str, Prior]) -> dict[str, np.ndarray]:
    """By head, the logarithm of its new class shares over those that it has, ``(classes,)``."""
    now, tasks = about.provenance.get("priors", {}), {task.name: task for task in about.tasks}
    found = {}
    for name, prior in priors.items():
        granted = granted_shares(about.provenance, tasks[name]) if name in tasks else None
        if granted is None:
            raise ValueError(
                f"Head {name!r} was not trained with --prior, so which class shares it takes for "
                f"granted is not known. Those that were: {', '.join(now) or 'none'}."
            )
        known = about.provenance["class_shares"][name]
        found[name] = np.log(class_shares(prior, known, tasks[name].classes) / granted)
    return found


def change_prior(probabilities: np.ndarray, log_prior: np.ndarray | float) -> np.ndarray:
    """Answers, in proportion, put to other class shares, ``float32`` ``(n, classes)``; `log_prior`
    are the logarithms of the new shares less those of the old ones.
    """
    put = probabilities.astype(float) * np.exp(log_prior)
    return (put / put.sum(axis=-1, keepdims=True)).astype("float32")


def set_prior(model: keras.Model, task: str, log_prior: np.ndarray) -> None:
    """Let a head that takes all classes to be equally frequent take other shares for granted, in
    place; `log_prior` are their logarithms, ``(classes,)``.
    """
    head = model.get_layer(task)
    kernel, bias = head.get_weights()
    head.set_weights([kernel, bias + log_prior - log_prior.mean()])
