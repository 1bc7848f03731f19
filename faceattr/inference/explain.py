"""A contact sheet of faces with, for each head, where it finds what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import keras
import numpy as np

from faceattr.files import atomic_write, is_same_file
from faceattr.images.draw import Tile, contact_sheet, validate_sheet_path
from faceattr.images.inputs import Inputs
from faceattr.images.load import PathLike
from faceattr.inference.label import detect_and_crop, samples_of
from faceattr.inference.pipeline import StageTimes
from faceattr.inference.predictor import FaceAttributes
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.vgg16 import convolutions
from faceattr.progress import SILENT, Progress
from faceattr.tasks import refuse_unknown

FEWEST_CELLS = 8  # along a side of a feature map; fewer tell no eye from a mouth
Logit = Callable[[Any], Any]


class _Cut(NamedTuple):
    """A network cut at a feature map: crops to the map, the map to what a head reads, the head."""

    lower: keras.Model
    upper: keras.Model
    head: keras.layers.Dense


class Heat:
    """Grad-CAM of a model's heads.

    The gradient of one class' logit, before the softmax, with respect to a feature map below this
    head weighs that map place by place; the positive part of the sum over channels is the heat.
    Source: Selvaraju et al. 2017, "Grad-CAM", in the form of Draelos and Carin 2020, "Use HiResCAM
    instead of Grad-CAM": Grad-CAM averages the gradient over the map, which heats places that
    the head never looked at, and behind global max pooling often leaves nothing.

    Args:
        model: RGB ``uint8`` crops to a dict of probabilities by task, each the output of a
            ``Dense`` softmax layer called after its task.
        size: Side of the crops.

    Raises:
        ValueError: It is an exported model.
    """

    def __init__(self, model: keras.Model, size: int) -> None:
        if not isinstance(model, keras.Model):
            raise ValueError(
                "Where a head looks is found by gradients, and an exported model has none: give "
                "the .keras file that it was made from."
            )
        self._model, self._size = model, size
        self._cuts: dict[str, _Cut] = {}

    def __call__(self, crops: np.ndarray, task: str, classes: np.ndarray) -> np.ndarray:
        """The heat of one head.

        Args:
            crops: RGB ``uint8`` ``(n, size, size, 3)``.
            task: The head.
            classes: For each crop the number of the class that is asked about, ``(n,)``.

        Returns:
            ``float32`` ``(n, size, size)``, 0 to 1, where 1 is the hottest spot of each crop; all
            zeros where nothing speaks for the class.

        Raises:
            ValueError: The head reads no feature map of at least 8 by 8 cells.
        """
        if task not in self._cuts:
            self._cuts[task] = self._cut_for(task)
        cut = self._cuts[task]
        kernel, bias = map(keras.ops.convert_to_numpy, cut.head.get_weights())
        wanted = kernel.T[classes], bias[classes]

        def logits(maps):
            return keras.ops.sum(cut.upper(maps) * wanted[0], axis=-1) + wanted[1]

        maps = keras.ops.convert_to_numpy(cut.lower(crops)).astype("float32")
        return self._spread(np.maximum((_gradient(logits, maps) * maps).sum(axis=-1), 0))

    def _cut_for(self, task: str) -> _Cut:
        """Cut at the deepest map that still tells places apart and that this head reads."""
        head = self._model.get_layer(task)
        for layer in reversed(convolutions(self._model)):
            lower = keras.Model(self._model.inputs[0], layer.output)
            shape = lower.compute_output_shape((1, self._size, self._size, 3))
            if min(shape[1:3]) < FEWEST_CELLS:
                continue
            try:
                return _Cut(lower, keras.Model(layer.output, head.input), head)
            except ValueError:  # the map is another head's
                continue
        raise ValueError(
            f"Task {task!r} reads no feature map of {FEWEST_CELLS} by {FEWEST_CELLS} cells or more "
            f"of crops of {self._size} pixels, so there is nothing to show."
        )

    def _spread(self, cells: np.ndarray) -> np.ndarray:
        size = (self._size, self._size)
        large = [cv2.resize(cell, size, interpolation=cv2.INTER_CUBIC) for cell in cells]
        heat = np.maximum(np.stack(large), 0)
        hottest = heat.max(axis=(1, 2), keepdims=True)
        return heat / np.where(hottest > 0, hottest, 1)


def _gradient(logits: Logit, maps: np.ndarray) -> np.ndarray:
    """Of the logits, one a row, with respect to the maps; same shape as these."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(lambda given: logits(given).sum())(jax.numpy.asarray(maps)))
    import tensorflow as tf

    given = tf.convert_to_tensor(maps)
    with tf.GradientTape() as tape:
        tape.watch(given)
        total = tf.reduce_sum(logits(given))
    return tape.gradient(total, given).numpy()


