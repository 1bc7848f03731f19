"""Templates of the package: pages in HTML, cards in Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


def template(path: str, /, **filters: Callable[..., object]) -> Template:
    """A template by its path in the package: ``"inference/page/gallery.html"``.

    In HTML what is no text of ours is escaped; in Markdown `filters` have to do that.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    pages = Environment(
        loader=PackageLoader("faceattr", "."),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= filters
    return pages.get_template(path)
