"""A contact sheet of faces with, for each head, where it finds what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from faceattr.images.draw import Tile, contact_sheet, must_be_a_sheet
from faceattr.images.inputs import Inputs
from faceattr.images.load import PathLike
from faceattr.inference.heat import Heat
from faceattr.inference.looking import Clock, items_of, look
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.table import whole_file

MOST = 24  # faces on a sheet
SIDE = 144  # of a tile in pixels
WIDEST = 9  # tiles
OPACITY = 0.6  # of the hottest spot


@dataclass(frozen=True)
class Explained:
    """How many faces a sheet shows, and why not more.

    Args:
        faces: On the sheet.
        inputs: Pictures that were looked at.
        more: Whether there were more faces than the sheet takes.
    """

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
    on_face: Callable[[], None] = lambda: None,
) -> Explained:
    """Draw what the heads look at in the faces of some pictures.

    Args:
        pictures: As for `faceattr.inference.label.label`; faces are found in the same way.
        attributes: Detector and model.
        output: The picture to write, for example ``sheet.png``.
        of: By task a class to ask about; otherwise the one that is answered.
        most: Faces on the sheet, at least 1.
        overwrite: Replace a sheet that is there.
        on_face: Called after every face.

    Raises:
        ValueError: No picture has a face that is large enough, `of` names no class, or the sheet
            can be none.
        OSError: A picture is not there, or the sheet cannot be written.
    """
    must_be_a_sheet(output, most, overwrite=overwrite)
    chosen = _numbers(of or {}, attributes)
    heat = Heat(attributes.model, attributes.crop_rule.size)
    seen = _Faces(pictures, attributes)
    tiles: list[Tile] = []
    few = islice(seen, most)
    while batch := list(islice(few, attributes.batch_size)):
        tiles += _tiles(batch, attributes, heat, chosen)
        for _ in batch:
            on_face()
    if not tiles:
        raise ValueError(f"None of the {seen.inputs} pictures has a face that is large enough.")
    across = 1 + len(attributes.tasks)
    columns = across * max(1, min(WIDEST, len(tiles)) // across)
    sheet = contact_sheet(tiles, columns=columns, side=SIDE)
    with whole_file(output) as part:
        sheet.save(part)
    return Explained(len(tiles) // across, seen.inputs, next(seen, None) is not None)


def _numbers(of: Mapping[str, str], attributes: FaceAttributes) -> dict[str, int]:
    tasks = {task.name: task for task in attributes.tasks}
    if strangers := sorted(set(of) - set(tasks)):
        raise ValueError(
            f"The model has no task {', '.join(strangers)}; its tasks are {', '.join(tasks)}."
        )
    return {name: tasks[name].index(label) for name, label in of.items()}


class _Faces(Iterator[tuple[str, np.ndarray]]):
    """The crops of all faces that are large enough, each with its picture's name."""

    def __init__(self, pictures: PathLike | Sequence[PathLike], attributes: FaceAttributes):
        self.inputs = 0
        self._found = self._look(Inputs(pictures), attributes)

    def __next__(self) -> tuple[str, np.ndarray]:
        return next(self._found)

    def _look(self, files: Inputs, attributes: FaceAttributes) -> Iterator[tuple[str, np.ndarray]]:
        for item in items_of(files, every=1.0):
            self.inputs += 1
            for crop in look(item, attributes, Clock()).crops:
                yield Path(item.file.name).name, crop


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
        said = np.stack([answer[task.name] for answer in answers])
        asked = np.array([chosen.get(task.name, best) for best in said.argmax(axis=-1)])
        for row, crop, spots, number, sure in zip(
            rows, crops, heat(crops, task.name, asked), asked, said, strict=True
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
