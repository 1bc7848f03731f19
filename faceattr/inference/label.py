"""Label pictures and videos: decode, find faces, crop, ask the model, write a row a face.

Threads decode and detect, full batches go through the model (`faceattr.inference.pipeline`).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import NamedTuple, Unpack

import cv2
import numpy as np

from faceattr.detection.base import min_decode_size
from faceattr.images.inputs import Inputs
from faceattr.images.load import (
    DECODE_MEMORY,
    MAX_PIXELS,
    PathLike,
    Picture,
    checked_limit,
)
from faceattr.inference.artifacts import NO_ARTIFACTS, Artifacts, save_annotated, save_crops
from faceattr.inference.gallery import write_gallery
from faceattr.inference.metadata import (
    Summary,
    begin_metadata,
    check_folder,
    now,
    read_metadata,
    settings_of,
    write_metadata,
)
from faceattr.inference.pipeline import (
    StageTimes,
    count_workers,
    opencv_threads,
    prefetch_map,
)
from faceattr.inference.predictor import FaceAttributes, LoadSettings
from faceattr.inference.samples import Deaths, Detections, Sample, checked_interval, samples_of
from faceattr.inference.schema import ImageResult, Row, columns, to_rows
from faceattr.inference.table import (
    TableOptions,
    TableSettings,
    open_table,
    read_rows,
    validate_table_path,
)
from faceattr.progress import SILENT, Progress

# Rows are held back for a full batch, but not for longer than this, nor for more inputs.
MOST_SECONDS = 10.0
MOST_WAITING = 256


class Started(NamedTuple):
    """What a job shows first: how many files there are, and how many of them are done already."""

    files: int
    done: int


OnDetections = Callable[[Detections, Picture], None]


def label(
    inputs: PathLike | Sequence[PathLike],
    *,
    every: float = 1.0,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    allow_urls: bool = False,
    progress: Progress = SILENT,
    **load: Unpack[LoadSettings],
) -> Iterator[Row]:
    """Label pictures and videos: ``pandas.DataFrame(faceattr.label("photos/"))``.

    Args:
        inputs: Folders, pictures, videos, patterns or lists, as `Inputs` takes them.
        every: Seconds between two frames of a video; 0 takes each frame.
        workers: Threads that decode and detect; by default one a processor.
        max_pixels: A picture with more of them is not read. Whatever the limit, all pictures that
            are read at once take 2 GiB together; a larger one waits until it is alone.
        allow_urls: Inputs may be addresses, which are fetched as `faceattr.load_image` does.
        progress: Is shown the `ImageResult` of each input.
        **load: `model`, `detector` and the other arguments of `FaceAttributes.load`.

    Yields:
        One dict a face and at least one an input, with the columns of the written table;
        None is an empty cell.

    Raises:
        FileNotFoundError, ValueError: An input, the model or the detector cannot be had.
    """
    # What is wrong is told before the model is opened.
    every = checked_interval(every)
    files = Inputs(inputs, allow_urls=allow_urls)
    files.require_any()
    how = {"workers": workers, "max_pixels": max_pixels}
    yield from describe_inputs(
        files, FaceAttributes.load(**load), every=every, progress=progress, **how
    )


def describe_inputs(
    files: Inputs,
    attributes: FaceAttributes,
    *,
    every: float = 1.0,
    progress: Progress = SILENT,
    **how,
) -> Iterator[Row]:
    """As `label` with a model that is open; `how` as for `describe_samples`."""
    samples = samples_of(files, every, allow_urls=files.allow_urls)
    for result in describe_samples(samples, attributes, **how):
        progress.show(result)
        yield from to_rows(result, attributes.tasks)


def label_to(
    output: PathLike,
    inputs: PathLike | Sequence[PathLike],
    attributes: FaceAttributes,
    *,
    every: float = 1.0,
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    allow_urls: bool = False,
    artifacts: Artifacts = NO_ARTIFACTS,
    progress: Progress = SILENT,
    stop: Callable[[], bool] = lambda: False,
    **table: Unpack[TableSettings],
) -> Summary:
    """Label pictures and videos into a table, with a page beside it that says how.

    Args:
        output: Ends in ``.csv``, ``.jsonl`` or ``.parquet``.
        inputs, every, workers, max_pixels, allow_urls: As for `label`.
        attributes: Detector and model.
        artifacts: What else to leave beside the table.
        progress: Is shown `Started`, then the `ImageResult` of each input whose rows are written.
        stop: Asked before each input; True finishes what is begun and ends the job.
        **table: Options of `TableOptions`: `resume`, `overwrite` and others.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: Something given is wrong; nothing is
            done then.
        OSError: The table cannot be written any further; what it holds is whole.
    """
    options, times, summary = TableOptions(**table), StageTimes(), Summary()
    validate_table_path(output, options)
    artifacts.validate(resume=options.resume, overwrite=options.overwrite)
    how = {"workers": count_workers(workers), "max_pixels": checked_limit(max_pixels)}
    files = Inputs(inputs, without=artifacts.folders, allow_urls=allow_urls)
    files.require_any()
    artifacts.validate_inputs(files)
    every = checked_interval(every)
    settings = settings_of(attributes, every, options.spreadsheet)
    run = {"started": now(), "folder": os.getcwd(), "inputs": files.inputs, "files": files.count}
    run |= {"max_pixels": max_pixels}
    names = columns(attributes.tasks)
    begin = partial(begin_metadata, output, settings, resume=options.resume)
    sync = getattr(os, "sync", None) if artifacts.folders else None  # Windows has none
    with (
        open_table(output, names, options, begin=begin, before_sync=sync) as written,
        Deaths(Path(output), resume=options.resume) as deaths,
    ):
        check_folder(read_metadata(output), str(output), written.done)
        write_metadata(output, settings, run)
        summary.resumed = sum(map(len, written.done.values()))
        progress.show(Started(files.count, len(written.done)))
        read = samples_of(files, every, written.done, allow_urls=allow_urls, deaths=deaths)
        samples = takewhile(lambda _: not stop(), read)
        for result in _with_artifacts(samples, attributes, artifacts, times, deaths=deaths, **how):
            rows = to_rows(result, attributes.tasks)
            with times.measure("write"):
                written.write(rows)
            summary.add(result, rows)
            progress.show(result)
        summary.end(times, interrupted=stop())
        written.finished = not summary.interrupted
        write_metadata(output, settings, run | {"ended": now()} | summary.counts())
    if artifacts.gallery and written.finished:
        again = partial(read_rows, output, names, spreadsheet=options.spreadsheet)
        title = f"Faces of {', '.join(files.inputs)}"
        with times.measure("gallery"):
            write_gallery(
                artifacts.gallery,
                again,
                attributes.tasks,
                title=title,
                max_pixels=max_pixels,
                allow_urls=allow_urls,
            )
    return summary


def _with_artifacts(
    samples: Iterable[Sample],
    attributes: FaceAttributes,
    artifacts: Artifacts,
    times: StageTimes,
    *,
    workers: int,
    max_pixels: int,
    deaths: Deaths,
) -> Iterator[ImageResult]:
    """Describe samples; what is to be left beside the table is there before a row is."""
    crops, annotated = artifacts.crops, artifacts.annotated
    save = None if crops is None else partial(save_crops, crops, attributes.crop_rule)
    described = describe_samples(
        samples,
        attributes,
        workers=workers,
        times=times,
        on_detections=save,
        keep_frames=annotated is not None,
        max_pixels=max_pixels,
        deaths=deaths,
    )
    if annotated is None:
        return described

    def annotate(result: ImageResult) -> ImageResult:
        with times.measure("annotate"):
            return save_annotated(annotated, max_pixels, result)

    return prefetch_map(annotate, described, workers)


def describe_samples(
    samples: Iterable[Sample],
    attributes: FaceAttributes,
    *,
    workers: int | None = None,
    times: StageTimes | None = None,
    on_detections: OnDetections | None = None,
    keep_frames: bool = False,
    max_pixels: int = MAX_PIXELS,
    deaths: Deaths | None = None,
) -> Iterator[ImageResult]:
    """Find and describe the faces of many pictures.

    Args:
        samples: What to look at; taken a few at a time.
        attributes: Detector and model.
        workers, max_pixels: As for `label`.
        times, on_detections: As for `detect_and_crop`, which the workers call.
        keep_frames: Leave a video's frames in their samples; fewer of them wait then.
        deaths: Is told what is read. Where the job died before, what comes first is read alone.

    Yields:
        One result a sample, in order.
    """
    times, workers = times or StageTimes(), count_workers(workers)
    max_pixels = checked_limit(max_pixels)
    most = attributes.batch_size if keep_frames else MOST_WAITING

    def work(sample: Sample) -> Detections:
        if deaths is not None:
            sample = deaths.noted(sample)
        found = detect_and_crop(
            sample, attributes, times, on_detections=on_detections, max_pixels=max_pixels
        )
        if keep_frames:
            return found
        return replace(found, sample=found.sample.without_content())

    # Many pictures at once use the processors better than many threads on one picture.
    with opencv_threads(1 if workers > 1 else attributes.threads):
        samples = iter(samples)
        alone = map(work, islice(samples, MOST_WAITING + 4 * workers if deaths else 0))
        # No name here keeps the threads: they end before OpenCV gets its own back.
        yield from _described(
            chain(alone, prefetch_map(work, samples, workers)), attributes, times, most
        )


def detect_and_crop(
    sample: Sample,
    attributes: FaceAttributes,
    times: StageTimes,
    *,
    on_detections: OnDetections | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Detections:
    """Decode one sample, find its faces, cut the large ones; or say why it cannot be read.

    `on_detections` is given what was found and the picture in full size, if there are faces in it.
    What is found does not depend on it.
    """
    if sample.reason is not None:
        return Detections(sample)
    with DECODE_MEMORY.reservation() as reserve:

        def read(at_least: int | None = None) -> Picture:
            with times.measure("decode"):
                return sample.decode(at_least, max_pixels=max_pixels, reserve=reserve)

        try:
            found, picture = _detect(sample, attributes, times, read)
            whole = read() if on_detections and found.faces and picture.scale > 1 else picture
        except (OSError, ValueError, MemoryError, cv2.error) as error:
            return Detections(sample.unreadable(error))
        if on_detections:
            on_detections(found, whole)
        return found


def _detect(
    sample: Sample, attributes: FaceAttributes, times: StageTimes, read: Callable[..., Picture]
) -> tuple[Detections, Picture]:
    picture = read(min_decode_size(attributes.detector))
    with times.measure("detect"):
        near = attributes.find(picture.image)
    faces = tuple(face.scaled(picture.scale) for face in near)
    large = [place for place, face in enumerate(faces) if attributes.is_large(face)]
    smallest = min((near[place].side for place in large), default=np.inf)
    if picture.scale > 1 and smallest < attributes.crop_rule.size:
        # A small face in a large picture: the reduced one would blur its crop.
        picture, near = read(), list(faces)
    with times.measure("crop"):
        crops = tuple(attributes.cut(picture.image, near[place]) for place in large)
    return Detections(sample, faces, crops), picture


def _described(
    found: Iterable[Detections], attributes: FaceAttributes, times: StageTimes, most_waiting: int
) -> Iterator[ImageResult]:
    """Results in the order of the pictures, whose crops are collected until a batch is full."""
    waiting: deque[Detections] = deque()
    crops: list[np.ndarray] = []
    answers: deque[dict[str, np.ndarray]] = deque()
    size, since = attributes.batch_size, time.monotonic()
    for one in chain(found, [None]):
        if one is not None:
            waiting.append(one)
            crops += one.crops
        waited = time.monotonic() - since
        at_once = one is None or len(waiting) >= most_waiting or waited > MOST_SECONDS
        while len(crops) >= size or (at_once and crops):
            batch, crops = crops[:size], crops[size:]
            with times.measure("predict"):
                answers += attributes.predict(batch, full_batches=True)
        while waiting and len(waiting[0].crops) <= len(answers):
            since, done = time.monotonic(), waiting.popleft()
            own = [answers.popleft() for _ in done.crops]
            yield ImageResult(done.sample, tuple(attributes.described(done.faces, own)))
