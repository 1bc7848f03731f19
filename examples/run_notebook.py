"""Run the notebook and keep its outputs: python examples/run_notebook.py [OUTPUT]

By default the notebook itself gets them. What differs from run to run is taken out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from faceattr.model.file import shipped_model
from faceattr.model.runtime import sha256_of

NOTEBOOK = Path(__file__).with_name("quickstart.ipynb")
MINUTES = 10


def run(output: Path) -> nbformat.NotebookNode:
    """Execute every cell; one that fails raises nbclient's CellExecutionError."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    NotebookClient(notebook, timeout=60 * MINUTES, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    notebook.metadata["model"] = sha256_of(shipped_model())
    nbformat.write(notebook, output)
    return notebook


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The printed pieces of a cell as one, without what libraries say on standard error."""
    kept: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if kept and output.output_type == kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


if __name__ == "__main__":
    run(Path(*sys.argv[1:]) if sys.argv[1:] else NOTEBOOK)
