"""A page of faces sorted by answer and confidence: people look rather than read, and correct.

One HTML file with the crops inside it; it opens offline and loads nothing. Whoever marks wrong
answers in it saves them as a CSV file that `faceattr train` reads.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from faceattr.files import atomic_write
from faceattr.images.crop import CropRule, crop
from faceattr.images.draw import data_url
from faceattr.images.fetch import is_url
from faceattr.images.inputs import path_of
from faceattr.images.load import DECODE_MEMORY, MAX_PIXELS, PathLike, content_of, read_picture
from faceattr.inference.schema import OK, Row, withheld_name
from faceattr.pages import template
from faceattr.tasks import Task

MOST_A_CLASS = 96
THUMB = CropRule(96, 0.25)


@dataclass
class _Answers:
    """The rows that gave one answer to one task: their numbers and probabilities."""

    name: str
    numbers: array = field(default_factory=lambda: array("q"))
    probabilities: array = field(default_factory=lambda: array("d"))

    def add(self, number: int, probability: float) -> None:
        self.numbers.append(number)
        self.probabilities.append(probability)

    @property
    def count(self) -> int:
        return len(self.numbers)

    @cached_property
    def shown(self) -> list[int]:
        """Rows from the surest to the weakest, evenly picked where they are too many."""
        order = np.argsort(-np.asarray(self.probabilities), kind="stable")
        picks = np.linspace(0, len(order) - 1, min(len(order), MOST_A_CLASS)).round()
        return [self.numbers[order[int(pick)]] for pick in picks]

    @property
    def note(self) -> str:
        some = f", {len(self.shown)} of them shown evenly" if self.count > MOST_A_CLASS else ""
        return f"{self.count:,} {'face' if self.count == 1 else 'faces'}{some}, surest first"


def write_gallery(
    page: PathLike,
    rows: Callable[[], Iterable[Row]],
    tasks: Sequence[Task],
    *,
    title: str,
    max_pixels: int = MAX_PIXELS,
    allow_urls: bool = False,
) -> None:
    """Write the page, whose heading is `title`.

    `rows` gives the rows of a table from its beginning. It is called twice, so that a table of any
    length costs little memory. Pictures are read again, under the limits of `faceattr.label`; an
    address is fetched again.
    """
    sections = _by_answer(rows(), tasks)
    shown = {number for groups in sections.values() for group in groups for number in group.shown}
    chosen = {number: row for number, row in enumerate(rows()) if number in shown}
    page = Path(page)
    about: dict[str, Any] = {
        "tasks": {task.name: task.classes for task in tasks},
        "withheld": {task.name: withheld_name(task.classes) for task in tasks},
        "faces": {number: _face(row, tasks, page.parent) for number, row in chosen.items()},
    }
    # Marks are remembered by the browser, and must not come back on other faces.
    about["key"] = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    thumbs = _thumbs(chosen, max_pixels, allow_urls)
    text = template("inference/page/gallery.html").render(
        title=title, sections=sections, rows=chosen, about=about, thumbs=thumbs
    )
    with atomic_write(page, resumable=True) as part:
        part.write_text(text, encoding="utf-8")


def _by_answer(rows: Iterable[Row], tasks: Sequence[Task]) -> dict[str, list[_Answers]]:
    """By task the rows of each answer; those of the withheld come last, if there are any."""
    answers = {task.name: {name: _Answers(name) for name in task.classes} for task in tasks}
    withheld = {task.name: _Answers(withheld_name(task.classes)) for task in tasks}
    for number, row in enumerate(rows):
        if row["status"] == OK:
            for task, own in answers.items():
                group = own[row[task]] if row[task] else withheld[task]
                group.add(number, row[f"{task}_prob"])
    return {
        task: [*own.values(), *([withheld[task]] if withheld[task].count else [])]
        for task, own in answers.items()
    }


def _thumbs(rows: Mapping[int, Row], max_pixels: int, allow_urls: bool) -> dict[int, str]:
    """A JPEG as a data address by row; each picture and each video is opened once."""
    by_file: dict[str, dict[float | None, list[int]]] = {}
    for number, row in rows.items():
        by_file.setdefault(row["path"], {}).setdefault(row["time"], []).append(number)

    def cut(file: tuple[str, dict[float | None, list[int]]]) -> dict[int, str]:
        path, numbers = path_of(file[0]), file[1]
        thumbs: dict[int, str] = {}
        with suppress(OSError, ValueError):  # moved away since
            for second, image in _images(path, numbers, max_pixels, allow_urls):
                thumbs |= {number: _thumb(image, rows[number]) for number in numbers[second]}
        return thumbs

    with ThreadPoolExecutor() as pool:
        return {n: text for some in pool.map(cut, by_file.items()) for n, text in some.items()}


def _images(
    path: str, seconds: Iterable[float | None], max_pixels: int, allow_urls: bool
) -> Iterator[tuple[float | None, np.ndarray]]:
    if None in seconds:
        with DECODE_MEMORY.reservation() as reserve:
            source = content_of(path, allow_urls=allow_urls)
            yield None, read_picture(source, max_pixels=max_pixels, reserve=reserve).image
    else:
        from faceattr.images.video import frames_at

        yield from frames_at(path, [second for second in seconds if second is not None])


def _thumb(image: np.ndarray, row: Row) -> str:
    box = (row["x0"], row["y0"], row["x1"], row["y1"])
    face = Image.fromarray(crop(image, box, THUMB))
    return data_url(face.rotate(90 * int(row["turn"] or 0)), THUMB.size)


def _face(row: Row, tasks: Sequence[Task], here: Path) -> dict[str, Any]:
    """What the page knows of one face, and writes into the file of corrections."""
    # A manifest has no place for a second of a video, a quarter turn, or an address.
    can_be_learnt = row["time"] is None and not row["turn"] and not is_url(row["path"])
    return {
        "link": _link(row["path"], here),
        "box": [row[name] for name in ("x0", "y0", "x1", "y1")],
        "answers": {task.name: row[task.name] or "" for task in tasks},
        "correctable": can_be_learnt,
    }


def _link(path: str, here: Path) -> str:
    """What leads to a file starts at the page, which may be moved together with it."""
    if is_url(path):
        return path
    try:
        relative = os.path.relpath(path_of(path), here).replace(os.sep, "/")
        return quote(os.fsencode(relative))
    except ValueError:  # drives of Windows have no way from one to another
        return Path(path).absolute().as_uri()
