"""What enemies of a server or a page on loopback try: one function each, a try at a time.

Each takes a `Target` and a random generator, and returns what was answered and should not have
been, or None.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from corrupt import corrupted
from honest import picture
from inputs import bombs

logging.getLogger("websockets").setLevel(logging.CRITICAL)  # it tells of each broken line
PATIENCE = 60.0  # seconds for an answer; bombs are looked at
SHORT = 2.0  # seconds for one that need not come
FOREIGN = ("evil.example", "localhost.evil.example", "127.0.0.1.nip.example", "0.0.0.0", "[::]")
SECRET = b"root:"  # in /etc/passwd


@dataclass(frozen=True)
class Target:
    """A server: ``serve`` or ``page``, where it is, and its token."""

    kind: str
    host: str
    port: int
    token: str = ""

    @cached_property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    def say(self, sent: bytes, patience: float = PATIENCE) -> bytes:
        """Send bytes on a new connection; all that comes back until it is closed, or in time."""
        answer = b""
        with socket.create_connection((self.host, self.port), patience) as line:
            with suppress(OSError):
                line.sendall(sent)
            with suppress(OSError):
                while more := line.recv(1 << 16):
                    answer += more
        return answer

    def ask(self, path: str = "", body: bytes | None = None, patience=PATIENCE, **headers) -> bytes:
        """A whole request; a header is left out where it is None."""
        path = path or {"serve": "/model", "page": "/about"}[self.kind]
        told = {"Host": self.name, "Connection": "close", **headers}
        if body is not None:
            told = {"Content-Length": str(len(body)), **told}
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1"]
        lines += [f"{name.replace('_', '-')}: {of}" for name, of in told.items() if of is not None]
        return self.say(
            "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b""), patience
        )

    def handshake(self, query: str = "", **headers) -> bytes:
        """The page's websocket."""
        key = base64.b64encode(os.urandom(16)).decode()
        told = {
            **{"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"},
            **{"Sec_WebSocket_Key": key, **headers},
        }
        return self.ask(f"/look{query}", patience=SHORT, **told)


def status_of(answer: bytes) -> int:
    """The status of an HTTP answer; 0 where there is none."""
    words = answer.split(b" ", 2)
    return int(words[1]) if answer.startswith(b"HTTP/1.1 ") and words[1].isdigit() else 0


def _must_be_refused(answer: bytes, what: object) -> str | None:
    status = status_of(answer)
    is_refused = 400 <= status < 500
    return None if is_refused else f"{what!r:.200} is answered: {answer[:200]!r}"


def foreign_origin(target: Target, rng: np.random.Generator) -> str | None:
    """A page of another site asks behind its reader's back."""
    other = str(rng.choice([*FOREIGN, f"127.0.0.1:{target.port + 1}", f"{target.name}.evil"]))
    origin = str(rng.choice([f"http://{other}", f"https://{other}", "null", "file://", ""]))
    if target.kind == "page":
        return _must_be_refused(target.handshake(Origin=origin), origin)
    return _must_be_refused(target.ask("/analyze", picture("PNG"), Origin=origin), origin)


def foreign_host(target: Target, rng: np.random.Generator) -> str | None:
    """DNS rebinding: another site's name leads here."""
    host = str(rng.choice([*FOREIGN, "localhost@evil.example", "localhost.", "evil.example#", ""]))
    host += str(rng.choice(["", f":{target.port}"]))
    if rng.random() < 0.5 and target.kind == "page":
        answer = target.handshake(Host=host, Origin=f"http://{host}")
    else:
        path = {"serve": ("/", "/model", "/health"), "page": ("/", "/about", "/page.js")}
        answer = target.ask(str(rng.choice(path[target.kind])), Host=host)
    return _must_be_refused(answer, host)


