"""Manifests, model files and caches are checked: commands on broken ones.

    python tests/campaigns/files.py --count 2000 --seed 1

For each kind of file, a whole one is changed at random and given to the command that reads it.
The command must answer as with the whole file, or say one sentence and end with exit code 2.
Crafted model files try to run code or to write elsewhere. Exit code 1 where a promise is broken.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from common import fault_of, is_time_left, main
from corrupt import corrupted
from kills import start, weights_of
from skimage import data
from worker import outcomes

sys.path.insert(0, str(Path(__file__).parents[1]))

Command = Callable[[Path], list[str]]
ON_DISK = 250  # folders at once
SEVERAL = 4  # lines of a message; more is no sentence


class Subject:
    """A whole file, the command that reads it, and what the command answers.

    Args:
        folder: Holds the files; each try has a copy.
        files: The names of those of which one is broken.
        command: The command for such a folder.
        answer: What the command has answered in such a folder, to compare with the whole one;
            None where a change may change the answer.
    """

    def __init__(
        self,
        folder: Path,
        files: str | Sequence[str],
        command: Command,
        answer: Callable[[Path, dict], object] | None = None,
    ) -> None:
        self.folder, self.command, self.answer = folder, command, answer
        self.files = (files,) if isinstance(files, str) else tuple(files)


def _faces(folder: Path) -> list[str]:
    face = cv2.cvtColor(data.astronaut()[0:200, 120:320], cv2.COLOR_RGB2BGR)
    names = []
    for number in range(8):
        turned = np.roll(face, 7 * number, 1) if number < 6 else face
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(turned, (48, 48)))
        names.append(f"{number}.png")
    return names


def subjects(root: Path, only: Sequence[str] = ()) -> dict[str, Subject]:
    """By name: what is broken, and by which command it is read; what takes long, if asked for."""
    import keras
    from conftest import toy_network

    from faceattr.exporting.export import export
    from faceattr.images.crop import CropRule
    from faceattr.model import file as model_file
    from faceattr.tasks import EXPRESSION, GENDER

    keras.utils.set_random_seed(0)
    made = root / "made"
    made.mkdir(parents=True)
    names = _faces(made)
    genders = ("male", "female", "")
    rows = "path,split,x0,y0,x1,y1,gender,expression:happy,expression:sad\n" + "".join(
        f"{name},{'train' if i < 6 else 'val'},0,0,48,48,{genders[i % 3]},{i % 2},1\n"
        for i, name in enumerate(names)
    )
    (made / "faces.csv").write_text(rows)
    about = model_file.Description((EXPRESSION, GENDER), CropRule(48))
    model_file.save(toy_network(), about, made / "toy.keras")
    found = {
        "manifest": Subject(made, "faces.csv", _audit),
        "keras": Subject(made, "toy.keras", partial(_label, model="toy.keras"), _table),
    }
    for kind, suffix in (("onnx", ".onnx"), ("litert", ".tflite")):
        export(made / "toy.keras", kind, made / f"toy{suffix}")
        for file in (f"toy{suffix}", f"toy{suffix}.json"):
            command = partial(_label, model=f"toy{suffix}")
            found[file.removeprefix("toy.")] = Subject(made, file, command, _table)
    slow = {"cache": _of_cache, "checkpoint": _of_checkpoint}
    return found | {name: of(made, root) for name, of in slow.items() if not only or name in only}


def _of_cache(made: Path, root: Path) -> Subject:
    """Crops that a command has kept; a damaged one is made anew."""
    folder = Path(shutil.copytree(made, root / "with cache"))

    def command(folder: Path) -> list[str]:
        given = ["--cache", str(folder / "cache"), "--split", "all"]
        return ["evaluate", str(folder / "toy.keras"), str(folder / "faces.csv"), *given]

    def answer(folder: Path, outcome: dict) -> object:
        beside = [path for path in sorted(folder.iterdir()) if path.is_file()]
        return outcome["out"], [hashlib.sha256(path.read_bytes()).digest() for path in beside]

    list(outcomes([command(folder)]))
    kept = [path for path in sorted((folder / "cache").iterdir()) if path.stat().st_size]
    return Subject(folder, [f"cache/{path.name}" for path in kept], command, answer)


def _of_checkpoint(made: Path, root: Path) -> Subject:
    """A training that was killed behind its first epoch, and is gone on with."""
    folder = Path(shutil.copytree(made, root / "with checkpoint"))

    def command(folder: Path) -> list[str]:
        given = [
            "--tasks",
            "gender",
            "--weights",
            "none",
            "--backbone",
            "vgg16-slim",
            "--size",
            "32",
            "--epochs",
        ]
        given += ["scratch=2", "--batch-size", "8", "--cache", str(folder / "cache"), "--resume"]
        return ["train", str(folder / "faces.csv"), "-o", str(folder / "new.keras"), *given]

    process = start(tuple(command(folder)), folder)
    run = folder / "new.training"
    while process.poll() is None and not (run / "checkpoint.npz").exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    names = [f"new.training/{path.name}" for path in sorted(run.iterdir())]
    return Subject(folder, names, command, lambda folder, outcome: weights_of(folder / "new.keras"))


def _audit(folder: Path) -> list[str]:
    return ["audit", str(folder / "faces.csv"), "--model", "none"]  # asking one takes a second


def _label(folder: Path, model: str) -> list[str]:
    images, table = str(folder / "0.png"), str(folder / "table.csv")
    given = ["--model", str(folder / model), "--detector", "none", "-o", table, "--overwrite"]
    return ["label", images, *given]


def _table(folder: Path, outcome: dict) -> str:
    path = folder / "table.csv"
    return path.read_text().split("\n", 1)[1].partition(",")[2] if path.is_file() else ""


def tries(subject: Subject, count: int, seed: int, root: Path) -> Iterator[tuple[Path, str]]:
    """Folders with a broken file each, and how it was broken."""
    rng = np.random.default_rng(seed)
    whole = [(subject.folder / file).read_bytes() for file in subject.files]
    others = [path.read_bytes() for path in sorted(subject.folder.iterdir()) if path.is_file()]
    for number in range(count):
        folder = root / f"{number:05d}"
        shutil.copytree(subject.folder, folder)
        place = int(rng.integers(len(whole)))
        how, content = corrupted(whole[place], others[int(rng.integers(len(others)))], rng)
        (folder / subject.files[place]).write_bytes(content)
        yield folder, f"{subject.files[place]} {how}"


def campaign(name: str, subject: Subject, count: int, seed: int, root: Path) -> dict:
    """Break the file `count` times, run the command each time, and count."""
    started, codes, broken = time.monotonic(), Counter(), []
    work = root / name
    whole = root / f"{name}-whole"
    shutil.copytree(subject.folder, whole)
    (outcome,) = outcomes([subject.command(whole)])
    if outcome["code"] != 0:
        raise RuntimeError(f"{name}, the whole file: {outcome['err']}")
    expected = subject.answer(whole, outcome) if subject.answer else None
    all_tries, began = tries(subject, count, seed, work), time.monotonic()
    while is_time_left(began) and (folders := list(islice(all_tries, ON_DISK))):
        commands = [subject.command(folder) for folder, _ in folders]
        for (folder, how), outcome in zip(folders, outcomes(commands), strict=True):
            codes[str(outcome["code"])] += 1
            if fault := _fault(outcome, subject, folder, expected):
                broken.append({"try": folder.name, "how": how, "fault": fault})
            shutil.rmtree(folder)
            if not is_time_left(began):
                break
    seconds = round(time.monotonic() - started)
    return {"count": codes.total(), "codes": dict(codes), "seconds": seconds, "broken": broken}


def _fault(outcome: dict, subject: Subject, folder: Path, expected: object) -> str | None:
    """What was promised and not kept, or None."""
    code, err = outcome["code"], outcome["err"]
    if fault := outcome["traceback"] or fault_of(code, err):
        return fault
    if code == 2 and len(err.splitlines()) > SEVERAL:
        return f"not one sentence: {err}"
    if code == 0 and subject.answer and subject.answer(folder, outcome) != expected:
        return "another answer"
    return None


def attacks(root: Path, model: Path) -> dict[str, Path]:
    """Model files that try to run code or to write outside of where they are unpacked."""
    marker = root / "marker"
    call = f"open({str(marker)!r}, 'w').close()"
    lambda_layer = {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {
            "name": "evil",
            "function": {
                "class_name": "__lambda__",
                "config": {"code": _marshalled(call), "defaults": None, "closure": None},
            },
        },
        "registered_name": None,
    }
    caller = {
        "module": "os",
        "class_name": "system",
        "config": f"touch {marker}",
        "registered_name": None,
    }
    found = {}
    for name, config in (("lambda", lambda_layer), ("module", caller)):
        found[name] = root / f"{name}.keras"
        _rewritten(model, found[name], {"config.json": json.dumps(config).encode()})
    found["traversal"] = root / "traversal.keras"
    _rewritten(model, found["traversal"], {}, {"../../marker": b"x", str(marker): b"x"})
    return found


def _marshalled(source: str) -> str:
    import base64
    import marshal

    code = compile(f"lambda x: {source}", "<evil>", "eval").co_consts[0]
    return base64.b64encode(marshal.dumps(code)).decode()


def _rewritten(model: Path, target: Path, changed: dict, added: dict | None = None) -> None:
    with zipfile.ZipFile(model) as source, zipfile.ZipFile(target, "w") as new:
        for name in source.namelist():
            new.writestr(name, changed.get(name, source.read(name)))
        for name, content in (added or {}).items():
            new.writestr(name, content)


def attacked(root: Path, model: Path) -> dict:
    """Label with each crafted file; which of them left the marker, or ended oddly."""
    folder = root / "attacks"
    folder.mkdir()
    shutil.copy(model.parent / "0.png", folder)
    broken, crafted = [], attacks(folder, model)
    markers = [place / "marker" for place in (folder, root, root.parent)]
    commands = [_label(folder, path.name) for path in crafted.values()]
    for name, outcome in zip(crafted, outcomes(commands), strict=True):
        left = [str(path) for path in markers if path.exists()]
        if left or outcome["traceback"] or outcome["code"] not in (0, 2):
            broken.append({"attack": name, "left": left, **outcome})
    return {"count": len(crafted), "broken": broken}


def run(count: int, seed: int, only: Sequence[str] = ()) -> dict:
    """All campaigns; by name their counts."""
    with tempfile.TemporaryDirectory("-faceattr", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        made = subjects(root, only)
        found = {}
        for name in only or made:
            found[name] = campaign(name, made[name], count, seed, root)
            print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
        return found | {"attacks": attacked(root, root / "made" / "toy.keras")}


if __name__ == "__main__":
    sys.exit(
        main(__doc__, run, 2000, only="kinds of files: manifest, keras, onnx, onnx.json, cache, …")
    )
