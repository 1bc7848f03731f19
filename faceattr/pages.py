"""Templates of the package: pages in HTML, cards in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def template(path: str, /, **filters: Callable[..., object]) -> Template:
    """A template by its path in the package: ``"inference/page/gallery.html"``.

    In HTML what is no text of ours is escaped; in Markdown the filter `cell` has to do that.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    pages = Environment(
        loader=PackageLoader("faceattr", "."),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"percent": _percent, "cell": _cell, **filters}
    return pages.get_template(path)


def _percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None or math.isnan(share) else f"{share:.{digits}%}"


def _cell(text: object) -> str:
    """A text as it may stand in a cell of a Markdown table."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())