def without_token(target: Target, rng: np.random.Generator) -> str | None:
    """The token is missing, wrong, cut, doubled, in another place."""
    token = target.token
    place = int(rng.integers(len(token)))
    other = token[:place] + ("x" if token[place] != "x" else "y") + token[place + 1 :]
    wrong = str(rng.choice(["", other, token[:place], token + token, token.swapcase(), "é", "%00"]))
    if target.kind == "page":
        query = str(
            rng.choice(["", f"?token={wrong}", f"?Token={token}", f"?token={wrong}&token={other}"])
        )
        if rng.random() < 0.5:
            return _must_be_refused(target.handshake(query), query)
        return _must_be_refused(target.ask(f"{rng.choice(['/', '/about'])}{query}"), query)
    said = str(rng.choice([f"Bearer {wrong}", f"Basic {token}", token, f"Bearer{token}", ""]))
    how = {"Authorization": said} if rng.random() < 0.8 else {"Cookie": f"token={token}"}
    body = picture("PNG") if rng.random() < 0.5 else None
    return _must_be_refused(target.ask("/analyze" if body else "/model", body, **how), how)


PATHS = ("../", "..%2f", "%2e%2e/", "..\\", "..%5c", "....//", "%252e%252e/", "..;/", "..%c0%af")


def traversal(target: Target, rng: np.random.Generator) -> str | None:
    """A path that leads out of the folder of the page."""
    up = str(rng.choice(PATHS)) * int(rng.integers(1, 12))
    begin = str(rng.choice(["/", "//", "/page.js/", "/page/", "/static/", "file:///"]))
    end = str(rng.choice(["etc/passwd", "web.py", "app.py", "__init__.py", "etc/passwd%00.js"]))
    answer = target.ask(f"{begin}{up}{end}")
    got = status_of(answer) == 200 or SECRET in answer or b"import " in answer
    return f"{begin}{up}{end}: {answer[:200]!r}" if got else None


def headers(target: Target, rng: np.random.Generator) -> str | None:
    """Many, long or odd headers, or a long path."""
    size = int(2 ** rng.uniform(10, 22))
    first = f"GET / HTTP/1.1\r\nHost: {target.name}\r\nConnection: close\r\n".encode()
    floods = (
        lambda: first + b"a: b\r\n" * (size // 6),
        lambda: first + b"a: " + b"x" * size + b"\r\n",
        lambda: b"GET /" + b"x" * size + b" HTTP/1.1\r\n" + first.split(b"\n", 1)[1],
        lambda: first + rng.integers(0, 256, min(size, 9000), np.uint8).tobytes(),
        lambda: first + b"Host: evil.example\r\n",
        lambda: first + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nffffffffff\r\n",
        lambda: first + b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
    )
    answer = target.say(floods[int(rng.integers(len(floods)))]() + b"\r\n", 1)
    return f"{answer[:200]!r}" if status_of(answer) >= 500 else None


def bodies(target: Target, rng: np.random.Generator) -> str | None:
    """Bodies that are broken, or too large, or not what they say."""
    image = picture("PNG")
    _, broken = corrupted(image, picture("JPEG"), rng)
    text = base64.b64encode(image).decode()
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="%s"\r\n\r\n' % (
        b"../../<img src=x onerror=alert(1)>\0.png"
    )
    kinds = {
        "image/png": [broken, b"", b"\0" * 17_000_000],
        "application/json": [
            *(b"[" * 100_000, b'{"image": 1}', b'{"images": ["' + b"A" * 100, b"{}", b"\xff"),
            corrupted(json.dumps({"image": text}).encode(), image, rng)[1],
            json.dumps({"images": [text] * 40}).encode(),
        ],
        "multipart/form-data; boundary=b": [
            *(part + broken + b"\r\n--b--\r\n", part * 1000, b"--b", part + image),
            corrupted(part + image + b"\r\n--b--\r\n", image, rng)[1],
        ],
        "text/html": [image],
    }
    kind = str(rng.choice(list(kinds)))
    body = kinds[kind][int(rng.integers(len(kinds[kind])))]
    length = str(int(rng.choice([len(body), len(body) - 1, 10**12, -1, 2**64])))
    how = {"Content_Type": kind, **({"Content_Length": length} if rng.random() < 0.2 else {})}
    if rng.random() < 0.1:
        how["Content_Encoding"] = "gzip"
    path = str(rng.choice(["/analyze", "/analyze/batch"]))
    answer = target.ask(path, body, 1 if "Content_Length" in how else PATIENCE, **how)
    if status_of(answer) >= 500 or (status_of(answer) == 200 and len(body) > 16_000_000):
        return f"{path} {kind} {body[:60]!r}: {answer[:200]!r}"
    return None


