"""The wheel: complete, well described, and at work in an environment of its own."""

import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import faceattr

ROOT = Path(__file__).parents[1]


def run(*words, **how):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as `python -m build` does, without fetching what builds it anew."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_has_the_model_and_is_well_described(wheel):
    run(sys.executable, "-m", "twine", "check", "--strict", wheel)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (about,) = (name for name in names if name.endswith("METADATA"))
        told = message_from_bytes(archive.read(about))
    assert {"faceattr/weights/faceattr.keras", "faceattr/golden.json", "faceattr/py.typed"} <= set(
        names
    )
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]
    assert told["Version"] == faceattr.__version__


@pytest.mark.slow
def test_the_wheel_works_outside_of_the_repository(wheel, tmp_path):
    """The packages are those of this environment; faceattr is the wheel's alone."""
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        tmp_path / "own",
        wheel,
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "own")}
    program = "import sys, faceattr.cli; print(faceattr.__file__); sys.exit(faceattr.cli.main())"
    words = ["label", ROOT / "examples/astronaut.jpg", "--detector", "centerface"]
    printed = run(sys.executable, "-c", program, *words, cwd=tmp_path, env=env)
    assert str(tmp_path / "own") in printed and ",happy," in printed
