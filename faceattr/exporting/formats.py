"""The network written for another runtime: RGB ``uint8`` crops in, heads by their names out.

Crops have the side that the model wants and any number may come at once. Everything else that the
network does, preprocessing included, is inside the file.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from faceattr.files import require_package
from faceattr.model.runtime import INPUT
from faceattr.progress import suppress_stderr

BATCH_SIZE = 32


@dataclass(frozen=True)
class Target:
    """A kind of file to export to.

    Args:
        ending: What its files' names end in; nothing for a folder.
        packages: Modules that writing and comparing it need.
        extra: What ``pip install faceattr[…]`` calls them.
        write: Writes the network in float32, for crops of a side.
        write_int8: The same in int8, given crops ``(n, side, side, 3)`` to measure ranges on;
            None where the target has none.
    """

    ending: str
    packages: tuple[str, ...]
    extra: str
    write: Callable[[keras.Model, Path, int], None]
    write_int8: Callable[[keras.Model, Path, int, np.ndarray], None] | None = None


def write(
    name: str, model: keras.Model, path: Path, side: int, crops: np.ndarray | None = None
) -> None:
    """Write a float32 network on Keras' TensorFlow backend for the target called `name`.

    Args:
        path: The file or folder to write; it must not exist.
        side: Of the crops, in pixels.
        crops: Real crops, to write it in int8; None for float32.
    """
    target = target_called(name, int8=crops is not None)
    with quiet():
        if crops is None:
            target.write(model, path, side)
        elif target.write_int8 is not None:
            target.write_int8(model, path, side, crops)


def target_called(name: str, *, int8: bool) -> Target:
    """The target, when everything that it needs is here."""
    if name not in TARGETS:
        raise ValueError(f"A target is one of {', '.join([*TARGETS, 'web'])}. Received: {name!r}")
    target = TARGETS[name]
    if int8 and target.write_int8 is None:
        able = [other for other, its in TARGETS.items() if its.write_int8]
        raise ValueError(f"{name} has no int8; {', '.join(able)} have it.")
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Export goes through TensorFlow, and Keras runs on "
            f"{keras.backend.backend()} here. Start again with KERAS_BACKEND=tensorflow."
        )
    for package in target.packages:
        require_package(package, target.extra, f"Export to {name}")
    return target


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Converters and runtimes greet, warn of their own future and draw bars."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            suppress_stderr(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _export(model: keras.Model, path: Path, side: int, form: str, **options) -> None:
    signature = [keras.InputSpec(dtype="uint8", shape=(None, side, side, 3), name=INPUT)]
    model.export(str(path), format=form, input_signature=signature, verbose=False, **options)


def _openvino(model: keras.Model, path: Path, side: int) -> None:
    import tensorflow
    from openvino.frontend.tensorflow import utils

    # OpenVINO imports and deletes a local name by evaluated text, which Python 3.13 does not find.
    utils.get_environment_setup = lambda _: {"tensorflow": tensorflow.__version__}
    _export(model, path, side, "openvino")


def _onnx(model: keras.Model, path: Path, side: int) -> None:
    _export(_frozen(model, side), path, side, "onnx")


def _frozen(model: keras.Model, side: int) -> keras.Model:
    """The same network as constants alone.

    VGG16's means are a constant that the network captures, and tf2onnx would make every captured
    constant one more input of its graph.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    crops = tf.TensorSpec((None, side, side, 3), tf.uint8, INPUT)
    function = tf.function(lambda crops: model(crops, training=False)).get_concrete_function(crops)
    constants = convert_variables_to_constants_v2(function)
    names = sorted(model.output)  # TensorFlow flattens a dict in this order

    class Frozen(keras.Model):
        def call(self, crops):
            return dict(zip(names, constants(crops), strict=True))

    frozen = Frozen()
    frozen(np.zeros((1, side, side, 3), "uint8"))
    return frozen


def _onnx_int8(model: keras.Model, path: Path, side: int, crops: np.ndarray) -> None:
    """Static quantisation by ONNX Runtime: weights by channel, ranges from minimum to maximum."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            starts = range(0, len(crops), BATCH_SIZE)
            self._batches = iter([{INPUT: crops[i : i + BATCH_SIZE]} for i in starts])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    whole = path.with_name(f"float-{path.name}")
    _onnx(model, whole, side)
    quantize_static(whole, path, Batches(), per_channel=True, activation_type=QuantType.QUInt8)
    whole.unlink()


def _openvino_int8(model: keras.Model, path: Path, side: int, crops: np.ndarray) -> None:
    """Post-training quantisation by NNCF with ranges from minimum to maximum."""
    import nncf
    import openvino
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    whole = path.with_name(f"float-{path.name}")
    _openvino(model, whole, side)
    quantised = nncf.quantize(
        openvino.Core().read_model(whole),
        nncf.Dataset([crop[None] for crop in crops]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(crops),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
        ),
    )
    openvino.save_model(quantised, path, compress_to_fp16=False)
    for part in (whole, whole.with_suffix(".bin")):
        part.unlink()


def _litert_int8(model: keras.Model, path: Path, side: int, crops: np.ndarray) -> None:
    """8-bit weights by channel and activations; what needs float is refused, not left in float."""
    import tensorflow as tf

    _export(
        model,
        path,
        side,
        "litert",
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=lambda: ({INPUT: crop[None]} for crop in crops),
        target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
    )


def write_copy(model: keras.Model, path: Path, side: int, precision: str) -> None:
    """The network for LiteRT in a precision that needs no pictures to measure ranges on.

    In ``"int8"`` activations are rounded when a crop is asked about, by its own largest values,
    which leaves probabilities calibrated; ranges measured on no faces would not.
    """
    import tensorflow as tf

    small: dict[str, Any] = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    half = small | {"target_spec": {"supported_types": [tf.float16]}}
    how = {"int8": small, "float16": half, "float32": {}}[precision]
    with quiet():
        _export(model, path, side, "litert", **how)


_litert = partial(_export, form="litert")
_saved_model = partial(_export, form="tf_saved_model")
TARGETS = {
    "onnx": Target(".onnx", ("tf2onnx", "onnx", "onnxruntime"), "onnx", _onnx, _onnx_int8),
    "litert": Target(".tflite", ("ai_edge_litert",), "litert", _litert, _litert_int8),
    "openvino": Target(".xml", ("openvino", "nncf"), "openvino", _openvino, _openvino_int8),
    "saved_model": Target("", (), "", _saved_model),
}
