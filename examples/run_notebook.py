"""Run the notebook and keep its outputs: python examples/run_notebook.py [OUTPUT]

By default the notebook itself gets them. What differs from run to run is taken out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("quickstart.ipynb")
MINUTES = 10


def run(output: Path) -> nbformat.NotebookNode:
    """Execute every cell; one that fails raises nbclient's CellExecutionError."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    NotebookClient(notebook, timeout=60 * MINUTES, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
    nbformat.write(notebook, output)
    return notebook


if __name__ == "__main__":
    run(Path(*sys.argv[1:]) if sys.argv[1:] else NOTEBOOK)
