"""`faceattr push`: a model and its card, in one commit, to the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from faceattr.data.sources import MANIFEST
from faceattr.files import require_package
from faceattr.model import file as model_file
from faceattr.model import hub
from faceattr.model.file import Description
from faceattr.pages import template

FILE, CARD = "model.keras", "README.md"
LICENCES = {
    *("mit", "apache-2.0", "bsd-3-clause", "gpl-3.0", "unlicense", "cc0-1.0", "cc-by-4.0"),
    *("cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
}  # as the hub spells them
NOT_STATED = "not stated"
TAGS = ("faceattr", "face", "face-attributes", "vgg16")
METRICS = {
    "accuracy": ("accuracy", "accuracy"),
    "balanced_accuracy": ("balanced_accuracy", "balanced accuracy"),
    "macro_f1": ("f1", "macro F1"),
    "calibration_error": ("ece", "expected calibration error"),
}  # of a score: what the hub calls it, and what a reader does


@dataclass(frozen=True)
class Pushed:
    """The name that loads what was written for good, with its commit; its page; and whether a card
    was written, for one that is there is left alone.
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
    text = _card(repo, description, card)
    with _refusals(repo), hub.quiet():
        return _commit(path, repo, text, private, overwrite_card)


def _card(repo: str, description: Description, given: str | Path | None) -> str:
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


def model_card(name: str, repo: str, description: Description) -> str:
    """The card of a model, to lie at ``user/model``, as Markdown with a YAML header.

    Whatever the model says is text in it.
    """
    header = _header(name, description).to_yaml()
    return f"---\n{header}\n---\n\n{_body(name, repo, description)}"


def _header(name: str, description: Description) -> Any:
    from huggingface_hub import ModelCardData

    results = _results(description)
    terms: dict[str, Any] = _licence(description.licence)
    return ModelCardData(
        model_name=name,
        library_name="keras",
        pipeline_tag="image-classification",
        tags=[*TAGS, *(_slug(task.name) for task in description.tasks)],
        datasets=_datasets(description) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        eval_results=results or None,
        **terms,
    )


def _licence(terms: str) -> dict[str, str]:
    """The hub's own word for the terms, or ``other`` with ours, as a name."""
    if terms.lower() in LICENCES:
        return {"license": terms.lower()}
    if terms == NOT_STATED:
        return {"license": "unknown"}
    return {"license": "other", "license_name": _slug(terms)}


def _datasets(description: Description) -> list[str]:
    """What the sources are called, without tasks and endings, each once."""
    names = []
    for source in description.provenance.get("sources", ()):
        path = PurePosixPath(str(source).rpartition("=")[2])
        path = path.parent if path.name == MANIFEST else path
        names.append(_slug(path.stem))
    return list(dict.fromkeys(name for name in names if name))


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.").lower()


def _results(description: Description) -> list[Any]:
    """A result for each task and metric that the file has a number of."""
    from huggingface_hub import EvalResult

    names = ", ".join(_datasets(description)) or "the training's own sources"
    return [
        EvalResult(
            task_type="image-classification",
            task_name=f"{task} of a face",
            dataset_type=_slug(names) or "own",
            dataset_name=f"validation rows of {names}",
            dataset_config=task,
            dataset_split=str(score.get("split", "val")),
            metric_type=kind,
            metric_name=f"{task}, {shown}",
            metric_value=round(score[word], 4),
        )
        for task, score in _scores(description).items()
        for word, (kind, shown) in METRICS.items()
        if isinstance(score.get(word), float)
    ]


def _scores(description: Description) -> dict[str, Mapping[str, Any]]:
    """By task, what was measured, where it was."""
    found = {task.name: description.scores.get(task.name) for task in description.tasks}
    return {n: of for n, of in found.items() if isinstance(of, Mapping) and of.get("n")}


def _body(name: str, repo: str, description: Description) -> str:
    page = template("exporting/page/hub.md")
    return page.render(name=name, repo=repo, description=description, scores=_scores(description))
