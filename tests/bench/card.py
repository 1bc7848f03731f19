"""The figures of the shipped model's card, on the val rows of its six sets.

    python tests/bench/card.py DATA               measures, writes weights/figures.json
    python tests/bench/card.py DATA --face-api    beside @vladmandic/face-api (see face_api.py)
    python tests/bench/card.py DATA --model shipped-slim --output weights/figures-slim.json
    python tests/bench/card.py --write            puts the tables into the cards in weights/

DATA holds fer2013/, affectnet/, expw/, utkface/, celeba/ and aaf/, each with its manifest.csv. A
test holds the card's tables against the file (tests/test_card.py).
"""

from __future__ import annotations

import datetime
import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from faceattr.data.dataset import LabeledDataset, read_dataset
from faceattr.data.face_finder import FaceFinder
from faceattr.data.label_map import LABELS_AS_WRITTEN, LabelMap
from faceattr.data.near_duplicates import mark_near_duplicates
from faceattr.data.sources import read_for_model
from faceattr.detection.choose import choose_detector
from faceattr.evaluation.calibration import cross_calibrated
from faceattr.evaluation.groups import score_groups
from faceattr.evaluation.metrics import calibration_error, predict, score
from faceattr.evaluation.robustness import robustness
from faceattr.files import to_jsonable
from faceattr.images.crop import CropRule
from faceattr.model import file as model_file
from faceattr.model import runtime
from faceattr.model.file import Description
from faceattr.model.priors import change_prior, log_ratios

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from figures import OWN_SHARES, processor

CARD = Path(__file__).parents[2] / "weights/README.md"
FIGURES = CARD.with_name("figures.json")
SLIM_CARD, SLIM_FIGURES = CARD.with_name("SLIM.md"), CARD.with_name("figures-slim.json")
BEGIN, END = "<!-- figures: tests/bench/card.py --write -->", "<!-- end of figures -->"
SETS = ("fer2013", "affectnet", "expw", "utkface", "celeba", "aaf")
HEADS = ("celeba", "aaf")  # the others are faces already
MAJORITY, VOTES = "expression:majority", LabelMap(votes={"expression": 1.0})
GROUPS = {"utkface": ["ethnicity", "gender", "age_group"], "aaf": ["gender", "age_group"]}
GROUPS |= {"celeba": ["gender"], "fer2013": ["near_duplicate"]}
OWN_TEMPERATURE = "calibration_error_own_temperature"
FIGURES_OF_A_SCORE = (
    "balanced_accuracy", "calibration_error", OWN_TEMPERATURE, "expected_ece"
)  # fmt: skip
TITLES = {
    "fer2013": "FER2013", "affectnet": "AffectNet (part)", "expw": "ExpW", "utkface": "UTKFace",
    "celeba": "CelebA", "aaf": "All-Age-Faces",
}  # fmt: skip


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--model", default="shipped")
    parser.add_argument("--face-api", action="store_true")
    parser.add_argument("--output", type=Path, default=FIGURES)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.data:
        found = measured(given.model, given.data, given.cache, given.face_api)
        given.output.write_text(json.dumps(to_jsonable(found), indent=1))
    if given.write:
        large, small = (json.loads(path.read_text()) for path in (FIGURES, SLIM_FIGURES))
        write(CARD, render(large))
        write(SLIM_CARD, render_beside(small, large))


def write(card: Path, tables: str) -> None:
    """Put tables into a card in place of those that are there."""
    before, rest = card.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    card.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")


