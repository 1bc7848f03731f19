"""`faceattr export --embed`: a copy for LiteRT inside the model file, checked like an export."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np

from faceattr.data.dataset import LabeledDataset
from faceattr.data.label_map import LABELS_AS_WRITTEN, LabelMap
from faceattr.exporting import formats
from faceattr.exporting.export import ROWS, versions
from faceattr.exporting.parity import BATCHES, ParityData, check_parity, choose_crops
from faceattr.files import validate_output_path
from faceattr.model import embedded, hub, runtime
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
    shown = choose_crops(on, description, rows, cache, label_map=label_map, progress=progress)
    about = _embed(path, output, network, description, shown, progress, BATCHES)
    progress.show(f"wrote {output} with a LiteRT copy in {about.precision}")
    return about


def add_copy(path: Path, val: LabeledDataset, progress: Progress = SILENT) -> None:
    """Give a model that was just trained its copy; what goes wrong is a note.

    Args:
        path: The model file.
        val: Rows to compare on.
        progress: Is shown the note.
    """
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
    """The first copy that answers alike, put into the file."""
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for precision in embedded.PRECISIONS:
            part = Path(folder, f"{precision}.tflite")
            progress.show(f"copying {path.name} for LiteRT in {precision}")
            formats.write_copy(network, part, description.crop.size, precision)
            with formats.quiet():
                copy = runtime.open_exported(part, precision)
            parity = check_parity(network, copy, description.tasks, shown, progress, batches)
            progress.show(parity)
            if not (failures := parity.failures()):
                made = {"with": versions()}
                return embedded.embed(
                    path, part.read_bytes(), precision, asdict(parity), made, output
                )
            progress.show(f"{precision} was not kept: {'; '.join(failures)}.")
    raise ValueError(f"No LiteRT copy of {path} answers alike: {'; '.join(failures)}.")
