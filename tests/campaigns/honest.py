"""An honest client in a process of its own: it asks ten times a second and writes a line each time.

A line has the moment at which it asked and the seconds until the right answer; or "busy" where it
was told to come back, or nothing where it got no right answer. It ends with its standard input.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection
from pathlib import Path

from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[1]))
from use_loopback import wait_for

BEAT = 0.1  # seconds


@cache
def picture(kind: str) -> bytes:
    """A small photograph of a face."""
    file = io.BytesIO()
    Image.fromarray(data.astronaut()[0:200, 120:320]).resize((96, 96)).save(file, kind)
    return file.getvalue()


@dataclass(frozen=True)
class Asked:
    """What the client got in a time: answers, how often it was told to come back, or nothing."""

    answers: int
    rate: float
    busy: int
    failed: int
    slowest: float


class Honest:
    """The client's process; a context manager."""

    def __init__(self, kind: str, host: str, port: int) -> None:
        self._command = [sys.executable, __file__, kind, host, str(port)]
        self._lines: list[str] = []

    def __enter__(self) -> Honest:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(self._command, text=True, **pipes)
        self._reader = threading.Thread(target=lambda: self._lines.extend(self._process.stdout))
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def wait_past(self, moment: float) -> None:
        """Until it has an answer to something that it asked later, or a minute."""
        with suppress(TimeoutError):  # `between` then counts a client without answers
            wait_for(lambda: any(at >= moment for at, _ in self._asked()), seconds=60)

    def between(self, began: float, ended: float) -> Asked:
        """What it got of what it asked in that time."""
        took = [seconds for moment, seconds in self._asked() if began <= moment < ended]
        good = [seconds for seconds in took if isinstance(seconds, float)]
        rate, slowest = len(good) / (ended - began), round(max(good, default=0), 3)
        return Asked(len(good), rate, took.count("busy"), took.count(None), slowest)

    def _asked(self) -> list[list]:
        return [json.loads(line) for line in list(self._lines)]


def of_server(host: str, port: int):
    """Asks the server about a picture, by a new connection each time."""
    body = picture("PNG")

    def ask() -> bool | str:
        with closing(HTTPConnection(host, port, timeout=30)) as line:
            line.request("POST", "/analyze", body, {"Content-Type": "image/png"})
            answer = line.getresponse()
            if answer.status in (429, 503):
                return "busy"
            return answer.status == 200 and bool(json.loads(answer.read())["faces"])

    return ask


def of_page(host: str, port: int):
    """Sends frames as the page does, on one line."""
    from websockets.sync.client import connect

    frame, lines, stack = struct.pack("<d", 0) + picture("JPEG"), [], ExitStack()

    def ask() -> bool:
        if not lines:
            lines.append(stack.enter_context(connect(f"ws://{host}:{port}/look")))
        try:
            lines[0].send(frame)
            return bool(json.loads(lines[0].recv(timeout=30))["faces"])
        except Exception:
            lines.clear()
            raise

    return ask


def main(kind: str, host: str, port: str) -> None:
    ask = {"serve": of_server, "page": of_page}[kind](host, int(port))
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    due = time.monotonic()
    while not ended.wait(max(0.0, due - time.monotonic())):
        began, is_right = time.monotonic(), False
        with suppress(Exception):
            is_right = ask()
        took = time.monotonic() - began
        told = is_right if is_right == "busy" else took if is_right else None
        print(json.dumps([began, told]), flush=True)
        due = max(due + BEAT, time.monotonic())  # a beat that is missed is lost


if __name__ == "__main__":
    main(*sys.argv[1:])
