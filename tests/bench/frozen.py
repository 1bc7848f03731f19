"""Training on kept features against Keras' plain `fit`: time to the same val accuracy.

    python tests/bench/frozen.py run fer2013/manifest.csv --seed 0 -o seed0.json
    python tests/bench/frozen.py show seed0.json seed1.json seed2.json

Both ways train the same network on the same 240 crops (happy, sad and surprise of FER2013's
val, which did not train the shipped backbone), judge each epoch on 240 others and are scored in
the end on 600 more. Cold caches. Seconds are the processor's, of both cores: other work on
the machine does not enter them. Reading, start-up and the final scoring are left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

CLASSES = ("happy", "sad", "surprise")
PARTS = {"train": 80, "val": 80, "held_out": 200}  # pictures per class


def rows_of_fer2013(manifest: Path, seed: int) -> dict:
    """Rows by part, drawn anew by each seed."""
    import cv2

    from faceattr.data.dataset import LabeledDataset

    table = pd.read_csv(manifest)
    table = table[(table["split"] == "val") & table["expression"].isin(CLASSES)]
    shuffled = table.sample(frac=1, random_state=seed).groupby("expression")
    place, parts, first = shuffled.cumcount(), {}, 0
    for name, count in PARTS.items():
        part = table[place.between(first, first + count - 1).reindex(table.index)]
        crops = np.stack([cv2.imread(str(manifest.parent / path))[..., ::-1] for path in part.path])
        labels = part["expression"].map(CLASSES.index).to_numpy()
        targets = {"mood": np.eye(len(CLASSES), dtype="float32")[labels]}
        parts[name], first = LabeledDataset(crops, np.arange(len(part)), targets), first + count
    return parts


def timed(parts: dict, seed: int, copies: int, finetune: str | None) -> dict:
    """Train once; by epoch the processor seconds so far and the val accuracy."""
    import keras

    from faceattr.evaluation.metrics import score_model
    from faceattr.progress import Progress
    from faceattr.tasks import Task
    from faceattr.training.checkpoint import Epoch
    from faceattr.training.config import FINETUNE, FROZEN, Network, Settings
    from faceattr.training.network import new_model
    from faceattr.training.trainer import fit

    keras.utils.set_random_seed(seed)
    task, network = Task("mood", CLASSES), Network(dtype="float32")
    phases = [replace(FROZEN, patience=None)]
    if finetune:
        phases.append(replace(FINETUNE, patience=None, unfreeze_from=finetune))
    settings = Settings(phases=tuple(phases), augment_repeats=copies, seed=seed)
    model, epochs = new_model(network, [task], seed=seed), []

    class Noted(Progress):
        def show(self, record) -> None:
            if not isinstance(record, Epoch):
                return
            accuracy = record.scores["mood"].accuracy
            seconds, clock = time.process_time() - began, time.monotonic() - clock_began
            epochs.append([record.phase, seconds, clock, accuracy])
            print(f"{record.phase:9} {seconds:6.1f} s of processor {clock:6.1f} s {accuracy:.1%}")

    with tempfile.TemporaryDirectory() as folder:
        began, clock_began = time.process_time(), time.monotonic()
        cache = Path(folder, "features")
        train, val = parts["train"], parts["val"]
        how = {"features": cache, "progress": Noted()}
        fit(model, [task], train, val, settings, Path(folder), **how)
    score = score_model(model, [task], parts["held_out"])["mood"].accuracy
    print(f"copies {copies}, finetune {finetune}: {score:.1%} of those held out")
    return {"copies": copies, "finetune": finetune, "epochs": epochs, "held_out": score}


def reached(epochs: list, accuracy: float) -> float:
    """Processor seconds until an accuracy was reached; infinity if it was not."""
    return min((seconds for _, seconds, _, found in epochs if found >= accuracy), default=np.inf)


def compare(run: dict) -> dict:
    """What a seed says about each phase: both ways' best accuracy and the times to plain's."""
    plain, fast = run["plain"]["epochs"], run["features"]["epochs"]
    said = {
        "held out, plain": run["plain"]["held_out"],
        "held out, features": run["features"]["held_out"],
    }
    of_phases = {"frozen": ("frozen",), "whole": ("frozen", "finetune")}
    if run["plain"]["finetune"] is None:
        del of_phases["whole"]
    for name, phases in of_phases.items():
        parts = [[e for e in epochs if e[0] in phases] for epochs in (plain, fast)]
        best = [max(accuracy for *_, accuracy in part) for part in parts]
        said |= {f"{name}: best val, plain": best[0], f"{name}: best val, features": best[1]}
        times = [reached(part, best[0]) for part in parts]
        said |= {f"{name}: s to it, plain": times[0], f"{name}: s to it, features": times[1]}
        said[f"{name}: times faster to it"] = times[0] / times[1]
        said[f"{name}: times faster, all epochs"] = parts[0][-1][1] / parts[1][-1][1]
    return said


def show(paths: list[Path]) -> None:
    """Print each figure by seed, with mean and spread."""
    found = pd.DataFrame([compare(json.loads(path.read_text())) for path in paths]).T
    found["mean"], found["spread"] = found.mean(axis=1), found.std(axis=1)
    print(found.to_string(float_format=lambda value: f"{value:.3g}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("manifest", type=Path)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--copies", type=int, default=2)
    run.add_argument("--finetune", default="block4_conv1", help="none leaves the phase out")
    run.add_argument("--without-plain", action="store_true")
    run.add_argument("-o", "--output", type=Path)
    commands.add_parser("show").add_argument("paths", nargs="+", type=Path)
    given = parser.parse_args()
    if given.command == "show":
        return show(given.paths)
    parts = rows_of_fer2013(given.manifest, given.seed)
    finetune = None if given.finetune == "none" else given.finetune
    ways = {"features": given.copies} | ({} if given.without_plain else {"plain": 0})
    found = {name: timed(parts, given.seed, copies, finetune) for name, copies in ways.items()}
    if given.output:
        given.output.write_text(json.dumps(found))
    return None


if __name__ == "__main__":
    main()
