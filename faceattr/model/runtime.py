"""One network, several engines: all of them are opened here and asked alike.

A model file is answered by Keras, or by LiteRT from the copy inside it (`faceattr.model.embedded`).

An exported file (`.onnx`, `.tflite`, OpenVINO's `.xml` with its `.bin`, or the folder of a
SavedModel) knows nothing of crops and classes. `faceattr export` writes ``<file>.json`` beside it,
with the description of the model, a hash of the file and a report of how far it answers alike.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np

from faceattr.files import require_package
from faceattr.model import embedded
from faceattr.model import file as model_file
from faceattr.model.file import Description
from faceattr.model.priors import Prior, change_prior, log_ratios

if TYPE_CHECKING:
    import keras

INPUT = "crops"
ENGINES = ("auto", "keras", "litert")  # of a model file
Answer = Callable[[np.ndarray], Mapping[str, np.ndarray]]


class ExportedModel:
    """An exported network with the one method that labelling and evaluation ask of a Keras model.

    `answer` is called by one thread at a time. `precision` is what it computes in: ``"float32"``,
    ``"float16"`` (weights) or ``"int8"``; `engine` is the name of a target of `faceattr export`.
    """

    def __init__(
        self,
        answer: Answer,
        precision: str = "float32",
        min_batch: int | None = None,
        engine: str = "litert",
    ) -> None:
        self.precision = precision
        self.min_batch = min_batch
        self.engine = engine
        self._answer = answer
        self._one_at_a_time = threading.Lock()

    def predict_on_batch(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities ``float32`` ``(n, classes)`` by task name."""
        with self._one_at_a_time:
            return {name: np.array(rows) for name, rows in self._answer(crops).items()}


class Predictor(Protocol):
    """What labelling and evaluation ask of a model: a Keras model, or an `ExportedModel`."""

    def predict_on_batch(self, crops: np.ndarray) -> Mapping[str, np.ndarray]: ...


# To the right and down, as shares of the side; the first ones are taken.
SHIFTS = ((0.0, 0.0), (1 / 24, 0.0), (-1 / 24, 0.0), (0.0, 1 / 24), (0.0, -1 / 24))


