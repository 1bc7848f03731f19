"""What is asked of a face: named tasks, each with its classes in one fixed order.

This is the only place where a class order is written down. A model file carries
the order it was trained with, and everything else reads it from there.
"""

from __future__ import annotations

from dataclasses import dataclass


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
        object.__setattr__(self, "classes", tuple(self.classes))
        if not self.name or any(c in self.name for c in ":=,/ "):
            raise ValueError(
                "A task needs a name without spaces and without any of ':=,/', because "
                f"columns and layers are called after it. Received: {self.name!r}"
            )
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(
                f"Task {self.name!r} needs at least two classes, each named once. "
                f"Received: {list(self.classes)}"
            )

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


EXPRESSION = Task("expression", ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"))
GENDER = Task("gender", ("male", "female"))
AGE_GROUP = Task(
    "age_group",
    ("0-5", "6-12", "13-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+"),
)
KNOWN_TASKS = {task.name: task for task in (EXPRESSION, GENDER, AGE_GROUP)}

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
