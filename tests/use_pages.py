"""The commands and programs on the pages of the documentation, and a folder in which they run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from faceattr.tasks import AGE_GROUP, EXPRESSION, GENDER, Task

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
    ROOT / "weights/README.md",
)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MOOD = Task("mood", ("crying", "cute", "laughing"))


class Code(NamedTuple):
    """A command, or a whole program of Python, and the page that first shows it."""

    text: str
    page: str

    def __str__(self) -> str:
        return f"{Path(self.page).stem}: {self.text.splitlines()[0][:60]}"


def commands() -> list[Code]:
    """Every line of every block of shell, once, in the order of the pages; without remarks."""
    return _once(
        Code(line, page)
        for page, block in blocks("sh")
        for line in map(_command, re.sub(r"\\\n\s*", "", block).splitlines())
        if line
    )


def programs() -> list[Code]:
    """Every block of Python."""
    return _once(Code(block, page) for page, block in blocks("python"))


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
            if language in languages:
                yield str(page.relative_to(ROOT)), text


def outputs(page: Path) -> dict[str, str]:
    """By the block before it, each block of output that a page shows."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return {
        before[1].strip(): after[1]
        for before, after in pairwise(found)
        if before[0] in ("sh", "python") and after[0] == "text"
    }


def _command(line: str) -> str:
    return re.sub(r"\s+#\s.*$", "", line).strip()


def _once(codes: Iterator[Code]) -> list[Code]:
    seen: dict[str, Code] = {}
    for code in codes:
        seen.setdefault(code.text, code)
    return list(seen.values())


def prepare(folder: Path) -> None:
    """Put there what the pages take for granted: photographs, small data sets, a video."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "photos").mkdir()
    for name in ("photos/one.jpg", "photos/two.jpg", "team.jpg", "a.jpg", "b.jpg"):
        shutil.copy(ROOT / "examples/astronaut.jpg", folder / name)
    _clip(folder / "clip.mp4")
    _class_folders(folder / "my_photos", 10, seed=0)
    _class_folders(folder / "new_photos", 4, seed=1)
    _fer2013(folder)
    people = _people(folder / "utkface", 240)
    _csv(folder / "people.csv", people[:40], ["gender", "age_group"])
    glasses = people[:40].assign(glasses=["no", "yes"] * 20)
    _csv(folder / "glasses.csv", glasses, ["glasses"])
    _csv(folder / "corrections.csv", people[:10].assign(expression="happy"), ["expression"])
    own = people.assign(expression=[EXPRESSION.classes[number % 7] for number in range(240)])
    moods = ["fear", "surprise", "calm"] * 80
    joy = own.replace({"expression": {"happy": "joy"}}).assign(mood=moods)
    _csv(folder / "labels.csv", joy[:70], ["expression", "mood"])
    contempt = own.assign(expression=own["expression"].where(own.index % 8 > 0, "contempt"))
    _csv(folder / "affectnet.csv", contempt[:70], ["expression"])


def _csv(path: Path, rows: pd.DataFrame, columns: list[str]) -> None:
    table = rows.assign(path="utkface/" + rows["path"])
    table[["path", *columns]].to_csv(path, index=False)


def _pixels(number: int, seed: int, size: int = 48) -> np.ndarray:
    """A blot whose place and brightness depend on a class; no two are alike."""
    dice = np.random.default_rng([seed, number])
    down, across = np.mgrid[:size, :size] / size
    place = 0.2 + 0.6 * (number % 7) / 7
    blot = np.exp(-((down - place) ** 2 + (across - 0.5) ** 2) / 0.03)
    noise = np.kron(dice.normal(0, 30, (12, 12)), np.ones((size // 12, size // 12)))
    return np.clip(40 + 160 * blot + noise, 0, 255).astype("uint8")


def _class_folders(folder: Path, each: int, seed: int) -> None:
    for number, mood in enumerate(MOOD.classes):
        (folder / mood).mkdir(parents=True)
        for one in range(each):
            image = Image.fromarray(_pixels(number + 7 * one, seed))
            image.save(folder / mood / f"{one}.png")


def _fer2013(folder: Path) -> None:
    """`fer2013/` and, as one file, `fer2013.csv` with FER+'s votes beside it."""
    rows = [
        {
            "emotion": number % 7,
            "pixels": " ".join(map(str, _pixels(number, 2).ravel())),
            "Usage": "Training" if number < 280 else "PublicTest",
        }
        for number in range(420)
    ]
    table = pd.DataFrame(rows)
    (folder / "fer2013").mkdir()
    table.to_csv(folder / "fer2013/fer2013.csv", index=False)
    table[::5].to_csv(folder / "fer2013.csv", index=False)
    votes = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear")
    voted = pd.DataFrame(
        0, index=range(len(table[::5])), columns=[*votes, "contempt", "unknown", "NF"]
    )
    voted["neutral"], voted["happiness"] = 3, 7
    voted.insert(0, "Usage", table["Usage"][::5].to_numpy())
    voted.insert(1, "Image name", [f"fer{number:07}.png" for number in range(len(voted))])
    voted.to_csv(folder / "fer2013new.csv", index=False)


def _people(folder: Path, count: int) -> pd.DataFrame:
    folder.mkdir()
    rows = []
    for number in range(count):
        Image.fromarray(_pixels(number, 3)).save(folder / f"{number}.png")
        split = "val" if number % 2 else "train"
        answers = {
            task.name: task.classes[number // 2 % len(task.classes)] for task in (GENDER, AGE_GROUP)
        }
        ethnicity = ("asian", "black", "indian", "others", "white")[number % 5]
        rows.append({"path": f"{number}.png", "split": split, "ethnicity": ethnicity, **answers})
    table = pd.DataFrame(rows)
    table.to_csv(folder / "manifest.csv", index=False)
    return table


def _clip(path: Path) -> None:
    from use_videos import record

    record(path, [np.asarray(Image.open(ROOT / "examples/astronaut.jpg").convert("RGB"))] * 4, 10)


def models(folder: Path) -> Path:
    """The model files that pages take for granted, small and untrained; returns the one from
    which trainings start in place of the shipped one."""
    from faceattr.images.crop import CropRule
    from faceattr.model.build import build
    from faceattr.model.file import Description, save

    named = {
        (EXPRESSION, GENDER, AGE_GROUP): ("start", "faces", "old", "first", "second", "mean"),
        (MOOD,): ("mood",),
        (EXPRESSION, GENDER, Task("is_face", ("no", "yes"))): ("more", "four"),
    }
    for tasks, names in named.items():
        network = build(tasks, backbone="vgg16-slim", weights=None)
        about = Description(tasks, CropRule(48), network={"backbone": "vgg16-slim"})
        save(network, about, folder / f"{names[0]}.keras")
        for name in names[1:]:
            shutil.copy(folder / f"{names[0]}.keras", folder / f"{name}.keras")
    return folder / "start.keras"
