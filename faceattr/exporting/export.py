"""`faceattr export`: write, compare, and only then keep; a file, or a copy in the model file."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

import keras
import numpy as np

from faceattr import __version__
from faceattr.data.dataset import LabeledDataset
from faceattr.data.sources import ReadingSettings
from faceattr.exporting import formats
from faceattr.exporting.parity import BATCHES, ParityData, ParityReport, check_parity, choose_crops
from faceattr.files import (
    is_same_file,
    replace_durably,
    validate_output_path,
    versions_of,
    write_json,
)
from faceattr.model import embedded, hub, runtime
from faceattr.model import file as model_file
from faceattr.model.embedded import PRECISIONS, EmbeddedCopy
from faceattr.model.file import Description
from faceattr.progress import SILENT, Progress
from faceattr.tasks import Task

ROWS = 1000
INT8_CURE = (
    " Another target may keep more of the answers, more rows judge more exactly, and without "
    "--int8 nothing is rounded."
)
LIBRARIES = (
    *("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "openvino", "nncf"),
    "ai-edge-litert",
)


def export(
    model: str | Path,
    to: str,
    output: str | Path | None = None,
    *,
    on: Sequence[str] = (),
    int8: bool = False,
    rows: int = ROWS,
    overwrite: bool = False,
    web_runtime_file: str | Path | None = None,
    progress: Progress = SILENT,
    **reading: Unpack[ReadingSettings],
) -> ParityReport:
    """Write a model for another runtime and check that the file answers alike.

    The file takes RGB ``uint8`` crops ``crops`` ``(n, size, size, 3)`` and returns ``float32``
    probabilities by task name. Beside it stands ``<file>.json``: tasks, class orders, crop rule,
    licence, hashes and the parity report.

    Args:
        model: A model file, or ``"shipped"`` for the one that comes with the package.
        to: ``"onnx"``, ``"litert"``, ``"openvino"``, ``"saved_model"``, or ``"web"`` for a page
            that runs the model in the browser (`faceattr.exporting.site`).
        output: The file to write (a folder for ``"saved_model"`` and ``"web"``); by default the
            model's name with the target's ending, in the current folder.
        on: Labelled faces to compare on, as for `faceattr.evaluate`; rows of val, or a fifth
            where no row is of val. Without, float files are compared on made pictures.
        int8: Compute in 8 bits. Needs `on`: ranges are measured on its train rows.
        rows: Most rows for each task that are compared.
        overwrite: Replace a file that is there; a folder only if it is an exported model.
        web_runtime_file: For ``"web"``, the npm package of ONNX Runtime Web, where npm cannot be
            reached.
        progress: Is shown what is done, and the parity report before a file is refused for it.
        **reading: How `on` is read, see `faceattr.data.sources.ReadingConfig`: ``label_map``,
            ``detector``, ``find_faces_in``, ``cache``.

    Raises:
        ValueError: The file does not answer alike and was not kept; or the target, the model or the
            pictures cannot be used, or an optional package is missing.
        OSError: Something cannot be read or written.
    """
    compared: dict[str, Any] = {"on": on, "rows": rows, "progress": progress, **reading}
    if to == "web":
        from faceattr.exporting.site import export_site

        if int8:
            raise ValueError("A page takes int8 by itself where that answers alike: leave it away.")
        return export_site(model, output, overwrite, web_runtime_file, **compared)
    if web_runtime_file is not None:
        raise ValueError(f"The runtime of the web is for to='web' alone. Received: to={to!r}")
    path = model_file.path_of(model)
    description = model_file.describe(path)
    target = formats.target_called(to, int8=int8)
    usual = f"{path.stem}{'.int8' if int8 else ''}{target.ending or '_saved_model'}"
    output = Path(usual if output is None else output)
    _check_output(output, target.ending, overwrite)
    network = model_file.load(path)[0]  # a damaged one fails before images are read
    shown = choose_crops(description, int8=int8, **compared)
    parity = _write_alike(path, to, output, network, description, shown, progress)
    progress.show(f"wrote {output} and {runtime.description_path(output)}")
    return parity


def _write_alike(
    path: Path,
    to: str,
    output: Path,
    network: keras.Model,
    description: Description,
    shown: ParityData,
    progress: Progress,
) -> ParityReport:
    """Write the file into a folder beside its place, compare it, and move it if it is alike."""
    precision = "float32" if shown.calibrating is None else "int8"
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        part = Path(folder, output.name)
        progress.show(f"exporting {path.name} to {to}")
        formats.write(to, network, part, description.crop.size, shown.calibrating)
        parity = _compare(network, part, precision, description.tasks, shown, progress)
        if failures := parity.failures():
            cure = INT8_CURE if precision == "int8" else ""
            raise ValueError(f"{output} was not kept: {'; '.join(failures)}.{cure}")
        _keep(part, output, _metadata(path, description, part, to, precision, parity))
    return parity


def _compare(
    network: keras.Model,
    part: Path,
    precision: str,
    tasks: Sequence[Task],
    shown: ParityData,
    progress: Progress,
    batches: Sequence[int] = BATCHES,
) -> ParityReport:
    """How a file that was just written answers beside its network. Afterwards it is open no more:
    Windows neither moves nor deletes a file that is.
    """
    with formats.quiet():
        file = runtime.open_exported(part, precision)
    parity = check_parity(network, file, tasks, shown, progress, batches)
    progress.show(parity)
    return parity


def _check_output(output: Path, ending: str, overwrite: bool) -> None:
    if output.suffix != ending:
        wanted = f"a name ending in {ending}" if ending else "a folder's name without an ending"
        raise ValueError(f"This target needs {wanted}. Received: {output}")
    if not output.exists():
        validate_output_path(output)
    elif not _is_export(output, ending):
        raise FileExistsError(
            f"{output} is no exported model, so it is not replaced. Give another -o."
        )
    there = next(
        (file for file in (output, runtime.description_path(output)) if file.exists()), None
    )
    if there and not overwrite:
        raise FileExistsError(
            f"{there} exists. Give another -o, or --overwrite to replace it once the new one "
            "answers alike."
        )


def _is_export(output: Path, ending: str) -> bool:
    """Whether something may be taken for a file, or the folder, of this target."""
    if ending:
        return output.is_file()
    if (output / "saved_model.pb").is_file():
        return True
    if not output.is_dir():
        return False
    try:
        runtime.describe(output)
    except (OSError, ValueError):
        return False
    return True


def smallest_alike(
    what: str,
    network: keras.Model,
    tasks: Sequence[Task],
    shown: ParityData,
    write: Callable[[str, Path], Path],
    *,
    batches: Sequence[int],
    refuse: Callable[[ParityReport], list[str]] = lambda parity: [],
    progress: Progress = SILENT,
) -> tuple[bytes, str, ParityReport]:
    """The file of fewest bits that answers like its network, its precision, and the comparison.

    `write` writes a file of a precision into a folder, `refuse` says what else speaks against one.

    Raises:
        ValueError: None answers alike.
    """
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            part = write(precision, Path(folder))
            parity = _compare(network, part, precision, tasks, shown, progress, batches)
            if not (failures := [*parity.failures(), *refuse(parity)]):
                return part.read_bytes(), precision, parity
            progress.show(f"{precision} was not kept: {'; '.join(failures)}.")
    raise ValueError(f"No {what} answers alike: {'; '.join(failures)}.")


def _metadata(
    path: Path, description: Description, part: Path, to: str, precision: str, parity: ParityReport
) -> dict[str, Any]:
    """What stands beside the file; `faceattr.model.runtime` reads it."""
    return {
        "target": to,
        "precision": precision,
        "sha256": runtime.sha256_of(part),
        "bytes": sum(file.stat().st_size for file in runtime.files_of(part)),
        "provenance": {
            **made_from(path),
            "on": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
            "date": datetime.now(UTC).date().isoformat(),
        },
        "parity": asdict(parity),
        "description": json.loads(description.to_json()),
    }


def made_from(path: Path, others: Mapping[str, str] | None = None) -> dict[str, Any]:
    """For provenance: the model file, and the versions (and `others`) that another was made by."""
    return {
        "by": f"faceattr {__version__}",
        "with": {**versions_of(*LIBRARIES), **(others or {})},
        "from": {"file": path.name, "sha256": runtime.sha256_of(path), **hub.provenance_of(path)},
    }


def _keep(part: Path, output: Path, metadata: Mapping[str, Any]) -> None:
    """Move everything to its place, the metadata last: a file without is not taken for whole."""
    runtime.description_path(output).unlink(missing_ok=True)
    if output.is_dir():
        shutil.rmtree(output)
    for file in sorted(part.parent.iterdir()):
        (replace_durably if file.is_file() else os.replace)(file, output.with_name(file.name))
    write_json(metadata, runtime.description_path(output))


def embed(
    model: str | Path,
    output: str | Path | None = None,
    *,
    on: Sequence[str] = (),
    rows: int = ROWS,
    overwrite: bool = False,
    progress: Progress = SILENT,
    **reading: Unpack[ReadingSettings],
) -> EmbeddedCopy:
    """Put a copy of the network for LiteRT into a model file.

    The copy is int8 where that answers alike, else float16, else float32. Plain
    ``keras.saving.load_model`` opens the file as before.

    Args:
        model: A model file, or ``"shipped"``.
        output: The file to write; by default the same one.
        on, rows: As for `faceattr.export`.
        overwrite: Replace another file that is there.
        progress: Is shown what is done, and each parity report.
        **reading: As for `faceattr.export`.

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
    in_place = is_same_file(output, path)
    model_file.validate_output(output, overwrite=overwrite or in_place)
    formats.target_called("litert", int8=False)
    network, description = model_file.load(path)
    shown = choose_crops(description, on, rows, progress=progress, **reading)
    about = _embed(path, output, network, description, shown, BATCHES, progress)
    progress.show(f"wrote {output} with a LiteRT copy in {about.precision}")
    return about


def add_copy(
    path: Path, val: LabeledDataset, progress: Progress = SILENT, *, name: Path | None = None
) -> None:
    """Give a model that was just trained its copy, compared on val; what goes wrong is a note.

    `name` is what the file will be called.
    """
    name = name or path
    try:
        formats.target_called("litert", int8=False)
        network, description = model_file.load(path)
        some = val.take(np.arange(min(len(val), ROWS)))
        shown = ParityData(some, f"{len(some):,} val faces of the training")
        _embed(path, path, network, description, shown, BATCHES[:1])
    except Exception as error:  # converters raise whatever they stumble over
        reason = (str(error).strip() or type(error).__name__).split("\n")[0].rstrip(".")
        progress.show(
            f"note: {name} has no LiteRT copy and is answered by Keras, as before: {reason}. "
            f"`faceattr export {name} --embed` tries again."
        )


def _embed(
    path: Path,
    output: Path,
    network: keras.Model,
    description: Description,
    shown: ParityData,
    batches: Sequence[int],
    progress: Progress = SILENT,
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
