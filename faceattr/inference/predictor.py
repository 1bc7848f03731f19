"""A detector and a model together: images in, described faces out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack, overload

import numpy as np

from faceattr.compatibility import renamed_arguments
from faceattr.detection.base import Detector, Face, find_rotated_faces
from faceattr.detection.choose import choose_detector
from faceattr.images.crop import MIN_FACE, CropRule, crop
from faceattr.images.load import MAX_PIXELS, ImageSource, PathLike, load_image, validate_image
from faceattr.inference.pipeline import opencv_threads
from faceattr.inference.results import NO_ANSWER, DescribedFace, Prediction
from faceattr.model import file as model_file
from faceattr.model import hub, runtime
from faceattr.model.priors import Prior
from faceattr.tasks import Task, refuse_unknown

if TYPE_CHECKING:
    import keras
    import pandas
    import pyarrow

BatchColumns: TypeAlias = (
    "Mapping[str, Sequence] | pandas.DataFrame | pyarrow.Table | pyarrow.RecordBatch"
)
PRECISIONS = ("float32", "bfloat16")
BOOLEAN = bool | np.bool_
# What settings are; without it "no" would be taken for True.
KINDS: dict[str, tuple[Any, str]] = {
    "threads": (Integral | None, "a whole number, such as 2"),
    "batch_size": (Integral, "a whole number, such as 32"),
    "tta": (Integral, "a whole number from 1 to 5"),
    "min_face": (Real | None, "a number of pixels, such as 24"),
    "min_confidence": (Real, "a number from 0 to 1, such as 0.5"),
    "flip": (BOOLEAN, "True or False"),
    "auto_rotate": (BOOLEAN, "True or False"),
    "filter": (Mapping | None, 'a dict such as {"gender": "female"}'),
    "priors": (Mapping | None, 'a dict such as {"expression": "uniform"}'),
}
OF_THE_COMMAND_LINE = {"runtime": "engine", "prior": "priors"}


class Settings(runtime.InferenceSettings, total=False):
    """The named arguments of `FaceAttributes`."""

    auto_rotate: bool
    min_face: float | None
    min_confidence: float
    filter: Mapping[str, str] | None
    batch_size: int
    threads: int | None


class LoadSettings(Settings, total=False):
    """The arguments of `FaceAttributes.load`."""

    model: PathLike | None
    detector: str | Detector
    engine: str
    offline: bool
    precision: str | None


@renamed_arguments(upright="auto_rotate", require="filter")
@dataclass(eq=False, repr=False)
class FaceAttributes:
    """Finds the faces of an image and describes them: ``FaceAttributes.load()(image)``.

    Args:
        model: RGB ``uint8`` crops ``(n, size, size, 3)`` to a dict of probabilities
            ``(n, classes)`` by task name.
        description: Its tasks, crop rule and scores.
        detector: What finds faces.
        auto_rotate: An image may lie on its side or head: find out, as `find_rotated_faces` does.
        min_face: Faces whose longer side has fewer pixels are not described. By default what
            the model's own scores by face size say, else 12.
        min_confidence: Answers of a lower probability are withheld, 0-1.
        filter: By task the class that a face must most probably be of, else it is rejected: for
            a detector that finds too much and a head that knows better.
        flip: Ask about every face and its mirror image and average the answers, in twice the
            model's time.
        tta: Of how many shifted crops of a face the answers are averaged, 1 to 5.
        priors: By task, how frequent its classes are among these faces: ``"uniform"``,
            ``"natural"``, the name of a source that taught it, or shares by class. Only for heads
            that were trained with a prior.
        batch_size: Most crops that go through the model at once.
        threads: How many find faces; those that answer are the model's own (see `load`).
    """

    model: keras.Model
    description: model_file.Description
    detector: Detector
    _: KW_ONLY
    auto_rotate: bool = False
    min_face: float = None  # type: ignore[assignment]
    min_confidence: float = 0.0
    filter: Mapping[str, str] = field(default_factory=dict)
    flip: bool = False
    tta: int = 1
    priors: Mapping[str, Prior] = field(default_factory=dict)
    batch_size: int = 32
    threads: int | None = None

    def __post_init__(self) -> None:
        _check_kinds(vars(self))
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"A confidence lies between 0 and 1. Received: {self.min_confidence}")
        if self.min_face is None:
            self.min_face = self.description.scores.get("min_face", MIN_FACE)
        if not 0 <= self.min_face < np.inf:
            raise ValueError(f"A smallest face has 0 pixels or more. Received: {self.min_face}")
        if self.batch_size < 1:
            raise ValueError(f"A batch holds at least one crop. Received: {self.batch_size}")
        # No numbers of numpy: small ones overflow, and the page beside a table is JSON.
        self.min_face, self.min_confidence = float(self.min_face), float(self.min_confidence)
        self.batch_size, self.tta = int(self.batch_size), int(self.tta)
        self.flip, self.auto_rotate = bool(self.flip), bool(self.auto_rotate)
        self.filter = _checked(self.filter or {}, self.tasks)
        self.priors = dict(self.priors or {})
        self._predictor()  # refuses what it cannot do
        self.engine: str = getattr(self.model, "engine", "keras")
        self.precision: str = getattr(self.model, "precision", PRECISIONS[0])
        # Where the model came from, and what opens it again; `load` knows.
        self.path: Path | None = None
        self._opened: dict[str, Any] | None = None

    @classmethod
    def load(
        cls,
        model: PathLike | None = None,
        detector: str | Detector = "auto",
        *,
        engine: str = "auto",
        offline: bool = False,
        precision: str | None = None,
        **how: Unpack[Settings],
    ) -> FaceAttributes:
        """Open a model file, by default the one that comes with faceattr.

        Args:
            model: A ``.keras`` file that `faceattr train` made, one of `faceattr export`,
                ``"shipped"``, or one of the hub: ``"hf://user/model"``, ``"hf://user/model@v1"``.
            detector: ``"auto"``, ``"centerface"``, ``"yunet"``, ``"mtcnn"``, ``"none"`` (the
                picture is the face), the path of a YuNet ``.onnx`` file, or a detector of your own.
            engine: ``"litert"`` answers by the copy inside a model file, several times as fast
                and without TensorFlow and Keras; ``"keras"`` by the network itself; ``"auto"``
                by the copy where there is one and no precision is asked for.
            offline: Forbid downloads: YuNet's file, and what the cache has not got of the hub.
            precision: Of the network itself. ``"bfloat16"`` takes half the time of ``"float32"``
                on processors that have it (AMX, AVX512-BF16) and much more on others;
                probabilities differ by about 0.001.
            **how: The other arguments of `FaceAttributes`. `threads` also bounds those that answer,
                other than TensorFlow's, which belong to the process.

        Raises:
            FileNotFoundError, ValueError: There is no such model, it is damaged, the detector
                cannot be had, or an argument is of another type; the message says the cure.
        """
        _check_kinds(how)
        path = model_file.path_of(model or model_file.SHIPPED, offline=offline)
        engine = _engine_for(path, engine, precision)
        runtime.describe(path)  # a wrong file fails before the slow import of Keras
        named = detector
        if isinstance(detector, str):
            detector = choose_detector(detector, offline=offline)
            named = detector.provenance["name"] if named == "auto" else named
        network, description = runtime.load(path, engine, how.get("threads"))
        if precision == "bfloat16" and not isinstance(network, runtime.ExportedModel):
            from faceattr.model.weights import in_bfloat16

            network = in_bfloat16(network, description.tasks, description.network)
        given: dict[str, Any] = {**how}  # None stands for the default
        attributes = cls(network, description, detector, **given)
        if attributes.engine == "keras":
            attributes.precision = precision or attributes.precision
        elif precision not in (None, attributes.precision):
            raise ValueError(
                f"{path} computes as it was exported, in {attributes.precision}: leave "
                "--precision away."
            )
        name = model_file.SHIPPED if model is None else model
        if name not in model_file.SHIPPED_FILES:
            name = hub.origin_of(path) or path.absolute()
        attributes.path = path
        attributes._opened = {
            "model": name,
            "detector": named,
            "engine": attributes.engine if attributes.engine in runtime.ENGINES else "auto",
            "precision": precision,
        }
        return attributes

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.description.tasks

    @property
    def crop_rule(self) -> CropRule:
        """How this model wants a face to be cut."""
        return self.description.crop

    @overload
    def __call__(
        self, image: list | tuple, *, bgr: bool = False, allow_urls: bool = False
    ) -> list[list[DescribedFace]]: ...

    @overload
    def __call__(
        self, image: ImageSource, *, bgr: bool = False, allow_urls: bool = False
    ) -> list[DescribedFace]: ...

    def __call__(self, image, *, bgr=False, allow_urls=False):
        """Find and describe the faces of one image, or of a list of them in full batches.

        Args:
            image, bgr, allow_urls: As for `faceattr.load_image`; of a list of images, each of them.

        Returns:
            The faces from left to right; of a list of images a list of such lists.
        """
        if not isinstance(image, list | tuple):
            return self([image], bgr=bgr, allow_urls=allow_urls)[0]
        found, crops, answers = [], [], []
        for one in image:
            pixels = load_image(one, bgr=bgr, allow_urls=allow_urls)
            faces = self.find(pixels)
            found.append(faces)
            crops += [self.cut(pixels, face) for face in faces if self.is_large(face)]
            while len(crops) >= self.batch_size:  # those of a long list take much memory
                answers += self.predict(crops[: self.batch_size])
                crops = crops[self.batch_size :]
        remaining = iter([*answers, *self.predict(crops)])
        return [self.described(faces, remaining) for faces in found]

    def label_batch(
        self,
        images: Sequence[ImageSource] | BatchColumns,
        *,
        bgr: bool = False,
        allow_urls: bool = False,
        workers: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> pyarrow.Table:
        """Find and describe the faces of many images: ``data.map_batches(attributes.label_batch)``.

        Args:
            images: A list of whatever `faceattr.load_image` takes; or columns, as a dict or a table
                of pandas or Arrow: ``path`` (names, read where nothing else is there), ``bytes``
                (of files) or ``image`` (arrays).
            bgr, allow_urls, max_pixels: As for `faceattr.load_image`.
            workers: Threads that decode and detect; by default one a processor.

        Returns:
            The columns of the table that `faceattr label` writes: in order, one row a face and
            at least one an image; ``path`` is empty where only content was given. An image that
            cannot be read has the status ``unreadable`` and a reason. How many images come at
            once makes no difference.

        Raises:
            ValueError: It is one image, or the columns are not as told above.
        """
        from faceattr.inference.batch import label_batch

        how: dict[str, Any] = {"workers": workers, "max_pixels": max_pixels}
        return label_batch(self, images, bgr=bgr, allow_urls=allow_urls, **how)

    @property
    def load_arguments(self) -> dict[str, Any]:
        """The arguments of `load` that open the same again; ValueError where it opened nothing."""
        if self._opened is None:
            raise ValueError(
                "FaceAttributes of a model object cannot be pickled, because whoever unpickles it "
                "opens the model by its path: take FaceAttributes.load(path)."
            )
        return self._opened | {name: getattr(self, name) for name in Settings.__annotations__}

    def __reduce__(self) -> tuple:
        """What opens the same model and detector again, in whoever unpickles it."""
        return partial(type(self).load, **self.load_arguments), ()

    def find(self, image: np.ndarray) -> list[Face]:
        """The faces of an RGB ``uint8`` image ``(h, w, 3)``, from left to right.

        Raises:
            ValueError: It is no such image.
        """
        validate_image(image)
        with opencv_threads(self.threads):
            if self.auto_rotate:
                return find_rotated_faces(self.detector, image)
            return self.detector(image)

    def is_large(self, face: Face) -> bool:
        """Whether the model can say anything about a face of this size."""
        return face.side >= self.min_face

    def cut(self, image: np.ndarray, face: Face) -> np.ndarray:
        """The crop of one face, upright and level: RGB ``uint8``, ``(size, size, 3)``."""
        return crop(image, face.box, self.crop_rule, face.landmarks, face.rotation)

    def predict(
        self, crops: Sequence[np.ndarray] | np.ndarray, *, full_batches: bool = False
    ) -> list[dict[str, np.ndarray]]:
        """Ask the model about many crops in as few calls as possible.

        Args:
            crops: RGB ``uint8`` crops of shape ``(size, size, 3)``.
            full_batches: Fill the last batch up as far as is needed for a crop's answer not to
                depend on how many others came with it.

        Returns:
            One dict a crop: probabilities ``(classes,)`` by task name, ``float32``.
        """
        model, answers = self._predictor(), []
        for start in range(0, len(crops), self.batch_size):
            batch = crops[start : start + self.batch_size]
            for one in batch:
                validate_image(one)
            count = len(batch)
            padded = np.zeros((self._room_for(count, full_batches), *batch[0].shape), np.uint8)
            padded[:count] = batch
            outputs = model.predict_on_batch(padded)
            answers += [
                {task: np.asarray(rows[i]) for task, rows in outputs.items()} for i in range(count)
            ]
        return answers

    def _predictor(self) -> runtime.Predictor:
        asked = runtime.InferenceConfig(self.flip, self.tta, self.priors)
        return asked.apply(self.model, self.description)

    def _room_for(self, count: int, full_batches: bool) -> int:
        # A new shape means a new compilation: sizes are powers of two, or always the same.
        smallest = (
            runtime.min_stable_batch(self.model) if full_batches and count < self.batch_size else 1
        )
        if smallest is None:
            return self.batch_size
        return max(count, min(self.batch_size, max(smallest, 1 << (count - 1).bit_length())))

    def described(
        self, faces: Iterable[Face], answers: Iterable[Mapping[str, np.ndarray]]
    ) -> list[DescribedFace]:
        """Join faces with the answers about those of them that are large enough."""
        remaining = iter(answers)
        nothing = {task.name: NO_ANSWER for task in self.tasks}
        return [
            self._described(face, next(remaining))
            if self.is_large(face)
            else DescribedFace(face, nothing, too_small=True)
            for face in faces
        ]

    def _described(self, face: Face, answer: Mapping[str, np.ndarray]) -> DescribedFace:
        found, rejected = {}, False
        for task in self.tasks:
            probabilities = answer[task.name]
            best = int(np.argmax(probabilities))
            top, label = float(probabilities[best]), task.classes[best]
            by_class = dict(zip(task.classes, map(float, probabilities), strict=True))
            is_sure = top >= self.min_confidence
            found[task.name] = Prediction(label if is_sure else None, top, by_class)
            rejected |= label != self.filter.get(task.name, label)
        return DescribedFace(face, found, rejected=rejected)


def _check_kinds(settings: Mapping[str, Any]) -> None:
    """Refuse settings of another kind (ValueError) or by the command line's names (TypeError)."""
    for name, today in OF_THE_COMMAND_LINE.items():
        if name in settings:
            raise TypeError(f"In Python the option --{name} is called {today}=, not {name}=.")
    for name in (name for name in KINDS if name in settings):
        value, (kind, words) = settings[name], KINDS[name]
        is_no_number = isinstance(value, bool) and kind is not BOOLEAN  # in Python True is one
        if not isinstance(value, kind) or is_no_number:
            raise ValueError(f"{name} is {words}. Received: {value!r}")


def _checked(filter: Mapping[str, str], tasks: Iterable[Task]) -> dict[str, str]:
    """The classes that are required, in the model's own spelling."""
    known = {task.name: task for task in tasks}
    refuse_unknown("task", filter, known, "to filter by")
    return {name: known[name].class_of(label) for name, label in filter.items()}


def _engine_for(path: Path, engine: str, precision: str | None) -> str:
    """The engine to open; a precision that was asked for is Keras'."""
    if precision not in (None, *PRECISIONS):
        raise ValueError(f"A precision is one of {', '.join(PRECISIONS)}. Received: {precision!r}")
    runtime.check_engine(path, engine)
    return "keras" if engine == "auto" and precision is not None else engine
