"""What a worker of a cluster does: it labels the inputs of a part and writes the part."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceattr.images.inputs import InputFile
from faceattr.images.load import reason_of
from faceattr.inference import storage
from faceattr.inference.batch import Labeller
from faceattr.inference.label import describe_samples
from faceattr.inference.metadata import settings_of
from faceattr.inference.parts import Journal, Part, PartReport, Parts
from faceattr.inference.pipeline import StageTimes, count_workers
from faceattr.inference.samples import DIED, MOST_DEATHS, Sample, samples_of
from faceattr.inference.schema import ImageResult, Row, columns, to_rows
from faceattr.model import runtime

if TYPE_CHECKING:
    import pyarrow

READS_A_THREAD = 4  # as many samples as `prefetch_map` takes ahead


@dataclass(frozen=True)
class PartJob:
    """What every worker of a job is told.

    Args:
        output: The folder of the parts.
        run: This run; workers of an earlier one write nothing more.
        load: Arguments of `FaceAttributes.load`.
        settings: What the driver's own model and detector are; a worker's must be the same.
        every: Seconds between two frames of a video.
        max_pixels: A picture with more of them is not read.
        host, cwd: The driver's machine, and the folder there that relative paths start from.
        files: Model and detector files by their path there, as references to their content in
            Ray's object store.
    """

    output: str
    run: str
    load: Mapping[str, Any]
    settings: Mapping[str, Any]
    every: float
    max_pixels: int
    host: str
    cwd: str
    files: Mapping[str, Any] = field(default_factory=dict)


class PartWorker:
    """Labels parts; Ray Data makes one in every worker."""

    def __init__(self, job: PartJob) -> None:
        self._job = job
        self._parts = Parts(job.output)
        with contextlib.suppress(OSError):  # another machine may not have it
            os.chdir(job.cwd)

    def __call__(self, batch: pyarrow.Table) -> dict[str, list]:
        """Do the part of a batch; what was done, or why not, comes back as JSON."""
        (row,) = batch.to_pylist()
        try:
            report = self.label(Part(row["number"], tuple(row["paths"])))
        except (OSError, ValueError) as error:  # Ray would pack it into pages of its own
            return {"report": [None], "error": [str(error)]}
        return {"report": [json.dumps(asdict(report))], "error": [None]}

    def label(self, part: Part) -> PartReport:
        """Do a part, unless it is done; ValueError or OSError where the machine lacks something."""
        if (before := self._parts.report(part, self._columns)) is not None:
            return before
        times, tasks, began = StageTimes(), self._attributes.tasks, time.time()
        rows = [row for found in self._results(part, times) for row in to_rows(found, tasks)]
        self._must_see_inputs(part, rows)
        self._must_be_current()
        counted = PartReport.of(rows, [task.name for task in tasks], times.seconds)
        report = replace(counted, began=began, ended=time.time())
        self._parts.write(part, rows, self._columns, report)
        return report

    def _results(self, part: Part, times: StageTimes) -> Iterator[ImageResult]:
        """All inputs at once; one by one where a worker died at one of them before."""
        journal = self._parts.journal(part)
        if journal is None:
            self._parts.write_journal(part, Journal())
            yield from self._described(part.files, times)
            return
        if journal.at is not None:
            journal.deaths[journal.at] = journal.deaths.get(journal.at, 0) + 1
            journal.at = None
            self._parts.write_journal(part, journal)
        for place, file in enumerate(part.files):
            if journal.deaths.get(place, 0) >= MOST_DEATHS:
                yield ImageResult(Sample(file, reason=DIED))
                continue
            journal.at = place
            self._parts.write_journal(part, journal)
            yield from self._described([file], times)

    def _described(self, files: Iterable[InputFile], times: StageTimes) -> Iterator[ImageResult]:
        how: dict[str, Any] = {"workers": self._labeller.threads, "times": times}
        samples = _samples(files, self._job.every, self._readers)
        return describe_samples(samples, self._attributes, max_pixels=self._job.max_pixels, **how)

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        """Threads that wait for a store while others compute."""
        return ThreadPoolExecutor(READS_A_THREAD * count_workers(self._labeller.threads))

    @cached_property
    def _labeller(self) -> Labeller:
        load = {name: self._here(value) for name, value in self._job.load.items()}
        return Labeller(**load)

    @cached_property
    def _attributes(self):
        found = self._labeller.attributes
        own = settings_of(found, self._job.every)
        differing = [n for n, value in self._job.settings.items() if own.get(n) != value]
        if differing:
            raise ValueError(
                f"The machine {socket.gethostname()} would answer with another "
                f"{' and another '.join(differing)} than the one that started the job: install "
                "the same faceattr on both."
            )
        return found

    @property
    def _columns(self) -> dict[str, type]:
        return columns(self._attributes.tasks)

    def _here(self, path: Any) -> Any:
        """A file of the driver's machine, on this one."""
        key = str(path)
        if key not in self._job.files:
            return path
        about = self._job.files[key]
        if Path(key).exists() and runtime.sha256_of(key) == about["sha256"]:
            return path
        import ray

        folder = Path(tempfile.gettempdir(), f"faceattr-{about['sha256'][:24]}")
        for name, content in ray.get(about["content"]).items():
            if not (folder / name).exists():  # workers of one machine may all come here at once
                storage.write(str(folder / name), content)
        return type(path)(folder / Path(key).name)

    def _must_see_inputs(self, part: Part, rows: list[Row]) -> None:
        missing = os.strerror(2)
        if socket.gethostname() != self._job.host and all(r["reason"] == missing for r in rows):
            raise FileNotFoundError(
                f"The machine {socket.gethostname()} has none of {len(part.paths)} inputs, "
                f"{part.files[0].name} for one: put them on a disk that all machines share, or "
                "into an object store."
            )

    def _must_be_current(self) -> None:
        run = self._parts.page().get("run")
        if run is None:
            raise FileNotFoundError(
                f"The machine {socket.gethostname()} does not see {self._job.output}: choose a "
                "folder that all machines share, or an object store."
            )
        if run != self._job.run:
            raise ValueError(f"Another faceattr has gone on with {self._job.output} meanwhile.")


def _samples(
    files: Iterable[InputFile], every: float, readers: ThreadPoolExecutor
) -> Iterator[Sample]:
    """As `samples_of`, of files in object stores as well."""
    for file in files:
        if not storage.is_remote(file.path):
            yield from samples_of([file], every)
        elif file.is_video:
            yield from _of_remote_video(file, every)
        else:
            # Samples are taken a few ahead, so a picture is mostly there when its turn comes.
            yield Sample(file, content=readers.submit(storage.read, file.path).result)


def _of_remote_video(file: InputFile, every: float) -> Iterator[Sample]:
    with tempfile.TemporaryDirectory("-faceattr") as folder:
        copy = Path(folder, f"video{Path(file.path).suffix}")
        try:
            copy.write_bytes(storage.read(file.path))
        except OSError as error:
            yield Sample(file, reason=reason_of(error, file.path))
            return
        for sample in samples_of([InputFile(str(copy), True)], every):
            yield replace(sample, file=file)
