"""What the pages say is so: their commands run, their figures are the shipped model's, the site
builds."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import chdir
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from use_pages import PAGES, ROOT, blocks, commands, models, outputs, prepare, programs

import faceattr
from faceattr.cli import main
from faceattr.detection import yunet
from faceattr.detection.centerface import CenterFace
from faceattr.model import file as model_file
from faceattr.serving.limits import Limits

# What is not run here, by the beginning of the command, and why. `faceattr` commands among it are
# parsed all the same.
NOT_RUN = {
    "python3 -m venv": ".ci/run does",
    "source .venv": "the same",
    "pip ": "changes the installation; .ci/run and tests/test_package.py install",
    ".venv/bin/": ".ci/run does",
    "faceattr doctor": "tests/test_doctor.py runs it",
    "faceattr live --web": "serves until it is stopped; tests/test_web.py",
    "faceattr live clip.mp4 --bars": "needs a screen; tests/test_cli_live.py has one",
    "faceattr compare": "many trainings, each a process; tests/test_compare.py trains toys",
    "python examples/digits/make.py": "8,000 pictures for a training of minutes; its parts are "
    "in tests/test_examples.py",
    "faceattr train digits/": "the same",
    "faceattr label digits/": "the same",
    "python examples/digits/score.py": "the same",
    "python examples/is_face/make.py": "needs FER+ and photographs; tests/test_examples.py",
    "faceattr train mood=my_photos/ -o mood.keras --find-faces": "needs photographs of people; "
    "tests/test_face_finder.py",
    "faceattr export old.keras --embed -o": "the line above it is run",
    "faceattr train expression=labels.csv -o my.keras --map expression:joy": "the same",
    "faceattr train --add is_face": "needs what it makes",
    "faceattr train is_face=": "the same",
    "python tests/bench/": "needs the data sets of the card",
    "python docs/figures.py": "writes into the pages; a test below compares them",
    "python docs/pictures.py": "takes the pictures anew; the same",
    "python examples/run_notebook.py": "tests/test_notebook.py runs it",
    "faceattr heads shipped -o mine.keras --prior": "twenty seconds of Keras; tests/test_heads.py",
}
# Other machines and servers: test_serve, test_cluster, test_hub, test_site, test_devices.
ELSEWHERE = re.compile(
    r"faceattr (serve|push)|--engine ray|hf://|s3://|--to web|--web-runtime|https?://|KERAS_BACKEND"
    r"|^(docker|ray|curl|aws|export|git|hf) |KERAS_DIST|import (requests|ray)|pyspark"
    r"|http\.server|HF_"
)
IS_CAMERA = re.compile(r"^faceattr live$|live\.watch\(0\)")  # no camera here
QUICK = ["--epochs", "frozen=1,finetune=0", "--augment-repeats", "0"]  # appended to trainings
SHOWN = {"docs/start-label.md": 3, "docs/start-live.md": 3}  # pages, and outputs on them


def why_not_run(command):
    if IS_CAMERA.search(command):
        return "needs a camera"
    if ELSEWHERE.search(command):
        return "another machine or server"
    return next((why for start, why in NOT_RUN.items() if command.startswith(start)), None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    place = tmp_path_factory.mktemp("docs")
    prepare(place)
    models(place)
    return place


@pytest.fixture
def folder(request, prepared):
    """Where a page's commands run, one after the other."""
    code, page = (request.node.callspec.params.get(name) for name in ("code", "page"))
    place = prepared.parent / Path(code.page if code else page).stem
    if not place.exists():
        shutil.copytree(prepared, place, copy_function=os.link)
        if place.name == "model_file":  # a page about a file that has everything inside
            (place / "faces.keras").unlink()
            os.link(model_file.shipped_model(), place / "faces.keras")
    return place