MOST = 24  # faces on a sheet
SIDE = 144  # of a tile in pixels
WIDEST = 9  # tiles
OPACITY = 0.6  # of the hottest spot


@dataclass(frozen=True)
class SheetSummary:
    """Faces on a sheet, pictures that were read for it, and whether more faces were there."""

    faces: int
    inputs: int
    more: bool


def explain(
    pictures: PathLike | Sequence[PathLike],
    attributes: FaceAttributes,
    output: PathLike,
    *,
    of: Mapping[str, str] | None = None,
    most: int = MOST,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> SheetSummary:
    """Draw what the heads look at in the faces of some pictures.

    Args:
        pictures: As for `faceattr.inference.label.label`; faces are found in the same way.
        attributes: Detector and model.
        output: The picture to write, for example ``sheet.png``.
        of: By task a class to ask about; otherwise the one that is answered.
        most: Faces on the sheet, at least 1.
        overwrite: Replace a sheet that is there.
        progress: May follow the faces.

    Raises:
        ValueError: No picture has a face that is large enough, `of` names no class, or the sheet
            can be none.
        OSError: A picture is not there, or the sheet cannot be written.
    """
    validate_sheet_path(output, most, overwrite=overwrite)
    files = Inputs(pictures)
    if Path(output).exists() and any(is_same_file(output, file.path) for file in files):
        raise ValueError(f"{output} is one of the pictures. Choose another output.")
    chosen = _numbers(of or {}, attributes)
    heat = Heat(_network_of(attributes), attributes.crop_rule.size)
    read: list[str] = []
    faces = _crops_of(files, attributes, read, progress)
    tiles: list[Tile] = []
    few = islice(zip(faces, progress.track(range(most), "explaining"), strict=False), most)
    while batch := [face for face, _ in islice(few, attributes.batch_size)]:
        tiles += _tiles(batch, attributes, heat, chosen)
    if not tiles:
        raise ValueError(f"None of the {len(read)} pictures has a face that is large enough.")
    across = 1 + len(attributes.tasks)
    columns = across * max(1, min(WIDEST, len(tiles)) // across)
    sheet = contact_sheet(tiles, columns=columns, side=SIDE)
    with atomic_write(output) as part:
        sheet.save(part)
    return SheetSummary(len(tiles) // across, len(read), next(faces, None) is not None)


def _network_of(attributes: FaceAttributes) -> keras.Model:
    """What the answers come from in the end: a copy inside a model file has no gradients."""
    path = attributes.path
    if path is None or attributes.engine != "litert" or runtime.is_exported(path):
        return attributes.model
    return model_file.load(path)[0]


def _numbers(of: Mapping[str, str], attributes: FaceAttributes) -> dict[str, int]:
    tasks = {task.name: task for task in attributes.tasks}
    refuse_unknown("task", of, tasks, "in the model")
    return {name: tasks[name].index(label) for name, label in of.items()}


def _crops_of(
    files: Inputs, attributes: FaceAttributes, read: list[str], progress: Progress
) -> Iterator[tuple[str, np.ndarray]]:
    """The crops of all faces that are large enough, each with its picture's name."""
    for sample in samples_of(files, every=1.0):
        name = Path(sample.file.name).name
        read.append(name)
        found = detect_and_crop(sample, attributes, StageTimes())
        if found.sample.reason is not None:
            progress.show(f"left out: {name}: {found.sample.reason}")
        for crop in found.crops:
            yield name, crop


def _tiles(
    batch: Sequence[tuple[str, np.ndarray]],
    attributes: FaceAttributes,
    heat: Heat,
    chosen: Mapping[str, int],
) -> Iterator[Tile]:
    crops = np.stack([crop for _, crop in batch])
    answers = attributes.predict(crops)
    rows: list[list[Tile]] = [[Tile(_large(crop), (name,))] for name, crop in batch]
    for task in attributes.tasks:
        probabilities = np.stack([answer[task.name] for answer in answers])
        asked = np.array([chosen.get(task.name, best) for best in probabilities.argmax(axis=-1)])
        for row, crop, spots, number, sure in zip(
            rows, crops, heat(crops, task.name, asked), asked, probabilities, strict=True
        ):
            words = f"{task.classes[number]} {sure[number]:.0%}"
            row.append(Tile(glowing(crop, spots), (words, task.name)))
    return (tile for row in rows for tile in row)


def glowing(crop: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A grey crop with its heat laid over it: RGB ``uint8``, larger than the crop."""
    grey = cv2.cvtColor(cv2.cvtColor(_large(crop), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    large = cv2.resize(heat.astype("float32"), grey.shape[1::-1])
    levels = (255 * np.clip(large, 0, 1)).astype("uint8")
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    share = OPACITY * np.clip(large, 0, 1)[..., None]
    return (grey * (1 - share) + colours * share).round().astype("uint8")


def _large(crop: np.ndarray) -> np.ndarray:
    return cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
