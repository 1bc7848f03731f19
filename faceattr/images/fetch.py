"""Images from an address: http and https alone, bounded in size and in time."""

from __future__ import annotations

import http.client
import time
import urllib.error
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
        ValueError: The answer is too large or too slow.
        OSError: There is none, or it is an error.
    """
    deadline = time.monotonic() + seconds
    try:
        with _opener().open(address, timeout=min(PATIENCE, seconds)) as answer:
            return _bounded(answer, max_bytes, deadline, seconds)
    except urllib.error.HTTPError as error:
        raise OSError(f"{address} cannot be fetched: {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise OSError(f"{address} cannot be fetched: {reason}") from None


def _bounded(answer, max_bytes: int, deadline: float, seconds: float) -> bytes:
    content = bytearray()
    while block := answer.read1(BLOCK):
        content += block
        if len(content) > max_bytes:
            raise ValueError(f"more than {max_bytes / 1e6:,.4g} million bytes, the most of a fetch")
        if time.monotonic() > deadline:
            raise ValueError(f"not there after {seconds:g} seconds, the longest that is waited")
    return bytes(content)


def _opener() -> urllib.request.OpenerDirector:
    """An opener without files, ftp and data, which an answer could lead on to otherwise."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    opener.addheaders = [("User-Agent", "faceattr")]
    return opener
