"""The notebook runs as it is, is small, and has no failures in it."""

import hashlib
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples/quickstart.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_whole_small_and_shows_what_comes_out(notebook):
    nbformat.validate(notebook)
    assert NOTEBOOK.stat().st_size < 500_000
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in codes)
    kinds = {output.output_type for cell in codes for output in cell.outputs}
    assert "error" not in kinds and "display_data" in kinds
    model = hashlib.sha256((NOTEBOOK.parents[1] / "weights/faceattr.keras").read_bytes())
    assert notebook.metadata["model"] == model.hexdigest(), "run: python examples/run_notebook.py"


def test_its_first_cell_installs(notebook):
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert "%pip install" in first.source


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    sys.path.append(str(NOTEBOOK.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if not shutil.which("faceattr"):
        _command(tmp_path / "bin/faceattr")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    from run_notebook import run

    done = run(tmp_path / "done.ipynb")
    text = "".join(str(cell.get("outputs", "")) for cell in done.cells)
    assert "1 faces described" in text and "near copies in one split" in text
    assert (tmp_path / "done.ipynb").stat().st_size < 500_000


def _command(path: Path) -> None:
    """What pip would install, for a checkout that is only on the path."""
    path.parent.mkdir()
    program = "import sys, faceattr.cli; sys.exit(faceattr.cli.main())"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{program}" "$@"\n')
    path.chmod(0o755)
