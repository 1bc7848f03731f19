"""The output of a job on many machines: a folder of Parquet parts and a page that says how.

A part has the rows of some inputs and appears at once, so whatever is killed loses no more than
the parts under way. Its name holds a hash of its inputs: to write it twice changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceattr.files import validate_output_folder
from faceattr.images.inputs import InputFile
from faceattr.inference import storage
from faceattr.inference.metadata import Summary, check_settings, parsed, versions
from faceattr.inference.pipeline import prefetch_map
from faceattr.inference.schema import OK, OTHER_COLUMNS, UNREADABLE, Row
from faceattr.inference.table import SUFFIXES, TableOptions, arrow_schema

if TYPE_CHECKING:
    import pyarrow

PAGE, WORK, REPORT = "_metadata.json", "_work", b"faceattr"
MOST_FAILURES = 100  # that the page names
READERS = 32  # threads that wait for a store


@dataclass(frozen=True)
class Part:
    """Some inputs whose rows are written at once.

    Args:
        number: Counts the parts of one listing; for people.
        paths: Of the inputs, in bytes: not every name is text.
    """

    number: int
    paths: tuple[bytes, ...]

    @property
    def name(self) -> str:
        told = hashlib.sha256(b"\0".join(self.paths)).hexdigest()[:16]
        return f"part-{self.number:06}-{told}.parquet"

    @property
    def files(self) -> list[InputFile]:
        return [InputFile.named(os.fsdecode(path)) for path in self.paths]


@dataclass(frozen=True)
class PartReport:
    """What was done in a part.

    Args:
        files: Inputs.
        looked_at: Pictures and frames.
        statuses: Rows by status.
        answers: Task, answer (None: withheld), rows.
        failures: Path and reason of the first inputs that could not be read.
        stages: Seconds by stage.
        began, ended: By the worker's clock, in seconds.
    """

    files: int
    looked_at: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    answers: list[tuple[str, str | None, int]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    stages: Mapping[str, float] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0

    @classmethod
    def of(
        cls, rows: Sequence[Row], tasks: Iterable[str], stages: Mapping[str, float] | None = None
    ) -> PartReport:
        answers = Counter((t, row[t]) for row in rows if row["status"] == OK for t in tasks)
        failures = [(row["path"], row["reason"]) for row in rows if row["status"] == UNREADABLE]
        return cls(
            files=len({row["path"] for row in rows}),
            looked_at=len({(row["path"], row["time"]) for row in rows}),
            statuses=dict(Counter(row["status"] for row in rows)),
            answers=[(task, label, count) for (task, label), count in answers.items()],
            failures=failures[:MOST_FAILURES],
            stages=dict(stages or {}),
        )

    def add_to(self, summary: Summary) -> None:
        summary.inputs += self.looked_at
        summary.statuses.update(self.statuses)
        for task, name, count in self.answers:
            summary.answers.setdefault(task, Counter())[name] += count
        seconds = Counter(summary.stages)
        seconds.update(self.stages)
        summary.stages = dict(seconds)


@dataclass
class Journal:
    """What is known of a part that some worker has begun.

    Args:
        at: The input that a worker was at, when inputs are done one by one.
        deaths: By input, how many workers died at it.
    """

    at: int | None = None
    deaths: dict[int, int] = field(default_factory=dict)


class Parts:
    """A folder of parts, on this machine or in an object store."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def place(self, name: str) -> str:
        return storage.join(self.folder, name)

    def _work(self, name: str = "") -> str:
        """Where the folder of what only workers need lies, or a file of it."""
        return self.place(f"{WORK}/{name}" if name else WORK)

    def names(self) -> list[str]:
        return [name for name, is_folder in storage.entries(self.folder) if _is_part(name)]

    def validate(self, columns: Mapping[str, type], options: TableOptions) -> None:
        """Refuse a folder that takes no parts, or whose own are neither kept nor replaced."""
        if os.path.splitext(self.folder)[1] in set(SUFFIXES) - {".parquet"}:
            raise ValueError(
                "A job on a cluster writes a folder of Parquet parts. Give its name. Received: "
                f"{self.folder}"
            )
        if storage.kind_of(self.folder) == "file":
            raise NotADirectoryError(f"{self.folder} is a file. Give the name of a folder.")
        if not storage.is_remote(self.folder):
            validate_output_folder(Path(self.folder))
        there = [name for name, _ in storage.entries(self.folder)]
        tables = [name for name in there if name.endswith(".parquet")]
        if (tables or PAGE in there) and not (options.resume or options.overwrite):
            raise FileExistsError(
                f"{self.folder} has a table in it already. Go on with it (--resume), replace it "
                "(--overwrite) or choose another name."
            )
        if options.overwrite and (foreign := [name for name in tables if not _is_part(name)]):
            raise FileExistsError(
                f"{self.place(foreign[0])} was written by another program and would be read with "
                "the parts. Choose another folder."
            )
        for name in [] if options.overwrite else tables[:1]:
            self._read(name, columns)
        trial = self._work(uuid.uuid4().hex)
        storage.write(trial, b"faceattr looks whether it may write here")
        storage.delete(trial)

    def begin(self, settings: Mapping[str, Any], options: TableOptions) -> None:
        """Take away what is replaced; else raise as `check_settings`."""
        if options.overwrite:
            for name in (*self.names(), PAGE):
                storage.delete(self.place(name))
        before, is_begun = self.page().get("settings"), bool(self.names())
        where = {"table": self.folder, "page": self.place(PAGE)}
        check_settings(before, settings, is_begun=is_begun, **where)
        # Of a killed job the parts under way are begun anew; a suspicion is kept.
        for name, _ in storage.entries(self._work()):
            journal = self._journal(name)
            if journal is None or (journal.at is None and not journal.deaths):
                storage.delete(self._work(name))

    def page(self) -> dict[str, Any]:
        """The page; empty where there is none."""
        try:
            return parsed(storage.read(self.place(PAGE)))
        except (FileNotFoundError, ValueError):
            return {}

    def is_of(self, run: str) -> bool:
        """Whether no other run has gone on with the job since this one began."""
        return self.page().get("run") in (None, run)

    def write_page(
        self, settings: Mapping[str, Any], latest: Mapping[str, Any], **more: Any
    ) -> None:
        """Write the page; what it says of earlier runs than the latest is kept."""
        runs = [one for one in self.page().get("runs", []) if one["id"] != latest["id"]]
        about = {"run": latest["id"], **versions("ray", "pyarrow"), "settings": settings, **more}
        page = {"table": self.folder, **about, "runs": [*runs, latest]}
        text = json.dumps(page, indent=1, ensure_ascii=False)
        storage.write(self.place(PAGE), f"{text}\n".encode())

    def finished(
        self, columns: Mapping[str, type], known: Set[str] = frozenset()
    ) -> Iterator[tuple[str, pyarrow.Table]]:
        """Name and table of each part but those known, in order.

        ValueError: One is damaged or not ours.
        """
        names = [name for name in self.names() if name not in known]
        tables = prefetch_map(lambda name: self._read(name, columns), names, READERS)
        yield from zip(names, tables, strict=True)

    def retry_unreadable(self, columns: Mapping[str, type]) -> None:
        """Take the inputs that could not be read out of the parts: they are done again."""
        for name, table in self.finished(columns):
            report = report_of(table)
            if not report.statuses.get(UNREADABLE):
                continue
            rows = table.to_pylist()
            lost = {row["path"] for row in rows if row["status"] == UNREADABLE}
            kept = [row for row in rows if row["path"] not in lost]
            if not kept:
                storage.delete(self.place(name))
            else:
                tasks = {task for task, _, _ in report.answers}
                self._write(name, kept, columns, PartReport.of(kept, tasks, report.stages))

    def write(
        self, part: Part, rows: Sequence[Row], columns: Mapping[str, type], report: PartReport
    ) -> None:
        """Write a part and forget how it came to be."""
        self._write(part.name, rows, columns, report)
        storage.delete(self._work(f"{part.name}.json"))

    def _write(
        self, name: str, rows: Sequence[Row], columns: Mapping[str, type], report: PartReport
    ) -> None:
        import pyarrow
        import pyarrow.parquet

        about = {REPORT: json.dumps(asdict(report), ensure_ascii=False)}
        schema = arrow_schema(dict(columns)).with_metadata(about)
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), sink)
        storage.write(self.place(name), sink.getvalue().to_pybytes())

    def report(self, part: Part, columns: Mapping[str, type]) -> PartReport | None:
        try:
            return report_of(self._read(part.name, columns))
        except FileNotFoundError:
            return None

    def _read(self, name: str, columns: Mapping[str, type]) -> pyarrow.Table:
        import pyarrow
        import pyarrow.parquet

        source = pyarrow.BufferReader(storage.read(self.place(name)))
        try:
            table = pyarrow.parquet.read_table(source)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(
                f"{self.place(name)} is damaged ({error}). Delete it: --resume does it again."
            ) from None
        if table.schema.remove_metadata() != arrow_schema(dict(columns)):
            raise ValueError(OTHER_COLUMNS.format(self.place(name)))
        return table

    def journal(self, part: Part) -> Journal | None:
        """What is known of a part that a worker began before; None where none has."""
        return self._journal(f"{part.name}.json")

    def _journal(self, name: str) -> Journal | None:
        try:
            found = json.loads(storage.read(self._work(name)))
        except (FileNotFoundError, ValueError):
            return None
        deaths = {int(place): count for place, count in found["deaths"].items()}
        return Journal(found["at"], deaths)

    def write_journal(self, part: Part, journal: Journal) -> None:
        storage.write(self._work(f"{part.name}.json"), json.dumps(asdict(journal)).encode())

    def end(self) -> None:
        """Take away what only workers needed."""
        for name, _ in storage.entries(self._work()):
            storage.delete(self._work(name))
        if not storage.is_remote(self.folder) and os.path.isdir(self._work()):
            os.rmdir(self._work())


def _is_part(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".parquet")


def report_of(table: pyarrow.Table) -> PartReport:
    """What a part's file says of itself."""
    found = json.loads((table.schema.metadata or {}).get(REPORT, b'{"files": 0}'))
    return PartReport(**found)


def in_parts(
    files: Iterator[InputFile], size: int, is_done: Callable[[str], bool]
) -> Iterator[Part]:
    """What is left to do, in parts; the same files give the same parts."""
    paths: list[bytes] = []
    number = 0
    for place, file in enumerate(files):
        if is_done(file.name):
            continue
        number = place // size if not paths else number
        paths.append(os.fsencode(file.path))
        if len(paths) == size:
            yield Part(number, tuple(paths))
            paths = []
    if paths:
        yield Part(number, tuple(paths))
