"""New heads for a model that keeps its own, and what that does to the old ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from faceattr.data.dataset import Rows
from faceattr.evaluation.metrics import predict, smallest_face
from faceattr.model import file as model_file
from faceattr.model.file import Description
from faceattr.tasks import Task
from faceattr.training.config import Settings
from faceattr.training.distill import with_answers
from faceattr.training.network import Network


@dataclass(frozen=True)
class Adding:
    """What is added to the model that a run starts from, which keeps all of its heads.

    Args:
        sources: ``TASK=PATH`` each, labelled pictures for a new head, see
            `faceattr.data.sources.read_source`.
        keep: While the trunk learns, hold the old heads to what they said before: their own
            answers are the targets wherever a training picture has no label for them (learning
            without forgetting, Li and Hoiem 2016).
        judge: Labelled pictures that only measure what the old heads lose; nothing is
            trained on them.
    """

    sources: tuple[str, ...]
    keep: bool = False
    judge: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("There is no head to add: --keep and --judge go with --add TASK=PATH.")
        if bare := [source for source in self.sources if "=" not in source]:
            raise ValueError(f"A head is added as TASK=PATH. Received: {', '.join(bare)}")

    def notes(self, settings: Settings) -> Iterator[str]:
        """What somebody may not expect of these settings."""
        if self.keep and not any(phase.first for phase in settings.phases):
            yield "--keep does nothing: the trunk is frozen, --epochs finetune=N opens it"

    @property
    def names(self) -> tuple[str, ...]:
        """The new heads."""
        return tuple(dict.fromkeys(source.partition("=")[0] for source in self.sources))

    def sparing(self, settings: Settings) -> Settings:
        """The settings, with the old heads left alone as long as the trunk does not learn."""
        phases = (
            replace(phase, heads=self.names) if phase.first is None else phase
            for phase in settings.phases
        )
        return replace(settings, phases=tuple(phases))


@dataclass(frozen=True)
class Old:
    """The model that gets new heads.

    Args:
        path: Its file.
        network: It.
        description: What its file says of it.
    """

    path: Path
    network: keras.Model
    description: Description

    @classmethod
    def of(cls, network: Network) -> Old:
        """The model file that a run starts from.

        Raises:
            ValueError: The run does not start from a model file.
        """
        if network.start is None:
            raise ValueError(
                "Heads are added to a model that has some: --weights is 'shipped' or a model "
                f"file. Received: {network.weights}"
            )
        return cls(network.start, *model_file.load(network.start))

    @property
    def known(self) -> dict[str, Task]:
        """The old tasks by name."""
        return {task.name: task for task in self.description.tasks}

    def with_new(self, tasks: Sequence[Task], added: Sequence[str]) -> tuple[Task, ...]:
        """The old tasks and behind them those of the data that are new.

        Raises:
            ValueError: What shall be added is there already, or a source that was not added has
                a task that the model has not.
        """
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

    def untouched(self, network: keras.Model) -> set[str]:
        """The old heads that answer as before: neither they nor the trunk have changed."""
        before, after = _weights(self.network), _weights(network)
        same = {name: _equal(weights, after.get(name, [])) for name, weights in before.items()}
        trunk = all(equal for name, equal in same.items() if name not in self.known)
        return {name for name in self.known if trunk and same[name]}

    def soft_labelled(self, rows: Rows) -> Rows:
        """The rows with the old heads' answers wherever an old task is unknown."""
        return with_answers(rows, predict(self.network, rows), dict.fromkeys(self.known, 0.0), {})

    def scores(self, untouched: Collection[str], found: Mapping[str, Any]) -> dict[str, Any]:
        """What was found of the new model, and the old scores of heads that answer as before."""
        before = self.description.scores
        merged = {**{name: before[name] for name in untouched if name in before}, **found}
        old = {int(side): accuracies for side, accuracies in before.get("by_size", {}).items()}
        old = {
            side: {name: value for name, value in accuracies.items() if name in untouched}
            for side, accuracies in old.items()
        }
        new = found["by_size"]
        by_size = {side: old[side] | new[side] for side in new if old.get(side)} or new
        return {**merged, "by_size": by_size, "min_face": smallest_face(by_size)}

    def told(self) -> dict[str, Any]:
        """What the new model's file says about the old one."""
        return {
            "file": self.path.name,
            "sha256": model_file.sha256_of(self.path),
            "heads": list(self.known),
            "data": [dict(part) for part in self.description.data],
            "made": dict(self.description.made),
        }


def _weights(network: keras.Model) -> dict[str, list[np.ndarray]]:
    return {layer.name: layer.get_weights() for layer in network.layers if layer.weights}


def _equal(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))
