"""Muon for convolutions (Jordan et al. 2024), which starts VGG16 from nothing."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="faceattr")
class ConvolutionMuon(keras.optimizers.Muon):
    """Keras' Muon with its step for 4-D kernels, and Adam for everything else.

    Keras' own class takes the Muon step for 2-D variables only and gives convolutions AdamW
    without a word. Here a kernel ``(height, width, in, out)`` is the matrix
    ``(height * width * in, out)``; heads, biases and norms get Adam. The update is scaled by
    ``0.2 * sqrt(rows / columns)``.
    """

    def _should_use_adamw(self, variable) -> bool:
        return len(variable.shape) != 4

    def zeropower_via_newtonschulz5(self, x, steps: int):
        matrix = ops.reshape(x, (-1, x.shape[-1]))
        # Half precision is exact enough for an iteration that only aims near 1.
        whitened = super().zeropower_via_newtonschulz5(ops.cast(matrix, "bfloat16"), steps)
        return ops.cast(ops.reshape(whitened, x.shape), x.dtype)

    def lr_adjust(self, x):
        height, width, n_in, n_out = x.shape
        return x * (self.rms_rate * (height * width * n_in / n_out) ** 0.5)
