"""Findings as pages: ``report.html`` with everything in one file, ``card.md`` beside pictures."""

from __future__ import annotations

import base64
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from PIL import Image

from faceattr.evaluation import plots
from faceattr.evaluation.findings import SHOWN, Evaluation, path_of
from faceattr.evaluation.metrics import operating_points
from faceattr.model.file import to_jsonable

SIDE = 96  # of a face on the page, in pixels


def write_page(findings: Evaluation, path: Path) -> None:
    """Write the report as one HTML file that loads nothing.

    Names of classes, groups and files are escaped; pictures are inside the page.
    """
    figures = {answers.task.name: _figures(answers) for answers in findings.answers}
    curves = findings.log and _inline(partial(plots.curves, findings.log))
    _write("report.html", path, findings, figures=figures, curves=curves)


def write_card(findings: Evaluation, path: Path) -> None:
    """Write the model's card in Markdown; the pictures that it shows lie beside it."""
    _write("card.md", path, findings)


def _write(template: str, path: Path, findings: Evaluation, **more: Any) -> None:
    text = (
        _environment(findings)
        .get_template(template)
        .render(
            found=findings,
            about=findings.description,
            offers={answers.task.name: operating_points(answers) for answers in findings.answers},
            surest={name: wrong[:SHOWN] for name, wrong in findings.mistakes.items()},
            **more,
        )
    )
    path.write_text(text, encoding="utf-8")


def _environment(findings: Evaluation) -> Environment:
    pages = Environment(
        loader=PackageLoader("faceattr", "evaluation/page"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = findings.rows
    pages.filters |= {
        "percent": _percent,
        "cell": _cell,
        "json": lambda value: json.dumps(to_jsonable(value), indent=1),
        "face": lambda wrong: _data_address(rows.crops[rows.index[wrong.row]]),
        "path": lambda wrong: path_of(rows, wrong.row),
    }
    return pages


def _figures(answers) -> list[Markup]:
    drawings = (plots.draw_reliability, plots.draw_coverage)
    return [_inline(partial(plots.alone, drawing, answers)) for drawing in drawings]


def _inline(draw: plots.Draw) -> Markup:
    """A figure as part of the page; matplotlib has escaped the texts in it."""
    return Markup(plots.svg_of(draw))


def _data_address(face: np.ndarray) -> str:
    jpeg = io.BytesIO()
    picture = Image.fromarray(face)
    picture.thumbnail((SIDE, SIDE))
    picture.save(jpeg, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()


def _percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None or np.isnan(share) else f"{share:.{digits}%}"


def _cell(text: object) -> str:
    """A text as it may stand in a cell of a Markdown table."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())
