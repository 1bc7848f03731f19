"""`faceattr push`: a model and its card, in one commit, to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faceattr.exporting.hub_card import model_card
from faceattr.files import require_package
from faceattr.model import file as model_file
from faceattr.model import hub
from faceattr.model.file import Description

FILE, CARD = "model.keras", "README.md"


@dataclass(frozen=True)
class Pushed:
    """What was written.

    Args:
        model: The name that loads it for good, with its commit.
        url: Its page.
        with_card: Whether a card was written; one that is there is left alone.
    """

    model: str
    url: str
    with_card: bool


def push(
    model: str | Path,
    repo: str,
    *,
    private: bool = False,
    card: str | Path | None = None,
    overwrite_card: bool = False,
) -> Pushed:
    """Put a model on the hub, as ``model.keras`` with the card ``README.md``, in one commit.

    Args:
        model: A ``.keras`` file, or ``"shipped"``.
        repo: ``"user/model"``; it is made where it is not there.
        private: Make it one that only you see, if it is made.
        card: A Markdown file to take as the card; by default one is written out of what the
            model says of itself.
        overwrite_card: Replace a card that is there.

    Raises:
        ValueError, OSError: The model or the name cannot be used, an optional package or the token
            is missing, or the hub refuses.
    """
    repo = hub.HubName.parse(f"{hub.SCHEME}{repo.removeprefix(hub.SCHEME)}").repo
    path = model_file.path_of(model)
    description = model_file.describe(path)
    require_package("huggingface_hub", "hub", "push")
    text = _card(path, repo, description, card)
    with _refusals(repo), hub.quiet():
        return _commit(path, repo, text, private, overwrite_card)


def _card(path: Path, repo: str, description: Description, given: str | Path | None) -> str:
    if given is None:
        return model_card(repo.split("/")[1], repo, description)
    if not Path(given).is_file():
        raise FileNotFoundError(f"There is no card {given}. Expected: a Markdown file.")
    return Path(given).read_text(encoding="utf-8")


def _commit(path: Path, repo: str, card: str, private: bool, overwrite_card: bool) -> Pushed:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    api.create_repo(repo, private=private, exist_ok=True)
    with_card = overwrite_card or not api.file_exists(repo, CARD)
    files = [CommitOperationAdd(FILE, str(path))]
    if with_card:
        files.append(CommitOperationAdd(CARD, card.encode()))
    done = api.create_commit(repo, files, commit_message=f"{path.name} by faceattr")
    return Pushed(f"{hub.SCHEME}{repo}@{done.oid}", f"{api.endpoint}/{repo}", with_card)


@contextmanager
def _refusals(repo: str) -> Iterator[None]:
    """Say in one sentence why nothing was written."""
    from huggingface_hub import constants, errors, get_token

    if constants.HF_HUB_OFFLINE:
        raise OSError(f"{repo} cannot be written: HF_HUB_OFFLINE forbids to ask the hub.")
    if get_token() is None:
        raise OSError(
            f"{repo} cannot be written without a token: `hf auth login` keeps one, HF_TOKEN is one."
        )
    try:
        yield
    except errors.HFValidationError as error:
        raise ValueError(f"{repo} is no name that the hub can have: {error}") from None
    except Exception as error:  # what its HTTP client stumbles over is no OSError
        code = getattr(getattr(error, "response", None), "status_code", None)
        reason = str(error).split("\n")[0].rstrip(".")
        if code in (401, 403):
            reason = (
                "the hub does not take this token for it; one with the right to write is needed"
            )
        raise OSError(f"{repo} cannot be written: {reason}.") from None
