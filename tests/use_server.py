"""A server on loopback, in this process, and a client that says what it likes."""

from __future__ import annotations

import base64
import http.client
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from use_loopback import serving
from use_toys import attributes, draw, encoded

from faceattr.serving.app import application
from faceattr.serving.batcher import Batcher
from faceattr.serving.limits import Limits

BATCHERS: dict[int, Batcher] = {}  # behind each port


@contextmanager
def served(of=None, *, token: str | None = None, workers: int = 2, hosts=("127.0.0.1",), **limits):
    """The port of a server of toys, or of other attributes."""
    with Batcher(of or attributes(), Limits(**limits), workers) as batcher:
        app = application(batcher, hosts=hosts, token=token)
        with serving(app, ws="none", log_level="critical") as port:
            BATCHERS[port] = batcher
            yield port


@dataclass
class Said:
    """An answer of the server."""

    status: int
    headers: dict[str, str]  # by names in small letters
    text: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(port: int, path: str, body=None, kind: str = "", **how) -> Said:
    """GET, or POST with a body; `how` are headers, and ``chunked`` for a body without length."""
    chunked = how.pop("chunked", False)
    headers = {name.replace("_", "-"): value for name, value in how.items()}
    headers |= {"Content-Type": kind} if kind else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        method = "GET" if body is None else "POST"
        connection.request(method, path, body, headers, encode_chunked=chunked)
        answer = connection.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return Said(answer.status, named, answer.read())
    finally:
        connection.close()


def file_of(faces: int = 1, **how) -> bytes:
    """A PNG file with so many toy faces."""
    return encoded(draw(faces, **how))


def multipart(*files: bytes) -> tuple[bytes, str]:
    """A body of files and its type."""
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n%s\r\n'
        % file
        for file in files
    ]
    return b"".join(parts) + b"--b--\r\n", "multipart/form-data; boundary=b"


def in_json(*files: bytes) -> tuple[bytes, str]:
    """One file as ``image``, several as ``images``."""
    texts = [base64.b64encode(file).decode() for file in files]
    given = {"image": texts[0]} if len(texts) == 1 else {"images": texts}
    return json.dumps(given).encode(), "application/json"
