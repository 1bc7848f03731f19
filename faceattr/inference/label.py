"""The folder job: many pictures in, a table out, and nothing lost on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from time import perf_counter
from typing import Any

from faceattr.files import validate_output_folder, validate_output_path
from faceattr.images.inputs import InputFile, Inputs
from faceattr.images.load import MAX_PIXELS, PathLike
from faceattr.inference.artifacts import save_annotated, save_crops, validate_artifact_folder
from faceattr.inference.gallery import write_gallery
from faceattr.inference.metadata import begin_metadata, now, settings_of, write_metadata
from faceattr.inference.pipeline import (
    Clock,
    Sample,
    as_many,
    describe_samples,
    must_be_limit,
    prefetch_map,
    samples_of,
)
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.schema import STATUSES, ImageResult, Row, columns, rows_of, withheld_name
from faceattr.inference.table import must_be_writable, open_table, read_rows


@dataclass(frozen=True)
class Artifacts:
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
            validate_output_folder(Path(folder))
        if self.gallery is None:
            return
        page = Path(self.gallery)
        validate_output_path(page)
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
            validate_artifact_folder(self.crops, files, crops=True)
        if self.annotated is not None:
            validate_artifact_folder(self.annotated, files, crops=False)


NOTHING = Artifacts()


@dataclass
class Summary:
    """What a job did.

    Args:
        inputs: Pictures and frames that were looked at.
        statuses: Rows by status.
        answers: By task, rows by answer; None counts the unsure.
        resumed: Inputs that the table held already.
        seconds: From the first picture to the last row.
        stages: Seconds by stage, summed over threads.
        interrupted: Whether the job was stopped before its end.
    """

    inputs: int = 0
    statuses: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(STATUSES, 0)))
    answers: dict[str, Counter[str | None]] = field(default_factory=dict)
    resumed: int = 0
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    interrupted: bool = False
    _start: float = field(default_factory=perf_counter)

    def add(self, labelled: ImageResult, rows: Sequence[Row]) -> None:
        """Count one input."""
        self.inputs += 1
        self.statuses.update(row["status"] for row in rows)
        for face in labelled.faces:
            for task, prediction in face.predictions.items():
                if not (face.too_small or face.rejected):
                    self.answers.setdefault(task, Counter())[prediction.label] += 1

    def end(self, clock: Clock, *, interrupted: bool) -> None:
        """Stop the clock."""
        self.seconds = perf_counter() - self._start
        self.stages, self.interrupted = clock.seconds, interrupted

    def counts(self) -> dict[str, Any]:
        """What the page beside the table keeps."""
        return {
            "interrupted": self.interrupted,
            "looked_at": self.inputs,
            "there_before": self.resumed,
            "rows": dict(self.statuses),
            "answers": {task: named(answers) for task, answers in self.answers.items()},
            "seconds": round(self.seconds, 1),
        }

    @property
    def faces(self) -> int:
        """Faces that were described."""
        return self.statuses["ok"]


def named(answers: Mapping[str | None, int]) -> dict[str, int]:
    """Counts by answer, those of the withheld under a name that no answer has."""
    withheld = withheld_name([name for name in answers if name])
    return {withheld if name is None else name: count for name, count in answers.items()}


def label(
    inputs: PathLike | Sequence[PathLike],
    *,
    every: float = 1.0,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    **load,
) -> Iterator[Row]:
    """Label pictures and videos: ``pandas.DataFrame(faceattr.label("photos/"))``.

    Args:
        inputs: Folders, pictures, videos, patterns or lists, as `Inputs` takes them.
        every: Seconds between two frames of a video.
        workers: Threads that decode and detect; by default one a processor.
        max_pixels: A picture with more of them is not read. Whatever the limit, all pictures that
            are read at once take 2 GiB together; a larger one waits until it is alone.
        **load: `model`, `detector` and the other arguments of `FaceAttributes.load`.

    Yields:
        One dict a face and at least one an input, with the columns of the written table;
        None is an empty cell.

    Raises:
        FileNotFoundError, ValueError: An input, the model or the detector cannot be had.
    """
    files = Inputs(inputs)
    attributes = FaceAttributes.load(**load)
    items = samples_of(files, every)
    for labelled, _ in describe_samples(items, attributes, workers=workers, max_pixels=max_pixels):
        yield from rows_of(labelled, attributes.tasks)


def label_to(
    output: PathLike,
    inputs: PathLike | Sequence[PathLike],
    attributes: FaceAttributes,
    *,
    every: float = 1.0,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    resume: bool = False,
    retry_unreadable: bool = False,
    overwrite: bool = False,
    spreadsheet: bool = False,
    extras: Artifacts = NOTHING,
    on_start: Callable[[int, int], None] = lambda files, done: None,
    on_input: Callable[[ImageResult], None] = lambda labelled: None,
    stop: Callable[[], bool] = lambda: False,
) -> Summary:
    """Label pictures and videos into a table, with a page beside it that says how.

    Args:
        output: Ends in ``.csv``, ``.jsonl`` or ``.parquet``.
        inputs: As for `label`.
        attributes: Detector and model.
        every: Seconds between two frames of a video.
        workers: Threads that decode and detect; by default one a processor.
        max_pixels: A picture with more of them is not read. Whatever the limit, all pictures that
            are read at once take 2 GiB together; a larger one waits until it is alone.
        resume: Go on with the table that a stopped job left.
        retry_unreadable: Then try inputs again that could not be read; their rows move to the end.
        overwrite: Replace a table, and a gallery, that is there.
        spreadsheet: The CSV will be opened in one: texts that it would take for formulas (they
            begin with ``=``, ``+``, ``-`` or ``@``) get a ``'`` in front. Numbers stay as they are.
        extras: What else to leave beside the table.
        on_start: Is told the number of files and how many of them are done already.
        on_input: Is told of each input whose rows are written.
        stop: Asked before each input; True finishes what is begun and ends the job.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: Something given is wrong; nothing is
            done then.
        OSError: The table cannot be written any further; what it holds is whole.
    """
    there = {"resume": resume, "retry_unreadable": retry_unreadable, "overwrite": overwrite}
    there["spreadsheet"] = spreadsheet
    must_be_writable(output, **there)
    extras.must_be_writable(resume=resume, overwrite=overwrite)
    workers = as_many(workers)
    must_be_limit(max_pixels)
    files = Inputs(inputs, without=extras.folders)
    if files.count == 0:
        left_out = ", ".join(map(str, extras.folders))
        raise ValueError(
            f"There are no pictures in {', '.join(files.inputs)}"
            + (f", leaving out {left_out}, where this job writes itself." if left_out else ".")
        )
    extras.must_spare(files)
    settings = settings_of(attributes, every, spreadsheet)
    summary, clock = Summary(), Clock()
    run = {"started": now(), "inputs": files.inputs, "files": files.count, "max_pixels": max_pixels}
    begin = partial(begin_metadata, output, settings, resume=resume)
    names = columns(attributes.tasks)
    with open_table(output, names, **there, begin=begin) as table:
        write_metadata(output, settings, run)
        summary.resumed = sum(map(len, table.done.values()))
        on_start(files.count, len(table.done))
        items = takewhile(lambda _: not stop(), samples_of(files, every, table.done))
        for labelled in _with_extras(items, attributes, extras, workers, max_pixels, clock):
            rows = rows_of(labelled, attributes.tasks)
            with clock.measure("write"):
                table.write(rows)
            summary.add(labelled, rows)
            on_input(labelled)
        summary.end(clock, interrupted=stop())
        table.finished = not summary.interrupted
        write_metadata(output, settings, run | {"ended": now()} | summary.counts())
    if extras.gallery and table.finished:
        with clock.measure("gallery"):
            written = partial(read_rows, output, names, spreadsheet=spreadsheet)
            title = f"Faces of {', '.join(files.inputs)}"
            write_gallery(extras.gallery, written, attributes.tasks, title=title)
    return summary


def _with_extras(
    items: Iterable[Sample],
    attributes: FaceAttributes,
    extras: Artifacts,
    workers: int,
    max_pixels: int,
    clock: Clock,
) -> Iterator[ImageResult]:
    """Describe items; what is to be left beside the table is there before a row is."""
    crops, annotated = extras.crops, extras.annotated
    described = describe_samples(
        items,
        attributes,
        workers=workers,
        clock=clock,
        keep=partial(save_crops, crops, attributes.crop_rule) if crops is not None else None,
        keep_frames=annotated is not None,
        max_pixels=max_pixels,
    )
    if annotated is None:
        return (labelled for labelled, _ in described)

    def annotate(pair: tuple[ImageResult, Sample]) -> ImageResult:
        with clock.measure("annotate"):
            return save_annotated(annotated, *pair, max_pixels=max_pixels)

    return prefetch_map(annotate, described, workers)
