"""The masked loss: Keras' cross-entropy per head, averaged over the rows that know the task.

An all-zero target has a cross-entropy of 0, but its *gradient* is ``softmax(logits) - 0``
where TensorFlow fuses the two, so unlabelled rows would drive their head (docs/masking.md
shows it). The mask beside each batch reaches these losses as Keras' ``sample_weight``: it
multiplies the gradient of an unlabelled row by 0, after smoothing, and
``mean_with_sample_weight`` divides by the labelled rows, giving 0 where there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import keras


def masked_losses(
    heads: Iterable[str], label_smoothing: float = 0.0
) -> dict[str, keras.losses.Loss]:
    """One loss per head, for ``compile(loss=…)`` and a ``sample_weight`` of masks by task.

    Args:
        heads: Names of the heads.
        label_smoothing: Share of every known target that is spread over the classes.
    """
    return {
        name: keras.losses.CategoricalCrossentropy(
            label_smoothing=label_smoothing, reduction="mean_with_sample_weight"
        )
        for name in heads
    }


def compile_masked(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    *,
    label_smoothing: float = 0.0,
    weights: Mapping[str, float] | None = None,
) -> None:
    """Compile a model for masked batches.

    Args:
        model: A model of `faceattr.model.build`.
        optimizer: Any Keras optimiser.
        label_smoothing: See `masked_losses`.
        weights: By task, the weight of its loss in the sum; 1 where not given.
    """
    heads = list(model.output)
    weights = dict(weights or {})
    model.compile(
        optimizer=optimizer,
        loss=masked_losses(heads, label_smoothing),
        loss_weights={name: weights.get(name, 1.0) for name in heads},
        # Plain `metrics` would score an all-zero row as class 0.
        weighted_metrics={name: ["accuracy"] for name in heads},
    )
