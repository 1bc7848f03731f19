"""Servers on loopback, each in a thread of this process, and waiting for what they do."""

from __future__ import annotations

import functools
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def wait_for(condition: Callable[[], Any], seconds: float = 20, what: str = "it") -> Any:
    """What a condition gives once it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come true within {seconds} s")
        time.sleep(0.02)
    return found


@contextmanager
def website(handler: type, **how: Any) -> Iterator[tuple[str, list[str]]]:
    """The address of what a handler of `http.server` answers, and the paths that it was asked for;
    `how` are the handler's own arguments."""
    asked: list[str] = []

    class Noting(handler):
        def log_request(self, *_) -> None:
            asked.append(self.path)

        def log_message(self, *_) -> None:
            pass

    answer = functools.partial(Noting, **how)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()


def files_of(folder: Path):
    """The same of a folder's files, without special headers."""
    return website(http.server.SimpleHTTPRequestHandler, directory=folder)


@contextmanager
def serving(app: Any, **how: Any) -> Iterator[int]:
    """The port of an ASGI application; `how` is for `uvicorn.Config`."""
    import uvicorn

    from faceattr.serving.server import bounds

    server = uvicorn.Server(uvicorn.Config(app, port=0, **{**bounds(), **how}))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
