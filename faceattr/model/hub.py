"""Models on the Hugging Face hub, by names like ``hf://user/model`` and ``hf://user/model@v1``.

A repository is looked up once a process. What it answers is kept in the hub's own cache, whose
folders are named after commits, so that a path in it tells which commit it is of. ``HF_ENDPOINT``,
``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` mean what they mean to ``huggingface_hub``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

from faceattr.files import require_package

SCHEME = "hf://"
# A path takes the second slash away.
NAME = re.compile(
    r"hf:/{1,2}(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>[^@]+))?"
)
CACHED = re.compile(r"models--(?P<user>.+?)--(?P<name>.+)")
COMMIT = re.compile(r"[0-9a-f]{40}")
MAIN = "main"
ENDING = ".keras"


@dataclass(frozen=True)
class HubName:
    """A name taken apart: the repository ``user/model``, the file in it if told, the revision."""

    repo: str
    file: str | None
    revision: str

    @classmethod
    def parse(cls, name: str) -> HubName:
        """Raises ValueError where the name is none of the hub's, or of another kind of file."""
        match = NAME.fullmatch(name)
        if match is None or not (match["file"] or ENDING).endswith(ENDING):
            raise ValueError(
                "A model on the hub is written hf://user/model, hf://user/model@revision or "
                f"hf://user/model/file.keras. Received: {name}"
            )
        return cls(match["repo"], match["file"], match["revision"] or MAIN)


def is_hub_name(model: str | os.PathLike[str]) -> bool:
    """Whether a model is named as one of the hub."""
    return os.fspath(model).startswith("hf:/")


@cache
def fetch(name: str, *, offline: bool = False) -> Path:
    """The model file of a name as above, fetched where the cache has not got it.

    Only a ``.keras`` file is fetched; nothing that could be unpickled. `offline` looks into the
    cache alone, as with ``HF_HUB_OFFLINE=1``.
    """
    wanted = HubName.parse(name)
    require_package("huggingface_hub", "hub", f"{name}")
    folder = _snapshot(name, wanted, offline)
    if wanted.file:
        found = [path for path in (folder / wanted.file,) if path.is_file()]
    else:
        found = sorted(folder.rglob(f"*{ENDING}"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found)
        raise ValueError(
            f"{name} holds more than one model: say which, like hf://{wanted.repo}/"
            f"{found[0].relative_to(folder).as_posix()}. It has {names}."
        )
    what = wanted.file or f"{ENDING} file"
    raise FileNotFoundError(
        f"{name} holds no {what}, as `faceattr push` puts one there; nothing else is opened."
    )


def _snapshot(name: str, wanted: HubName, offline: bool) -> Path:
    """The folder of the cache with the files of the revision that are models."""
    import huggingface_hub

    with quiet():
        try:
            folder = huggingface_hub.snapshot_download(
                wanted.repo,
                revision=wanted.revision,
                allow_patterns=wanted.file or f"*{ENDING}",
                local_files_only=offline,
            )
        except Exception as error:  # what its HTTP client stumbles over is no OSError
            _refuse(name, wanted, error)
    return Path(folder)


def _refuse(name: str, wanted: HubName, error: Exception) -> NoReturn:
    """Say in one sentence why there is nothing."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        reason = "its owner has to let you in, on its page of the hub"
    elif isinstance(error, errors.RepositoryNotFoundError):
        reason = (
            f"the hub shows no model {wanted.repo}; a private one needs a token (`hf auth login`)"
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        reason = f"the hub has no revision {wanted.revision} of it"
    elif isinstance(error, errors.HFValidationError):
        raise ValueError(f"{name} is no name that the hub can have: {_first(error)}.") from None
    elif isinstance(error, errors.LocalEntryNotFoundError):
        reason = (
            "the hub cannot be reached, or is not to be asked, and the cache has not got it: fetch "
            "it once with a network"
        )
    else:
        reason = _first(error)
    raise OSError(f"{name} cannot be had: {reason}.") from None


def _first(error: Exception) -> str:
    return str(error).split("\n")[0].rstrip(".")


@contextmanager
def quiet() -> Iterator[None]:
    """The hub's client draws no bars and logs errors alone meanwhile."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    level, had_bars = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity_error()
    disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            enable_progress_bars()


def origin_of(path: str | os.PathLike[str]) -> str | None:
    """``hf://user/model/file.keras@commit`` for a file in the hub's cache, else None."""
    parts = Path(path).parts
    for place, part in enumerate(parts[:-3]):
        found = CACHED.fullmatch(part)
        if found and parts[place + 1] == "snapshots" and COMMIT.fullmatch(parts[place + 2]):
            file = "/".join(parts[place + 3 :])
            return f"{SCHEME}{found['user']}/{found['name']}/{file}@{parts[place + 2]}"
    return None


def pinned(model: str) -> str:
    """The same model by the commit that its name means now; other names stay as they are."""
    return (is_hub_name(model) and origin_of(fetch(model))) or model


def provenance_of(path: str | os.PathLike[str] | None) -> dict[str, str]:
    """For provenance: where a model came from, if that was the hub."""
    origin = path and origin_of(path)
    return {"hub": origin} if origin else {}
