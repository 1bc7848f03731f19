"""What is asked of a face: named tasks, each with its classes in one fixed order.

This is the only place where a class order is written down. A model file carries
the order it was trained with, and everything else reads it from there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

# Columns of the manifest and of the folder's table, and layers of the network.
TASK_NAME = (
    r"(?!(path|split|group|status|faces?|[xy][01]|detection|turn|time|reason|"
    r"crops|to_float|dropout|backbone|trunk|block\d.*)$)[A-Za-z][A-Za-z0-9_-]*"
)


def refuse_unknown(what: str, given: Iterable[str], known: Collection[str], purpose: str) -> None:
    """Raise ValueError where a task, a head or a source is named that there is not."""
    if strangers := sorted(set(given) - set(known)):
        raise ValueError(
            f"There is no {what} {', '.join(strangers)} {purpose}. "
            f"The {what}s are {', '.join(known)}."
        )


@dataclass(frozen=True)
class Task:
    """A question with named answers, for example ``Task("gender", ("male", "female"))``.

    Args:
        name: What the head, the manifest column and the output column are called.
        classes: At least two distinct names; their order is the order of the
            head's probabilities.
    """

    name: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        # A text is a sequence of letters, but no classes: "xy" is a slip for ("xy",).
        if isinstance(self.classes, str) or not all(
            isinstance(name, str) and name for name in self.classes
        ):
            raise ValueError(
                f"The classes of task {self.name!r} are a sequence of names. "
                f"Received: {self.classes!r}"
            )
        object.__setattr__(self, "classes", tuple(self.classes))
        if not isinstance(self.name, str) or not re.fullmatch(TASK_NAME, self.name):
            raise ValueError(
                "A task's name is made of plain letters, digits, '_' and '-', begins with a "
                "letter, and is none that the table or the network uses itself (such as path, "
                "face or block1), because columns and layers are called after it. "
                f"Received: {self.name!r}"
            )
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(
                f"Task {self.name!r} needs at least two classes, each named once. "
                f"Received: {list(self.classes)}"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """What a table calls the answer, its probability, and that of each class."""
        return self.name, f"{self.name}_prob", *(f"{self.name}:{name}" for name in self.classes)

    def index(self, label: str) -> int:
        """The position of `label` among the classes; common other spellings are understood.

        Raises:
            ValueError: The label is none of this task's classes.
        """
        name = label.strip()
        if name not in self.classes:
            name = CLASS_ALIASES.get(self.name, {}).get(name.lower(), name.lower())
        if name not in self.classes:
            raise ValueError(
                f"{label!r} is not a class of task {self.name!r}, "
                f"whose classes are {', '.join(self.classes)}."
            )
        return self.classes.index(name)

    def class_of(self, label: str) -> str:
        """The class that `label` is, or is a common other spelling of; raises as `index`."""
        return self.classes[self.index(label)]

    def __contains__(self, label: str) -> bool:
        """Whether `label` is one of the classes, or a common other spelling of one."""
        try:
            return self.index(label) >= 0
        except ValueError:
            return False


def timeline_columns(tasks: Sequence[Task]) -> list[str]:
    """The columns of a CSV of who showed what when, in order; the page's own and `live`'s."""
    place = ("time", "frame", "track", "x0", "y0", "x1", "y1", "detection")
    return [*place, *(column for task in tasks for column in task.columns)]


EXPRESSION = Task("expression", ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"))
GENDER = Task("gender", ("male", "female"))
AGE_GROUP = Task(
    "age_group",
    ("0-5", "6-12", "13-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+"),
)
ORDINAL_TASKS = (AGE_GROUP.name,)  # tasks whose classes are neighbours
KNOWN_TASKS = {task.name: task for task in (EXPRESSION, GENDER, AGE_GROUP)}


@dataclass(frozen=True)
class Order:
    """How a data set numbers its classes.

    Args:
        first: The number of the first class.
        classes: In the order of their numbers, named as this package names them.
    """

    first: int
    classes: tuple[str, ...]

    def name_of(self, number: int) -> str:
        """The class of a number; ValueError where no class has it."""
        if not 0 <= number - self.first < len(self.classes):
            raise ValueError(f"{number} is no number of this order: {self}.")
        return self.classes[number - self.first]

    def __str__(self) -> str:
        return ", ".join(f"{i} {name}" for i, name in enumerate(self.classes, self.first))


# Every data set numbers its classes in its own way, so a number alone says nothing.
ORDERS: dict[str, dict[str, Order]] = {
    "expression": {
        "fer2013": Order(0, ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")),
        "fer+": Order(
            0, ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
        ),
        "raf-db": Order(1, ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")),
        "affectnet": Order(
            0, ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
        ),
        "imagefolder": Order(0, EXPRESSION.classes),
    },
    "gender": {
        "utkface": Order(0, ("male", "female")),
        "imdb-wiki": Order(0, ("female", "male")),
    },
}

# Spellings used by FER+, RAF-DB, AffectNet, FairFace and others (lower case) for our classes.
CLASS_ALIASES: dict[str, dict[str, str]] = {
    "expression": {
        "anger": "angry",
        "disgusted": "disgust",
        "fearful": "fear",
        "happiness": "happy",
        "neutrality": "neutral",
        "sadness": "sad",
        "surprised": "surprise",
    },
    "gender": {
        "m": "male",
        "man": "male",
        "men": "male",
        "f": "female",
        "woman": "female",
        "women": "female",
    },
}
