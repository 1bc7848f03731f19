"""Output paths that are checked before any work, files that are whole or not there, and JSON.

And the folder for what can be had again, and what installs an optional part.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import platformdirs

LONGEST_NAME = 255  # bytes that file systems take for one name
OPENCV = (  # one of them is installed, whichever
    *("opencv-python", "opencv-python-headless"),
    *("opencv-contrib-python", "opencv-contrib-python-headless"),
)
FULL = (errno.ENOSPC, errno.EDQUOT)  # what systems call a full disk


def install_command(extra: str = "") -> str:
    """What installs faceattr, with an optional part, as it was installed: from files or by name."""
    part = f"[{extra}]" if extra else ""
    root = Path(__file__).resolve().parents[1]
    # Quoted as Windows' cmd understands, too.
    if not (root / "pyproject.toml").is_file():
        return f'pip install "faceattr{part}"'
    place = "." if root == Path.cwd() else str(root)
    return f'pip install -e "{place}{part}"'


def require_package(package: str, extra: str, purpose: str) -> None:
    """Raises ValueError, with the cure, where an optional package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{purpose} needs the package {package}, which is not installed: "
            f"`{install_command(extra)}` installs it."
        )


def without_package(error: ModuleNotFoundError) -> str:
    """What to do where a package is missing that nobody asks for before it is needed."""
    package = (error.name or "").partition(".")[0]
    if package == os.environ.get("KERAS_BACKEND"):
        how = install_command("jax") if package == "jax" else f"pip install {package}"
        return (
            f"KERAS_BACKEND has Keras compute with {package}, which is not installed: `{how}` "
            "installs it, or leave KERAS_BACKEND away."
        )
    return (
        f"This needs the package {package}, which is not installed: `{install_command()}` "
        "installs what faceattr needs."
    )


def versions_of(*packages: str) -> dict[str, str]:
    """By name, the versions of those packages that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def cache_folder() -> Path:
    """The user's folder for what can be had again."""
    return Path(platformdirs.user_cache_dir("faceattr"))


def fetch_once(address: str, sha256: str, path: Path, seconds: float) -> None:
    """Fetch a file, which gets its name once it is the right one; OSError, ValueError: why not."""
    import pooch

    pooch.get_logger().setLevel("ERROR")
    download = pooch.HTTPDownloader(timeout=seconds)
    # pooch writes to a temporary file, checks it and renames it.
    pooch.retrieve(address, f"sha256:{sha256}", path.name, path.parent, downloader=download)


def validate_output_path(path: Path) -> None:
    """Refuse (OSError) a file's name that is a folder's, or that no folder can take."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Give the name of a file.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OSError(f"{path} cannot be written: {folder} is not a folder that takes files.")


def validate_output_folder(folder: Path) -> None:
    """Refuse (OSError) a folder's name that is a file's, or where nothing can be written."""
    validate_output_path(folder / "…")


def is_same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two names lead to one file, by links too."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def refuse_existing(path: Path, *, overwrite: bool = False) -> None:
    """Refuse (FileExistsError) to replace what is there, unless that is asked for."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: choose another name, or --overwrite.")


def validate_report_folder(folder: Path, names: Iterable[str], *, overwrite: bool) -> None:
    """Refuse (OSError) a folder that takes no files, or that has one of these `names` already."""
    validate_output_folder(folder)
    for name in names:
        refuse_existing(folder / name, overwrite=overwrite)


def spelled(path: str | os.PathLike[str]) -> str:
    """A path, or a part of one, as valid text; bytes that are no UTF-8 are spelled ``\\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def short_name(name: str, most: int = LONGEST_NAME) -> str:
    """A name of at most `most` bytes: a longer one ends in a hash of itself, and in its suffix."""
    data = os.fsencode(name)
    if len(data) <= most:
        return name
    ending = f"~{hashlib.sha256(data).hexdigest()[:12]}{Path(name).suffix[:16]}"
    room = most - len(os.fsencode(ending))
    return data[:room].decode("utf-8", "ignore") + ending


def replace_durably(part: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Give a finished file its name; a power cut leaves the old file or the whole new one."""
    with open(part, "r+b") as file:  # Windows syncs no file that is open for reading alone
        os.fsync(file.fileno())
    os.replace(part, path)


@contextlib.contextmanager
def write_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names the file, or the folder, where the system says only why it cannot be written."""
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # a sentence of ours
            raise
        raise OSError(f"{path} cannot be written: {error.strerror}.") from error


def unwritten(path: Path, error: OSError, *, resumable: bool) -> OSError:
    """What is said of a file that could not be written to its end."""
    is_full = error.errno in FULL
    cure = f" {'Make room and g' if is_full else 'G'}o on with --resume." if resumable else ""
    why = error.strerror or error
    return OSError(f"{path} cannot be written: {why}. What was written before is whole.{cure}")


@contextlib.contextmanager
def atomic_write(
    path: str | os.PathLike[str], *, durable: bool = True, resumable: bool = False
) -> Iterator[Path]:
    """A name to write a file under that gets its own name once it is whole.

    `durable` waits for the disk first; without it a power cut may leave an empty file. `resumable`
    says that --resume goes on where it cannot be written.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    path = Path(path)
    part = path.with_name(short_name(f".{path.stem}.part{path.suffix}"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        (replace_durably if durable else os.replace)(part, path)
    except OSError as error:
        raise unwritten(path, error, resumable=resumable) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def to_jsonable(value: Any) -> Any:
    """The same nested value as JSON can hold it: None for NaN, text for infinity."""
    if isinstance(value, Mapping):
        return {key: to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def json_of(value: Any) -> str:
    """What a JSON file of a value holds."""
    return f"{json.dumps(to_jsonable(value), indent=1, ensure_ascii=False)}\n"


def write_json(value: Any, path: Path, *, resumable: bool = False) -> None:
    """Write a JSON file that is whole or not there; `resumable` is as for `atomic_write`."""
    text = json_of(value)
    with atomic_write(path, resumable=resumable) as part:
        part.write_text(text, encoding="utf-8")
