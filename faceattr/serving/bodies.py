"""Images out of a request's body, bounded: multipart, JSON with base64, or the file itself."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from faceattr.serving.limits import Limits

# It would write bytes of the bodies that it refuses to standard error.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

RETRY = {"Retry-After": "1"}  # seconds; a queue of 64 is through in about that time
BASE64_OF_URLS = str.maketrans("-_", "+/")
Content = bytes | ValueError
NO_MULTIPART = "The multipart body cannot be read:"
KINDS = "multipart/form-data, application/json or image/*"


class Refusal(Exception):
    """A request that is not answered: status, one sentence, headers."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers


@dataclass
class HeldBytes:
    """Bytes of all bodies that are in memory; with more than `most` the newest are turned away."""

    most: int
    count: int = 0


class Body:
    """A request's body, counted as long as the ``with`` block lasts."""

    def __init__(self, held: HeldBytes) -> None:
        self._held, self._content, self.size = held, bytearray(), 0

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.count -= self.size

    async def fill(self, request: Request, most: int) -> None:
        """Read it, whether or not it tells its length; Refusal where it is larger than `most`."""
        too_large = Refusal(413, f"The body has more than {most:,} bytes (--max-bytes).")
        told = request.headers.get("content-length", "")
        if told.isdigit() and int(told) > most:
            raise too_large
        async for chunk in request.stream():
            if self.size + len(chunk) > most:
                raise too_large
            if self._held.count + len(chunk) > self._held.most:
                raise Refusal(429, "Too many large requests at once: come back later.", RETRY)
            self._content += chunk
            self.size += len(chunk)
            self._held.count += len(chunk)

    def take(self) -> bytes:
        """All of it, once."""
        content, self._content = bytes(self._content), bytearray()
        return content


async def images_of(request: Request, body: bytes, limits: Limits, one: bool) -> list[Content]:
    """What is in the image files of a request, which is about `one` image or about several.

    Of several, one that cannot be had is a ValueError among the others.

    Refusal: There is none, there are too many, or it is something else.
    """
    images: list[Content]
    most = 1 if one else limits.max_images
    where = "/analyze/batch takes several" if one else "--max-images"
    too_many = Refusal(413, f"At most {most} may be in this request, more are ({where}).")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        images = await asyncio.to_thread(_of_json, body, one)
    elif kind == "multipart/form-data":
        images = [*await _of_multipart(request, body, most, too_many)]
    elif kind.startswith("image/") or kind == "application/octet-stream":
        images = [body]
    else:
        raise Refusal(415, f"A request is of type {KINDS}. Received: {kind[:80] or 'no type'}")
    if not body or not images or (one and not all(images)):
        raise Refusal(400, "There is no image in the request, or an empty one.")
    if len(images) > most:
        raise too_many
    if one and isinstance(images[0], ValueError):
        raise Refusal(400, str(images[0]))
    return images


def _of_json(body: bytes, one: bool) -> list[Content]:
    name, example = ("image", '"…"') if one else ("images", '["…", "…"]')
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "The body is no JSON.") from None
    if not isinstance(given, dict) or set(given) != {name}:
        raise Refusal(400, f'JSON looks like {{"{name}": {example}}}, files in base64.')
    texts = [given[name]] if one else given[name]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refusal(400, f'"{name}" looks like {example}, files in base64.')
    return [_decoded(text) for text in texts]


def _decoded(text: str) -> Content:
    content = text.partition(",")[2] if text.startswith("data:") else text  # as browsers give it
    # Lines as the command base64 breaks them; base64url, mostly without the signs at its end.
    content = "".join(content.split()).translate(BASE64_OF_URLS)
    try:
        return base64.b64decode(content + "=" * (-len(content) % 4), validate=True)
    except ValueError:
        sentence = f"An image in JSON is a file's content in base64. Received: {text[:40]!r}"
        return ValueError(sentence)


class _InMemory(MultiPartParser):
    spool_max_size = sys.maxsize  # nothing is ever put on a disk


async def _of_multipart(request: Request, body: bytes, most: int, too_many: Refusal) -> list[bytes]:
    _, told = parse_options_header(request.headers["content-type"])
    # The parser takes the parts that are whole, and says nothing of one that is not.
    if (boundary := told.get(b"boundary")) and b"--%s--" % boundary not in body:
        raise Refusal(400, f"{NO_MULTIPART} its last line is missing, it was cut off.")

    async def stream() -> AsyncIterator[bytes]:
        yield body

    parser = _InMemory(request.headers, stream(), max_files=most, max_fields=0)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:
        reason = getattr(error, "message", str(error))
        if reason.startswith("Too many files"):
            raise too_many from None
        if reason.startswith("Too many fields"):
            raise Refusal(400, "Every part is a file: curl -F image=@photo.jpg") from None
        raise Refusal(400, f"{NO_MULTIPART} {reason}") from None
    try:
        files = (part for _, part in form.multi_items() if isinstance(part, UploadFile))
        return [await file.read() for file in files]
    finally:
        await form.close()
