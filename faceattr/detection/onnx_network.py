"""Networks of ``.onnx`` files in ONNX Runtime: for images of any size, shared by threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np


class OnnxNetwork:
    """A network that computes with as many threads as OpenCV is allowed.

    A job that looks at many pictures at once allows one each; so there is a session for every
    number of threads that was asked for. Threads share it. `content` gives the serialized model;
    whoever unpickles the network calls it again.
    """

    def __init__(self, content: Callable[[], bytes]) -> None:
        self._content = content
        self._sessions: dict[int, Any] = {}
        self._opening = threading.Lock()

    def __reduce__(self) -> tuple:
        return type(self), (self._content,)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of these names, as a session of ONNX Runtime gives them."""
        return self.session().run(outputs, inputs)

    def session(self) -> Any:
        """The session for the number of threads that OpenCV has now."""
        threads = max(1, cv2.getNumThreads())
        with self._opening:
            if threads not in self._sessions:
                self._sessions[threads] = _session(self._content(), threads)
            return self._sessions[threads]


def _session(content: bytes, threads: int) -> Any:
    import onnxruntime

    how = onnxruntime.SessionOptions()
    how.intra_op_num_threads = threads
    how.log_severity_level = 3
    how.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, how, providers=["CPUExecutionProvider"])


def free_size(model: Any) -> Any:
    """The same `onnx.ModelProto` for images of any size, whatever size its file names."""
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    for place, name in ((0, "count"), (2, "height"), (3, "width")):
        dimensions[place].dim_param = name
    for output in model.graph.output:
        for place, dimension in enumerate(output.type.tensor_type.shape.dim):
            dimension.dim_param = f"{output.name}_{place}"
    del model.graph.value_info[:]
    return model


def fix_weights(model: Any) -> None:
    """Take the weights out of the inputs: with what may change nothing is computed ahead."""
    names = {weight.name for weight in model.graph.initializer}
    for given in [one for one in model.graph.input if one.name in names]:
        model.graph.input.remove(given)
