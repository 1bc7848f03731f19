"""Label on many machines: Ray Data brings parts of the inputs to workers, which write them.

Ray schedules, moves and repeats; a part is done when its file is there (`parts.py`), by whichever
worker (`part_worker.py`).
"""

from __future__ import annotations

import json
import os
import re
import socket
import uuid
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from faceattr.detection.yunet import cached_yunet
from faceattr.files import require_package
from faceattr.images.inputs import on_disk, places
from faceattr.images.load import MAX_PIXELS, PathLike, checked_limit
from faceattr.inference import storage
from faceattr.inference.batch import Labeller
from faceattr.inference.label import Started
from faceattr.inference.metadata import Summary, check_folder, now, settings_of
from faceattr.inference.part_worker import PartJob, PartWorker
from faceattr.inference.parts import (
    MOST_FAILURES,
    Part,
    PartReport,
    Parts,
    in_parts,
    report_of,
)
from faceattr.inference.pipeline import StageTimes
from faceattr.inference.predictor import FaceAttributes, LoadSettings
from faceattr.inference.ray_connection import checked_address, connected
from faceattr.inference.samples import checked_interval
from faceattr.inference.schema import columns
from faceattr.inference.storage import Places
from faceattr.inference.table import TableOptions
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.progress import SILENT, Progress, suppress_stderr

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Labeller", "Workers", "label", "label_to"]

PART_SIZE = 1000
PARTS_A_WORKER = 4  # at least, of a small job, so that all workers have something to do
MOST_CPUS = 4  # that a worker takes where nobody says


@dataclass(frozen=True)
class Workers:
    """Who labels.

    Args:
        count: Workers; by default as many as the cluster has room for. A cluster that grows by
            itself grows for them.
        cpus: Processors of each, which are its threads; by default the cluster's shared among
            the workers, or four.
        gpus: GPUs of each, or a part of one.
    """

    count: int | None = None
    cpus: int | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("workers", self.count), ("processors a worker", self.cpus)):
            if value is not None and value < 1:
                raise ValueError(f"There is at least one of {name}. Received: {value}")
        if self.gpus < 0:
            raise ValueError(f"A worker has 0 GPUs or more. Received: {self.gpus}")


EVERYWHERE = Workers()
# Ray's many threads would have glibc keep a heap for each: a third of a worker's memory.
ARENAS = {"MALLOC_ARENA_MAX": "2"}


def label(inputs: PathLike | Sequence[PathLike], output: PathLike, **how: Any) -> str:
    """Label pictures and videos on a Ray cluster; `how` as for `label_to`.

    Returns:
        The folder of the parts: ``ray.data.read_parquet(label("s3://…/photos/", "s3://…/faces/"))``.
    """
    label_to(output, inputs, **how)
    return os.fspath(output)


def label_to(
    output: PathLike,
    inputs: PathLike | Sequence[PathLike],
    *,
    address: str | None = None,
    workers: Workers = EVERYWHERE,
    every: float = 1.0,
    max_pixels: int = MAX_PIXELS,
    part_size: int = PART_SIZE,
    progress: Progress = SILENT,
    resume: bool = False,
    retry_unreadable: bool = False,
    overwrite: bool = False,
    **load: Unpack[LoadSettings],
) -> Summary:
    """Label pictures and videos on a Ray cluster into a folder of Parquet parts.

    Args:
        output: A folder, or an address such as ``s3://bucket/faces``; `parts.py` says what is
            written there.
        inputs: As `Places` takes them. All workers must be able to read them.
        address: Of a Ray that runs: ``"auto"`` on one of its machines, or ``host:port``. None:
            ``RAY_ADDRESS``, else a Ray of this machine alone for as long as the job lasts. Where
            the program has connected to one already, that one is taken.
        workers: Who labels.
        every, max_pixels: As for `faceattr.label`.
        part_size: Most inputs of a part: so many are lost when a worker is.
        progress: Is shown `Started`, then the `PartReport` of each part that is written.
        resume: Do what the parts do not have yet.
        retry_unreadable: Then try inputs again that could not be read.
        overwrite: Replace the parts that are there.
        **load: `model`, `detector` and the other arguments of `FaceAttributes.load`. `threads` are
            by default the processors of a worker.

    Raises:
        FileNotFoundError, FileExistsError, OSError, ValueError: Something given is wrong, and
            nothing is done then; or a machine lacks what the job needs.
        KeyboardInterrupt: The parts that were written stay, and `resume` goes on.
    """
    require_package("ray", "ray", "A job on a cluster")
    options = TableOptions(resume=resume, retry_unreadable=retry_unreadable, overwrite=overwrite)
    checked_limit(max_pixels)
    every = checked_interval(every)
    if part_size < 1:
        raise ValueError(f"A part has at least one input. Received: {part_size}")
    address, folder = checked_address(address), on_disk(os.fspath(output))
    parts = Parts(folder if storage.is_remote(folder) else os.path.abspath(folder))
    model = model_file.path_of(load.get("model") or model_file.SHIPPED)
    names = columns(runtime.describe(model).tasks)
    places = Places(inputs)
    parts.validate(names, options)
    with suppress_stderr():
        attributes = FaceAttributes.load(**load)
    settings = settings_of(attributes, every)
    with connected(address):
        parts.begin(settings, options)
        if retry_unreadable:
            parts.retry_unreadable(names)
        how = {"settings": settings, "every": every, "max_pixels": max_pixels}
        job = _job_of(parts.folder, attributes, load, **how)
        return _Run(parts, names, job, places, progress).do(workers, part_size)


