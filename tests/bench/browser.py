"""The page for the browser beside @vladmandic/face-api (npm), in one Chromium.

    npm install @vladmandic/face-api @tensorflow/tfjs-backend-wasm
    python tests/bench/browser.py [MODEL] --npm FOLDER          (where npm installed)

Both find the one face of a frame of 1280 x 720 pixels (scikit-image's astronaut) and describe it,
again and again, on one thread of WebAssembly. The time is the thread's own, so that whatever else
the machine does hardly counts. Megabytes are what a first visit loads from a simple server;
face-api's would be fewer where a server compresses its script.
"""

from __future__ import annotations

import http.server
import json
import shutil
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[1]))

from use_browser import Browser
from use_loopback import website

from faceattr.detection.centerface import CenterFace
from faceattr.exporting.site import export_site
from faceattr.model.file import path_of
from faceattr.model.runtime import sha256_of

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from figures import add_write, of_detectors, record

COLUMNS = ["page", "faces found", "ms a frame", "frames/s", "MB of a first visit"]
FILES = {"/model-": "`model-*.onnx.gz`, the model", "/runtime-": "`runtime-*`, ONNX Runtime Web"}
FILES |= {"/centerface-": "`centerface-*.onnx.gz`, which finds the faces"}
FILES |= {"/": "the rest: scripts and styles"}
FACE_API = "node_modules/@vladmandic/face-api"
WASM = "node_modules/@tensorflow/tfjs-backend-wasm/dist"
PAGE = f"""<!doctype html><script src="{FACE_API}/dist/face-api.js"></script>
<script>window.faceattr = {{ about: true }};</script>"""
PICTURE = """
  const bitmap = await createImageBitmap(await (await fetch("frame.png")).blob());
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
"""
OURS = f"""(async () => {{ {PICTURE}
  const {{ crop }} = await import("./crop.js"), {{ openNetworks }} = await import("./model.js");
  const about = faceattr.about, networks = await openNetworks(about);
  window.look = async () => {{
    const image = pen.getImageData(0, 0, canvas.width, canvas.height);
    const faces = await networks.detect(image);
    for (const {{ box, landmarks }} of faces)
      await networks.predict(new Uint8Array(crop(image, box, about.crop, landmarks).data), 1);
    return faces.length;
  }};
  return await look();
}})()"""
THEIRS = f"""(async () => {{ {PICTURE}
  faceapi.tf.setWasmPaths("{WASM}/");
  await faceapi.tf.setBackend("wasm");
  await faceapi.tf.ready();
  const finder = "DETECTOR", nets = faceapi.nets;
  for (const net of [nets[finder], nets.faceExpressionNet, nets.ageGenderNet])
    await net.loadFromUri("{FACE_API}/model");
  const options = finder === "tinyFaceDetector"
    ? new faceapi.TinyFaceDetectorOptions() : new faceapi.SsdMobilenetv1Options();
  window.look = async () =>
    (await faceapi.detectAllFaces(canvas, options).withFaceExpressions().withAgeAndGender()).length;
  return await look();
}})()"""


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="shipped")
    parser.add_argument("--npm", type=Path, help="where face-api is installed (left out)")
    parser.add_argument("--frames", type=int, default=20)
    add_write(parser)
    given = parser.parse_args()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        frame = np.full((720, 1280, 3), 190, "uint8")
        frame[104:616, 384:896] = data.astronaut()[:, :, ::-1]
        cv2.imwrite(str(Path(folder, "frame.png")), frame)
        site = Path(folder, "site")
        export_site(given.model, site)
        shutil.copy(Path(folder, "frame.png"), site)
        with Browser(Path(folder, "frame.png")) as browser:
            row, loaded = measured(browser, site, OURS, given.frames)
            rows.append(["faceattr", *row])
            for finder in ("tinyFaceDetector", "ssdMobilenetv1") if given.npm else ():
                their = Path(folder, finder)
                their.mkdir()
                (their / "index.html").write_text(PAGE)
                (their / "node_modules").symlink_to((given.npm / "node_modules").resolve())
                shutil.copy(Path(folder, "frame.png"), their)
                code = THEIRS.replace("DETECTOR", finder)
                row, _ = measured(browser, their, code, given.frames)
                rows.append([f"face-api, {finder}", *row])
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row)
    Console(width=100).print(table)
    note_all(given, rows, loaded)


def note_all(given: Namespace, rows: list[list[str]], loaded: dict[str, int]) -> None:
    of = {"model": sha256_of(path_of(given.model)), **of_detectors(CenterFace())}
    files = [
        [what, f"{sum(loaded.pop(path) for path in list(loaded) if kind in path) / 1e6:.1f}"]
        for kind, what in FILES.items()
    ]
    record(given.write, "browser_files", ["file", "megabytes"], files, of)
    if given.npm:
        about = json.loads((given.npm / FACE_API / "package.json").read_text())
        of["face-api"] = about["version"]
    record(given.write, "browser", COLUMNS, rows, of)


def measured(
    browser: Browser, folder: Path, begin: str, frames: int
) -> tuple[list[str], dict[str, int]]:
    """Faces in the frame, the median time, frames a second, megabytes; and the files loaded."""
    sizes: dict[str, int] = {}
    with website(Weighing, directory=folder, sizes=sizes) as (url, _):
        browser.open(url)
        faces = browser.ask(begin)
        spent = [seconds_of(browser) for _ in range(frames)]
        loaded = {path: size for path, size in sizes.items() if path != "/frame.png"}
    milliseconds = 1000 * float(np.median(spent))
    megabytes = sum(loaded.values()) / 1e6
    speed = [f"{milliseconds:.0f}", f"{1000 / milliseconds:.1f}"]
    return [str(faces), *speed, f"{megabytes:.1f}"], loaded


def seconds_of(browser: Browser) -> float:
    """The time of the page's thread for one look at the frame."""
    before = thread_time(browser)
    browser.ask("look()")
    return thread_time(browser) - before


def thread_time(browser: Browser) -> float:
    browser.do("Performance.enable", timeDomain="threadTicks")
    found = browser.do("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in found if one["name"] == "TaskDuration")


class Weighing(http.server.SimpleHTTPRequestHandler):
    """Python's own server, which notes by path the bytes that were asked for."""

    def __init__(self, *given, sizes: dict[str, int], **how) -> None:
        self._sizes = sizes
        super().__init__(*given, **how)

    def send_head(self):
        file = super().send_head()
        if hasattr(file, "fileno"):
            path = self.path.split("?")[0]  # the bench asks for modules without the page's mark
            self._sizes[path] = Path(self.translate_path(self.path)).stat().st_size
        return file


if __name__ == "__main__":
    main()
