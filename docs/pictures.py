"""Takes the pictures that show answers anew: `python docs/pictures.py DATA` (the sets of the card).

Each holds the SHA-256 of the model that answered; tests/test_docs.py compares it. Needs Chromium.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from PIL import Image, PngImagePlugin

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from use_browser import Browser
from use_loopback import files_of

from faceattr.model.file import shipped_model
from faceattr.model.runtime import sha256_of

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "faceattr")
DETECTOR = ("--detector", "centerface")


def main(data: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        answer(place, data)
        keep(Image.open(place / "drawn/examples/astronaut.jpg"), "example.jpg")
        keep(Image.open(place / "explain.png"), "explain.png")
        with Browser(Path("/dev/null")) as browser:
            photograph(browser, place)


def answer(place: Path, data: Path) -> None:
    """Write what the pictures show."""
    (place / "examples").symlink_to(ROOT / "examples")
    more = ("--gallery", "gallery.html", "--annotate", "drawn")
    faceattr(place, "label", "examples", "-o", "faces.csv", *more, *DETECTOR)
    faceattr(place, "explain", "shipped", "examples", "-o", "explain.png", *DETECTOR)
    faceattr(place, "export", "shipped", "--to", "web", "-o", "site")
    tasks = {"fer2013": ["expression"], "utkface": ["gender", "age_group"]}
    for name, columns in tasks.items():
        rows = pd.read_csv(data / name / "manifest.csv").query("split == 'val'").dropna()
        rows["path"] = [data.absolute() / name / path for path in rows["path"]]
        rows = rows.sample(600, random_state=0)[["path", "split", *columns]]
        rows.to_csv(place / f"{name}.csv", index=False)
    sets = [f"{name}.csv" for name in tasks]
    faceattr(place, "evaluate", "shipped", *sets, "-o", "report")


def photograph(browser: Browser, place: Path) -> None:
    """The pages, in the browser."""
    with files_of(place) as (url, _):
        keep(page(browser, f"{url}/gallery.html", 760, 600, "light"), "gallery.png")
        keep(page(browser, f"{url}/report/report.html", 1000, 1250, "light"), "report.png")
        desk = page(browser, f"{url}/site/", 1200, 760, "light", bars=True)
        phone = page(browser, f"{url}/site/", 390, 760, "dark")
        both = Image.new("RGB", (desk.width + 24 + phone.width, desk.height), "white")
        both.paste(desk, (0, 0))
        both.paste(phone, (desk.width + 24, 0))
        keep(both, "browser.png")
    web = ("live", "--web", "--port", "8765", "--quiet")
    live = subprocess.Popen([*COMMAND, *web, *DETECTOR])
    try:
        time.sleep(15)
        keep(page(browser, "http://localhost:8765/", 825, 570, "dark"), "live.png")
    finally:
        live.terminate()
        live.wait(30)


def page(
    browser: Browser, url: str, width: int, height: int, scheme: str, *, bars: bool = False
) -> Image.Image:
    """What a window of that size shows; a page that takes pictures has looked at the astronaut."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.do("Emulation.setDeviceMetricsOverride", **size)
    browser.do("Emulation.setScrollbarsHidden", hidden=True)
    wish = {"name": "prefers-color-scheme", "value": scheme}
    browser.do("Emulation.setEmulatedMedia", features=[wish])
    browser.do("Page.navigate", url=url)
    time.sleep(2)
    if not url.endswith("html"):
        browser.wait("!!window.faceattr?.about")
        if bars:
            browser.click("bars")
        browser.give_file("file", ROOT / "examples/astronaut.jpg")
        time.sleep(10)
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        browser.photograph(Path(file.name))
        return Image.open(file.name).convert("RGB")


def faceattr(place: Path, *words: str) -> None:
    subprocess.run([*COMMAND, *words], cwd=place, check=True)


def keep(image: Image.Image, name: str) -> None:
    """Put a picture beside the pages, with the model's hash."""
    model = sha256_of(shipped_model())
    image = image.convert("RGB")
    if name.endswith("png"):
        about = PngImagePlugin.PngInfo()
        about.add_text("model", model)
        image.quantize().save(ROOT / "docs" / name, pnginfo=about, optimize=True)
    else:
        image.save(ROOT / "docs" / name, quality=92, comment=model)
    print(name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
