"""The gate runs the README's command, and there nothing is skipped that should have run."""

import os
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def test_the_gate_begins_with_the_test_command_of_the_readme():
    command = re.search(r"^python3 -m venv .*pytest$", (ROOT / "README.md").read_text(), re.M)[0]
    gate = (ROOT / ".ci/run").read_text()
    assert command in gate.splitlines()
    assert re.search(r"^export PIP_CONSTRAINT=", gate.split(command)[0], re.M)
    assert re.search(r"^\.venv/bin/pytest -m slow\b", gate.split(command)[1], re.M)


def test_all_extras_are_in_the_extra_that_the_gate_installs():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = about["optional-dependencies"]
    (whole,) = extras["all"]
    named = set(re.fullmatch(r"faceattr\[(.*)\]", whole)[1].split(","))
    assert named == set(extras) - {"all", "dev", "docs"}


def test_the_versions_of_the_gate_are_within_the_bounds():
    """`bash .ci/lock` writes them anew."""
    locked = versions_of("constraints.txt")
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*about["dependencies"], *chain(*about["optional-dependencies"].values())]
    for needed in map(Requirement, asked):
        name = canonicalize_name(needed.name)
        versions = [version for one, version in locked if one == name]
        assert name == "faceattr" or versions, needed
        assert all(one in needed.specifier for one in versions), needed


def versions_of(lock):
    lines = (ROOT / ".ci" / lock).read_text().splitlines()
    return [line.split(" ;")[0].split("==") for line in lines if "==" in line]


def test_the_lowest_versions_that_are_tested_are_the_bounds():
    """`bash .ci/lock` writes them anew."""
    tested = dict(versions_of("lowest.txt"))
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for needed in map(Requirement, about["dependencies"]):
        (lowest,) = (Version(one.version) for one in needed.specifier if one.operator == ">=")
        assert Version(tested[needed.name]).release[: len(lowest.release)] == lowest.release


@pytest.mark.parametrize(
    ("test", "ends", "said"),
    [
        (
            "@pytest.mark.skip('needs chromium (Debian package)')\ndef test_it(): pass",
            0,
            "1 skipped",
        ),
        ("@pytest.mark.skip('no jax')\ndef test_it(): pass", 1, "no jax: no reason of MAY_BE"),
        ("def test_it(): pytest.skip('no jax')", 1, "no jax: no reason of MAY_BE"),
        ("pytest.importorskip('no_such_module')\ndef test_it(): pass", 2, "no_such_module"),
        ("@pytest.mark.xfail\ndef test_it(): assert False", 0, "1 xfailed"),
    ],
)
def test_a_skipped_test_is_an_error_there(test, ends, said, tmp_path):
    (tmp_path / "test_it.py").write_text(f"import pytest\n{test}\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "use_ci",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    runs = [
        subprocess.run(
            command,
            env={**os.environ, "FACEATTR_CI": ci, "PYTHONPATH": str(ROOT / "tests")},
            capture_output=True,
            text=True,
        )
        for ci in ("", "1")
    ]
    nothing_found = 5  # pytest's code where the only module was skipped
    assert runs[0].returncode in (0, nothing_found)
    assert runs[1].returncode == ends and said in runs[1].stdout
