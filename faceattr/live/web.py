"""`faceattr live --web`: one page on this machine; camera, images and videos from the browser.

The browser sends a JPEG frame, waits for its faces and sends the newest frame next. So at most one
frame is ever under way, whatever the model's speed. Frames are analysed and forgotten.
"""

from __future__ import annotations

import asyncio
import io
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from faceattr.images.draw import COLOURS
from faceattr.images.video import Frame
from faceattr.inference.predictor import FaceAttributes
from faceattr.live.face_tracker import FaceTracker, FrameResult, InferenceBudget
from faceattr.live.tracking import LiveFace, Smoothing
from faceattr.progress import SILENT, Progress, suppress_stderr
from faceattr.serving.address import (
    LOCAL_NAMES,
    Address,
    guarded,
    header,
    is_named,
    is_own,
    is_same,
    page_headers,
    page_routes,
)
from faceattr.tasks import timeline_columns

MOST_BYTES, MOST_PIXELS = 4 << 20, 16_000_000
NO_JPEG = "What was sent is no JPEG image."


def _about_page(attributes: FaceAttributes, switched_on: Sequence[str]) -> dict[str, Any]:
    """What the page has to know before the first frame."""
    return {
        "tasks": [{"name": task.name, "classes": task.classes} for task in attributes.tasks],
        "detector": attributes.detector.provenance["name"],
        "long_side": max(640, attributes.detector.long_side or 0),
        "columns": timeline_columns(attributes.tasks),
        "colours": [f"rgb{colour}" for colour in COLOURS],
        "looks": list(switched_on),
        "most_bytes": MOST_BYTES,
    }


