"""What a job leaves beside its table, and where it must not be put."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from faceattr.files import must_be_folder, must_have_place
from faceattr.images.inputs import InputFile
from faceattr.images.load import PathLike
from faceattr.inference.artifacts import must_spare_inputs


@dataclass(frozen=True)
class Extras:
    """What a job leaves beside its table; None leaves it out.

    Args:
        crops: A folder for every face, as the model's own rule cuts it.
        annotated: A folder for copies of the pictures with boxes and answers.
        gallery: An HTML page of faces by answer and confidence; its name ends in ``.html``.
    """

    crops: PathLike | None = None
    annotated: PathLike | None = None
    gallery: PathLike | None = None

    @property
    def folders(self) -> list[PathLike]:
        """Where the job itself writes pictures."""
        return [folder for folder in (self.crops, self.annotated) if folder is not None]

    def must_be_writable(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Refuse names before any work is done.

        Args:
            resume: Go on with what is there.
            overwrite: Replace what is there.

        Raises:
            ValueError, OSError: Something cannot be written there, or a gallery is there that
                may not be replaced.
        """
        for folder in self.folders:
            must_be_folder(Path(folder))
        if self.gallery is None:
            return
        page = Path(self.gallery)
        must_have_place(page)
        if page.suffix != ".html":
            raise ValueError(f"A gallery's name ends in .html. Received: {page}")
        if page.exists() and not (resume or overwrite):
            raise FileExistsError(
                f"{page} exists already. Replace it and the table (--overwrite) or choose "
                "another name."
            )

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
