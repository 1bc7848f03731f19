"""A page of faces sorted by answer and confidence: people look rather than read.

One HTML file with the crops inside it; it opens offline and loads nothing.
"""

from __future__ import annotations

import base64
import io
import os
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from faceattr.labelling.rows import OK, Row
from faceattr.labelling.writers import whole_file
from faceattr.pictures.capture import frames
from faceattr.pictures.crop import CropRule, crop
from faceattr.pictures.reading import PathLike, read_image
from faceattr.tasks import Task

MOST_A_CLASS = 96
THUMB = CropRule(96, 0.25)
UNSURE = "unsure"


@dataclass
class _Answers:
    """The rows that gave one answer to one task: their numbers and probabilities."""

    numbers: array = field(default_factory=lambda: array("q"))
    probabilities: array = field(default_factory=lambda: array("d"))

    def add(self, number: int, probability: float) -> None:
        self.numbers.append(number)
        self.probabilities.append(probability)

    def shown(self) -> list[int]:
        """Rows from the surest to the weakest, evenly picked where they are too many."""
        order = np.argsort(-np.asarray(self.probabilities), kind="stable")
        picks = np.linspace(0, len(order) - 1, min(len(order), MOST_A_CLASS)).round()
        return [self.numbers[order[int(pick)]] for pick in picks]


def write_gallery(
    page: PathLike, rows: Callable[[], Iterable[Row]], tasks: Sequence[Task], *, title: str
) -> None:
    """Write the page.

    Args:
        page: The HTML file.
        rows: Gives the rows of a table from its beginning; called twice, so that a table of
            any length costs little memory.
        tasks: What was asked.
        title: Its heading.

    Raises:
        OSError: It cannot be written.
    """
    answers = _by_answer(rows(), tasks)
    shown = {number for group in answers.values() for number in group.shown()}
    chosen = {number: row for number, row in enumerate(rows()) if number in shown}
    thumbs = _thumbs(chosen)
    page = Path(page)
    body = "".join(_section(task, answers, chosen, thumbs, page.parent) for task in tasks)
    text = PAGE.format(title=escape(title), style=STYLE, body=body)
    with whole_file(page) as part:
        part.write_text(text, encoding="utf-8")


def _by_answer(rows: Iterable[Row], tasks: Sequence[Task]) -> dict[tuple[str, str], _Answers]:
    groups = {(t.name, name): _Answers() for t in tasks for name in (*t.classes, UNSURE)}
    for number, row in enumerate(rows):
        if row["status"] == OK:
            for task in tasks:
                answer = row[task.name] or UNSURE
                groups[task.name, answer].add(number, row[f"{task.name}_prob"])
    return groups


def _thumbs(rows: Mapping[int, Row]) -> dict[int, str]:
    """A JPEG as a data address by row; each picture is opened once."""
    by_picture: dict[tuple[str, float | None], list[int]] = {}
    for number, row in rows.items():
        by_picture.setdefault((row["path"], row["time"]), []).append(number)

    def cut(place: tuple[tuple[str, float | None], list[int]]) -> dict[int, str]:
        (path, second), numbers = place
        try:
            image = _image(path, second)
            return {number: _thumb(image, rows[number]) for number in numbers}
        except (OSError, ValueError):  # moved away since
            return {}

    with ThreadPoolExecutor() as pool:
        return {n: text for some in pool.map(cut, by_picture.items()) for n, text in some.items()}


def _image(path: str, second: float | None) -> np.ndarray:
    if second is None:
        return read_image(path)
    return next(frames(path, every=0, start=second))[1]


def _thumb(image: np.ndarray, row: Row) -> str:
    box = (row["x0"], row["y0"], row["x1"], row["y1"])
    face = Image.fromarray(crop(image, box, THUMB)).rotate(90 * int(row["turn"] or 0))
    jpeg = io.BytesIO()
    face.save(jpeg, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()


def _section(
    task: Task,
    answers: Mapping[tuple[str, str], _Answers],
    rows: Mapping[int, Row],
    thumbs: Mapping[int, str],
    here: Path,
) -> str:
    groups = {name: answers[task.name, name] for name in (*task.classes, UNSURE)}
    total = sum(len(group.numbers) for group in groups.values()) or 1
    links, blocks = [], []
    for name, group in groups.items():
        count = len(group.numbers)
        if count == 0 and name == UNSURE:
            continue
        anchor = escape(f"{task.name}-{name}", quote=True)
        links.append(
            f'<a href="#{anchor}"><b>{escape(name)}</b><i>{count:,}</i>'
            f'<s style="width:{count / total:.1%}"></s></a>'
        )
        faces = "".join(_figure(rows[n], task, thumbs.get(n), here) for n in group.shown())
        some = f", {MOST_A_CLASS} of them shown evenly" if count > MOST_A_CLASS else ""
        note = f"{count:,} faces{some}, surest first" if count else "no face"
        blocks.append(
            f'<h3 id="{anchor}">{escape(name)} <small>{note}</small></h3>'
            f'<div class="faces">{faces}</div>'
        )
    return f"<h2>{escape(task.name)}</h2><nav>{''.join(links)}</nav>{''.join(blocks)}"


def _figure(row: Row, task: Task, thumb: str | None, here: Path) -> str:
    place = row["path"] + (f" at {row['time']:g} s" if row["time"] is not None else "")
    probability = row[f"{task.name}_prob"]
    picture = f'<img src="{thumb}" alt="" loading="lazy">' if thumb else "<em>gone</em>"
    # The page may stand anywhere: what leads to the picture starts at the page.
    target = quote(os.path.relpath(row["path"], here).replace(os.sep, "/"))
    return (
        f'<a class="face" href="{target}" title="{escape(place, quote=True)}">{picture}'
        f'<span style="--p:{probability:.3f}">{probability:.0%}</span></a>'
    )


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>{style}</style></head>
<body><h1>{title}</h1>{body}</body></html>
"""
STYLE = """
:root{color-scheme:light dark;--ink:#1b1d22;--soft:#667;--ground:#fafafa;--line:#dde;--bar:#d89b00}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8ec;--soft:#99a;--ground:#16171b;--line:#334}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--ground);
max-width:1100px;margin:0 auto;padding:24px}
h1{font-size:22px}h2{margin:40px 0 8px;border-bottom:1px solid var(--line);padding-bottom:6px}
h3{margin:28px 0 8px}small{font-weight:400;color:var(--soft)}
nav{display:grid;grid-template-columns:repeat(auto-fill,minmax(120px,1fr));gap:8px}
nav a{position:relative;padding:6px 10px 9px;border:1px solid var(--line);
border-radius:6px;color:inherit;text-decoration:none;display:flex;justify-content:space-between}
nav i{font-style:normal;color:var(--soft)}
nav s{position:absolute;left:0;bottom:0;height:3px;background:var(--bar);
border-radius:0 2px 2px 6px}
.faces{display:grid;grid-template-columns:repeat(auto-fill,minmax(96px,1fr));gap:8px}
.face{color:inherit;text-decoration:none;font-size:12px;text-align:center}
.face img{width:96px;height:96px;border-radius:5px;display:block;margin:0 auto 3px}
.face em{display:block;height:96px;line-height:96px;color:var(--soft)}
.face span{display:block;width:96px;margin:0 auto;background:linear-gradient(var(--bar),var(--bar))
0 100%/calc(var(--p)*100%) 3px no-repeat;padding-bottom:4px}
"""