BOMBS = bombs()


def unpacked(target: Target, rng: np.random.Generator) -> str | None:
    """A small file that unpacks to very much."""
    name = str(rng.choice(list(BOMBS)))
    answer = target.ask("/analyze", BOMBS[name], Content_Type="image/png")
    return None if status_of(answer) in (200, 400, 413, 422) else f"{name}: {answer[:200]!r}"


def frames(target: Target, rng: np.random.Generator) -> str | None:
    """Messages on the page's websocket that are broken, too large, or no messages at all."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    jpeg, clock = (
        picture("JPEG"),
        struct.pack("<d", float(rng.choice([0, -1, np.nan, np.inf, 1e300]))),
    )
    name = str(rng.choice(list(BOMBS)))
    said = (
        lambda: clock + jpeg,
        lambda: clock + corrupted(jpeg, BOMBS["text.png"], rng)[1],
        lambda: struct.pack("<d", 0) + BOMBS[name],
        lambda: struct.pack("<d", 0) + _claiming(jpeg, 65500),
        lambda: rng.integers(0, 256, int(rng.integers(0, 5000)), np.uint8).tobytes(),
        lambda: b"x" * (5 << 20),
        lambda: "text" * int(rng.integers(1, 1000)),
        None,
    )[int(rng.integers(8))]
    with connect(f"ws://{target.name}/look", open_timeout=PATIENCE) as line:
        try:
            if said is None:
                line.socket.sendall(rng.integers(0, 256, 400, np.uint8).tobytes())
                line.recv(timeout=PATIENCE)
                return None
            message = said()
            line.send(message)
            if isinstance(message, str):
                return None  # a new source, which has no answer
            found = json.loads(line.recv(timeout=PATIENCE))
        except (ConnectionClosed, OSError):
            return None
        except TimeoutError:
            return f"{message[:60]!r} has no answer"
    is_too_large = len(message) > 4 << 20
    return (
        f"{message[:60]!r}: {found}" if is_too_large or not {"faces", "error"} & {*found} else None
    )


def _claiming(jpeg: bytes, side: int) -> bytes:
    """A JPEG whose head has other numbers of pixels."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", side, side) + jpeg[place + 4 :]


def crowd(target: Target, count: int, seconds: float, first: bytes, drip: bytes = b"") -> int:
    """Connections that say a beginning and then nothing, or a byte a second; how many came in."""
    lines = []
    began = time.monotonic()
    for _ in range(count):
        with suppress(OSError):
            line = socket.create_connection((target.host, target.port), 10)
            line.sendall(first)
            lines.append(line)
    while time.monotonic() < began + seconds:
        time.sleep(1)
        for line in lines if drip else ():
            with suppress(OSError):
                line.send(drip)
    for line in lines:
        line.close()
    return len(lines)


def crowds(target: Target) -> dict[str, tuple[bytes, bytes]]:
    """What they say: at first, and again and again."""
    head = f"POST /analyze HTTP/1.1\r\nHost: {target.name}\r\n".encode()
    return {
        "idle": (b"", b""),
        "slow heads": (b"G", b"E"),
        "slow bodies": (head + b"Content-Length: 9999\r\nContent-Type: image/png\r\n\r\n", b"x"),
        "asked once": (f"GET / HTTP/1.1\r\nHost: {target.name}\r\n\r\n".encode(), b""),
    }


def seconds_of_refusal(target: Target, given: str) -> float:
    """How long a wrong token takes to be refused."""
    began = time.perf_counter()
    if target.kind == "page":
        target.ask(f"/about?token={given}")
    else:
        target.ask(Authorization=f"Bearer {given}")
    return time.perf_counter() - began


ENEMIES = {
    "foreign_origin": (foreign_origin, ("serve", "page")),
    "foreign_host": (foreign_host, ("serve", "page")),
    "without_token": (without_token, ("serve with token", "page with token")),
    "traversal": (traversal, ("serve", "page")),
    "headers": (headers, ("serve", "page")),
    "bodies": (bodies, ("serve",)),
    "unpacked": (unpacked, ("serve",)),
    "frames": (frames, ("page",)),
}