def _job_of(
    folder: str, attributes: FaceAttributes, load: Mapping[str, Any], **how: Any
) -> PartJob:
    """What workers are told; they open what the driver has opened, with threads of their own."""
    own = attributes.load_arguments
    own |= {"threads": load.get("threads"), "offline": load.get("offline", False)}
    if own["detector"] == "yunet":
        own["detector"] = str(cached_yunet(offline=True))
    here: dict[str, Any] = {"host": socket.gethostname(), "cwd": os.getcwd()}
    files = _shared_files(own["model"], own["detector"])
    return PartJob(folder, uuid.uuid4().hex, own, files=files, **here, **how)


@dataclass
class _Run:
    """One run of a job: counts what is there, has the rest done, keeps the page."""

    parts: Parts
    columns: Mapping[str, type]
    job: PartJob
    places: Places
    progress: Progress

    def __post_init__(self) -> None:
        self._run: dict[str, Any] = {"id": self.job.run, "started": now(), "folder": os.getcwd()}
        self._run["inputs"] = self.places.inputs
        self._total = Summary()  # of all runs
        self._failures: list[tuple[str, str]] = []
        self._place_of = places()
        self._known: set[str] = set()  # parts that are counted

    def do(self, workers: Workers, part_size: int) -> Summary:
        """The counts of this run, once the last part is written."""
        done, (count, cpus) = self._done(), shape_of(workers)
        left, skipped = self._left(done, part_size)
        self._write_page(finished=False)  # from now on an earlier run writes nothing
        if late := self._done():
            done |= late
            left, skipped = self._left(done, part_size)
        left = spread(left, PARTS_A_WORKER * count)
        files = skipped + sum(len(part.paths) for part in left)
        self._run |= {"files": files, "workers": count, "cpus": cpus, "gpus": workers.gpus}
        self._write_page(finished=False)
        self.progress.show(Started(files, skipped))
        summary = Summary(resumed=len(done))
        # Closed while Ray is connected: what a job has begun cannot be called off afterwards.
        with closing(_reports(left, self.job, count, cpus, workers.gpus)) as reports:
            self._follow(reports, summary)
        if self.parts.is_of(self.job.run):
            self.parts.end()
        return summary

    def _left(self, done: set[str], part_size: int) -> tuple[list[Part], int]:
        """The parts that are not done, and how many inputs are."""
        skipped = 0

        def is_done(name: str) -> bool:
            nonlocal skipped
            found = self._place_of(name) in done
            skipped += found
            return found

        return list(in_parts(iter(self.places), part_size, is_done)), skipped

    def _follow(self, reports: Iterable[PartReport], summary: Summary) -> None:
        """Count what is done, as it is; what was counted stays whatever ends the job."""
        clocks: list[float] = []
        is_whole = False
        try:
            for report in reports:
                self._count(report)
                report.add_to(summary)
                clocks += [report.began, report.ended]
                self.progress.show(report)
            is_whole = True
        finally:
            summary.end(StageTimes(dict(summary.stages)), interrupted=not is_whole)
            at_work = round(max(clocks) - min(clocks), 2) if clocks else 0.0
            self._run |= {"ended": now(), **summary.counts(), "seconds_at_work": at_work}
            if self.parts.is_of(self.job.run):  # else the page is of who has gone on
                self._write_page(finished=is_whole)

    def _done(self) -> set[str]:
        """The inputs in parts that were finished since it was asked last; they are counted."""
        done: set[str] = set()
        page = self.parts.page()
        for part, table in self.parts.finished(self.columns, self._known):
            self._known.add(part)
            names = table["path"].unique().to_pylist()
            check_folder(page, self.parts.folder, names)
            self._count(report_of(table))
            done.update(map(self._place_of, names))
        return done

    def _count(self, report: PartReport) -> None:
        report.add_to(self._total)
        self._failures = (self._failures + report.failures)[:MOST_FAILURES]

    def _write_page(self, *, finished: bool) -> None:
        counts = self._total.counts()
        self.parts.write_page(
            self.job.settings,
            self._run,
            finished=finished,
            **{name: counts[name] for name in ("looked_at", "rows", "answers")},
            failures=[{"path": path, "reason": reason} for path, reason in self._failures],
        )


