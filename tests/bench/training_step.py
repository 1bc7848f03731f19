"""What does a training step from nothing cost, part by part, on this machine?

    python tests/bench/training_step.py [--size 48] [--batch-size 128] [--steps 5]
        [--unfreeze-from LAYER]

VGG16 with batch normalisation and three heads, on crops of noise: augmenting a batch (one thread,
beside the rest in a real run), forward and backward, and the optimiser's step: AdamW, Muon as
`faceattr train` takes it, and Muon with Keras' own iteration on whole kernels in float32 and
in bfloat16. All in one run, in turns, medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from faceattr.model.build import build
from faceattr.tasks import AGE_GROUP, EXPRESSION, GENDER
from faceattr.training.augment import augment
from faceattr.training.config import Augmentation, Phase
from faceattr.training.devices import fastest_dtype
from faceattr.training.optimizers import BACKBONE, ConvolutionMuon, unfreeze

TASKS = (EXPRESSION, GENDER, AGE_GROUP)


class WholeKernels(ConvolutionMuon):
    """Muon with Keras' iteration on kernels as matrices, in `precision`."""

    precision = "float32"

    def zeropower_via_newtonschulz5(self, x, steps):
        matrix = keras.ops.cast(keras.ops.reshape(x, (-1, x.shape[-1])), self.precision)
        white = keras.optimizers.Muon.zeropower_via_newtonschulz5(self, matrix, steps)
        return keras.ops.cast(keras.ops.reshape(white, x.shape), x.dtype)


class WholeHalfKernels(WholeKernels):
    precision = "bfloat16"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--unfreeze-from", default=BACKBONE, help="first layer that learns")
    options = parser.parse_args()
    parts = parts_of(options.size, options.batch_size, options.unfreeze_from)
    seconds = {name: [] for name in parts}
    for turn in range(options.steps + 1):
        for name, run in parts.items():
            began = time.perf_counter()
            run()
            if turn:  # the first time traces the graph
                seconds[name].append(time.perf_counter() - began)
    print(f"{options.batch_size} crops of {options.size} px, {fastest_dtype()}, seconds:")
    for name, found in seconds.items():
        print(f"{name:<28} {statistics.median(found):7.3f}")


def parts_of(size: int, count: int, first: str) -> dict[str, Callable[[], object]]:
    """By name, what is timed."""
    crops = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype="uint8")
    model = build(TASKS, weights=None, norm=True, dtype=fastest_dtype())
    unfreeze(model, Phase("opened", 1, 0.1, first, norm_learns=True))
    variables = model.trainable_variables

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            answers = model(tf.constant(crops), training=True)
            loss = tf.add_n([-tf.reduce_mean(tf.math.log(a[:, 0])) for a in answers.values()])
        return tape.gradient(loss, [variable.value for variable in variables])

    start = [tf.constant(gradient) for gradient in gradients()]

    def step_of(optimizer: keras.optimizers.Optimizer) -> Callable[[], object]:
        optimizer.build(variables)
        return tf.function(lambda: optimizer.apply(start, variables))

    muon = {"learning_rate": 1e-4, "ns_steps": 4}
    return {
        "augmenting": lambda: augment(crops, size, Augmentation(), np.random.default_rng(0)),
        "forward and backward": gradients,
        "AdamW": step_of(keras.optimizers.AdamW(1e-4)),
        "Muon": step_of(ConvolutionMuon(**muon)),
        "Muon, whole, float32": step_of(WholeKernels(**muon)),
        "Muon, whole, bfloat16": step_of(WholeHalfKernels(**muon)),
    }


if __name__ == "__main__":
    main()
