"""What an export prints."""

from __future__ import annotations

from rich.table import Column, Table

from faceattr.data.console import OUT
from faceattr.exporting.proof import Proof


def say(line: str) -> None:
    """Print a line."""
    OUT.print(line)


def print_proof(proof: Proof) -> None:
    """Print how the file compares with its network."""
    say(f"the network and the file, asked about {proof.crops}:")
    figures = ("largest difference", "same answer", "accuracy", "in the file")
    table = Table("task", *(Column(figure, justify="right") for figure in figures))
    for task, found in proof.heads.items():
        accuracies = (found.accuracy_before, found.accuracy_after)
        shown = [f"{accuracy:.1%}" if found.labelled else "" for accuracy in accuracies]
        table.add_row(task, f"{found.difference:.2g}", f"{found.same_answer:.2%}", *shown)
    OUT.print(table)
    for size, spent in proof.milliseconds.items():
        network, file = spent["network"], spent["file"]
        crops = "1 crop" if size == 1 else f"{size} crops"
        say(f"{crops}: {network:.1f} ms, in the file {file:.1f} ms ({network / file:.2g} times)")
