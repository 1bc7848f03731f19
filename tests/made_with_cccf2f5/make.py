# ruff: noqa: SIM905
"""Makes the files of this folder; it runs against commit cccf2f5 and no other.

    git worktree add --detach OLD cccf2f5
    PYTHONPATH=OLD python tests/made_with_cccf2f5/make.py

`tests/test_compatibility.py` opens them with the code of today.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FACES = 24
MOODS, HAIRS, GLASSES = ("smile", "frown", "open"), ("dark", "light"), ("no", "yes")
SMALL = "--size 32 --dtype float32 --batch-size 8 --cache cache".split()
SLIM = "--weights none --trunk vgg16-slim".split()
OWN = "faces.csv --tasks mood,hair --weights model.keras --tap mood=block2_pool,hair=block1_pool"

# What is typed to make the first model file, in the order of its making.
MODELS = [
    "train faces.csv -o first.keras --tasks mood,hair --epochs scratch=3 --combine uncertainty "
    "--auxiliary mood=block1_conv2:0.3 --tap mood=block2_pool,hair=block1_pool "
    "--licence drawn".split()
    + SLIM
    + SMALL,
    "train --add glasses=glasses.csv -o second.keras --weights first.keras --epochs frozen=2 "
    "--rate frozen=0.01 --tap glasses=block2_conv1".split()
    + SMALL,
    "heads second.keras -o model.keras --rename-class mood:smile=happy".split(),
]
# By name what is typed to train, and the epoch behind which the run was killed.
RUNS = {
    "frozen": (
        f"train {OWN} -o frozen.keras --map smile=happy --epochs frozen=2,finetune=1 "
        "--first finetune=block2_conv2 --rate frozen=0.01,finetune=0.001 --copies 1 "
        "--augment none --dropout 0.2".split()
        + SMALL,
        1,
    ),
    "finetune": (
        f"train {OWN} -o finetune.keras --map smile=happy --epochs frozen=1,finetune=2 "
        "--first finetune=block2_conv2 --rate frozen=0.01,finetune=0.001 --copies 0 "
        "--branch-rates block2=0.0003,mood=0.003 --combine log --loss-weights hair=0.5 "
        "--auxiliary mood=block1_conv2:0.3 --augment none --dropout 0.2".split()
        + SMALL,
        2,
    ),
    "soft": (
        "train faces.csv -o soft.keras --tasks mood,hair --epochs scratch=2 --sharing soft "
        "--tie 0.1 --schedule alternating --mix equal --pooling avg "
        "--tap mood=block1_pool,hair=block1_pool --augment none".split()
        + SLIM
        + SMALL,
        1,
    ),
}
# By name of the table, what is typed to label.
LABEL = "label faces --model model.keras --detector none --batch-size 4 --flip -o".split()
TABLES = {name: [*LABEL, name] for name in ("whole.csv", "killed.csv", "killed.parquet")}
KILLED_BEHIND = 9  # inputs


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_models()
        make_tables()
        for name in RUNS:
            make_run(name)
        keep("soft.keras", "soft.keras")
        models = ["model", *RUNS]
        write("answers.json", {name: answers_of(f"{name}.keras") for name in models})
        write("typed.json", {name: command for name, (command, _) in RUNS.items()} | TABLES)


def make_models() -> None:
    draw_faces()
    for command in MODELS:
        typed(command)
    for name in ("faces", "faces.csv", "model.keras"):
        keep(name, name)


def make_tables() -> None:
    for name, command in TABLES.items():
        typed(command, kill_behind_input=KILLED_BEHIND if "killed" in name else 0)
    for path in (*Path().glob("whole.csv*"), *Path().glob("killed.*")):
        keep(path, f"tables/{path.name}")


def make_run(name: str) -> None:
    """The packed folder of a killed run, with the log of an unbroken one beside its own."""
    command, epoch = RUNS[name]
    typed(command, kill_behind_epoch=epoch)
    shutil.copytree(f"{name}.training", f"killed/{name}")
    typed([*command, "--overwrite"])
    shutil.copyfile(f"{name}.training/log.csv", f"killed/{name}/unbroken-log.csv")
    (HERE / "runs").mkdir(exist_ok=True)
    shutil.make_archive(str(HERE / "runs" / name), "xztar", f"killed/{name}")


def typed(command: list[str], **kill: int) -> None:
    """Run a command in a process of its own, which may be killed on its way."""
    done = subprocess.run([sys.executable, __file__, json.dumps([command, kill])])
    if done.returncode != (9 if any(kill.values()) else 0):
        raise SystemExit(f"{done.returncode}: faceattr {' '.join(command)}")


def typed_here(command: list[str], kill_behind_epoch: int = 0, kill_behind_input: int = 0) -> int:
    from faceattr.labelling import writers

    from faceattr.cli import main as faceattr
    from faceattr.training import checkpoint

    count, save, write_rows = 0, checkpoint.save, writers.Table.write

    def save_and_die(*args):
        nonlocal count
        save(*args)
        count += 1
        if count == kill_behind_epoch:
            os._exit(9)

    def write_and_die(table, rows):
        nonlocal count
        count += 1
        if count == kill_behind_input + 1:
            torn = table._form.encode(rows)
            table._file.write(torn[: len(torn) // 2])
            os._exit(9)
        write_rows(table, rows)

    if kill_behind_epoch:
        checkpoint.save = save_and_die
    if kill_behind_input:
        writers.Table.write = write_and_die
    return faceattr(command)


def answers_of(path: str) -> dict[str, list[list[float]]]:
    """By task the probabilities of every face, ``(faces, classes)``."""
    import numpy as np
    from PIL import Image

    from faceattr import load_model

    faces = np.stack([np.asarray(Image.open(f"faces/{i:02}.png")) for i in range(FACES)])
    found = load_model(path)[0].predict_on_batch(faces)
    return {
        task: np.asarray(values).astype(float).round(7).tolist() for task, values in found.items()
    }


def draw_faces() -> None:
    """Faces of 32 by 32 pixels, and tables that say what they show; every third is for val."""
    Path("faces").mkdir()
    lines, glasses = ["path,mood,hair,split"], ["path,glasses,split"]
    for number in range(FACES):
        mood, hair, worn = (of[number % len(of)] for of in (MOODS, HAIRS, GLASSES))
        hair, worn = HAIRS[number // 3 % 2], GLASSES[number // 6 % 2]
        draw(number, mood, hair, worn).save(f"faces/{number:02}.png", optimize=True)
        split = "val" if number % 4 == number // 4 % 4 else "train"
        lines.append(f"faces/{number:02}.png,{mood},{hair},{split}")
        glasses.append(f"faces/{number:02}.png,{worn},{split}")
    Path("faces.csv").write_text("\n".join(lines) + "\n")
    Path("glasses.csv").write_text("\n".join(glasses) + "\n")


def draw(number: int, mood: str, hair: str, worn: str):
    from PIL import Image, ImageDraw

    shade = (40, 30, 20) if hair == "dark" else (240, 220, 120)
    face = Image.new("RGB", (32, 32), (90 + 6 * number, 200 - 5 * number, 60 + 40 * (number % 5)))
    pen, x, y = ImageDraw.Draw(face), number % 5 - 2, number % 7 - 3
    pen.ellipse((5 + x, 2 + y, 27 + x, 29 + y), fill=shade)
    pen.ellipse((7 + x, 8 + y, 25 + x, 29 + y), fill=(230 - 4 * number, 180 - 4 * number, 150))
    for eye in (11 + x, 19 + x):
        pen.ellipse((eye, 13 + y, eye + 2, 15 + y), fill=(20, 20, 60))
        if worn == "yes":
            pen.rectangle((eye - 2, 11 + y, eye + 4, 17 + y), outline=(0, 0, 0))
    if mood == "open":
        pen.ellipse((13 + x, 20 + y, 19 + x, 26 + y), fill=(90, 0, 0))
    else:
        start, top = (0, 18) if mood == "smile" else (180, 22)
        pen.arc(
            (11 + x, top + y, 21 + x, top + 6 + y), start, start + 180, fill=(120, 0, 0), width=2
        )
    return face


def keep(path: str | Path, name: str) -> None:
    target, copy = HERE / name, shutil.copytree if Path(path).is_dir() else shutil.copyfile
    target.parent.mkdir(exist_ok=True)
    copy(path, target)


def write(name: str, content: object) -> None:
    (HERE / name).write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        typed_command, killed = json.loads(sys.argv[1])
        sys.exit(typed_here(typed_command, **killed))
    main()
