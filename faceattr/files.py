"""Names that something is to be written under: refused before any work where they cannot be.

And what installs an optional part.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

LONGEST_NAME = 255  # bytes that file systems take for one name


def install_command(extra: str) -> str:
    """What installs an optional part, as faceattr itself was installed: from files or by name."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():
        return f"pip install 'faceattr[{extra}]'"
    place = "." if root == Path.cwd() else str(root)
    return f"pip install -e '{place}[{extra}]'"


def validate_output_path(path: Path) -> None:
    """Refuse a file's name that is a folder's, or that no folder can take.

    Raises:
        OSError: It is such a name.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Give the name of a file.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OSError(f"{path} cannot be written: {folder} is not a folder that takes files.")


def validate_output_folder(folder: Path) -> None:
    """Refuse a folder's name that is a file's, or where nothing can be written.

    Raises:
        OSError: It is such a name.
    """
    validate_output_path(folder / "…")


def short_name(name: str, most: int = LONGEST_NAME) -> str:
    """A name of at most `most` bytes: a longer one ends in a hash of itself, and in its suffix."""
    data = os.fsencode(name)
    if len(data) <= most:
        return name
    ending = f"~{hashlib.sha256(data).hexdigest()[:12]}{Path(name).suffix[:16]}"
    room = most - len(os.fsencode(ending))
    return data[:room].decode("utf-8", "ignore") + ending