def frame_of(message: bytes) -> tuple[float, np.ndarray]:
    """The second and the RGB ``uint8`` image of a page's message: float64, little endian, and a
    JPEG. ValueError where it is none or too large.
    """
    second = float(np.frombuffer(message[:8], "<f8")[0]) if len(message) > 8 else math.nan
    size = _jpeg_size(message[8:])
    if size is None or not math.isfinite(second) or second < 0:
        raise ValueError(NO_JPEG)
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"The image is larger than the page sends: {size[0]}x{size[1]} pixels.")
    image = cv2.imdecode(np.frombuffer(message, np.uint8, offset=8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError(NO_JPEG)
    return second, image


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height out of a JPEG's head, before its pixels take any memory."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return image.size
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None


def answer_of(result: FrameResult, seconds: float) -> dict[str, Any]:
    """What the page gets about a frame that took so many seconds."""
    return {
        "time": result.time,
        "frame": result.number,
        "milliseconds": round(1000 * seconds, 1),
        "faces": [_to_jsonable(face) for face in result.faces],
        "lost": [_box(face) for face in result.lost],
    }


def _to_jsonable(face: LiveFace) -> dict[str, Any]:
    return {
        "track": face.track,
        "box": _box(face),
        "velocity": [round(speed, 1) for speed in face.velocity],
        "detection": round(face.score, 4),
        "too_small": face.too_small,
        "answers": {
            task: {
                "label": answer.label,
                "probability": answer.probability,
                "probabilities": {name: round(p, 4) for name, p in answer.probabilities.items()},
            }
            for task, answer in face.predictions.items()
        },
    }


def _box(face: LiveFace) -> list[float]:
    return [round(value, 1) for value in face.box]


PAGE = Path(__file__).parent / "page"
MOST_PAGES = 4
# A page that sends nothing for so long makes room for others and comes back when it does.
IDLE_SECONDS, IDLE = 60.0, 4000
# What the page needs before it can show why it is refused; there is nothing secret in it.
FILES = ("page.js", "socket.js", "draw.js", "page.css")
HEADERS = page_headers("img-src 'self' blob: data:; media-src blob:")


@dataclass(frozen=True)
class PageAddress(Address):
    """Where the page is served. Only this machine reaches the usual host; any other asks for a
    token, which is in the printed address.
    """

    port: int = 8760
    token: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.is_local:
            object.__setattr__(self, "token", secrets.token_urlsafe(16))

    @property
    def url(self) -> str:
        """What is typed into a browser."""
        return super().url + (f"/?token={self.token}" if self.token else "")


def serve(
    attributes: FaceAttributes,
    address: PageAddress,
    progress: Progress = SILENT,
    switched_on: Sequence[str] = (),
    **how: Any,
) -> None:
    """Serve the page until Ctrl-C; `progress` is shown its address. The rest is `application`'s."""
    from faceattr.serving.server import run

    with suppress_stderr():
        FaceTracker(attributes, how.get("budget")).warm_up()
    how |= {"token": address.token, "switched_on": switched_on}
    app = application(attributes, hosts=address.names, **how)
    # A JPEG is not made smaller.
    run(app, address, progress, ws_max_size=MOST_BYTES, ws_per_message_deflate=False)


def application(
    attributes: FaceAttributes,
    *,
    hosts: tuple[str, ...] | None = LOCAL_NAMES,
    token: str | None = None,
    budget: InferenceBudget | None = None,
    smoothing: Smoothing | None = None,
    switched_on: Sequence[str] = (),
):
    """The ASGI application: the page at ``/`` and its websocket at ``/look``.

    Args:
        attributes: Detector and model.
        hosts: Names under which it answers; None for any.
        token: What ``?token=`` must be; None where no other machine reaches it.
        budget: How much is done for a frame.
        smoothing: How a track's answers are averaged.
        switched_on: When the page opens: ``bars``, ``blur``, ``mirror``.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route, WebSocketRoute

    async def about(request) -> JSONResponse:
        return JSONResponse(_about_page(attributes, switched_on), headers=HEADERS)

    if "blur" in switched_on:
        budget = (budget or InferenceBudget()).while_blurring()
    refuse = partial(_refusal, hosts=hosts, token=token)
    sessions = _Sessions(partial(FaceTracker, attributes, budget, smoothing), refuse)
    routes = [
        *page_routes(PAGE, FILES, HEADERS),
        Route("/about", about),
        WebSocketRoute("/look", sessions.answer),
    ]
    return guarded(Starlette(routes=routes), refuse)


def _refusal(scope, hosts: tuple[str, ...] | None, token: str | None):
    """Nothing for those who ask by these names, or any site could lead its own name here, and who
    know the token."""
    from starlette.responses import PlainTextResponse

    if not is_named(header(scope, b"host") or "", hosts):
        return PlainTextResponse("This page has another name.", status_code=400)
    given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
    if scope["path"].strip("/") in FILES or is_same(given, token):
        return None
    text = "This page needs the whole address that faceattr printed, with its token."
    return PlainTextResponse(text, status_code=403, headers=HEADERS)


class _Sessions:
    """A tracker for every page that is open, and one model for all of them."""

    def __init__(
        self, new_tracker: Callable[[], FaceTracker], refuse: Callable[[Any], Any]
    ) -> None:
        self._new_tracker, self._refuse = new_tracker, refuse
        self._one_at_a_time = asyncio.Lock()
        self._is_warm = False
        self._open = 0

    async def answer(self, socket) -> None:
        """Answer every frame of one page with its faces, until the page is closed."""
        from starlette.websockets import WebSocketDisconnect

        if not self._may_enter(socket):
            await socket.close(code=1008)
            return
        self._open += 1  # before anything is waited for: pages may come together
        try:
            await socket.accept()
            await self._converse(socket)
        except WebSocketDisconnect:
            pass
        except TimeoutError:
            await socket.close(code=IDLE)
        finally:
            self._open -= 1

    def _may_enter(self, socket) -> bool:
        """Whether the page that asks is ours: any site may open a websocket to this machine."""
        is_known = self._refuse(socket.scope) is None
        origin, host = socket.headers.get("origin"), socket.headers.get("host", "")
        return is_known and is_own(origin, host) and self._open < MOST_PAGES

    async def _converse(self, socket) -> None:
        tracker = self._new_tracker()
        number = 0
        while True:
            message = await asyncio.wait_for(socket.receive(), IDLE_SECONDS)
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is None:
                # Any text begins a new source: nobody of the last one is expected in it.
                tracker, number = self._new_tracker(), 0
                continue
            try:
                second, image = await asyncio.to_thread(frame_of, message["bytes"])
            except ValueError as error:
                await socket.send_json({"error": str(error)})
                continue
            async with self._one_at_a_time:
                frame = Frame(image, number, second)
                answer = await asyncio.to_thread(self._update, tracker, frame)
            number += 1
            await socket.send_json(answer)

    def _update(self, tracker: FaceTracker, frame: Frame) -> dict[str, Any]:
        if not self._is_warm:
            tracker.warm_up()
            self._is_warm = True
        start = time.monotonic()
        result = tracker.update(frame)
        return answer_of(result, time.monotonic() - start)
