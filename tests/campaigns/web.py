"""The web page and the server let nobody in: enemies on loopback, beside an honest client.

    python tests/campaigns/web.py --count 500 --seed 1

`faceattr serve` and `faceattr live --web` are started with a model whose classes are called like
HTML. Each kind of enemy tries `count` times, and crowds of twice as many connections ask nothing,
or very slowly, while an honest client asks ten times a second. Exit code 1 where something is
answered that should not be, or an honest client gets no or a wrong answer, or less than `KEPT` of
its rate.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from common import main
from enemies import ENEMIES, Target, crowd, crowds, seconds_of_refusal, status_of
from honest import Honest, picture
from kills import errors_in, start
from scipy.stats import mannwhitneyu
from together import free_port

sys.path.insert(0, str(Path(__file__).parents[1]))

TOKEN = "correct-horse-battery-staple"
CLASSES = ("<img src=x onerror=window.entered=1>", "</script><script>window.entered=1</script>")
KEPT = 0.5  # of an honest client's rate; enemies use the same processors
LONG_ENOUGH = 6.0  # seconds, to know a rate
CROWDED = 20.0  # seconds
TOLD = 1e-3  # seconds by which a nearly right token may be refused later


def make_model(folder: Path) -> Path:
    """A toy whose classes have the names of HTML."""
    import keras
    from conftest import toy_network

    from faceattr.exporting.export import export
    from faceattr.images.crop import CropRule
    from faceattr.model import file as model_file
    from faceattr.tasks import Task

    keras.utils.set_random_seed(0)
    tasks = (Task("mood", CLASSES),)
    model_file.save(
        toy_network(tasks), model_file.Description(tasks, CropRule(48)), folder / "m.keras"
    )
    export(folder / "m.keras", "onnx", folder / "m.onnx")
    return folder / "m.onnx"


@contextmanager
def served(kind: str, folder: Path, model: Path, *, token: bool = False) -> Iterator[Target]:
    """A running server; with a token, the page is on an address that is not this machine's own."""
    port, inside = free_port(), folder / f"{kind}{token}"
    inside.mkdir()
    host = "127.0.0.2" if token and kind == "page" else "127.0.0.1"
    words = ("serve",) if kind == "serve" else ("live", "--web")
    os.environ.pop("FACEATTR_TOKEN", None)
    if token and kind == "serve":
        os.environ["FACEATTR_TOKEN"] = TOKEN
    how = ("--model", str(model), "--detector", "none", "--host", host, "--port", str(port))
    process = start((*words, *how), inside)
    try:
        ends = time.monotonic() + 120
        while "Ctrl-C" not in errors_in(inside) and time.monotonic() < ends:
            time.sleep(0.2)
        time.sleep(1)
        told = re.search(r"token=([\w-]+)", errors_in(inside))
        yield Target(kind, host, port, told[1] if told else TOKEN if token else "")
        if process.poll() is not None or "Traceback" in errors_in(inside):
            raise RuntimeError(f"{kind} has ended, or failed: {errors_in(inside)}")
    finally:
        process.kill()
        process.wait()


def tried(enemy, target: Target, honest: Honest | None, count: int, seed: int) -> dict:
    """One kind of enemy: tries, what was answered, and what the honest client got meanwhile."""
    rng, faults, tries = np.random.default_rng(seed), [], 0
    with beside(honest) as found:
        ends = time.monotonic() + (LONG_ENOUGH if honest else 0)
        while tries < count or time.monotonic() < ends:
            tries += 1
            if fault := enemy(target, rng):
                faults.append(fault)
    found |= {"tries": tries, "answered": len(faults)}
    found["broken"] += faults[:10]
    return found


@contextmanager
def beside(honest: Honest | None) -> Iterator[dict]:
    """A record, with what an honest client gets meanwhile, and the share of it in a quiet time."""
    found: dict = {"broken": []}
    if honest:
        time.sleep(LONG_ENOUGH)
    began = time.monotonic()
    yield found
    if honest:
        ended = time.monotonic()
        honest.wait_past(ended)  # what it asked last may still be on its way
        quiet = honest.between(began - LONG_ENOUGH, began)
        asked = honest.between(began, ended)
        ratio = round(asked.rate / max(quiet.rate, 0.1), 2)
        found |= {"honest_answers": asked.answers, "ratio": ratio, "slowest_s": asked.slowest}
        found |= {"busy": asked.busy} if asked.busy else {}
        if asked.failed or ratio < KEPT:
            found["broken"].append(f"the honest client keeps {ratio}, {asked.failed} failed")


