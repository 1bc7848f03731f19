"""What the use street costs, of two checkouts side by side: start, memory, one face, a folder.

    git worktree add ../before COMMIT
    python tests/bench/use_street.py PICTURES --before ../before --model MODEL \\
        [--model-before FILE] [--detectors centerface YUNET.onnx]

Each measurement is a process of its own, in turn the one and the other checkout, so that whatever
else the machine does hits both. Seconds by the clock, seconds of processors and the peak of memory
are medians over `--rounds`; the ratio is after over before. `start` labels three pictures, `folder`
all of them `--copies` times, both with each detector; `face` asks about one crop at a time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from faceattr.detection.choose import choose_detector
from faceattr.model.runtime import sha256_of

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from figures import add_write, of_detectors, record

HERE = Path(__file__).resolve().parents[2]
LABEL = "import sys; from faceattr.cli import main; sys.exit(main(sys.argv[1:]))"
FACE = """
import sys, time, numpy as np
from faceattr.inference.predictor import FaceAttributes
attributes = FaceAttributes.load(sys.argv[1], "none")
crop = np.random.default_rng(0).integers(0, 256, (attributes.crop_rule.size,) * 2 + (3,), "uint8")
spent = []
for number in range(220):
    clock, processors = time.perf_counter(), time.process_time()
    attributes.predict([crop])
    spent.append((time.perf_counter() - clock, time.process_time() - processors))
print(*np.median(spent[20:], axis=0))
"""


COLUMNS = ["", "by the clock", "of processors", "memory at most"]
UNITS = (("s", 1), ("s", 1), ("MB", 1e-6))


class Cost(NamedTuple):
    """Of one process."""

    clock: float  # seconds
    processors: float  # seconds
    memory: float  # bytes


def main() -> None:
    options = parse()
    sides = {"before": (options.before, options.model_before or options.model)}
    sides["after"] = (HERE, options.model)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        few, all_of_them = Path(folder, "few"), Path(folder, "all")
        copies(options.pictures, all_of_them, options.copies)
        copies(options.pictures, few, 1, most=3)
        for what, pictures in (("start", few), ("folder", all_of_them), ("face", None)):
            if what not in options.what:
                continue
            for detector in options.detectors if pictures else ["none"]:
                found: dict[str, list[Cost]] = {side: [] for side in sides}
                for _ in range(options.rounds):
                    for side, (code, model) in sides.items():
                        found[side].append(cost(code, model, pictures, detector, folder))
                finder = choose_detector(detector).provenance["name"]
                rows.append(show(f"{what}, {finder}" if pictures else what, found))
    detectors = of_detectors(*map(choose_detector, options.detectors))
    record(
        options.write, "use_street", COLUMNS, rows, {"model": sha256_of(options.model), **detectors}
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=whole_path)
    parser.add_argument("--before", type=whole_path, required=True, help="what to compare with")
    parser.add_argument("--model", type=whole_path, required=True)
    parser.add_argument("--model-before", type=whole_path, help="by default --model")
    parser.add_argument("--detectors", nargs="+", default=["centerface"])
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--what", nargs="+", default=["start", "folder", "face"])
    parser.add_argument("--rounds", type=int, default=5)
    add_write(parser)
    return parser.parse_args()


def whole_path(path: str) -> Path:
    return Path(path).resolve()


def copies(pictures: Path, folder: Path, count: int, most: int | None = None) -> None:
    folder.mkdir()
    for path in sorted(pictures.rglob("*.jpg"))[:most]:
        for number in range(count):
            shutil.copyfile(path, folder / f"{path.stem}-{number}.jpg")


def cost(code: Path, model: Path, pictures: Path | None, detector: str, folder: str) -> Cost:
    """Label pictures, or ask about one crop, with the faceattr of a checkout."""
    detector = str(whole_path(detector)) if detector.endswith(".onnx") else detector
    how = ["--detector", detector, "--model", str(model), "--overwrite", "--quiet"]
    words = ["label", str(pictures), "-o", f"{folder}/faces.csv", *how]
    program = [sys.executable, "-c", *([LABEL, *words] if pictures else [FACE, str(model)])]
    start = time.perf_counter()
    with subprocess.Popen(
        program,
        cwd=folder,  # `python -c` imports what lies in its working directory first
        env=os.environ | {"PYTHONPATH": str(code), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        printed = process.stdout.read() if process.stdout else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    clock = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{code} ended with {process.returncode}: {' '.join(program[3:])}")
    if pictures:
        return Cost(clock, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss)
    return Cost(*map(float, printed.split()), 1024 * used.ru_maxrss)


def show(what: str, found: dict[str, list[Cost]]) -> list[str]:
    """Print a line for each cost; gives the row of the page's table."""
    middle = {
        side: [statistics.median(c) for c in zip(*of, strict=True)] for side, of in found.items()
    }
    row = [what]
    for (unit, factor), before, after in zip(UNITS, middle["before"], middle["after"], strict=True):
        ratio = after / before
        if unit == "s" and before < 0.1:
            unit, factor = "ms", 1000
        digits = 0 if before * factor > 100 else 1
        both = f"{before * factor:,.{digits}f} → {after * factor:,.{digits}f} {unit}"
        row.append(f"{both} ({ratio:.2f})")
        print(f"{what:<28} {row[-1]} {COLUMNS[len(row) - 1]}", flush=True)
    return row


if __name__ == "__main__":
    main()
