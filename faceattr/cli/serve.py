"""`faceattr serve`."""

from __future__ import annotations

import os
from pathlib import Path

from faceattr.cli.console import Aside, on_stderr
from faceattr.cli.fields import add_fields
from faceattr.cli.options import USUAL, add_describing, command, duration, open_attributes, taken
from faceattr.serving.limits import Limits

TOKEN = "FACEATTR_TOKEN"
LIMITS = ("max_bytes", "max_pixels", "max_faces", "max_images", "queue")


def add_command(commands) -> None:
    parser = command(commands, serve, "answer programs over HTTP: images in, JSON out")
    add = parser.add_argument
    add("--host", help="address to serve on (127.0.0.1: this machine only)")
    add("--port", type=int, help="port to serve on (8000)")
    add(
        "--token-file",
        metavar="FILE",
        help=f"file with the token that whoever asks must know (else {TOKEN} of the environment); "
        "needed on any address but this machine's own",
    )
    add_describing(parser, *USUAL, "--flip", "--tta", "--prior", "--batch-size")
    add("--workers", type=int, metavar="N", help="threads that decode and detect")
    limits = parser.add_argument_group("limits")
    add_fields(limits, Limits, *LIMITS)
    limits.add_argument("--timeout", metavar="TIME", help="for a request, with its upload (30s)")
    add("--quiet", action="store_true", help="print errors only")


def serve(quiet=False, **given) -> int:
    """Answer HTTP requests: POST /analyze and /analyze/batch, GET /health, /model and / (help)."""
    from faceattr.serving.address import Address, checked_token, require_web

    # What is typed wrongly shall be told before the model is opened.
    require_web("The server", "python_multipart")
    from faceattr.serving.server import serve as run

    bounds = taken(given, LIMITS)
    if "timeout" in given:
        bounds["seconds"] = duration(given.pop("timeout"))
    limits = Limits(**bounds)
    address = Address(**taken(given, ("host", "port")))
    token = checked_token(_token(given.pop("token_file", None)), address)
    progress = Aside(on_stderr(quiet))
    workers = given.pop("workers", None)
    attributes = open_attributes(given, progress)
    run(attributes, address, token=token, limits=limits, workers=workers, progress=progress)
    return 0


def _token(path: str | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN)
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise OSError(f"--token-file {path} cannot be read: {error.strerror}.") from None
