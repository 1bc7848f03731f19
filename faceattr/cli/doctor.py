"""`faceattr doctor`."""

from __future__ import annotations

from faceattr.cli.console import OUT
from faceattr.cli.options import FOUND, command


def add_command(commands) -> None:
    command(commands, doctor, "look whether this installation is sound")


def doctor() -> int:
    """Print versions, devices, cameras, cache and model, ask the model about drawn faces, and say
    what is wrong with the cure of each. Exit code 1 if something is wrong. No camera and no window
    is opened, nothing is fetched."""
    from faceattr.doctor import doctor as examine

    wrong = 0
    for finding in examine():
        mark = "✗" if finding.is_wrong else "✓"
        OUT.print(f"{mark} {finding.name:<16} {finding.told}")
        if finding.is_wrong:
            OUT.print(f"  {'':<16} cure: {finding.cure}")
        wrong += finding.is_wrong
    OUT.print(f"{wrong} to mend" if wrong else "all is well")
    return FOUND if wrong else 0
