"""Images from Python, many at once: one call, a batch of columns, a stage of any pipeline."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import numpy as np
from PIL import Image

from faceattr.images.inputs import InputFile
from faceattr.images.load import MAX_PIXELS, ImageSource, content_of, load_image, reason_of
from faceattr.inference.label import describe_samples
from faceattr.inference.predictor import BatchColumns, FaceAttributes, LoadSettings
from faceattr.inference.results import DescribedFace
from faceattr.inference.samples import Sample
from faceattr.inference.schema import columns, to_rows
from faceattr.inference.table import arrow_schema, arrow_tables
from faceattr.model import file as model_file
from faceattr.model import runtime

if TYPE_CHECKING:
    import pandas
    import pyarrow

KEPT = 2  # models that stay open
COLUMNS = ("path", "bytes", "image")


@overload
def analyze(
    images: ImageSource | Sequence[ImageSource],
    *,
    as_frame: Literal[True],
    bgr: bool = False,
    allow_urls: bool = False,
    **load: Unpack[LoadSettings],
) -> pandas.DataFrame: ...


@overload
def analyze(
    images: list | tuple,
    *,
    as_frame: Literal[False] = False,
    bgr: bool = False,
    allow_urls: bool = False,
    **load: Unpack[LoadSettings],
) -> list[list[DescribedFace]]: ...


@overload
def analyze(
    images: ImageSource,
    *,
    as_frame: Literal[False] = False,
    bgr: bool = False,
    allow_urls: bool = False,
    **load: Unpack[LoadSettings],
) -> list[DescribedFace]: ...


def analyze(
    images: ImageSource | Sequence[ImageSource],
    *,
    as_frame: bool = False,
    bgr: bool = False,
    allow_urls: bool = False,
    **load: Unpack[LoadSettings],
) -> list[DescribedFace] | list[list[DescribedFace]] | pandas.DataFrame:
    """Find and describe the faces of one image or of several: ``faceattr.analyze("team.jpg")``.

    Args:
        images: One image, whatever `faceattr.load_image` takes, or a list of them.
        as_frame: Give the table that `faceattr label` writes. An image that cannot be read is a
            row of it then; otherwise it is an error.
        bgr, allow_urls: As for `faceattr.load_image`.
        **load: As for `FaceAttributes.load`; what is opened stays open for the next call, unless
            its file has changed by then.

    Returns:
        The faces from left to right, each with ``to_dict()``; of a list of images a list of lists;
        or a `pandas.DataFrame`.

    Raises:
        FileNotFoundError, ValueError: An image, the model or the detector cannot be had.
    """
    attributes = _opened(**{name: _Kept(value) for name, value in load.items()})
    how = {"bgr": bgr, "allow_urls": allow_urls}
    given: Any = images  # a union, of which mypy chooses no overload
    if not as_frame:
        return attributes(given, **how)
    several = isinstance(images, list | tuple)
    return attributes.label_batch(given if several else [given], **how).to_pandas()


class _Kept:
    """An argument that can be looked up, dicts too; a file is another one once it is replaced."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self._key = repr(value) if isinstance(value, Mapping) else value
        if isinstance(value, str | os.PathLike):
            with suppress(OSError):  # a name, such as "shipped", or a file that is just replaced
                about = os.stat(value)
                version = about.st_mtime_ns, about.st_size, about.st_ino
                self._key = os.path.abspath(value), version

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and self._key == other._key


@lru_cache(KEPT)
def _opened(**load: _Kept) -> FaceAttributes:
    return FaceAttributes.load(**{name: kept.value for name, kept in load.items()})


def label_batch(
    attributes: FaceAttributes,
    images: Sequence[ImageSource] | BatchColumns,
    *,
    bgr: bool = False,
    allow_urls: bool = False,
    **how,
) -> pyarrow.Table:
    """What `FaceAttributes.label_batch` does; `how` as for `describe_samples`."""
    import pyarrow

    samples = (_sample(name, source, bgr, allow_urls) for name, source in _rows_of(images))
    names = columns(attributes.tasks)
    rows = (
        row | {"path": row["path"] or None}
        for result in describe_samples(samples, attributes, **how)
        for row in to_rows(result, attributes.tasks)
    )
    tables = list(arrow_tables(rows, names))
    return pyarrow.concat_tables(tables or [arrow_schema(names).empty_table()])


def _rows_of(images: Any) -> Iterator[tuple[str, Any]]:
    """Name and source of each row of columns, or of each image of a list."""
    # Arrow's tables have names of columns, those of pandas and Polars have columns.
    names = getattr(images, "column_names", getattr(images, "columns", None))
    if names is not None or isinstance(images, Mapping):
        return _rows_of_columns(images, list(images if names is None else names))
    is_one = isinstance(images, str | bytes | bytearray | memoryview) or hasattr(images, "read")
    shape = images.shape if isinstance(images, np.ndarray) else None
    is_one |= shape is not None and (len(shape) in (0, 2) or (len(shape) == 3 and shape[2] < 5))
    if is_one or not isinstance(images, Iterable):
        of_shape = f" of shape {shape}" if shape else ""
        raise ValueError(
            "label_batch takes a list of images, or columns, and faceattr.analyze takes one image. "
            f"Received: {type(images).__name__}{of_shape}"
        )
    return (("", one) for one in images)


