"""ONNX files whose weights are stored in fewer bits and compute in float32.

Whatever opens such a file makes floats of its weights once, so that it is as fast as before, and
nothing else is rounded: no crops are needed to measure ranges on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from faceattr.detection.onnx_network import fix_weights

MIN_SIZE = 1024  # values; smaller tensors stay as they are
# Of all weights: tensors with a smaller share stay in float16 when the others go to int8. On 1,000
# val faces of FER2013 the shipped model's largest change is 0.009 so, and 0.014 in int8 throughout.
FINE_SHARE = 0.015
OPSET_OF_INT8 = 13  # the first that scales weights by channel


def compact(model: Any, precision: str) -> Any:
    """The same `onnx.ModelProto`, which is changed, with its float32 weights in another precision.

    ``"int8"`` is by output channel; ValueError where the file is older than that.
    """
    from onnx import TensorProto, numpy_helper

    fix_weights(model)
    model.ir_version = max(4, model.ir_version)  # before, weights had to be inputs
    if precision == "float32":
        return model
    opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    if precision == "int8" and opset < OPSET_OF_INT8:
        raise ValueError(f"int8 needs opset {OPSET_OF_INT8} or newer. Received: {opset}")
    graph = model.graph
    large = [
        tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= MIN_SIZE
    ]
    total = sum(int(np.prod(tensor.dims)) for tensor in large)
    for tensor in large:
        is_fine = np.prod(tensor.dims) < FINE_SHARE * total
        values = numpy_helper.to_array(tensor)
        graph.initializer.remove(tensor)
        if precision == "float16" or is_fine:
            _in_float16(graph, tensor.name, values)
        else:
            _in_int8(graph, tensor.name, values, _output_axis(graph, tensor.name))
    return model


def _output_axis(graph: Any, name: str) -> int:
    """Along which axis of a weight the output channels lie."""
    node = next(node for node in graph.node if name in node.input)
    return 0 if node.op_type == "Conv" else 1


def _in_float16(graph: Any, name: str, values: np.ndarray) -> None:
    from onnx import TensorProto, helper, numpy_helper

    half = f"{name}/float16"
    graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), half))
    graph.node.insert(0, helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))


def _in_int8(graph: Any, name: str, values: np.ndarray, axis: int) -> None:
    from onnx import helper, numpy_helper

    others = tuple(other for other in range(values.ndim) if other != axis)
    scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-12) / 127
    whole = np.clip(rounded(values / scale), -127, 127).astype(np.int8)
    named = {f"{name}/int8": whole, f"{name}/scale": scale.astype(np.float32).ravel()}
    for part, content in named.items():
        graph.initializer.append(numpy_helper.from_array(content, part))
    graph.node.insert(0, helper.make_node("DequantizeLinear", list(named), [name], axis=axis))


def rounded(values: np.ndarray) -> np.ndarray:
    """Whole numbers; those of one kernel sum to what it did, as nearly as whole numbers can.

    What comes into a convolution is positive and alike at neighbouring places, so that errors which
    cancel out in a kernel cancel out in its answer. In a matrix each value is its own kernel.

    Args:
        values: ``(outputs, inputs, …)``; what follows the first two axes is a kernel.
    """
    kernels = values.reshape(*values.shape[:2], -1)
    nearest = np.round(kernels)
    errors = kernels - nearest
    missing = np.round(errors.sum(axis=-1, keepdims=True))
    ranks = np.argsort(np.argsort(errors, axis=-1), axis=-1)  # 0 has the lowest error
    count = kernels.shape[-1]
    up = (missing > 0) & (ranks >= count - missing)
    down = (missing < 0) & (ranks < -missing)
    return (nearest + up - down).reshape(values.shape)
