"""A running average of the weights (EMA), which is judged and saved in place of the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
from keras import ops

EVERY = 4  # steps between two updates: the same average for a quarter of the work


def read_back(model: keras.Model) -> None:
    """Give variables their values within an epoch: JAX keeps them in its compiled step."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


class WeightAverage(keras.callbacks.Callback):
    """Averages weights exponentially while they learn (Polyak and Juditsky 1992).

    Unlike Keras' `SwapEMAWeights` it averages the statistics of batch normalisation too, works
    with several optimisers, and leaves the weights that learn as they are at the end of `fit`.

    Args:
        weights: What is averaged; the average starts at their values.
        decay: Share of the average that a step leaves. The first steps leave less, so that the
            start is soon forgotten.
    """

    def __init__(self, weights: Sequence[keras.Variable], decay: float) -> None:
        super().__init__()
        self._weights, self._decay = list(weights), decay
        self._averages = [
            keras.Variable(ops.convert_to_numpy(weight), dtype=weight.dtype, trainable=False)
            for weight in self._weights
        ]
        self._steps = keras.Variable(0, dtype="int32", trainable=False)

    @property
    def state(self) -> list[keras.Variable]:
        """What a checkpoint needs."""
        return [*self._averages, self._steps]

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self._steps.assign_add(1)
        steps = int(self._steps)
        if steps % EVERY:
            return
        read_back(self.model)
        kept = min(self._decay, (1 + steps) / (10 + steps)) ** EVERY
        for average, weight in zip(self._averages, self._weights, strict=True):
            # In this form what does not learn stays as it is to the last bit.
            average.assign(average + (1 - kept) * (weight - average))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The weights are the average meanwhile, and what they were afterwards."""
        learnt = [ops.convert_to_numpy(weight).copy() for weight in self._weights]
        for weight, average in zip(self._weights, self._averages, strict=True):
            weight.assign(average)
        try:
            yield
        finally:
            for weight, values in zip(self._weights, learnt, strict=True):
                weight.assign(values)
