"""Serve one request with the faceattr of this environment, in which TensorFlow must not be."""

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

NOT_HERE = ("tensorflow", "keras", "av", "pandas", "scipy", "sklearn", "matplotlib", "skimage")
SECONDS = 60


def main(photograph: str) -> None:
    there = [name for name in NOT_HERE if importlib.util.find_spec(name)]
    if there:
        raise SystemExit(f"{', '.join(there)} must not be in this environment.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    words = ["serve", "--port", url.rpartition(":")[2], "--offline"]
    process = subprocess.Popen([Path(sys.executable).with_name("faceattr"), *words])
    try:
        wait_for(f"{url}/health", process)
        found = post(f"{url}/analyze", Path(photograph).read_bytes())
        about = json.loads(get(f"{url}/model"))
        pages = [get(f"{url}/{name}") for name in ("", "page.js", "page.css", "openapi.json")]
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    if code != 0 or len(found["faces"]) != 1 or about["engine"] != "litert" or not all(pages):
        raise SystemExit(f"The server ended with {code} after {found} of {about}.")
    print(f"served {found['faces'][0]['box']} by {about['engine']} in {about['precision']}")


def wait_for(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("The server does not answer.")


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def post(url: str, content: bytes) -> dict:
    request = urllib.request.Request(url, content, {"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


main(sys.argv[1])
