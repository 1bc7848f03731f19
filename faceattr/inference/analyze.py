"""One line for those who have an image and want the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Unpack

from faceattr.images.load import ImageSource
from faceattr.inference.predictor import FaceAttributes, LoadSettings
from faceattr.inference.results import DescribedFace

if TYPE_CHECKING:
    import pandas

KEPT = 2  # models that stay open


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
        **load: As for `FaceAttributes.load`; what is opened stays open for the next call.

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
    """An argument that can be looked up, dicts too."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self._key = repr(value) if isinstance(value, Mapping) else value

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and self._key == other._key


@lru_cache(KEPT)
def _opened(**load: _Kept) -> FaceAttributes:
    return FaceAttributes.load(**{name: kept.value for name, kept in load.items()})
