"""The smallest pair of data sets that do not share labels; run: `python docs/miniature.py`.

Five pictures know a mood, six a gender. Draws docs/miniature.png from the targets that
faceattr makes of them.
"""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from faceattr.data.manifest import Example, targets
from faceattr.tasks import GENDER, Task

MOOD = Task("mood", ("laughing", "crying", "cute"))
MOODS = ("laughing", "crying", "cute", "laughing", "cute")
GENDERS = ("female", "male", "male", "female", "female", "male")
EXAMPLES = [
    *(Example(Path(f"mood{i}.jpg"), {"mood": label}) for i, label in enumerate(MOODS, 1)),
    *(Example(Path(f"gender{i}.jpg"), {"gender": label}) for i, label in enumerate(GENDERS, 1)),
]


def draw(path: Path) -> None:
    by_task = targets((MOOD, GENDER), EXAMPLES)
    matrix = np.concatenate(list(by_task.values()), axis=1)
    known = np.repeat([t.any(axis=1) for t in by_task.values()], [3, 2], axis=0).T
    figure, axes = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
    colours = mpl.colors.ListedColormap(["#e8e8e8", "#c9dcf2", "#2b6cb0"])
    axes.imshow(matrix + known, cmap=colours, aspect=0.45)
    for (row, column), value in np.ndenumerate(matrix):
        colour = "white" if value else "#333333" if known[row, column] else "#999999"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour)
    axes.axvline(2.5, color="white", linewidth=6)
    axes.set_xticks(range(5), [*MOOD.classes, *GENDER.classes])
    axes.set_yticks(range(11), [example.path.name for example in EXAMPLES])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("a grey zero is unknown: its head sees no loss and no gradient")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".png"))
