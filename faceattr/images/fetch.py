"""Images from an address: http and https alone, bounded in size and in time."""

from __future__ import annotations

import contextlib
import http.client
import socket
import string
import threading
import urllib.error
import urllib.parse
import urllib.request

MAX_BYTES = 64 << 20
SECONDS = 20.0  # for the whole of it
PATIENCE = 10.0  # seconds for the other side to connect and to say anything at all
BLOCK = 1 << 16


def is_url(source: object) -> bool:
    """Whether a text is an address rather than a path."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def fetch(address: str, *, max_bytes: int = MAX_BYTES, seconds: float = SECONDS) -> bytes:
    """What an address answers with; it, and all that it leads on to, is ``http://`` or ``https://``.

    An answer that is larger, or takes longer, is not read any further.

    Raises:
        ValueError: The answer is too large or too slow, or the address has a password in it.
        OSError: There is none, or it is an error.
    """
    asked = _in_ascii(address)
    too_slow = ValueError(f"not there after {seconds:g} seconds, the longest that is waited")
    with _Deadline(seconds) as deadline:
        try:
            with _opener(deadline).open(asked, timeout=min(PATIENCE, seconds)) as answer:
                content = _bounded(answer, max_bytes)
        except urllib.error.HTTPError as error:
            raise OSError(f"{address} cannot be fetched: {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            if deadline.is_over:
                raise too_slow from None
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise OSError(f"{address} cannot be fetched: {reason}") from None
    if deadline.is_over:  # what was read until then looks like the end
        raise too_slow
    return content


def _bounded(answer: http.client.HTTPResponse, max_bytes: int) -> bytes:
    content = bytearray()
    while block := answer.read1(BLOCK):
        content += block
        if len(content) > max_bytes:
            raise ValueError(f"more than {max_bytes / 1e6:,.4g} million bytes, the most of a fetch")
    if answer.length:  # that `read1` has not seen to
        raise http.client.HTTPException("its answer broke off")
    return bytes(content)


def _in_ascii(address: str) -> str:
    """The address as HTTP sends it: ``é`` and spaces in ``%``, the host's name in Punycode."""
    try:
        parts = urllib.parse.urlsplit(address)
        host = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
    except ValueError as error:  # of the name of a host, too
        raise OSError(f"{address} is no address: {error}") from None
    if "@" in host:
        raise ValueError("an address with a user's name or a password in it is not fetched")
    rest = (
        urllib.parse.quote(part, string.punctuation, errors="surrogateescape") for part in parts[2:]
    )
    return urllib.parse.urlunsplit((parts.scheme, host, *rest))


class _Deadline:
    """Ends connections at a moment, even of a server that sends a byte now and then for hours."""

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def add(self, opened: socket.socket) -> None:
        self._sockets.append(opened)
        if self.is_over:
            self._end()

    def _end(self) -> None:
        self.is_over = True
        for opened in self._sockets:
            with contextlib.suppress(OSError):  # it is closed already
                opened.shutdown(socket.SHUT_RDWR)


def _opener(deadline: _Deadline) -> urllib.request.OpenerDirector:
    """An opener without files, ftp and data, which an answer could lead on to otherwise."""

    class Bounded:
        def connect(self) -> None:
            super().connect()  # type: ignore[misc]
            deadline.add(self.sock)  # type: ignore[attr-defined]

    class Http(Bounded, http.client.HTTPConnection): ...

    class Https(Bounded, http.client.HTTPSConnection): ...

    class HttpHandler(urllib.request.HTTPHandler):
        def http_open(self, request):
            return self.do_open(Http, request)

    class HttpsHandler(urllib.request.HTTPSHandler):
        def https_open(self, request):
            return self.do_open(Https, request)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        HttpHandler,
        HttpsHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    opener.addheaders = [("User-Agent", "faceattr")]
    return opener
