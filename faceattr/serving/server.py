"""`faceattr serve`: answers on this machine until it is asked to end."""

from __future__ import annotations

import io
import math

from PIL import EpsImagePlugin, Image

from faceattr.inference.predictor import FaceAttributes
from faceattr.progress import SILENT, Progress
from faceattr.serving.address import Address
from faceattr.serving.batcher import Batcher
from faceattr.serving.limits import Limits

KEEP_ALIVE = 10  # seconds that a connection may be idle


def serve(
    attributes: FaceAttributes,
    address: Address,
    *,
    token: str | None = None,
    limits: Limits | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> None:
    """Answer until Ctrl-C or SIGTERM; requests that have come are answered before the end.

    Args:
        attributes: Detector and model.
        address: Where.
        token: As `faceattr.serving.address.checked_token` gives it.
        limits: How much one may ask.
        workers: Threads that decode and detect; by default one a processor.
        progress: Is shown the address once it answers.
    """
    import uvicorn

    from faceattr.serving.app import application
    from faceattr.serving.protocol import bounds

    EpsImagePlugin.gs_binary = False  # PostScript of strangers is a program, and never run
    with Batcher(attributes, limits, workers) as batcher:
        warm_up(batcher)
        app = application(batcher, hosts=address.names, token=token)
        progress.show(f"{address.url}  (Ctrl-C ends it)")
        uvicorn.run(
            app,
            host=address.host,
            port=address.port,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=math.ceil(batcher.limits.seconds),
            **bounds(),
        )


def warm_up(batcher: Batcher) -> None:
    """What fails shall fail before anybody asks, and the first to ask shall not wait.

    Raises:
        ValueError: An empty image cannot be described.
    """
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    (future,) = batcher.submit([file.getvalue()])
    if reason := future.result().reason:
        raise ValueError(f"The detector fails: {reason}")
