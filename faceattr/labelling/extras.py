"""What a job leaves beside its table, and where it must not be put."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from faceattr.labelling.copies import must_spare_inputs
from faceattr.pictures.inputs import InputFile
from faceattr.pictures.reading import PathLike


@dataclass(frozen=True)
class Extras:
    """What a job leaves beside its table; None leaves it out.

    Args:
        crops: A folder for every face, as the model's own rule cuts it.
        annotated: A folder for copies of the pictures with boxes and answers.
        gallery: An HTML page of faces by answer and confidence.
    """

    crops: PathLike | None = None
    annotated: PathLike | None = None
    gallery: PathLike | None = None

    @property
    def folders(self) -> list[PathLike]:
        """Where the job itself writes pictures."""
        return [folder for folder in (self.crops, self.annotated) if folder is not None]

    def must_spare(self, files: Iterable[InputFile]) -> None:
        """Refuse folders in which a copy would take the place of an input.

        Raises:
            ValueError: One of them is such a folder.
        """
        if self.crops is not None:
            must_spare_inputs(self.crops, files, crops=True)
        if self.annotated is not None:
            must_spare_inputs(self.annotated, files, crops=False)


NOTHING = Extras()
