"""Nothing is lost by a kill: jobs killed by SIGKILL at random moments, gone on with, compared.

    python tests/campaigns/kills.py --kills 100 --seed 1
    python tests/campaigns/power.py --kills 100 --seed 1     # and unsynced writes are dropped

Each job runs once unbroken. Then it is started again and again, with ``--resume``, and killed at
a random moment of the time that it takes, until there were so many kills. What it left whenever
it came to its end must equal what the unbroken run left. Exit code 1 where it does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from common import FACEATTR, is_time_left, main
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[1]))

IMAGES = 600
FACES = 48
WITHOUT_END = 400  # starts of one job that never comes to its end


@dataclass(frozen=True)
class Job:
    """A command, typed in its own folder, and what of that folder must be equal.

    Args:
        words: The command; the folder has ``inputs`` and the models beside it.
        content: What is compared, by name.
        resume: What is added to go on; nothing where a second start begins anew.
        beside: A second command in the same folder, killed and gone on with together.
        warm: Folders that an earlier run has filled already.
    """

    words: tuple[str, ...]
    content: Callable[[Path], dict[str, str]]
    resume: tuple[str, ...] = ("--resume",)
    beside: tuple[str, ...] = ()
    warm: tuple[str, ...] = ()

    @property
    def commands(self) -> list[tuple[str, ...]]:
        return [words for words in (self.words, self.beside) if words]


def _files(*names: str) -> Callable[[Path], dict[str, str]]:
    """The SHA-256 of files and of all files in folders."""

    def content(folder: Path) -> dict[str, str]:
        paths = [folder / name for name in names]
        inside = [p for path in paths for p in sorted(path.rglob("*")) if p.is_file()]
        files = [path for path in paths if path.is_file()] + inside
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    return content


def _rows(name: str) -> Callable[[Path], dict[str, str]]:
    import pandas as pd

    return lambda folder: {"rows": pd.read_parquet(folder / name).to_csv(index=False)}


def _weights(name: str) -> Callable[[Path], dict[str, str]]:
    """The SHA-256 of each weight of a model file, whose archive holds the time of its making."""

    def content(folder: Path) -> dict[str, str]:
        from faceattr.model import file as model_file

        scores = model_file.load(folder / name)[1].scores
        scored = {"scores": json.dumps(scores, sort_keys=True, default=str)}
        return weights_of(folder / name) | scored

    return content


def weights_of(model: Path) -> dict[str, str]:
    """The SHA-256 of each weight that is no state of a generator."""
    from faceattr.model import file as model_file

    return {
        f"{place} {weight.path}": hashlib.sha256(np.asarray(weight).tobytes()).hexdigest()
        for place, weight in enumerate(model_file.load(model)[0].weights)
        if "seed" not in weight.path
    }


def _both(*contents: Callable[[Path], dict[str, str]]) -> Callable[[Path], dict[str, str]]:
    return lambda folder: {
        f"{place} {name}": of
        for place, content in enumerate(contents)
        for name, of in content(folder).items()
    }


def _results(name: str) -> Callable[[Path], dict[str, str]]:
    """A comparison without what its trainings cost."""
    import pandas as pd

    def content(folder: Path) -> dict[str, str]:
        table = pd.read_csv(folder / name).drop(columns=["minutes", "megabytes"])
        return {"rows": table.to_csv(index=False)}

    return content


def _answers(name: str) -> Callable[[Path], dict[str, str]]:
    """What an exported file answers; its bytes are not the same twice."""

    def content(folder: Path) -> dict[str, str]:
        from faceattr.model import runtime

        crops = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
        answers = runtime.load(folder / name)[0].predict_on_batch(crops)
        return {task: np.asarray(rows).round(6).tobytes().hex() for task, rows in answers.items()}

    return content


LABEL = ("label", "inputs", "--detector", "none", "--model", "toy.onnx", "--batch-size", "8")
TRAIN = (
    *("train", "mood=mood", "hair=hair", "-o", "new.keras", "--weights", "none", "--size", "32"),
    *("--backbone", "vgg16-slim", "--batch-size", "8", "--cache", "cache", "--dtype", "float32"),
)
FROZEN = (
    *("train", "mood=mood", "hair=hair", "-o", "new.keras", "--weights", "toy.keras"),
    *("--size", "32", "--batch-size", "8", "--cache", "cache", "--dtype", "float32"),
)
JOBS = {
    "label csv": Job((*LABEL, "-o", "t.csv"), _files("t.csv")),
    "label jsonl": Job((*LABEL, "-o", "t.jsonl"), _files("t.jsonl")),
    "label parquet": Job((*LABEL, "-o", "t.parquet"), _rows("t.parquet")),
    "label csv, crops, gallery": Job(
        (*LABEL, "-o", "t.csv", "--save-crops", "crops", "--gallery", "page.html"),
        _files("t.csv", "crops", "page.html"),
    ),
    "train joint": Job((*TRAIN, "--epochs", "scratch=3"), _weights("new.keras")),
    "train alternating, ema": Job(
        (*TRAIN, "--epochs", "scratch=3", "--schedule", "alternating", "--ema", "0.9"),
        _weights("new.keras"),
    ),
    "train frozen on features, then whole": Job(
        (*FROZEN, "--epochs", "frozen=2,finetune=2", "--augment-repeats", "1"),
        _weights("new.keras"),
    ),
    "train on warm features": Job(
        (*FROZEN, "--epochs", "frozen=2,finetune=2", "--augment-repeats", "1"),
        _weights("new.keras"),
        warm=("cache",),
    ),
    "two trainings, one cache": Job(
        (*FROZEN, "--epochs", "frozen=2,finetune=0", "--augment-repeats", "1"),
        _both(_weights("new.keras"), _weights("other.keras")),
        beside=(
            *(word.replace("new.", "other.") for word in FROZEN),
            *("--epochs", "frozen=2,finetune=0", "--augment-repeats", "2"),
        ),
    ),
    "compare": Job(
        (
            *("compare", "recipe.toml", "--on", "mood=mood", "hair=hair", "--seeds", "1"),
            *("-o", "results.csv", "--cache", "cache"),
        ),
        _results("results.csv"),
        resume=(),
    ),
    "export onnx": Job(
        ("export", "toy.keras", "--to", "onnx", "-o", "new.onnx"),
        _answers("new.onnx"),
        ("--overwrite",),
    ),
}


def prepare(folder: Path) -> None:
    """Images to label, two sets to learn from, a model in two formats."""
    import keras

    from faceattr.exporting.export import export
    from faceattr.images.crop import CropRule
    from faceattr.model import file as model_file
    from faceattr.model.build import build
    from faceattr.tasks import Task

    face = cv2.cvtColor(data.astronaut()[0:200, 120:320], cv2.COLOR_RGB2BGR)
    (folder / "inputs").mkdir(parents=True)
    for number in range(IMAGES):
        image = cv2.resize(np.roll(face, number, 1), (64, 64))
        cv2.imwrite(str(folder / f"inputs/{number:04d}.jpg"), image)
    rng = np.random.default_rng(0)
    for name, classes in (("mood", ("calm", "wild")), ("hair", ("dark", "light"))):
        for place, label in enumerate(classes):
            for split, count in (("train", FACES), ("val", 8)):
                inside = folder / name / split / label
                inside.mkdir(parents=True)
                for number in range(count):
                    noise = rng.integers(-40, 40, (32, 32, 3))
                    image = np.clip(80 + 90 * place + noise, 0, 255).astype(np.uint8)
                    cv2.imwrite(str(inside / f"{name}{number}.png"), image)
    (folder / "recipe.toml").write_text(
        'weights = "none"\nbackbone = "vgg16-slim"\nsize = 32\nbatch-size = 8\n'
        'epochs = "scratch=2"\ndtype = "float32"\n[joint]\n'
    )
    keras.utils.set_random_seed(0)
    tasks = (Task("mood", ("calm", "wild")), Task("hair", ("dark", "light")))
    network = build(tasks, weights=None, backbone="vgg16-slim")
    about = model_file.Description(tasks, CropRule(32), {"backbone": "vgg16-slim"})
    model_file.save(network, about, folder / "toy.keras")
    export(folder / "toy.keras", "onnx", folder / "toy.onnx")


def campaign(
    job: Job,
    made: Path,
    kills: int,
    seed: int,
    after_kill: Callable[[Path, np.random.Generator], None] = lambda folder, rng: None,
) -> dict:
    """One job: counts of kills, of ends that were reached, and the ends that differ.

    `after_kill` does to the folder what else a kill may do.
    """
    rng, work = np.random.default_rng(seed), made.parent / "work"
    expected, seconds = unbroken(job, made, work)
    done, ends, broken, began = 0, 0, [], time.monotonic()
    while done < kills and is_time_left(began):
        folder, before, start_of_end = fresh(made, work), done, time.monotonic()
        for killed in _until_its_end(job, folder, seconds, rng):
            done += killed is None
            if killed is None:
                after_kill(folder, rng)
            # A training may be killed once its model is there: then nothing is left to resume.
            if killed not in (None, 0) and "is finished, there is nothing" not in errors_in(folder):
                broken.append({"end": ends, "fault": f"exit code {killed}: {errors_in(folder)}"})
        if done == before:  # too late for every kill: a run is faster than the first one was
            seconds = time.monotonic() - start_of_end
        ends += 1
        left = job.content(folder)
        if left != expected:
            names = [n for n in {*left, *expected} if left.get(n) != expected.get(n)]
            broken.append({"end": ends, "fault": "differs", "names": sorted(names)[:10]})
    return {"kills": done, "ends": ends, "seconds_of_a_run": round(seconds, 1), "broken": broken}


def unbroken(job: Job, made: Path, work: Path) -> tuple[dict[str, str], float]:
    folder = fresh(made, work)
    started = time.monotonic()
    for code in [process.wait() for process in _started(job.commands, folder)]:
        if code != 0:
            raise RuntimeError(f"The unbroken run ends with {code}: {errors_in(folder)}")
    seconds, expected = time.monotonic() - started, job.content(folder)
    for name in job.warm:
        shutil.copytree(folder / name, made / name, dirs_exist_ok=True)
    return expected, seconds


def _started(commands: Sequence[tuple[str, ...]], folder: Path) -> list[subprocess.Popen]:
    said = [folder / "errors.txt", folder / "errors_beside.txt"]
    return [start(words, folder, errors) for words, errors in zip(commands, said, strict=False)]


def _until_its_end(
    job: Job, folder: Path, seconds: float, rng: np.random.Generator
) -> Iterator[int | None]:
    """Start, kill, start again; None for each kill, at last the exit codes."""
    commands = job.commands
    for attempt in range(WITHOUT_END):
        processes = _started(commands, folder)
        # Most of a short run is its start: later moments are drawn as often as all earlier. What
        # begins anew on a machine that became slower still comes to its end.
        ends = time.monotonic() + seconds * float(rng.uniform(0.2, 1.1)) * (1 + attempt / 20)
        while any(one.poll() is None for one in processes) and time.monotonic() < ends:
            time.sleep(0.01)
        running = [one.poll() is None for one in processes]
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        yield from (
            one.returncode for one, runs in zip(processes, running, strict=True) if not runs
        )
        if not any(running):
            return
        yield None
        commands = [
            (*words, *job.resume) for words, runs in zip(commands, running, strict=True) if runs
        ]
    raise RuntimeError("The job does not come to its end.")


def start(
    words: tuple[str, ...], folder: Path, errors: Path | None = None, **variables: str
) -> subprocess.Popen:
    """The command in a folder; what it says goes into ``errors.txt`` there, or elsewhere.

    `variables` are added to those of the environment.
    """
    with open(errors or folder / "errors.txt", "w") as said:
        return subprocess.Popen(
            [*FACEATTR, *words],
            cwd=folder,
            env=os.environ | variables,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )


def errors_in(folder: Path) -> str:
    """The end of what the commands said."""
    said = (folder / name for name in ("errors.txt", "errors_beside.txt"))
    return "".join(file.read_text()[-1500:] for file in said if file.exists())


def fresh(made: Path, work: Path) -> Path:
    shutil.rmtree(work, ignore_errors=True)
    return Path(shutil.copytree(made, work))


def run_jobs(campaign: Callable, count: int, seed: int, only: Collection[str] = ()) -> dict:
    """A campaign on all jobs, or on some by name; by name what it counted."""
    with tempfile.TemporaryDirectory("-faceattr", ignore_cleanup_errors=True) as root:
        made, found = Path(root, "made"), {}
        prepare(made)
        for name in only or JOBS:
            found[name] = campaign(JOBS[name], made, count, seed)
            print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
    return found


run = partial(run_jobs, campaign)

if __name__ == "__main__":
    sys.exit(main(__doc__, run, 100, counted="kills", only=", ".join(JOBS)))
