"""The server's answers: what `faceattr serve` says to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from faceattr import __version__
from faceattr.inference.predictor import FaceAttributes
from faceattr.serving.address import (
    LOCAL_NAMES,
    guarded,
    header,
    is_named,
    is_own,
    is_same,
    page_headers,
    page_routes,
)
from faceattr.serving.batcher import Answer, Batcher, QueueFull
from faceattr.serving.bodies import RETRY, Body, HeldBytes, Refusal, images_of
from faceattr.serving.limits import Limits
from faceattr.serving.openapi import openapi

PAGE = Path(__file__).parent / "page"
FILES = ("page.js", "page.css")
# What is told without a token: how one asks, and that the server lives.
OPEN = ("/", *(f"/{name}" for name in FILES), "/openapi.json", "/health")
HEADERS = page_headers("img-src data:")
Endpoint = Callable[[Request], Awaitable[Response]]


def application(
    batcher: Batcher,
    *,
    hosts: tuple[str, ...] | None = LOCAL_NAMES,
    token: str | None = None,
):
    """The ASGI application; `batcher` is open as long as it answers.

    Args:
        batcher: Model, detector and limits.
        hosts: Names under which it answers without a token; None for any.
        token: What ``Authorization: Bearer`` must say; None where no other machine reaches it.
    """
    limits = batcher.limits
    about = _about_model(batcher.attributes, limits)
    spec = openapi(batcher.attributes.tasks, limits)
    held = HeldBytes(limits.bytes_at_once)

    async def health(request: Request) -> Response:
        status = 200 if batcher.is_alive else 503
        return _json({"status": "ok" if status == 200 else "failed"}, status)

    async def model(request: Request) -> Response:
        return _json(about)

    async def description(request: Request) -> Response:
        return _json(spec)

    async def analyze(request: Request) -> Response:
        (answer,) = await _answers(request, batcher, held, one=True)
        return _json(to_jsonable(answer), 200 if answer.reason is None else 422)

    async def batch(request: Request) -> Response:
        answers = await _answers(request, batcher, held, one=False)
        return _json({"results": [to_jsonable(answer) for answer in answers]})

    routes = [
        *page_routes(PAGE, FILES, HEADERS),
        Route("/openapi.json", description),
        Route("/health", health),
        Route("/model", model),
        Route("/analyze", _told(analyze), methods=["POST"]),
        Route("/analyze/batch", _told(batch), methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {HTTPException: _no_route, Exception: _failed}
    app = Starlette(routes=routes, exception_handlers=handlers)
    return guarded(app, partial(_refusal, hosts=hosts, token=token))


def _about_model(attributes: FaceAttributes, limits: Limits) -> dict[str, Any]:
    """What ``/model`` tells."""
    description = attributes.description
    return {
        "faceattr": __version__,
        "model": attributes.path.name if attributes.path else "",
        "engine": attributes.engine,
        "precision": attributes.precision,
        "licence": description.licence,
        "tasks": [{"name": task.name, "classes": task.classes} for task in attributes.tasks],
        "min_face": attributes.min_face,
        "detector": dict(attributes.detector.provenance),
        "limits": asdict(limits),
    }


def to_jsonable(answer: Answer) -> dict[str, Any]:
    """What is said of one image: the faces as `DescribedFace.to_dict` gives them, or why not."""
    if answer.reason is not None:
        return {"error": answer.reason}
    return {"faces": [face.to_dict() for face in answer.faces], "left_out": answer.left_out}


async def _answers(
    request: Request, batcher: Batcher, held: HeldBytes, *, one: bool
) -> list[Answer]:
    """Read the images, put them into the queue, wait."""
    limits, loop = batcher.limits, asyncio.get_running_loop()
    deadline = loop.time() + limits.seconds
    with Body(held) as body:
        try:
            async with asyncio.timeout_at(deadline):
                await body.fill(request, limits.max_bytes)
                images = await images_of(request, body.take(), limits, one)
        except TimeoutError:
            sentence = f"The body was not here after {limits.seconds:g} seconds (--timeout)."
            raise Refusal(408, sentence) from None
        try:
            futures = batcher.submit(images)
        except QueueFull:
            sentence = f"{limits.queue} images are waiting already (--queue): come back later."
            raise Refusal(429, sentence, RETRY) from None
        del images
        return await _awaited(futures, deadline, limits)


async def _awaited(futures: list[Future[Answer]], deadline: float, limits: Limits) -> list[Answer]:
    try:
        async with asyncio.timeout_at(deadline):
            # At the end of the time those whose turn has not come are cancelled.
            return await asyncio.gather(*map(asyncio.wrap_future, futures))
    except TimeoutError:
        sentence = f"There was no answer after {limits.seconds:g} seconds (--timeout)."
        raise Refusal(503, sentence, RETRY) from None


def _told(endpoint: Endpoint) -> Endpoint:
    """The same, with a refusal as a sentence in JSON."""

    async def told(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            return _error(refusal.status, refusal.sentence, refusal.headers)
        except ClientDisconnect:
            return _error(400, "The request broke off.")

    return told


def _refusal(scope, hosts: tuple[str, ...] | None, token: str | None) -> Response | None:
    """Nothing for those who know the token; without one, for those alone who ask by this machine's
    name and from no other site's page, or any site could lead its own name here."""
    host = header(scope, b"host") or ""
    words = (header(scope, b"authorization") or "").split(" ", 1)
    given = words[1].strip() if words[0].lower() == "bearer" and len(words) > 1 else ""
    if token is None and not is_named(host, hosts):
        return _error(400, "This server has another name: ask by its address.")
    if token is None and not is_own(header(scope, b"origin"), host):
        return _error(403, "Pages of other sites may not ask here.")
    if scope["path"] not in OPEN and not is_same(given, token):
        sentence = "This server asks for its token: Authorization: Bearer TOKEN."
        return _error(401, sentence, {"WWW-Authenticate": "Bearer"})
    return None


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(content, status, headers=HEADERS | (headers or {}))


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return _json({"error": sentence}, status, headers)


async def _no_route(request: Request, error: HTTPException) -> Response:
    known = "POST /analyze, POST /analyze/batch, GET /health, GET /model"
    return _error(
        error.status_code, f"{error.detail}. There are {known}.", dict(error.headers or {})
    )


async def _failed(request: Request, error: Exception) -> Response:
    return _error(500, "The server failed; its own output says why.")