@pytest.fixture
def quick(prepared, monkeypatch):
    """Learning starts from a small file, is short, and keeps its caches to itself."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(prepared / "cache"))
    monkeypatch.setattr("faceattr.training.batches.FEWEST_STEPS", 2)
    monkeypatch.setattr(
        model_file, "shipped_model", lambda name="shipped": prepared / "start.keras"
    )


def run(command):
    """Run a line of a page in this process if it is faceattr's, else in one of its own."""
    words = shlex.split(command)
    if words[0] != "faceattr":
        words[0] = sys.executable if words[0] == "python" else words[0]
        return subprocess.run(words, capture_output=True, timeout=120).returncode
    for flag, name in pairwise(words):
        if flag == "-o" and Path(name).is_file() and "--overwrite" not in words:
            Path(name).unlink()  # prepared for other pages
    return main(words[1:] + QUICK if words[1] == "train" else words[1:])


@pytest.mark.slow
@pytest.mark.parametrize("code", [c for c in commands() if not why_not_run(c.text)], ids=str)
def test_a_command_of_a_page_runs(code, folder, quick):
    with chdir(folder):
        assert run(code.text) == 0


@pytest.mark.parametrize("code", [c for c in commands() if why_not_run(c.text)], ids=str)
def test_a_command_that_is_not_run_is_parsed(code):
    from faceattr.cli import _parser

    if code.text.startswith("faceattr "):
        assert _parser().parse_args(shlex.split(code.text)[1:]).command


def test_no_reason_is_left_over():
    texts = [code.text for code in commands()]
    assert not [start for start in NOT_RUN if not any(text.startswith(start) for text in texts)]


@pytest.mark.slow
@pytest.mark.parametrize("code", [c for c in programs() if not why_not_run(c.text)], ids=str)
def test_a_program_of_a_page_runs(code, folder, quick):
    crops = np.zeros((2, 48, 48, 3), "uint8")
    contents = [(folder / name).read_bytes() for name in ("a.jpg", "b.jpg")]
    given = {
        "faceattr": faceattr,
        "image": np.zeros((90, 90, 3), "uint8"),
        "paths": ["a.jpg", "b.jpg"],
    }
    with chdir(folder):
        exec(compile(code.text, code.page, "exec"), {**given, "contents": contents, "crops": crops})


def measured(text):
    """Words alone: what a machine measures differs."""
    return re.sub(r"[\d.:%]+", "N", re.sub(r"(?m)^  speed .*\n|^.*frames/s.*\n", "", text)).split()


def probabilities(text):
    return [float(number) for number in re.findall(r"\b0\.\d+\b", text)]


def test_the_table_that_a_page_shows_is_that_of_the_start_page():
    table, start = (
        (ROOT / f"docs/{name}.md").read_text("utf-8") for name in ("table", "start-label")
    )
    answers = [re.findall(r"happy +(0\.\d{4})", text) for text in (table, start)]
    assert answers[0] == answers[1] and len(answers[0]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("page", "count"), SHOWN.items())
def test_the_output_that_a_page_shows_is_what_comes_out(page, count, folder):
    shown = outputs(ROOT / page)
    assert len(shown) == count
    for command, expected in shown.items():
        words = [sys.executable, *as_program(command)]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
        assert set(measured(expected)) <= set(measured(done.stdout + done.stderr)), command
        assert probabilities(expected) == pytest.approx(probabilities(done.stdout), abs=0.02)


def as_program(command):
    """The arguments of Python that do what a block of a page does, with the detector that is
    always there."""
    if command.startswith("faceattr"):
        program = "import sys, faceattr.cli; sys.exit(faceattr.cli.main())"
        how = ["--overwrite", "--detector", "centerface"]
        return ["-c", program, *shlex.split(command)[1:], *how]
    return shlex.split(command)[1:] if command.startswith("python ") else ["-c", command]


