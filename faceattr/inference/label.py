"""The folder job: many pictures in, a table out, and nothing lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import takewhile

from faceattr.images.inputs import Inputs
from faceattr.images.load import MAX_PIXELS, PathLike
from faceattr.inference.artifacts import save_annotated, save_crops
from faceattr.inference.extras import NOTHING, Extras
from faceattr.inference.gallery import write_gallery
from faceattr.inference.looking import Clock, Item, items_of
from faceattr.inference.metadata import begin_sidecar, now, settings_of, write_sidecar
from faceattr.inference.pipeline import ahead, as_many, describe_items, must_be_limit
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.rows import Labelled, Row, columns, rows_of
from faceattr.inference.summary import Summary
from faceattr.inference.table import must_be_writable, open_table, read_rows


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
    items = items_of(files, every)
    for labelled, _ in describe_items(items, attributes, workers=workers, max_pixels=max_pixels):
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
    extras: Extras = NOTHING,
    on_start: Callable[[int, int], None] = lambda files, done: None,
    on_input: Callable[[Labelled], None] = lambda labelled: None,
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
    begin = partial(begin_sidecar, output, settings, resume=resume)
    names = columns(attributes.tasks)
    with open_table(output, names, **there, begin=begin) as table:
        write_sidecar(output, settings, run)
        summary.resumed = sum(map(len, table.done.values()))
        on_start(files.count, len(table.done))
        items = takewhile(lambda _: not stop(), items_of(files, every, table.done))
        for labelled in _with_extras(items, attributes, extras, workers, max_pixels, clock):
            rows = rows_of(labelled, attributes.tasks)
            with clock.measure("write"):
                table.write(rows)
            summary.add(labelled, rows)
            on_input(labelled)
        summary.end(clock, interrupted=stop())
        table.finished = not summary.interrupted
        write_sidecar(output, settings, run | {"ended": now()} | summary.counts())
    if extras.gallery and table.finished:
        with clock.measure("gallery"):
            written = partial(read_rows, output, names, spreadsheet=spreadsheet)
            title = f"Faces of {', '.join(files.inputs)}"
            write_gallery(extras.gallery, written, attributes.tasks, title=title)
    return summary


def _with_extras(
    items: Iterable[Item],
    attributes: FaceAttributes,
    extras: Extras,
    workers: int,
    max_pixels: int,
    clock: Clock,
) -> Iterator[Labelled]:
    """Describe items; what is to be left beside the table is there before a row is."""
    crops, annotated = extras.crops, extras.annotated
    described = describe_items(
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

    def annotate(pair: tuple[Labelled, Item]) -> Labelled:
        with clock.measure("annotate"):
            return save_annotated(annotated, *pair, max_pixels=max_pixels)

    return ahead(annotate, described, workers)
