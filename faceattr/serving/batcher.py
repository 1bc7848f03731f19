"""One model for all who ask: threads decode and detect, one thread asks about what has come.

What waits is bounded. An image's answer does not depend on what else was in its batch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue

from faceattr.images.inputs import InputFile
from faceattr.inference.label import detect_and_crop
from faceattr.inference.pipeline import StageTimes, count_workers, opencv_threads
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.results import DescribedFace
from faceattr.inference.samples import Detections, Sample
from faceattr.serving.limits import Limits

NO_FILE = InputFile("")


class QueueFull(Exception):
    """There is no room for so many images now."""


@dataclass(frozen=True)
class Answer:
    """What is said of one image.

    Args:
        faces: From left to right.
        left_out: How many more were found than may be described.
        reason: Why the image cannot be read, else None.
    """

    faces: tuple[DescribedFace, ...] = ()
    left_out: int = 0
    reason: str | None = None


@dataclass
class _Job:
    """An image that somebody waits for; its bytes are let go once nobody does."""

    content: bytes | ValueError | None
    future: Future[Answer]
    found: Detections = field(default_factory=lambda: Detections(Sample(NO_FILE)))
    left_out: int = 0


class Batcher:
    """Describes images of many who ask at once; used in a ``with`` block."""

    def __init__(
        self, attributes: FaceAttributes, limits: Limits | None = None, workers: int | None = None
    ) -> None:
        self.attributes = attributes
        self.limits = limits or Limits()
        self.waiting = 0
        self._workers = count_workers(workers)
        self._lock = threading.Lock()
        self._found: SimpleQueue[_Job | None] = SimpleQueue()
        self._stack = ExitStack()

    def __enter__(self) -> Batcher:
        # As in the folder job: many images at once use the processors better than many threads.
        threads = 1 if self._workers > 1 else self.attributes.threads
        self._stack.enter_context(opencv_threads(threads))
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="detect")
        self._thread = threading.Thread(target=self._answer_all, name="predict", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)
        self._found.put(None)
        self._thread.join()
        self._stack.close()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, contents: Sequence[bytes | ValueError]) -> list[Future[Answer]]:
        """Take images in, all or none (QueueFull): what is in their files, or why it cannot be had.

        Returns their answers in order; one that is cancelled before its turn costs nothing.
        """
        with self._lock:
            if self.waiting + len(contents) > self.limits.queue:
                raise QueueFull
            self.waiting += len(contents)
        return [self._begin(content) for content in contents]

    def _begin(self, content: bytes | ValueError) -> Future[Answer]:
        job = _Job(content, Future())
        job.future.add_done_callback(lambda future: self._leave(job))
        self._pool.submit(self._detect, job)
        return job.future

    def _leave(self, job: _Job) -> None:
        job.content = None
        with self._lock:
            self.waiting -= 1

    def _detect(self, job: _Job) -> None:
        content = job.content
        if content is None or not job.future.set_running_or_notify_cancel():
            return
        try:
            sample = (
                Sample(NO_FILE, reason=str(content))
                if isinstance(content, ValueError)
                else Sample(NO_FILE, content=lambda: content)
            )
            found = detect_and_crop(
                sample, self.attributes, StageTimes(), max_pixels=self.limits.max_pixels
            )
            light = replace(found, sample=found.sample.without_content())
            job.found, job.left_out = self._largest(light)
        except Exception as error:  # whoever waits must hear of it
            job.future.set_exception(error)
        else:
            self._found.put(job)

    def _largest(self, found: Detections) -> tuple[Detections, int]:
        """The largest faces, as many as may be described, and how many are left out."""
        left_out = len(found.faces) - self.limits.max_faces
        if left_out <= 0:
            return found, 0
        places = range(len(found.faces))
        by_side = sorted(places, key=lambda place: -found.faces[place].side)
        kept = sorted(by_side[: self.limits.max_faces])
        large = [place for place in places if self.attributes.is_large(found.faces[place])]
        crops = dict(zip(large, found.crops, strict=True))
        faces = tuple(found.faces[place] for place in kept)
        described = tuple(crops[place] for place in kept if place in crops)
        return replace(found, faces=faces, crops=described), left_out

    def _answer_all(self) -> None:
        while (job := self._found.get()) is not None:
            jobs = [job, *self._more(len(job.found.crops))]
            try:
                self._answer(jobs)
            except Exception as error:
                for one in jobs:
                    if not one.future.done():
                        one.future.set_exception(error)

    def _more(self, crops: int) -> list[_Job]:
        """What has come meanwhile, up to a batch."""
        jobs: list[_Job] = []
        while crops < self.attributes.batch_size:
            try:
                job = self._found.get_nowait()
            except Empty:
                return jobs
            if job is None:  # the end, which comes again after these
                self._found.put(None)
                return jobs
            jobs.append(job)
            crops += len(job.found.crops)
        return jobs

    def _answer(self, jobs: Sequence[_Job]) -> None:
        crops = [crop for job in jobs for crop in job.found.crops]
        answers = iter(self.attributes.predict(crops, full_batches=True))
        for job in jobs:
            faces = tuple(self.attributes.described(job.found.faces, answers))
            job.future.set_result(Answer(faces, job.left_out, job.found.sample.reason))