class TestTimeAveraging:
    """A model that is asked about several views of every crop; the answers are averaged.

    Views are the crop itself, then crops that are shifted by a twenty-fourth of the side to the
    right, left, down and up, with the edge repeated: 1 to 5. `flip` adds the mirror image of each.
    """

    __test__ = False  # no test of pytest's

    def __init__(self, model: Predictor, *, flip: bool = False, shifts: int = 1) -> None:
        self._model, self._flip, self._shifts = model, flip, _first_shifts(shifts)

    def predict_on_batch(self, crops: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities ``(n, classes)`` by task name."""
        views = [_shifted(crops, *by) for by in self._shifts]
        views += [view[:, :, ::-1] for view in views] if self._flip else []
        answers = [self._model.predict_on_batch(view) for view in views]
        return {name: np.mean([of[name] for of in answers], axis=0) for name in answers[0]}


@dataclass(frozen=True)
class WithPriors:
    """A model whose answers are put to other class shares, by head the `ratios` of `log_ratios`."""

    model: Predictor
    ratios: Mapping[str, np.ndarray]

    def predict_on_batch(self, crops: np.ndarray) -> dict[str, Any]:
        """Probabilities ``(n, classes)`` by task name."""
        answers = self.model.predict_on_batch(crops)
        return {
            name: change_prior(np.asarray(rows), self.ratios[name]) if name in self.ratios else rows
            for name, rows in answers.items()
        }


def _first_shifts(count: int) -> tuple[tuple[float, float], ...]:
    if not 1 <= count <= len(SHIFTS):
        raise ValueError(
            f"Test-time averaging takes 1 to {len(SHIFTS)} views (--tta). Received: {count}"
        )
    return SHIFTS[:count]


def _shifted(crops: np.ndarray, right: float, down: float) -> np.ndarray:
    side = crops.shape[1]
    rows, columns = (
        np.clip(np.arange(side) - round(share * side), 0, side - 1) for share in (down, right)
    )
    return crops[:, rows][:, :, columns]


class InferenceSettings(TypedDict, total=False):
    """The arguments of `InferenceConfig`."""

    flip: bool
    tta: int
    priors: Mapping[str, Prior] | None


@dataclass(frozen=True)
class InferenceConfig:
    """How a model is asked about crops; the fields are explained by `faceattr.FaceAttributes`."""

    flip: bool = False
    tta: int = 1
    priors: Mapping[str, Prior] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _first_shifts(self.tta)
        if not isinstance(self.priors or {}, Mapping):
            raise ValueError(
                f'Priors are given by head: {{"expression": "uniform"}}. Received: {self.priors!r}'
            )
        object.__setattr__(self, "priors", dict(self.priors or {}))  # None are none

    def apply(self, model: Predictor, about: Description) -> Predictor:
        """The model as it is asked; ValueError where its heads cannot be put to these priors."""
        if ratios := log_ratios(about, self.priors):
            model = WithPriors(model, ratios)
        if self.flip or self.tta != 1:
            return TestTimeAveraging(model, flip=self.flip, shifts=self.tta)
        return model


@dataclass(frozen=True)
class Runtime:
    """What runs one kind of exported file: its name for `faceattr export`, the module that it
    needs, the extra that brings it, and how a file is opened, with how many threads. `min_batch`
    is as `min_stable_batch` tells it; TensorFlow has to be asked."""

    name: str
    package: str
    extra: str
    open: Callable[[Path, int], Answer]
    min_batch: int | None = 1


def _onnx(path: Path, threads: int) -> Answer:
    import onnxruntime

    how = onnxruntime.SessionOptions()
    how.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, how, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda crops: dict(zip(names, session.run(names, {INPUT: crops}), strict=True))


def _litert(file: Path | bytes, threads: int) -> Answer:
    from ai_edge_litert.interpreter import Interpreter

    given = {"model_content": file} if isinstance(file, bytes) else {"model_path": str(file)}
    interpreter = Interpreter(**given, num_threads=threads)
    interpreter.allocate_tensors()  # greets here, where whoever opens a model keeps it quiet
    # By signature: the order of the raw outputs is not that of the heads.
    runner = interpreter.get_signature_runner()
    return lambda crops: runner(**{INPUT: crops})


def _openvino(path: Path, threads: int) -> Answer:
    import openvino

    # By itself it computes in bfloat16 where the processor has it; int8 layers stay int8.
    how = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    how |= {"INFERENCE_NUM_THREADS": str(threads)}
    compiled = openvino.Core().compile_model(path, "CPU", how)
    names = [output.get_any_name() for output in compiled.outputs]

    def answer(crops: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled({INPUT: crops})
        return {name: found[name] for name in names}

    return answer


def _saved_model(path: Path, threads: int) -> Answer:
    import tensorflow as tf  # whose threads belong to the process

    loaded = tf.saved_model.load(str(path))  # its variables live as long as it does
    return lambda crops: {name: rows.numpy() for name, rows in loaded.serve(crops).items()}


RUNTIMES = {
    ".onnx": Runtime("onnx", "onnxruntime", "onnx", _onnx),
    ".tflite": Runtime("litert", "ai_edge_litert", "litert", _litert),
    ".xml": Runtime("openvino", "openvino", "openvino", _openvino),
    "": Runtime("saved_model", "tensorflow", "", _saved_model, None),
}


def min_stable_batch(model: keras.Model | ExportedModel) -> int | None:
    """The smallest batch from which on a crop's answer is the same in any larger batch.

    Measured with the shipped model on an Intel Xeon with AVX-512, in float32, bfloat16 and int8,
    to the last bit: the exported files' runtimes answer one crop as one of 32, TensorFlow does from
    2 on (oneDNN) or 8 on (without it). With AVX2 alone the place in a full batch counts too (1e-7).

    Returns:
        None where that is not so, or not known: JAX, which compiles every size, and GPUs.
    """
    if isinstance(model, ExportedModel):
        return model.min_batch
    import keras

    is_known = isinstance(model, keras.Model) and keras.backend.backend() == "tensorflow"
    return _min_batch_of_tensorflow() if is_known else None


def _min_batch_of_tensorflow() -> int | None:
    import tensorflow as tf

    return None if tf.config.list_physical_devices("GPU") else 8


def is_exported(path: str | Path) -> bool:
    """Whether the name is that of an exported file or, without an ending, of a SavedModel."""
    path = Path(path)
    return path.suffix in RUNTIMES and (path.suffix != "" or model_file.is_saved_model(path))


def open_exported(
    path: str | Path, precision: str = "float32", threads: int | None = None
) -> ExportedModel:
    """Open an exported file as it is, whether or not it describes itself."""
    path = Path(path)
    runtime = RUNTIMES[path.suffix]
    require_package(runtime.package, runtime.extra, f"{path.name}")
    min_batch = runtime.min_batch or _min_batch_of_tensorflow()
    answer = runtime.open(path, count_threads(threads))
    return ExportedModel(answer, precision, min_batch, runtime.name)


def check_engine(path: str | Path, engine: str) -> None:
    """Raises ValueError where an exported file is asked for another engine than its own."""
    if is_exported(path) and engine not in ("auto", own := RUNTIMES[Path(path).suffix].name):
        raise ValueError(
            f"{path} is an exported model for {own}: leave --runtime (in Python: engine) away."
        )


def count_threads(threads: int | None = None, what: str = "thread computes") -> int:
    """As many threads as were asked for, else as many as this process may use processors."""
    if threads is not None and threads < 1:
        raise ValueError(f"At least 1 {what}. Received: {threads}")
    if threads is None and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return int(threads or os.cpu_count() or 1)  # of numpy's numbers, too


def description_path(path: str | Path) -> Path:
    """``faces.onnx.json`` for ``faces.onnx``."""
    path = Path(path)
    return path.with_name(f"{path.name}.json")


def files_of(path: str | Path) -> list[Path]:
    """The files that an exported model is made of."""
    path = Path(path)
    if path.is_dir():
        return sorted(part for part in path.rglob("*") if part.is_file())
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a model of any kind; of several files, that of their hashes in order."""
    hashes = []
    for part in files_of(path):
        with open(part, "rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def describe(path: str | Path) -> Description:
    """Read the description of a model file or of an exported one, without loading it."""
    return _read(Path(path))[0] if is_exported(path) else model_file.describe(path)


def load(
    path: str | Path, engine: str = "keras", threads: int | None = None
) -> tuple[keras.Model | ExportedModel, Description]:
    """Open a model file or an exported one; both have ``predict_on_batch``.

    Args:
        path: The file.
        engine: Of a model file ``"keras"`` opens the network, ``"litert"`` the copy inside,
            ``"auto"`` the copy where there is one, else the network.
        threads: How many compute, by default one a processor; TensorFlow's belong to the process.
    """
    if engine not in ENGINES:
        raise ValueError(f"An engine is one of {', '.join(ENGINES)}. Received: {engine!r}")
    path, threads = Path(path), count_threads(threads)
    if is_exported(path):
        return _load_exported(path, threads)
    description = model_file.describe(path)
    if engine != "keras" and (copy := _copy(path, engine, threads)):
        _check_heads(path, copy, description)
        return copy, description
    return model_file.load(path)


def _copy(path: Path, engine: str, threads: int) -> ExportedModel | None:
    """The copy inside a model file; None where `engine` leaves that open and there is none."""
    found = embedded.read_copy(path)
    is_installed = importlib.util.find_spec("ai_edge_litert") is not None
    if found and (is_installed or engine == "litert"):
        require_package("ai_edge_litert", "litert", "The engine litert")
        about, content = found
        return ExportedModel(_litert(content, threads), about.precision, 1)
    if engine == "litert":
        raise ValueError(
            f"{path} carries no LiteRT copy of its network as it is now: "
            f"`faceattr export {path} --embed` puts one in, --runtime keras does without."
        )
    return None


def _load_exported(path: Path, threads: int) -> tuple[ExportedModel, Description]:
    description, metadata = _read(path)
    if metadata["sha256"] != sha256_of(path):
        raise ValueError(
            f"{path} is not the file that {description_path(path)} describes: it was changed "
            "since it was exported. Export it again."
        )
    model = open_exported(path, metadata["precision"], threads)
    _check_heads(path, model, description)
    return model, description


def _check_heads(path: Path, model: ExportedModel, description: Description) -> None:
    side = description.crop.size
    answers = model.predict_on_batch(np.zeros((1, side, side, 3), "uint8"))
    heads = {name: rows.shape[-1] for name, rows in answers.items()}
    model_file.check_heads(path, description, heads)


def _read(path: Path) -> tuple[Description, dict[str, Any]]:
    beside = description_path(path)
    for file in (*files_of(path), beside):
        if not file.is_file():
            raise FileNotFoundError(
                f"There is no {file}. An exported model needs everything that `faceattr export` "
                f"wrote: {', '.join(f.name for f in (path, *files_of(path)[1:], beside))}."
            )
    try:
        fields = json.loads(beside.read_text(encoding="utf-8"))
        if fields["precision"] not in embedded.PRECISIONS:
            raise ValueError(f"no precision is called {fields['precision']!r}")
        if not isinstance(fields["sha256"], str):
            raise ValueError(f"a SHA-256 is no {type(fields['sha256']).__name__}")
        return Description.from_json(json.dumps(fields["description"])), fields
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{beside} does not describe {path.name}: {error}.") from None
