"""`faceattr export --embed`: a copy for LiteRT inside the model file, checked like an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from faceattr.data.dataset import LabeledDataset
from faceattr.data.label_map import LABELS_AS_WRITTEN, LabelMap
from faceattr.exporting import formats
from faceattr.exporting.export import LIBRARIES, ROWS, smallest_alike
from faceattr.exporting.parity import BATCHES, ParityData, choose_crops
from faceattr.files import validate_output_path, versions_of
from faceattr.model import embedded, hub
from faceattr.model import file as model_file
from faceattr.model.embedded import EmbeddedCopy
from faceattr.model.file import Description
from faceattr.progress import SILENT, Progress


def embed(
    model: str | Path,
    output: str | Path | None = None,
    *,
    on: Sequence[str] = (),
    rows: int = ROWS,
    cache: str | Path | None = None,
    label_map: LabelMap = LABELS_AS_WRITTEN,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> EmbeddedCopy:
    """Put a copy of the network for LiteRT into a model file.

    The copy is int8 where that answers alike, else float16, else float32. Plain
    ``keras.saving.load_model`` opens the file as before.

    Args:
        model: A model file, or ``"shipped"``.
        output: The file to write; by default the same one.
        on, rows, cache, label_map: As for `faceattr.export`.
        overwrite: Replace another file that is there.
        progress: Is shown what is done, and each parity report.

    Returns:
        What the copy says about itself.

    Raises:
        ValueError: No copy answers alike; or the model or the pictures cannot be used, or an
            optional package is missing. The file is as it was then.
        OSError: Something cannot be read or written.
    """
    path = model_file.path_of(model)
    if output is None and hub.origin_of(path):
        raise ValueError(f"{model} lies in the hub's cache, which stays as it is: give -o.")
    output = path if output is None else Path(output)
    validate_output_path(output)
    if output.suffix != ".keras" and output != path:
        raise ValueError(f"A model file's name ends in .keras. Received: {output}")
    if output.exists() and not (overwrite or output.samefile(path)):
        raise FileExistsError(f"{output} exists. Give another -o, or --overwrite.")
    formats.target_called("litert", int8=False)
    network, description = model_file.load(path)
    shown = choose_crops(description, on, rows, cache, label_map, progress=progress)
    about = _embed(path, output, network, description, shown, progress, BATCHES)
    progress.show(f"wrote {output} with a LiteRT copy in {about.precision}")
    return about


def add_copy(path: Path, val: LabeledDataset, progress: Progress = SILENT) -> None:
    """Give a model that was just trained its copy, compared on val; what goes wrong is a note."""
    try:
        formats.target_called("litert", int8=False)
        network, description = model_file.load(path)
        some = val.take(np.arange(min(len(val), ROWS)))
        shown = ParityData(some, f"{len(some):,} val faces of the training")
        _embed(path, path, network, description, shown, SILENT, BATCHES[:1])
    except Exception as error:  # converters raise whatever they stumble over
        reason = (str(error).strip() or type(error).__name__).split("\n")[0].rstrip(".")
        progress.show(
            f"note: {path} has no LiteRT copy and is answered by Keras, as before: {reason}. "
            f"`faceattr export {path} --embed` tries again."
        )


def _embed(
    path: Path,
    output: Path,
    network: keras.Model,
    description: Description,
    shown: ParityData,
    progress: Progress,
    batches: Sequence[int],
) -> EmbeddedCopy:
    """The smallest copy that answers alike, put into the file."""

    def write(precision: str, folder: Path) -> Path:
        progress.show(f"copying {path.name} for LiteRT in {precision}")
        part = folder / f"{precision}.tflite"
        formats.write_copy(network, part, description.crop.size, precision)
        return part

    what = f"LiteRT copy of {path}"
    how: dict[str, Any] = {"batches": batches, "progress": progress}
    copy, precision, parity = smallest_alike(what, network, description.tasks, shown, write, **how)
    made = {"with": versions_of(*LIBRARIES)}
    return embedded.embed(path, copy, precision, asdict(parity), made, output)
