"""New heads beside those of a model file, and what the old ones lose or keep."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from faceattr.compatibility import renamed_arguments
from faceattr.data.dataset import LabeledDataset, is_known
from faceattr.evaluation.metrics import Interval, predict, wilson
from faceattr.evaluation.robustness import by_size_of, smallest_face
from faceattr.images.load import as_paths
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.file import Description
from faceattr.progress import SILENT, Progress
from faceattr.tasks import Task
from faceattr.training.config import Network, Settings
from faceattr.training.distill import as_if_even, with_answers
from faceattr.training.network import start_file

FORGETTING = "forgetting.json"


@dataclass(frozen=True)
class Change:
    """How one old head answers before and after, on `n` labelled rows of `seen`.

    Args:
        same: Share of the rows with the same answer.
        largest: The largest difference of a probability.
        before: Accuracy of the old model, with its 95 % Wilson interval; NaN without labels.
        lost: Rows that only the old model answers right.
        won: Rows that only the new model answers right.
    """

    task: str
    seen: int
    same: float
    largest: float
    n: int
    before: float
    before_interval: Interval
    after: float
    after_interval: Interval
    lost: int
    won: int

    def __str__(self) -> str:
        if not self.largest:
            return f"{self.task} answers as before, to the last bit ({self.seen:,} images)."
        if not self.n:
            return (
                f"{self.task}: nobody gave labels to judge it by (--evaluate-on); the answer is as "
                f"before for {self.same:.1%} of {self.seen:,} images."
            )
        return (
            f"{self.task}: accuracy {self.before:.1%} before and {self.after:.1%} after on "
            f"{self.n:,} rows; {self.lost:,} right answers were lost and {self.won:,} won."
        )


def compare_heads(
    tasks: Sequence[Task],
    parts: Sequence[LabeledDataset],
    before: Sequence[Mapping[str, np.ndarray]],
    after: Sequence[Mapping[str, np.ndarray]],
) -> list[Change]:
    """Compare how two models answered the tasks of the old one about the same rows.

    `before` and `after` have for each part the probabilities ``(n, classes)`` by task.
    """
    found = []
    for task in tasks:
        nothing = np.zeros((0, len(task.classes)), "float32")
        unknown = [np.zeros((len(rows), len(task.classes)), "float32") for rows in parts]
        truth = [of.targets.get(task.name, none) for of, none in zip(parts, unknown, strict=True)]
        said = [[answers[task.name] for answers in model] for model in (before, after)]
        found.append(_change(task, *(np.concatenate([nothing, *of]) for of in (truth, *said))))
    return found


def _change(task: Task, target: np.ndarray, old: np.ndarray, new: np.ndarray) -> Change:
    known, truth = is_known(target), target.argmax(axis=1)
    was, is_now = ((answers.argmax(axis=1) == truth)[known] for answers in (old, new))
    n = int(known.sum())
    return Change(
        task=task.name,
        seen=len(target),
        same=float((old.argmax(axis=1) == new.argmax(axis=1)).mean()) if len(target) else np.nan,
        largest=float(np.abs(old - new).max(initial=0)),
        n=n,
        before=float(was.mean()) if n else np.nan,
        before_interval=wilson(int(was.sum()), n),
        after=float(is_now.mean()) if n else np.nan,
        after_interval=wilson(int(is_now.sum()), n),
        lost=int((was & ~is_now).sum()),
        won=int((is_now & ~was).sum()),
    )


@renamed_arguments(judge="evaluate_on")
@dataclass(frozen=True)
class NewHeads:
    """What is added to the model that a run starts from, which keeps all of its heads.

    Args:
        sources: ``TASK=PATH`` each, labelled images for a new head, see
            `faceattr.data.sources.read_source`.
        evaluate_on: Labelled images that only measure what the old heads lose; nothing is
            trained on them.
    """

    sources: tuple[str, ...]
    evaluate_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("sources", "evaluate_on"):  # one may stand without a list
            object.__setattr__(self, name, tuple(as_paths(getattr(self, name))))
        if not self.sources:
            raise ValueError(
                "There is no head to add: --distill old and --evaluate-on go with --add TASK=PATH."
            )
        if bare := [source for source in self.sources if "=" not in source]:
            raise ValueError(f"A head is added as TASK=PATH. Received: {', '.join(bare)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The new heads."""
        return tuple(dict.fromkeys(source.partition("=")[0] for source in self.sources))

    def freeze_old_heads(self, settings: Settings) -> Settings:
        """The settings, with the old heads frozen as long as the backbone is."""
        phases = (
            replace(phase, heads=self.names) if phase.unfreeze_from is None else phase
            for phase in settings.phases
        )
        return replace(settings, phases=tuple(phases))