def _rows_of_columns(images: Any, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    there = [name for name in COLUMNS if name in names]
    if not there:
        raise ValueError(
            f"A batch has a column of {', '.join(COLUMNS)}. Received: {', '.join(map(str, names))}"
        )
    lists = {name: _cells(images[name]) for name in there}
    if len({len(one) for one in lists.values()}) > 1:
        counts = ", ".join(f"{name} {len(one)}" for name, one in lists.items())
        raise ValueError(f"The columns of a batch are equally long. Received: {counts}")
    for cells in zip(*lists.values(), strict=True):
        row = dict(zip(lists, cells, strict=True))
        path, given = row.get("path"), (row.get(name) for name in ("bytes", "image", "path"))
        content = next((cell for cell in given if cell is not None), None)
        yield "" if path is None else str(path), content


def _cells(column: Any) -> list[Any]:
    """The cells of a column in Python's types; pandas' NaN and NA, too, are None."""
    cells = column.to_pylist() if hasattr(column, "to_pylist") else column
    return [None if _is_empty(cell) else cell for cell in cells]


def _is_empty(cell: Any) -> bool:
    is_nan = isinstance(cell, float | np.floating) and cell != cell
    return is_nan or type(cell).__name__ == "NAType"


def _sample(name: str, source: Any, bgr: bool, allow_urls: bool) -> Sample:
    """One image; what is wrong with it is a reason, never an error."""
    is_place = isinstance(source, str) or hasattr(source, "__fspath__")
    file = InputFile(name or (str(source) if is_place else ""))
    if not isinstance(source, np.ndarray | Image.Image):
        # Read and fetched by whichever thread decodes it, and once.
        return Sample(file, content=cache(partial(content_of, source, allow_urls=allow_urls)))
    try:
        return Sample(file, frame=load_image(source, bgr=bgr))
    except ValueError as error:
        return Sample(file, reason=reason_of(error))


class Labeller:
    """Labels batches, each as `FaceAttributes.label_batch` does::

        ray.data.read_binary_files(place, include_paths=True).map_batches(
            Labeller, fn_constructor_kwargs={"model": "mood.keras"}, concurrency=4, num_cpus=2)

        labeller = Labeller("mood.keras")
        files.select("path", "content").withColumnRenamed("content", "bytes").mapInArrow(
            labeller.over, from_arrow_schema(labeller.schema))

    Model and detector are opened at the first batch, in the process that has it; the object
    itself is small and pickles.

    Args:
        model, detector, **load: As for `FaceAttributes.load`. `threads` are by default as many as
            the engine gives processors to this worker.
        max_pixels: As for `faceattr.load_image`.
        allow_urls: Fetch addresses in column ``path``.
    """

    def __init__(
        self,
        model: Any = None,
        detector: Any = "auto",
        *,
        max_pixels: int = MAX_PIXELS,
        allow_urls: bool = False,
        **load: Any,
    ) -> None:
        self._load: dict[str, Any] = {"model": model, "detector": detector, **load}
        self._how: dict[str, Any] = {"max_pixels": max_pixels, "allow_urls": allow_urls}

    def __call__(self, batch: BatchColumns) -> pyarrow.Table:
        """The table of one batch with a column ``path``, ``bytes`` or ``image``."""
        return self.attributes.label_batch(batch, workers=self.threads, **self._how)

    def over(self, batches: Iterable[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
        """Batch after batch: the function that Spark's ``mapInArrow`` takes."""
        for batch in batches:
            yield from self(batch).to_batches()

    @cached_property
    def attributes(self) -> FaceAttributes:
        return FaceAttributes.load(**{**self._load, "threads": self.threads})

    @property
    def schema(self) -> pyarrow.Schema:
        """The columns of the tables and their types; nothing is opened for it."""
        path = model_file.path_of(self._load["model"] or model_file.SHIPPED)
        return arrow_schema(columns(runtime.describe(path).tasks))

    @property
    def threads(self) -> int | None:
        """Threads that decode, detect and answer; None leaves the choice to the processors."""
        return self._load.get("threads") or _given_cpus()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "attributes"}


def _given_cpus() -> int | None:
    """Processors that Ray or Spark gave to this worker; None where it is neither's."""
    ray, spark = sys.modules.get("ray"), sys.modules.get("pyspark")
    if ray is not None and ray.is_initialized() and ray.get_runtime_context().get_task_id():
        return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
    context = spark.TaskContext.get() if spark is not None else None
    return max(1, context.cpus()) if context is not None else None
