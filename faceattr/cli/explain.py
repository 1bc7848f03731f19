"""`faceattr explain`."""

from __future__ import annotations

from faceattr.cli.console import Aside, Terminal, show
from faceattr.cli.options import (
    add_describing,
    by_name,
    command,
    old_names,
    open_attributes,
    start_keras,
    taken,
)


def add_command(commands) -> None:
    parser = command(commands, explain, "show where in a face each head finds its answer")
    add = parser.add_argument
    add("model", metavar="MODEL", help="a .keras file, hf://user/model, shipped or shipped-slim")
    add("pictures", nargs="+", metavar="PATH", help="pictures or folders, as for label")
    add("-o", "--output", required=True, metavar="SHEET", help="the picture to write, .png or .jpg")
    add(
        "--of",
        **by_name(str),
        metavar="TASK=CLASS,…",
        help="ask about this class instead of the one that is answered",
    )
    add("--most", type=int, metavar="N", help="faces on the sheet (24)")
    computing = ("--runtime", "--threads", "--precision")
    add_describing(parser, *computing, "--detector", "--offline", "--auto-rotate", "--min-face")
    add("--overwrite", action="store_true", help="replace a sheet that is there")
    old_names(parser, {"--engine": "--runtime", "--upright": "--auto-rotate"})


def explain(model, pictures, output, **given) -> int:
    """Draw a contact sheet: every face and, for each head, Grad-CAM of its answer."""
    from faceattr.images.draw import validate_sheet_path

    # What is typed wrongly shall be told before the seconds that a model takes to load.
    validate_sheet_path(output, **{k: given[k] for k in ("most", "overwrite") if k in given})
    drawing = taken(given, ("of", "most", "overwrite"))
    attributes = open_attributes({**given, "model": model}, Aside())
    start_keras()
    from faceattr.inference.explain import explain as draw

    done = draw(pictures, attributes, output, progress=Terminal(), **drawing)
    more = "; there are more, see --most" if done.more else ""
    show(f"{done.faces} faces of {done.inputs} pictures -> {output}{more}")
    return 0
