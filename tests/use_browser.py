"""Headless Chromium with a camera that plays a file, driven over its DevTools protocol.

Skips where chromium (Debian package) or websockets (`faceattr[web]`) are missing.
"""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest
from use_loopback import wait_for


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, camera: Path) -> None:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if not program:
            pytest.skip("needs chromium (Debian package)")
        client = pytest.importorskip("websockets.sync.client", reason="needs faceattr[web]")
        self._folder = tempfile.TemporaryDirectory()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        flags += ["--disable-background-networking", "--no-first-run", "--window-size=1300,860"]
        flags += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        flags += [f"--use-file-for-fake-video-capture={camera}"]
        flags += [f"--user-data-dir={self._folder.name}", "about:blank"]
        self._process = subprocess.Popen(
            [program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._stack = ExitStack()
        self._numbers = itertools.count(1)
        self.errors: list[str] = []
        self._socket = self._connected(client.connect)
        for domain in ("Runtime", "Log", "Page", "DOM"):
            self.do(f"{domain}.enable")

    def _connected(self, connect):
        import urllib.request

        port_file = Path(self._folder.name, "DevToolsActivePort")
        wait_for(port_file.exists, 60)
        wait_for(lambda: len(port_file.read_text().splitlines()) == 2, 10)
        port = port_file.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            pages = json.loads(answer.read())
        url = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        return self._stack.enter_context(connect(url, max_size=None))

    def do(self, method: str, **parameters):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            self._note(message)
            if message.get("id") == number:
                return message["result"]

    def _note(self, message) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"])[:500])
        if message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])
        if message.get("method") == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.errors.append(json.dumps(parameters["args"]))

    def open(self, url: str) -> None:
        self.do("Page.navigate", url="about:blank")  # what the page before still says is not this
        self.errors.clear()
        self.do("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && !!window.faceattr?.about")

    def ask(self, expression: str):
        how = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        result = self.do("Runtime.evaluate", expression=expression, **how)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression: str, patience: float = 30):
        return wait_for(lambda: self.ask(expression), patience, expression)

    def click(self, element: str) -> None:
        self.ask(f"document.getElementById('{element}').click()")

    def give_file(self, element: str, path: Path) -> None:
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector=f"#{element}")["nodeId"]
        self.do("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def photograph(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot")["data"]))

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._process.terminate()
        self._process.wait(timeout=20)
        shutil.rmtree(self._folder.name, ignore_errors=True)
        self._folder.cleanup()


def camera_of(folder: Path, images: Iterable[np.ndarray]) -> Path:
    """A file that plays RGB ``uint8`` images as a browser's camera."""
    path = folder / "camera.mjpeg"
    jpegs = (cv2.imencode(".jpg", image[:, :, ::-1])[1].tobytes() for image in images)
    path.write_bytes(b"".join(jpegs))
    return path