def spread(parts: list[Part], fewest: int) -> list[Part]:
    """The same inputs in at least so many parts, as far as there are inputs."""
    if len(parts) >= fewest:
        return parts
    paths = [path for part in parts for path in part.paths]
    size = max(1, -(-len(paths) // fewest))
    starts = range(0, len(paths), size)
    return [Part(n, tuple(paths[start : start + size])) for n, start in enumerate(starts)]


def _reports(
    left: Sequence[Part], job: PartJob, count: int, cpus: int, gpus: float
) -> Generator[PartReport]:
    """What is done of the parts, as it is; raises what a worker raised."""
    import ray.data
    import ray.exceptions

    if not left:
        return
    how: dict[str, Any] = {"num_cpus": cpus} | ({"num_gpus": gpus} if gpus else {})
    how["runtime_env"] = {"env_vars": ARENAS}
    # A worker takes a part when it has done the last: none waits behind a slow one.
    pool = ray.data.ActorPoolStrategy(size=min(count, len(left)), max_tasks_in_flight_per_actor=1)
    done = ray.data.from_arrow([_as_block(part) for part in left]).map_batches(
        PartWorker,
        fn_constructor_args=(job,),
        batch_size=1,
        batch_format="pyarrow",
        compute=pool,
        **how,
    )
    try:
        for batch in done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
            for row in cast("pyarrow.Table", batch).to_pylist():
                if row["error"] is not None:
                    raise ValueError(row["error"])
                yield PartReport(**json.loads(row["report"]))
    except ray.exceptions.RayError as error:
        raise OSError(_told(error)) from None


def _as_block(part: Part) -> pyarrow.Table:
    import pyarrow

    paths = pyarrow.array([part.paths], pyarrow.list_(pyarrow.binary()))
    return pyarrow.table({"number": pyarrow.array([part.number]), "paths": paths})


def _told(error: Exception) -> str:
    """What Ray's pages say, in one sentence: the last line tells what was raised."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    reason = (raised or lines or [type(error).__name__])[-1][:300].rstrip(".")
    if "No module named 'faceattr" in str(error):
        reason = "its workers have no faceattr, or another version: install the same everywhere"
    return f"Ray cannot go on: {reason}. --resume goes on with what is written."


def shape_of(workers: Workers) -> tuple[int, int]:
    """How many workers, and processors of each, on the cluster that is connected."""
    import ray

    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    most = max(nodes, default=1) or 1
    cpus = workers.cpus
    if cpus is None and workers.count is not None:
        cpus = max(1, min(most, sum(nodes) // workers.count))
    cpus = cpus or min(most, MOST_CPUS)
    return workers.count or max(1, sum(node // cpus for node in nodes)), cpus


def _shared_files(*paths: Any) -> dict[str, dict[str, Any]]:
    """The model and detector files that other machines may not have."""
    import ray

    found = {}
    for path in paths:
        if not (isinstance(path, str | Path) and Path(path).is_file()):
            continue
        files = runtime.files_of(path)
        if runtime.is_exported(path):
            files.append(runtime.description_path(path))
        content = {file.name: file.read_bytes() for file in files if file.exists()}
        about = {"sha256": runtime.sha256_of(path), "content": ray.put(content)}
        found[str(path)] = about
    return found