def crowded(target: Target, honest: Honest, said: tuple[bytes, bytes], count: int) -> dict:
    """So many connections that ask nothing."""
    with beside(honest) as found:
        found["tries"] = crowd(target, count, CROWDED, *said)
    return found


def timed(target: Target, count: int, seed: int) -> dict:
    """Whether the time of a refusal tells how much of a token is right."""
    rng = np.random.default_rng(seed)
    near, far = target.token[:-1] + "~", "~" * len(target.token)
    took: dict[str, list[float]] = {near: [], far: []}
    for _ in range(count):
        for given in rng.permutation([near, far]):
            took[str(given)].append(seconds_of_refusal(target, str(given)))
    later = float(np.median(took[near]) - np.median(took[far]))
    p = float(mannwhitneyu(took[near], took[far]).pvalue)
    broken = [f"{later} s later"] * (abs(later) > TOLD and p < 1e-3)
    return {
        "tries": 2 * count,
        "later_us": round(1e6 * later, 1),
        "p": round(p, 3),
        "broken": broken,
    }


def shown(target: Target, folder: Path) -> dict:
    """Whether a browser runs what a class or a file is called; without one nothing is tried."""
    import pytest
    from use_browser import Browser

    try:
        opened = Browser(Path("/dev/null"))
    except pytest.skip.Exception:
        return {"tries": 0, "broken": []}
    with opened as browser:
        file = folder / "<img src=x onerror=window.entered=1>.png"
        file.write_bytes(picture("PNG"))
        browser.open(f"http://{target.name}/")
        browser.give_file("file", file)
        browser.wait("window.faceattr.answer?.faces[0]?.answers.mood.label")
        time.sleep(1)
        entered = browser.ask("window.entered || document.querySelectorAll('img[src=x]').length")
        return {"tries": 1, "broken": ["the name of a class or a file is run"] * bool(entered)}


def run(count: int, seed: int, only: Collection[str] = ()) -> dict:
    """The campaign; by server and enemy what was counted."""
    found: dict[str, dict] = {}

    def note(target: str, name: str, record: dict) -> None:
        found[f"{target}: {name}"] = record
        print(target, name, json.dumps(record), file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory("-faceattr", ignore_cleanup_errors=True) as given:
        folder = Path(given)
        model = make_model(folder)
        for kind in ("serve", "page"):
            with (
                served(kind, folder, model) as target,
                Honest(kind, target.host, target.port) as honest,
            ):
                time.sleep(3)
                for name, (enemy, at) in ENEMIES.items():
                    if kind in at and (not only or name in only):
                        note(kind, name, tried(enemy, target, honest, count, seed))
                for name, said in crowds(target).items():
                    if not only or name in only:
                        note(kind, name, crowded(target, honest, said, 2 * count))
                if kind == "page" and (not only or "shown" in only):
                    note(kind, "shown", shown(target, folder))
            with served(kind, folder, model, token=True) as target:
                if not only or "without_token" in only:
                    enemy, _ = ENEMIES["without_token"]
                    note(kind, "without_token", tried(enemy, target, None, count, seed))
                if not only or "timed" in only:
                    if status_of(target.ask(*_right(target)[0], **_right(target)[1])) != 200:
                        raise RuntimeError("The right token is refused.")
                    note(kind, "timed", timed(target, count, seed))
    return found


def _right(target: Target) -> tuple[tuple, dict]:
    if target.kind == "page":
        return (f"/about?token={target.token}",), {}
    return (), {"Authorization": f"Bearer {target.token}"}


if __name__ == "__main__":
    sys.exit(
        main(
            __doc__,
            run,
            500,
            only=", ".join((*ENEMIES, *crowds(Target("", "", 0)), "shown", "timed")),
        )
    )
