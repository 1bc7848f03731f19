"""`faceattr serve` until it is asked to end, and HTTP in which nobody may take for ever."""

from __future__ import annotations

import asyncio
import io
import math
from typing import Any

import uvicorn
from PIL import EpsImagePlugin, Image
from uvicorn.protocols.http.h11_impl import H11Protocol

from faceattr.inference.predictor import FaceAttributes
from faceattr.progress import SILENT, Progress
from faceattr.serving.address import Address
from faceattr.serving.batcher import Batcher
from faceattr.serving.limits import Limits

PATIENCE = 15.0  # seconds in which a connection begins a request; at most twice as many
GRACE = 0.1  # seconds that a connection has in any case
MOST_CONNECTIONS = 200  # macOS gives a process 256 open files
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

    `token` is as `checked_token` gives it, `limits` say how much one may ask, `workers` how many
    threads decode and detect (one a processor). `progress` is shown the address once it answers.
    """
    from faceattr.serving.app import application  # whose bodies need more than the live page

    EpsImagePlugin.gs_binary = False  # PostScript of strangers is a program, and never run
    with Batcher(attributes, limits, workers) as batcher:
        warm_up(batcher)
        app = application(batcher, hosts=address.names, token=token)
        run(
            app,
            address,
            progress,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=math.ceil(batcher.limits.seconds),
        )


def warm_up(batcher: Batcher) -> None:
    """What fails shall fail before anybody asks, and the first to ask shall not wait."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    (future,) = batcher.submit([file.getvalue()])
    if reason := future.result().reason:
        raise ValueError(f"The detector fails: {reason}")


def run(app, address: Address, progress: Progress, **how: Any) -> None:
    """Let uvicorn serve an application until Ctrl-C; `progress` is shown its address."""
    address.require_free()  # a model takes seconds to load, in which another server may begin
    progress.show(f"{address.url}  (Ctrl-C ends it)")
    uvicorn.run(app, host=address.host, port=address.port, **how, **bounds())


def bounds() -> dict[str, Any]:
    """What uvicorn is told of every server here: bounded, and silent about itself."""
    return {
        "http": BoundedProtocol,
        "lifespan": "off",
        "log_level": "error",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "limit_concurrency": MOST_CONNECTIONS + 1,  # with so many at work, one more gets a 503
    }


class BoundedProtocol(H11Protocol):
    """Closes a connection whose next request does not begin; bodies have a limit of their own.

    Where there are too many connections, those whose request has not come whole make room.
    """

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._since = self.loop.time()
        self._watch(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._make_room()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = self.loop.time()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_waiting(self) -> bool:
        """Whether it is the client's turn to say more."""
        return self.is_idle or self.cycle.more_body

    def _make_room(self) -> None:
        """Close the connections that have kept the server waiting for longest, until it fits."""
        latest = self.loop.time() - GRACE
        others = (one for one in self.connections if isinstance(one, BoundedProtocol))
        waiting = [one for one in others if one._since < latest and one.is_waiting]
        surplus = len(self.connections) - MOST_CONNECTIONS
        for one in sorted(waiting, key=lambda one: one._since)[:surplus]:
            self.connections.discard(one)  # uvicorn counts it until it is gone
            one.transport.close()

    def _watch(self, transport: asyncio.Transport) -> None:
        self.loop.call_later(PATIENCE, self._check, transport, self.cycle)

    def _check(self, transport: asyncio.Transport, before) -> None:
        if transport.is_closing() or transport.get_protocol() is not self:  # a websocket by now
            return
        if self.is_idle and self.cycle is before:
            transport.close()
        else:
            self._watch(transport)
