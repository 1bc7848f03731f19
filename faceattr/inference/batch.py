"""Many images at once, from anywhere, to one table in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from faceattr.images.inputs import InputFile
from faceattr.images.load import ImageSource, content_of, load_image, reason_of
from faceattr.inference.label import describe_samples
from faceattr.inference.samples import Sample
from faceattr.inference.schema import columns, to_rows
from faceattr.inference.table import arrow_schema

if TYPE_CHECKING:
    import pyarrow

    from faceattr.inference.predictor import FaceAttributes

COLUMNS = ("path", "bytes", "image")


def label_batch(
    attributes: FaceAttributes,
    images: Sequence[ImageSource] | Mapping[str, Sequence],
    *,
    bgr: bool = False,
    allow_urls: bool = False,
    **how,
) -> pyarrow.Table:
    """What `FaceAttributes.label_batch` does; `how` as for `describe_samples`."""
    import pyarrow

    given = _rows_of(images) if isinstance(images, Mapping) else (("", one) for one in images)
    samples = (_sample(name, source, bgr, allow_urls) for name, source in given)
    rows = [
        row | {"path": row["path"] or None}
        for result, _ in describe_samples(samples, attributes, **how)
        for row in to_rows(result, attributes.tasks)
    ]
    return pyarrow.Table.from_pylist(rows, arrow_schema(columns(attributes.tasks)))


def _rows_of(images: Mapping[str, Iterable]) -> Iterator[tuple[str, Any]]:
    """Name and source of each row."""
    there = [name for name in COLUMNS if name in images]
    if not there:
        raise ValueError(
            f"A batch has a column of {', '.join(COLUMNS)}. Received: {', '.join(map(str, images))}"
        )
    lists = {name: list(images[name]) for name in there}
    if len({len(one) for one in lists.values()}) > 1:
        counts = ", ".join(f"{name} {len(one)}" for name, one in lists.items())
        raise ValueError(f"The columns of a batch are equally long. Received: {counts}")
    names = lists.get("path", [None] * len(lists[there[0]]))
    contents = lists.get("bytes", lists.get("image", names))
    for name, content in zip(names, contents, strict=True):
        yield "" if name is None else str(name), name if content is None else content


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