def measured(model: str, data: Path, cache: Path | None, beside: bool) -> dict[str, Any]:
    """Every figure of the card."""
    path = model_file.path_of(model)
    network, about = runtime.load(path)
    found: dict[str, Any] = {
        "model": {"file": path.name, "sha256": runtime.sha256_of(path)},
        "date": datetime.date.today().isoformat(),
        "machine": processor(),
        "command": "python tests/bench/card.py DATA" + " --face-api" * beside,
        "sets": {},
    }
    parts = []
    for name in SETS:
        rows, train = rows_of(data / name, about, about.crop, cache)
        parts.append(rows)
        targets, taught = labels(about, rows), labels(about, train)
        if name == "fer2013":  # the set with votes
            voted = rows_of(data / name, about, about.crop, cache, VOTES)
            targets[MAJORITY], taught[MAJORITY] = map(majority, (rows, train), voted)
        plain, flipped = (
            predict(network, rows),
            predict(runtime.TestTimeAveraging(network, flip=True), rows),
        )
        answers = {"model": plain, "model, --flip": flipped}
        if beside:
            answers["face-api"] = from_face_api(data / name, about, cache)
        groups = score_groups(about.tasks, rows, plain, GROUPS.get(name, []))
        found["sets"][name] = {
            "scores": {
                task: scores(about, task, target, answers, taught[task])
                for task, target in targets.items()
            },
            "groups": [asdict(one) for one in groups],
        }
    found["robustness"] = robustness(network, about.tasks, joined(parts)).accuracy
    return found


def rows_of(
    folder: Path, about: Description, rule: CropRule, cache: Path | None,
    label_map: LabelMap = LABELS_AS_WRITTEN,
) -> tuple[LabeledDataset, LabeledDataset]:  # fmt: skip
    """The rows of val, with whether their faces are in train too, and those of train."""
    whole = folder.name in HEADS
    detector = choose_detector("centerface") if whole else None
    known = {task.name: task for task in about.tasks}
    manifest = read_for_model(
        [str(folder / "manifest.csv")], known, label_map, FaceFinder(rule, detector, cache)
    )
    val, train = (
        read_dataset(manifest.only(split), manifest.tasks, rule, cache)[0]
        for split in ("val", "train")
    )
    return mark_near_duplicates(val, train), train


def labels(about: Description, rows: LabeledDataset) -> dict[str, np.ndarray]:
    """By task that a set knows, its targets."""
    found = {task.name: rows.targets.get(task.name) for task in about.tasks}
    return {name: target for name, target in found.items() if target is not None and target.any()}


def majority(rows: LabeledDataset, voted: LabeledDataset) -> np.ndarray:
    """What most of FER+'s voters said of each of the rows; ties and strangers have nothing."""
    votes = voted.targets["expression"]
    alone = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) == 1
    target = np.eye(votes.shape[1])[votes.argmax(axis=1)] * alone[:, None]
    known = {str(e.path): row for e, row in zip(voted.examples, target, strict=True)}
    nothing = np.zeros(votes.shape[1])
    return np.stack([known.get(str(e.path), nothing) for e in rows.examples])


def scores(
    about: Description,
    name: str,
    target: np.ndarray,
    answers: dict[str, dict[str, np.ndarray]],
    taught: np.ndarray,
) -> dict[str, Any]:
    """By whose answers, the score, with the error of calibration by the other half of the rows; and
    the same of the model under the class shares of `taught`, the train rows.
    """
    head = "expression" if name == MAJORITY else name
    task = next(task for task in about.tasks if task.name == head)
    said = {who: of[head] for who, of in answers.items() if head in of}
    if head in about.provenance.get("priors", {}):
        shares = dict(zip(task.classes, taught.sum(axis=0), strict=True))
        ratio = log_ratios(about, {head: shares})[head]
        said[OWN_SHARES] = change_prior(said["model"], ratio)
    return {
        who: {
            **asdict(found),
            "within_one": found.within_one,
            OWN_TEMPERATURE: calibration_error(*cross_calibrated(target, of)),
        }
        for who, of in said.items()
        for found in [score(task, target, of)]
    }


def from_face_api(folder: Path, about: Description, cache: Path | None) -> dict[str, np.ndarray]:
    """What face-api says of the same faces, cut at its own size of 112 pixels."""
    from face_api import face_api

    rows, _ = rows_of(folder, about, CropRule(112, about.crop.margin, about.crop.align), cache)
    return face_api(np.ascontiguousarray(rows.crops[rows.index]))


def joined(parts: list[LabeledDataset]) -> LabeledDataset:
    """The rows of all sets in one."""
    crops = np.concatenate([rows.crops[rows.index] for rows in parts])
    names = dict.fromkeys(name for rows in parts for name in rows.targets)
    classes = {name: rows.targets[name].shape[1] for rows in parts for name in rows.targets}
    targets = {
        name: np.concatenate(
            [rows.targets.get(name, np.zeros((len(rows), classes[name]))) for rows in parts]
        )
        for name in names
    }
    order = np.random.default_rng(0).permutation(len(crops))
    return LabeledDataset(crops, order, {name: target[order] for name, target in targets.items()})