@dataclass(frozen=True)
class ExistingHeads:
    """The model that gets new heads: its file, the network in it, and what the file says."""

    path: Path
    network: keras.Model
    description: Description

    @classmethod
    def of(cls, network: Network) -> ExistingHeads:
        """The model file that a run starts from; ValueError where it starts from none."""
        path = start_file(network)
        if path is None:
            raise ValueError(
                "Heads are added to a model that has some: --weights is 'shipped' or a model "
                f"file. Received: {network.weights}"
            )
        return cls(path, *model_file.load(path))

    @property
    def known(self) -> dict[str, Task]:
        """The old tasks by name."""
        return {task.name: task for task in self.description.tasks}

    def with_new(self, tasks: Sequence[Task], added: Sequence[str]) -> tuple[Task, ...]:
        """The old tasks and behind them those of the data that are new; all of these must be
        `added`, and none be there already."""
        new = [task for task in tasks if task.name not in self.known]
        if there := sorted(set(added) & set(self.known)):
            raise ValueError(
                f"{self.path.name} has a head {', '.join(there)} already. Call the new one "
                "otherwise, or give its data without --add to train it along."
            )
        if strangers := sorted({task.name for task in new} - set(added)):
            raise ValueError(
                f"{self.path.name} has no head {', '.join(strangers)}: give that data with --add."
            )
        return (*self.description.tasks, *new)

    def unchanged(self, network: keras.Model) -> set[str]:
        """The old heads that answer as before: neither they nor the backbone have changed."""
        before, after = (
            {layer.name: b"".join(w.tobytes() for w in layer.get_weights()) for layer in of.layers}
            for of in (self.network, network)
        )
        same = {name for name, weights in before.items() if after.get(name) == weights}
        backbone = {layer.name for layer in self.network.layers if layer.weights} - set(self.known)
        return same & set(self.known) if backbone <= same else set()

    def soft_labelled(self, rows: LabeledDataset, progress: Progress = SILENT) -> LabeledDataset:
        """The rows with the old heads' answers wherever an old task is unknown; of one that learns
        with a prior, as if its classes were equally frequent.
        """
        said = predict(self.network, rows, progress=progress, what="asking the old heads")
        answers = as_if_even(said, self.description, rows.log_priors, self.path.name, progress)
        return with_answers(rows, answers, dict.fromkeys(self.known, 0.0), {})

    def scores(self, unchanged: Collection[str], found: Mapping[str, Any]) -> dict[str, Any]:
        """What was found of the new model, and the old scores of heads that answer as before."""
        before = self.description.scores
        merged = {**{name: before[name] for name in unchanged if name in before}, **found}
        new, old = found["by_size"], by_size_of(before, {name: name for name in unchanged})
        by_size = {side: old[side] | new[side] for side in new if old.get(side)} or new
        return {**merged, "by_size": by_size, "min_face": smallest_face(by_size)}

    def provenance(self) -> dict[str, Any]:
        """What the new model's file says about the old one."""
        return {
            "file": self.path.name,
            "sha256": runtime.sha256_of(self.path),
            "heads": list(self.known),
            "data": [dict(part) for part in self.description.data],
            "provenance": dict(self.description.provenance),
        }
