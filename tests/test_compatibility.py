# ruff: noqa: SIM905
"""What commit cccf2f5 wrote still opens: model files, killed runs, tables, options as typed.

The page beside the files, `made_with_cccf2f5/README.md`, says how they were made. This file knows
the command line, the public names and Keras, and nothing inside the package.
"""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import faceattr
from faceattr.cli import main

MADE = Path(__file__).parent / "made_with_cccf2f5"
ANSWERS = json.loads((MADE / "answers.json").read_text())
TYPED = json.loads((MADE / "typed.json").read_text())
TASKS = {
    "model.keras": {
        "mood": ("frown", "open", "happy"),
        "hair": ("dark", "light"),
        "glasses": ("no", "yes"),
    },
    "soft.keras": {"mood": ("frown", "open", "smile"), "hair": ("dark", "light")},
}
# A run that goes on may differ a little where this version computes a loss in another way.
NEAR = {"frozen": 1e-3, "finetune": 2e-2, "soft": 1e-3}
EPOCHS = {
    "frozen": ["frozen", "frozen", "finetune"],
    "finetune": ["frozen", "finetune", "finetune"],
    "soft": ["scratch", "scratch"],
}


@pytest.fixture(autouse=True)
def made(tmp_path, monkeypatch):
    """A copy of what was made, in which commands are typed."""
    folder = shutil.copytree(MADE, tmp_path / "made")
    for table in (folder / "tables").iterdir():
        table.rename(folder / table.name)
    monkeypatch.chdir(folder)
    return folder


def answers_of(network) -> dict[str, np.ndarray]:
    paths = sorted(Path("faces").iterdir())
    faces = np.stack([np.asarray(Image.open(path)) for path in paths])
    return {task: np.asarray(some) for task, some in network.predict_on_batch(faces).items()}


def far_apart(answers, name: str) -> float:
    """The largest difference of a probability from what cccf2f5 answered."""
    assert answers.keys() == ANSWERS[name].keys()
    return max(np.abs(some - np.array(ANSWERS[name][task])).max() for task, some in answers.items())


@pytest.mark.parametrize("name", TASKS)
def test_a_model_file_answers_as_before(name):
    network, description = faceattr.load_model(name)
    assert {task.name: task.classes for task in description.tasks} == TASKS[name]
    assert far_apart(answers_of(network), Path(name).stem) < 1e-5


def test_a_model_file_opens_in_plain_keras():
    network = keras.saving.load_model("model.keras", compile=False)
    assert far_apart(answers_of(network), "model") < 1e-5


def test_a_model_file_is_shown_changed_and_scored(capsys):
    assert main(["heads", "model.keras"]) == 0
    shown = "mood: frown, open, happy\nhair: dark, light\nglasses: no, yes\n"
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(shown.splitlines())
    assert main("heads model.keras -o two.keras --remove glasses".split()) == 0
    capsys.readouterr()
    judge = "evaluate two.keras faces.csv --map smile=happy --split val --cache cache"
    assert main(judge.split()) == 0
    printed = capsys.readouterr().out
    assert "mood" in printed and "hair" in printed and "glasses" not in printed


def unpack(run: str) -> Path:
    """The folder of a killed run, where it was left."""
    Path("soft.keras").unlink()  # that of the unbroken run
    shutil.unpack_archive(f"runs/{run}.tar.xz", f"{run}.training", filter="data")
    return Path(f"{run}.training")