def percent(value: float) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def with_interval(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{percent(found['accuracy'])} ({100 * low:.1f} to {100 * high:.1f})"


def row_of(name: str, found: dict[str, Any]) -> list[str]:
    """The cells of a score: n, accuracy, balanced, ECE and that of a perfect head."""
    within = f"; one beside {percent(found['within_one'])}" if found["within_one"] else ""
    return [
        name,
        f"{found['n']:,}",
        with_interval(found) + within,
        *(percent(found.get(what)) for what in FIGURES_OF_A_SCORE),
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def render(found: dict[str, Any]) -> str:
    """The tables of the card, in Markdown."""
    about = found["model"]
    parts = [
        f"`{found['command']}`, {found['date']}, {found['machine']}, two cores; model "
        f"`{about['sha256'][:12]}…`; split val, one crop a face, 95 % intervals in brackets.",
        table(
            ["rows", "n", "accuracy", "balanced", "ECE", "own temperature", "perfect head"],
            [row_of(*one) for one in _lines(found)],
        ),
        "Recall by class:",
        table(
            ["rows", "recall"],
            [
                [f"{TITLES[name]}, {_said(task)}", ", ".join(
                    f"{label} {100 * value:.0f}" for label, value in by["model"]["recall"].items()
                    if value is not None)]
                for name, one in found["sets"].items() for task, by in one["scores"].items()
            ],
        ),
        "By group:",
        table(
            ["rows", "group", "n", "accuracy", "balanced"],
            [
                [f"{TITLES[name]}, {_said(groups['task'])}", f"{groups['by']}: {group['name']}",
                 f"{group['n']:,}", with_interval(group), percent(group["balanced"])]
                for name, one in found["sets"].items() for groups in one["groups"]
                for group in groups["groups"] if group["n"] >= 30
            ],
        ),
        "Robustness, accuracy on 2,000 of these rows after each face was changed "
        "(`faceattr.evaluation.robustness`):",
        table(
            ["faces", *map(_said, found["robustness"]["as it is"])],
            [[change, *map(percent, by.values())] for change, by in found["robustness"].items()],
        ),
    ]  # fmt: skip
    return "\n\n".join(parts)


def render_beside(small: dict[str, Any], large: dict[str, Any]) -> str:
    """The tables of the small model's card: its figures beside the large one's and face-api's."""
    about, command = small["model"], f"{small['command']} --model shipped-slim"
    rows = []
    for name, task, by in (
        (name, task, by)
        for name, one in small["sets"].items()
        for task, by in one["scores"].items()
    ):
        others = large["sets"][name]["scores"][task]
        found = [by["model"], *(others.get(who) for who in ("model", "face-api"))]
        cells = [
            f"{percent(one['accuracy'])} ({percent(one['balanced_accuracy'])})" if one else "-"
            for one in found
        ]
        rows.append([f"{_said(task)}, {TITLES[name]}", f"{by['model']['n']:,}", *cells])
    parts = [
        f"`{command}`, {small['date']}, {small['machine']}, two cores; model "
        f"`{about['sha256'][:12]}…`; split val, one crop a face; in brackets the mean over "
        "classes. The other columns are from [figures.json](figures.json).",
        table(["rows", "n", "shipped-slim", "shipped", "face-api"], rows),
        "Robustness, accuracy on 2,000 of these rows after each face was changed:",
        table(
            ["faces", *map(_said, small["robustness"]["as it is"])],
            [[change, *map(percent, by.values())] for change, by in small["robustness"].items()],
        ),
    ]
    return "\n\n".join(parts)


def _said(task: str) -> str:
    return "expression, FER+ majority" if task == MAJORITY else task.replace("_", " ")


def _lines(found: dict[str, Any]):
    for name, one in found["sets"].items():
        for task, by in one["scores"].items():
            for who, score_of in by.items():
                more = "" if who == "model" else f", {who.removeprefix('model, ')}"
                yield f"{_said(task)}, {TITLES[name]}{more}", score_of


if __name__ == "__main__":
    main()