def load_figures():
    spec = spec_from_file_location("figures", ROOT / "docs/figures.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_behind_the_proxy_of_the_page_the_server_itself_refuses():
    ((_, block),) = blocks("nginx")
    size, seconds = (int(re.search(rf"{of} (\d+)", block)[1]) for of in ("_size", "read_timeout"))
    assert size * 2**20 <= Limits().max_bytes and seconds > Limits().seconds


def test_the_figures_on_the_pages_are_those_of_the_files():
    figures = load_figures()
    behind = [
        str(page)
        for page in PAGES
        if figures.filled(page.read_text("utf-8")) != page.read_text("utf-8")
    ]
    assert not behind, "run: python docs/figures.py"


def test_the_figures_are_of_the_model_and_detectors_of_today():
    recorded = json.loads((ROOT / "docs/figures.json").read_text("utf-8"))
    shipped = hashlib.sha256((ROOT / "weights/faceattr.keras").read_bytes()).hexdigest()
    today = {"model": [shipped], "centerface": [CenterFace().provenance["from"]]}
    today["yunet"] = list(yunet.KNOWN.values())
    of_others = [
        f"{one['command']}: {what} was {which}"
        for one in recorded.values()
        for what, which in one["of"].items()
        if which not in today.get(what, [which])
    ]
    assert not of_others, "run these with --write, then python docs/figures.py"
    pages = "".join(page.read_text("utf-8") for page in PAGES)
    named = re.findall(r"faceattr\.keras, SHA-256 (\w{12})…", pages)
    assert set(named) == {shipped[:12]}, "a page shows the hash of another model"


def test_every_figure_that_is_recorded_is_on_a_page():
    recorded = json.loads((ROOT / "docs/figures.json").read_text("utf-8"))
    blocks = load_figures().BLOCK
    shown = {name for page in PAGES for _, name, _ in blocks.findall(page.read_text("utf-8"))}
    assert not set(recorded) - shown


@pytest.mark.parametrize("name", ("browser", "explain", "gallery", "live", "report", "example"))
def test_a_picture_of_answers_is_of_the_model_that_ships(name):
    shipped = hashlib.sha256((ROOT / "weights/faceattr.keras").read_bytes()).hexdigest()
    (file,) = (ROOT / "docs").glob(f"{name}.[jp][pn]g")
    with Image.open(file) as image:
        about = image.info
    seen = about.get("model") or about.get("comment", b"").decode()
    assert seen == shipped, "run: python docs/pictures.py DATA"


MEASURED = re.compile(r"\d ?(%|ms|µs|[kM]B|MiB|GB|(pictures|frames|faces)/s)(?!\w)|\d times the\b")
PRINTED = "```.*?^```"
# What a page may say of that kind by hand: limits, defaults, explanations, and output that other
# tests compare or that a program of the page prints.
BY_HAND = {
    "browser.md": "33 MB",
    "cluster.md": "20 pictures/s for a core",
    "compare.md": "(64|96) %",
    "export.md": "a 95 % interval",
    "finetune.md": "[28] kB in",
    "install.md": f"about 2 GB of disk|{PRINTED}",
    "label.md": "5 times the model's time",
    "live.md": "up to 4 MB",
    "masking.md": PRINTED,
    "numbers.md": "95 % interval|(100|94|70) %",
    "reliability.md": ".*",  # what each campaign counted, beside its command
    "report.md": "95 % interval",
    "serve.md": "at most 256 MB",
    "start-label.md": PRINTED,
    "start-live.md": PRINTED,
    "start-train.md": f"at least 94 %|{PRINTED}",
}


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p.parent.name == "docs" or (p.name == "README.md" and p.parent == ROOT)],
    ids=lambda page: page.name,
)
def test_no_page_quotes_a_measurement_by_hand(page):
    text = load_figures().BLOCK.sub("", page.read_text("utf-8"))
    allowed = BY_HAND.get(page.name, "$^")
    rest = re.sub(allowed, "", text, flags=re.DOTALL | re.MULTILINE)
    found = [rest[max(0, at.start() - 40) : at.end()] for at in MEASURED.finditer(rest)]
    assert not found, "let the command that measures it write it (docs/figures.py)"
    assert page.name not in BY_HAND or MEASURED.search(text), "it says nothing of the kind"


@pytest.mark.slow
def test_the_site_builds_and_asks_no_other_server(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        loads = re.findall(
            r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?(https?://[^\s\">]+)",
            page.read_text("utf-8"),
        )
        assert not [address for address in loads if "squidfunk" not in address], page
    options = (tmp_path / "commands/index.html").read_text("utf-8")
    assert "--min-confidence" in options and "--unfreeze-from" in options
    assert "--upright" not in options  # an old name
    found = json.loads((tmp_path / "search/search_index.json").read_text("utf-8"))["docs"]
    assert any("temperature" in page["text"] for page in found)
