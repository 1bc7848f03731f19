"""Where something is served, and who may ask there; for programs and for the live page."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from faceattr.files import require_package
from faceattr.pages import template

if TYPE_CHECKING:
    from starlette.routing import Route

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")  # as a browser writes them
SHORTEST_TOKEN = 16  # characters


@dataclass(frozen=True)
class Address:
    """A host and a port of this machine. The port must exist (ValueError) and be free (OSError)."""

    host: str = "127.0.0.1"
    port: int = 8000

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError(f"A port lies between 1 and 65535. Received: {self.port}")
        self.require_free()

    def require_free(self) -> None:
        """Raises OSError, with the cure, where nothing can be served there now."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind((self.host, self.port))
            except OSError as error:
                is_taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
                raise OSError(
                    f"Nothing can be served on {self.host}:{self.port}: {error.strerror or error}. "
                    f"Choose another {'--port' if is_taken else '--host'}."
                ) from None

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in LOCAL_HOSTS

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names by which a browser may ask for it; None for any."""
        any_name = self.host in ("0.0.0.0", "::")
        host = self.host.lower()
        return None if any_name else (*LOCAL_NAMES, host, f"[{host}]")

    @property
    def url(self) -> str:
        """What is typed into a browser."""
        here = socket.gethostname()
        name = {"127.0.0.1": "localhost", "0.0.0.0": here, "::": here}
        shown = name.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{shown}:{self.port}"


def require_web(what: str, *more: str) -> None:
    """Raises ValueError, with the cure, where the extra ``web`` is not installed."""
    for package in ("starlette", "uvicorn", *more):
        require_package(package, "web", what)


def page_headers(media: str) -> dict[str, str]:
    """With every answer: nothing from elsewhere is loaded, and nothing goes anywhere else.

    `media` are the rules of the content policy for images and videos.
    """
    return {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
        f"{media}; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def page_routes(folder: Path, files: Sequence[str], headers: dict[str, str]) -> list[Route]:
    """The page ``index.html`` of a folder at ``/``, and its other files by their names."""
    from starlette.responses import FileResponse, HTMLResponse
    from starlette.routing import Route

    page = template(f"{folder.parent.name}/{folder.name}/index.html").render()

    async def index(request) -> HTMLResponse:
        return HTMLResponse(page, headers=headers)

    def route(name: str) -> Route:
        async def answer(request) -> FileResponse:
            return FileResponse(folder / name, headers=headers)

        return Route(f"/{name}", answer)

    return [Route("/", index), *map(route, files)]


def checked_token(token: str | None, address: Address) -> str | None:
    """The token, stripped; None where there is none and none is needed.

    Raises:
        ValueError: Other machines reach the address and there is no token, or it is too short.
    """
    token = (token or "").strip()
    if not token and not address.is_local:
        raise ValueError(
            f"Other machines reach {address.host}, so whoever asks must know a token: put one "
            "into the environment as FACEATTR_TOKEN or into a file for --token-file."
        )
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise ValueError(
            f"A token has at least {SHORTEST_TOKEN} characters of ASCII. Received: {len(token)} "
            "characters"
        )
    return token or None


def is_named(host: str, hosts: tuple[str, ...] | None) -> bool:
    """Whether a request's ``Host`` is one of the names; any other site could lead its own here."""
    host = host.lower()
    return hosts is None or host.rsplit(":", 1)[0] in hosts or host in hosts


def is_own(origin: str | None, host: str) -> bool:
    """Whether a page of this server asks, or a program, which has no origin."""
    try:
        return origin is None or urlsplit(origin).netloc == host.lower()
    except ValueError:  # "http://[": no page has such an address
        return False


def is_same(given: str, token: str | None) -> bool:
    """Whether a token is the right one, in the same time for every wrong one."""
    return token is None or secrets.compare_digest(given.encode(), token.encode())


def guarded(app, refuse: Callable[[Any], Any]):
    """The same ASGI application; what `refuse` gives for a request's scope takes its place."""

    async def answer(scope, receive, send) -> None:
        refused = refuse(scope) if scope["type"] == "http" else None
        await (refused or app)(scope, receive, send)

    return answer


def header(scope, name: bytes) -> str | None:
    value = dict(scope.get("headers", ())).get(name)
    return None if value is None else value.decode("latin-1")
