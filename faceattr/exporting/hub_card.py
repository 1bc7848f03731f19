"""The model card that the Hugging Face hub reads, out of what a model file says of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from faceattr.data.sources import MANIFEST
from faceattr.evaluation.report import cell, percent
from faceattr.model.file import Description

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


def model_card(name: str, repo: str, description: Description) -> str:
    """The card as Markdown with a YAML header; whatever the model says is text in it.

    Args:
        name: What the model is called.
        repo: Where it lies on the hub, ``user/model``.
        description: What the model says of itself.
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
    from jinja2 import Environment, PackageLoader

    pages = Environment(  # of Markdown: `cell` escapes what a model says
        loader=PackageLoader("faceattr", "exporting/page"), trim_blocks=True, lstrip_blocks=True
    )
    pages.filters |= {"cell": cell, "percent": percent}
    page = pages.get_template("hub.md")
    return page.render(name=name, repo=repo, description=description, scores=_scores(description))
