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
    ``sqrt(max(1, rows / columns))`` as Jordan et al. do, and by Keras' ``rms_rate`` (0.2), which
    only says what a rate of 1 means.
    """

    def _should_use_adamw(self, variable) -> bool:
        return len(variable.shape) != 4

    def zeropower_via_newtonschulz5(self, x, steps: int):
        """Keras' iteration on the small Gram matrix: the same result for less than half the work.

        Every step multiplies the matrix from one side with a polynomial of its Gram matrix, so
        the polynomials are collected first and meet the matrix once.
        """
        matrix = ops.reshape(x, (-1, x.shape[-1]))
        is_wide = matrix.shape[0] < matrix.shape[1]
        tall = ops.transpose(matrix) if is_wide else matrix
        tall = tall / (ops.norm(tall) + 1e-7)
        gram = ops.matmul(ops.transpose(tall), tall)
        whitening = unit = ops.eye(gram.shape[0], dtype=gram.dtype)
        for _ in range(steps):
            squared = ops.matmul(gram, gram)
            factor = self.muon_a * unit + self.muon_b * gram + self.muon_c * squared
            whitening = ops.matmul(whitening, factor)
            gram = ops.matmul(factor, ops.matmul(gram, factor))
        white = ops.matmul(tall, whitening)
        return ops.reshape(ops.transpose(white) if is_wide else white, x.shape)

    def lr_adjust(self, x):
        height, width, n_in, n_out = x.shape
        return x * (self.rms_rate * max(1.0, height * width * n_in / n_out) ** 0.5)
