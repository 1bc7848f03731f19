"""`faceattr serve`."""

from __future__ import annotations

import os

from rich.console import Console

from faceattr.cli.console import Aside
from faceattr.cli.options import MODEL, add_runtime, add_tta, command, duration, open_attributes

TOKEN = "FACEATTR_TOKEN"


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
    add("--model", **MODEL)
    add("--detector", help="auto, yunet, centerface, mtcnn, none or a YuNet .onnx file")
    add_runtime(parser, was_engine=False)
    add_tta(parser)
    add("--offline", action="store_true", help="never download the detector's file")
    add("--auto-rotate", action="store_true", help="detect faces on their sides and heads as well")
    add("--min-face", type=float, metavar="PIXELS", help="do not describe smaller faces")
    add("--min-confidence", type=float, metavar="P", help="no label below this probability")
    add("--workers", type=int, metavar="N", help="threads that decode and detect")
    add("--batch-size", type=int, metavar="N", help="faces that go through the model at once (32)")
    limits = parser.add_argument_group("limits").add_argument
    limits("--max-bytes", type=int, metavar="N", help="of a request's body (16000000)")
    limits("--max-pixels", type=int, metavar="N", help="of an image (50000000)")
    limits("--max-faces", type=int, metavar="N", help="described in an image, the largest (100)")
    limits("--max-images", type=int, metavar="N", help="in a request (32)")
    limits("--queue", type=int, metavar="N", help="images that wait; more get a 429 (64)")
    limits("--timeout", metavar="TIME", help="for a request, with its upload (30s)")
    add("--quiet", action="store_true", help="print errors only")


LIMITS = ("max_bytes", "max_pixels", "max_faces", "max_images", "queue")


def serve(quiet=False, **given) -> int:
    """Answer HTTP requests: POST /analyze and /analyze/batch, GET /health, /model and / (help)."""
    from faceattr.serving.address import Address, checked_token, require_web
    from faceattr.serving.limits import Limits
    from faceattr.serving.server import serve as run

    # What is typed wrongly shall be told before the model is opened.
    require_web("The server", "python_multipart")
    bounds = {name: given.pop(name) for name in LIMITS if name in given}
    if "timeout" in given:
        bounds["seconds"] = duration(given.pop("timeout"))
    limits = Limits(**bounds)
    address = Address(**{name: given.pop(name) for name in ("host", "port") if name in given})
    token = checked_token(_token(given.pop("token_file", None)), address)
    console = Console(stderr=True, quiet=quiet, highlight=False)
    workers = given.pop("workers", None)
    attributes = open_attributes(given, Aside(console))
    run(attributes, address, token=token, limits=limits, workers=workers, progress=Aside(console))
    return 0


def _token(path: str | None) -> str | None:
    if path is None:
        return os.environ.get(TOKEN)
    with open(path, encoding="utf-8") as file:
        return file.read()
