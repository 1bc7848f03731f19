"""What labels batches of images in somebody's pipeline: of Ray Data, of Spark, of anything."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from faceattr.images.load import MAX_PIXELS
from faceattr.inference.predictor import FaceAttributes

if TYPE_CHECKING:
    import pyarrow


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

    def __call__(self, batch: Mapping[str, Any] | pyarrow.RecordBatch) -> pyarrow.Table:
        """The table of one batch with a column ``path``, ``bytes`` or ``image``."""
        names = getattr(batch, "column_names", None)  # of Arrow's kinds
        columns = batch if names is None else {n: batch[n].to_pylist() for n in names}
        return self.attributes.label_batch(columns, workers=self.threads, **self._how)

    def over(self, batches: Iterable[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
        """Batch after batch: the function that Spark's ``mapInArrow`` takes."""
        for batch in batches:
            yield from self(batch).to_batches()

    @cached_property
    def attributes(self) -> FaceAttributes:
        """Model and detector, open."""
        return FaceAttributes.load(**{**self._load, "threads": self.threads})

    @property
    def schema(self) -> pyarrow.Schema:
        """The columns of the tables and their types; nothing is opened for it."""
        from faceattr.inference.schema import columns
        from faceattr.inference.table import arrow_schema
        from faceattr.model import file as model_file
        from faceattr.model import runtime

        path = model_file.path_of(self._load["model"] or model_file.SHIPPED)
        return arrow_schema(columns(runtime.describe(path).tasks))

    @property
    def threads(self) -> int | None:
        """Threads that decode, detect and answer; None leaves the choice to the processors."""
        return self._load.get("threads") or given_cpus()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "attributes"}


def given_cpus() -> int | None:
    """Processors that Ray or Spark gave to this worker; None where it is neither's."""
    ray, spark = sys.modules.get("ray"), sys.modules.get("pyspark")
    if ray is not None and ray.is_initialized() and ray.get_runtime_context().get_task_id():
        return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
    context = spark.TaskContext.get() if spark is not None else None
    return max(1, context.cpus()) if context is not None else None