def resume(run: str) -> int:
    return main([*TYPED[run], "--resume"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "run",
    [
        "soft",
        pytest.param("frozen", marks=pytest.mark.slow),
        pytest.param("finetune", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_and_ends_where_an_unbroken_one_did(run):
    folder = unpack(run)
    before, unbroken = (pd.read_csv(folder / name) for name in ("log.csv", "unbroken-log.csv"))
    assert resume(run) == 0
    log = pd.read_csv(folder / "log.csv")
    assert log["epoch"].tolist() == [1, 2, 3][: len(EPOCHS[run])]
    assert log["phase"].tolist() == EPOCHS[run]
    assert len(before) < len(log)
    pd.testing.assert_frame_equal(log[before.columns][: len(before)], before, check_dtype=False)
    learnt = [name for name in unbroken if "_loss" in name or "val_" in name]
    np.testing.assert_allclose(log[learnt], unbroken[learnt], atol=NEAR[run])
    assert not list(folder.glob("*.npz"))
    assert far_apart(answers_of(faceattr.load_model(f"{run}.keras")[0]), run) < NEAR[run]


def test_a_killed_run_is_not_gone_on_with_under_other_settings(refused):
    unpack("soft")
    assert "other settings" in refused(main([*TYPED["soft"], "--resume", "--seed", "1"]))


def read(table: str) -> pd.DataFrame:
    return pd.read_parquet(table) if table.endswith(".parquet") else pd.read_csv(table)


def test_a_killed_table_is_gone_on_with_and_equals_an_unbroken_one():
    assert main([*TYPED["killed.csv"], "--resume", "--quiet"]) == 0
    was, now = (Path(name).read_text().splitlines() for name in ("whole.csv", "killed.csv"))
    assert now[:10] == was[:10]
    assert_same(read("killed.csv"), read("whole.csv"))
    about = json.loads(Path("killed.csv.about.json").read_text())
    assert len(about["runs"]) == 2


def test_the_journal_of_a_killed_parquet_table_is_gone_on_with():
    pytest.importorskip("pyarrow")
    assert main([*TYPED["killed.parquet"], "--resume", "--quiet"]) == 0
    assert_same(read("killed.parquet"), read("whole.csv"))
    assert not Path("killed.parquet.part.jsonl").exists()


def assert_same(table: pd.DataFrame, other: pd.DataFrame) -> None:
    # Probabilities are written with four digits, the last of which another machine may round.
    pd.testing.assert_frame_equal(table, other, check_dtype=False, rtol=0, atol=1.5e-4)


def test_a_finished_table_is_left_as_it_is_and_takes_more_pictures():
    before = Path("whole.csv").read_bytes()
    assert main([*TYPED["whole.csv"], "--resume", "--quiet", "--gallery", "page.html"]) == 0
    assert Path("whole.csv").read_bytes() == before and Path("page.html").exists()
    shutil.copyfile("faces/00.png", "faces/99.png")
    assert main([*TYPED["whole.csv"], "--resume", "--quiet"]) == 0
    assert Path("whole.csv").read_bytes().startswith(before)
    assert read("whole.csv")["path"].tolist()[-2:] == ["faces/23.png", "faces/99.png"]


# The redesign may call these options otherwise; typed, or in a recipe, they go on working.
OLD_OPTIONS = {
    "first": "finetune=block2_conv2",
    "rate": "frozen=0.01,finetune=0.001",
    "copies": 1,
    "branch-rates": "block2=0.0003,mood=0.003",
    "lr": "mood=0.003",
    "weight": "hair=0.5",
}
START = "-o m.keras --weights model.keras --epochs frozen=1,finetune=1".split()


@pytest.mark.parametrize("option", OLD_OPTIONS)
@pytest.mark.parametrize("place", ["typed", "recipe"])
def test_an_old_option_is_understood(option, place, capsys):
    value = OLD_OPTIONS[option]
    Path("old.toml").write_text(f"{option} = {json.dumps(value)}\n")
    given = [f"--{option}", str(value)] if place == "typed" else ["--recipe", "old.toml"]
    assert main(["train", "gone.csv", *START, *given]) == 2
    assert "gone.csv" in capsys.readouterr().err  # what is wrong is the source alone


def test_old_heads_are_still_held_by_keep(refused):
    assert "gone.csv" in refused(main(["train", "--add", "glasses=gone.csv", *START, "--keep"]))


@pytest.mark.parametrize("given", [["--first", "finetune"], ["--copies", "many"]])
def test_an_old_option_with_a_wrong_value_is_refused_by_its_parser(given, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["train", "gone.csv", *START, *given])
    assert given[0] in capsys.readouterr().err
