"""From float32 to int8 after training, with the settings that kept most of the answers.

Measured on the shipped model (`docs/export.md`): ranges must reach the largest value that occurs,
because max pooling hands on exactly that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from faceattr.model.runtime import INPUT

TOGETHER = 32  # crops


def onnx(source: Path, target: Path, crops: np.ndarray) -> None:
    """Static quantisation by ONNX Runtime: weights by channel, ranges from minimum to maximum."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            starts = range(0, len(crops), TOGETHER)
            self._batches = iter([{INPUT: crops[i : i + TOGETHER]} for i in starts])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    quantize_static(source, target, Batches(), per_channel=True, activation_type=QuantType.QUInt8)


def openvino(source: Path, target: Path, crops: np.ndarray) -> None:
    """Post-training quantisation by NNCF with ranges from minimum to maximum."""
    import nncf
    import openvino
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    quantised = nncf.quantize(
        openvino.Core().read_model(source),
        nncf.Dataset([crop[None] for crop in crops]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(crops),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
        ),
    )
    openvino.save_model(quantised, target, compress_to_fp16=False)


def litert(crops: np.ndarray) -> dict[str, Any]:
    """Options of LiteRT's converter: 8-bit weights by channel and activations, all of them.

    What cannot be computed in 8 bits is refused instead of staying float.
    """
    import tensorflow as tf

    return {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "representative_dataset": lambda: ({INPUT: crop[None]} for crop in crops),
        "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
    }
