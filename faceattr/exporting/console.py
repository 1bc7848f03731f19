"""What an export prints."""

from __future__ import annotations

from rich.table import Column, Table

from faceattr.data.console import OUT
from faceattr.exporting.parity import LabeledAgreement, ParityReport


def say(line: str) -> None:
    """Print a line."""
    OUT.print(line)


def print_proof(proof: ParityReport) -> None:
    """Print how the file compares with its network."""
    say(f"the network and the file, asked about {proof.crops}:")
    figures = ("mean change", "of 99 %", "largest", "same answer", "accuracy", "calibration error")
    table = Table("task", *(Column(figure, justify="right") for figure in figures))
    for task, found in proof.heads.items():
        changes = (found.mean_change, found.change_99, found.difference)
        shown = [*(f"{change:.2g}" for change in changes), f"{found.same_answer:.2%}"]
        table.add_row(task, *shown, *_answers(found.labelled))
    OUT.print(table)
    for size, spent in proof.milliseconds.items():
        network, file = spent["network"], spent["file"]
        crops = "1 crop" if size == 1 else f"{size} crops"
        say(f"{crops}: {network:.1f} ms, in the file {file:.1f} ms ({network / file:.2g} times)")


def _answers(labelled: LabeledAgreement | None) -> tuple[str, ...]:
    """Accuracy and calibration error of network and file, of a head whose labels are known."""
    if labelled is None:
        return ()
    low, high = (100 * bound for bound in labelled.lost)
    return (
        f"{labelled.accuracy_before:.1%} to {labelled.accuracy_after:.1%} "
        f"(lost {low:.1f} to {high:.1f} points)",
        f"{labelled.calibration_before:.1%} to {labelled.calibration_after:.1%}",
    )
