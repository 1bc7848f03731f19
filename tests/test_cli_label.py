"""`faceattr label` as it is typed: exit codes, one clear sentence, a summary, Ctrl-C."""

import io
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pandas
import pytest
from PIL import Image
from skimage import data
from use_toys import draw, encoded, save_pictures

from faceattr import files
from faceattr.cli import main
from faceattr.images.inputs import Inputs


@pytest.fixture
def team(tmp_path):
    """Three astronauts, one of them twice in a picture, and a picture of nobody."""
    folder = tmp_path / "team"
    folder.mkdir()
    astronaut = Image.fromarray(data.astronaut()).crop((100, 0, 400, 300)).resize((200, 200))
    pair = Image.new("RGB", (400, 200))
    pair.paste(astronaut, (0, 0))
    pair.paste(astronaut, (200, 0))
    astronaut.save(folder / "one.jpg")
    pair.save(folder / "two.png")
    Image.new("RGB", (200, 200), "grey").save(folder / "none.png")
    return folder


def label(*arguments):
    return main(["label", "--offline", "--detector", "centerface", *map(str, arguments)])


def test_a_folder_is_labelled(team, tmp_path, toy_model_path, capfd):
    assert label(team, "-o", tmp_path / "faces.csv", "--model", toy_model_path) == 0
    frame = pandas.read_csv(tmp_path / "faces.csv")
    assert frame["path"].map(os.path.basename).tolist() == [
        "none.png",
        "one.jpg",
        "two.png",
        "two.png",
    ]
    assert frame["status"].tolist() == ["no_face", "ok", "ok", "ok"]
    assert frame["expression"].notna().sum() == 3
    printed = capfd.readouterr().err
    assert "3 pictures, 3 faces described" in printed and "centerface" in printed
    assert "pictures/s" in printed and "decode" in printed and "oneDNN" not in printed


def test_quiet_prints_nothing(team, tmp_path, toy_model_path, capfd):
    label(team, "-o", tmp_path / "faces.csv", "--model", toy_model_path, "--quiet")
    assert capfd.readouterr() == ("", "")


def test_quiet_tells_that_nothing_could_be_read(tmp_path, toy_model_path, capfd):
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / f"in/{name}.jpg").write_bytes(b"no")
    how = ["--model", str(toy_model_path), "--detector", "none", "--quiet"]
    main(["label", str(tmp_path / "in"), "-o", str(tmp_path / "t.csv"), *how])
    told = f"none of the inputs could be read; see the column reason of {tmp_path / 't.csv'}"
    assert capfd.readouterr() == ("", f"faceattr: {told}\n")
    save_pictures(tmp_path / "in", 1)
    main(["label", str(tmp_path / "in"), "-o", str(tmp_path / "more.csv"), *how])
    assert capfd.readouterr() == ("", "")


def test_pictures_that_are_faces_need_no_detector(tmp_path, toy_model_path):
    faces = save_pictures(tmp_path / "faces", 3)
    how = ["--detector", "none", "--model", str(toy_model_path)]
    main(["label", str(faces), "-o", str(tmp_path / "t.csv"), *how])
    frame = pandas.read_csv(tmp_path / "t.csv")
    assert frame["x1"].tolist() == [200, 200, 200] and frame["gender"].notna().all()


def test_rows_in_a_pipe_are_utf_8_whatever_its_encoding(tmp_path, monkeypatch, toy_model_path):
    (tmp_path / "łódź.png").write_bytes(encoded(draw(1)))
    pipe = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", pipe)
    typed = ["label", str(tmp_path), "--detector", "none", "--model", str(toy_model_path)]
    assert main(typed) == 0
    assert "łódź.png" in pipe.buffer.getvalue().decode()


def test_crops_that_a_resumed_job_does_not_write_are_told(tmp_path, toy_model_path, capsys):
    faces, crops = save_pictures(tmp_path / "faces", 3), tmp_path / "crops"
    how = ["label", str(faces), "-o", str(tmp_path / "t.csv"), "--detector", "none"]
    how += ["--model", str(toy_model_path)]
    assert main(how) == 0
    assert "done before" not in capsys.readouterr().err
    assert main([*how, "--resume", "--save-crops", str(crops)]) == 0
    told = f"3 inputs were done before: of them nothing was added to {crops}"
    assert told in capsys.readouterr().err


def test_answers_may_be_required_and_averaged_with_those_of_the_mirror_image(
    tmp_path, toy_model_path
):
    faces = save_pictures(tmp_path / "faces", 3)
    how = [str(faces), "--detector", "none", "--model", str(toy_model_path), "--quiet"]

    def label(name, *more):
        assert main(["label", *how, "-o", str(tmp_path / name), *more]) == 0
        return pandas.read_csv(tmp_path / name)

    plain, flipped = label("plain.csv"), label("flipped.csv", "--flip")
    assert not plain["gender:male"].equals(label("shifted.csv", "--tta", "3")["gender:male"])
    assert not plain["gender:male"].equals(flipped["gender:male"])
    other = {"male": "female", "female": "male"}[plain["gender"][0]]
    required = label("required.csv", "--filter", f"gender={other}")
    assert required["status"][0] == "rejected"
    assert main(["label", *how, "-o", str(tmp_path / "plain.csv"), "--resume", "--flip"]) == 2


def test_a_picture_above_the_limit_of_pixels_is_told_and_can_be_tried_again(
    tmp_path, toy_model_path, refused
):
    faces, table = save_pictures(tmp_path / "faces", 2), str(tmp_path / "t.csv")
    how = ["label", str(faces), "-o", table, "--detector", "none", "--model", str(toy_model_path)]
    assert "1 or more. Received: 0" in refused(main([*how, "--max-pixels", "0"]))
    assert main([*how, "--max-pixels", "17999"]) == 0
    assert pandas.read_csv(table)["reason"].str.contains("200x90 are 0.018 million").all()
    again = ["--resume", "--retry-unreadable", "--max-pixels", "18000"]
    assert main([*how, *again]) == 0
    assert pandas.read_csv(table)["status"].tolist() == ["ok", "ok"]


GONE = ["--model", "gone.keras"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gone/", "-o", "t.csv"], "There is no file or folder gone/"),
        (["empty", "-o", "t.csv"], "There are no pictures in empty."),
        (["empty"], "There are no pictures in empty."),
        (["empty", "-o", "t.xlsx"], "A table's name ends in .csv, .jsonl, .parquet"),
        (["empty", "-o", "there.csv"], "there.csv exists already. Go on with it (--resume)"),
        (["empty", "-o", "t.csv", "--model", "gone.keras"], "There is no model file gone.keras"),
        (["empty", "-o", "t.csv", "--model", "words.keras"], ".keras model file"),
        (["empty", "-o", "t.csv", "--detector", "haar"], "A detector is one of"),
        (["empty", "-o", "t.csv", "--every", "often"], "A time is written like 1s"),
        (["empty", "-o", "there.csv/t.csv"], "there.csv is not a folder that takes files."),
        (["empty", "-o", "t.csv", "--min-confidence", "7"], "between 0 and 1"),
        # Before a model is looked for:
        (["empty", "-o", "t.csv", "--gallery", "t.csv", *GONE], "name ends in .html"),
        (["empty", "-o", "t.csv", "--gallery", "t.csv.about.json", *GONE], "name ends in .html"),
        (["empty", "-o", "t.csv", "--gallery", "empty", *GONE], "empty is a folder"),
        (["empty", "-o", "t.csv", "--gallery", "there.html", *GONE], "there.html exists already"),
        (["empty", "-o", "t.csv", "--save-crops", "there.csv", *GONE], "not a folder that takes"),
        (["empty", "-o", "t.csv", "--annotate", "there.csv/a", *GONE], "not a folder that takes"),
        (["empty", "-o", "folder.csv", "--overwrite", *GONE], "folder.csv is a folder"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(
    tmp_path, monkeypatch, toy_model_path, capsys, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "there.html").write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "words.keras").write_text("words")
    if "there.csv/t.csv" in arguments:
        save_pictures(tmp_path / "empty", 1)
    model = [] if "--model" in arguments else ["--model", str(toy_model_path)]
    detector = [] if "--detector" in arguments else ["--detector", "none"]
    assert main(["label", *arguments, *model, *detector]) == 2
    printed = capsys.readouterr().err.strip()
    assert sentence in printed and printed.startswith("faceattr: ") and "\n" not in printed
    assert (tmp_path / "there.csv").read_text() == "mine" and not (tmp_path / "t.csv").exists()


SLOW_JOB = """
import sys, time
sys.path[:0] = [{tests!r}]
from use_toys import attributes
from faceattr.inference.predictor import FaceAttributes
FaceAttributes.load = classmethod(lambda cls, **how: attributes(batch_size=8))
find = FaceAttributes.find
FaceAttributes.find = lambda self, image: (time.sleep(0.01), find(self, image))[1]
from faceattr.cli import main
from faceattr.images.inputs import Inputs
sys.exit(main(["label", {inputs!r}, "-o", {output!r}, "--detector", "none", *sys.argv[1:]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "code_of_end"),
    [pytest.param("SIGINT", 130, marks=pytest.mark.slow), ("SIGTERM", 143)],
)
def test_what_is_begun_is_finished_when_a_job_is_asked_to_end(tmp_path, asked, code_of_end):
    inputs, output = save_pictures(tmp_path / "in", 400), tmp_path / "t.csv"
    code = SLOW_JOB.format(tests=os.path.dirname(__file__), inputs=str(inputs), output=str(output))
    job = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, bufsize=1
    )
    while job.poll() is None and (not output.exists() or output.read_bytes().count(b"\n") < 30):
        time.sleep(0.01)
    job.send_signal(getattr(signal, asked))
    _, printed = job.communicate(timeout=30)
    assert job.returncode == code_of_end, printed
    assert "--resume" in printed and "Traceback" not in printed
    frame = pandas.read_csv(output)
    assert 10 < frame["path"].nunique() < 400
    assert (frame.groupby("path").size() == frame.groupby("path")["faces"].max().clip(1)).all()
    assert subprocess.run([sys.executable, "-c", code, "--resume", "--quiet"]).returncode == 0
    assert pandas.read_csv(output)["path"].nunique() == 400


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_any_command_ends_on_sigterm_as_on_ctrl_c_even_where_that_is_ignored(
    monkeypatch, capsys, ctrl_c
):
    monkeypatch.setattr(Inputs, "__init__", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    before = signal.signal(signal.SIGINT, ctrl_c), signal.getsignal(signal.SIGTERM)
    try:
        assert main(["label", "x", "-o", "t.csv"]) == 143
    finally:
        signal.signal(signal.SIGINT, before[0])
    assert signal.getsignal(signal.SIGTERM) == before[1]
    assert capsys.readouterr().err == "faceattr: interrupted\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["labl", "x", "-o", "t.csv"], "label"),
        (["label", "x", "-o", "t.csv", "--modle", "m.keras"], "--model"),
        (["label", "x", "-o", "t.csv", "--modle=m.keras"], "--model"),
        (["label", "x", "-o", "t.csv", "--precision", "float23"], "float32"),
    ],
)
def test_a_word_that_is_nearly_right_gets_a_suggestion(typed, meant, capsys):
    with pytest.raises(SystemExit) as ended:
        main(typed)
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert f"Did you mean {meant}?" in printed


@pytest.fixture
def typed(monkeypatch):
    """What a command line asks of model and job, without doing it."""

    def parse(*arguments):
        given = {}

        def job(*_, **how):
            given.update(how)
            raise ValueError("that is all")

        monkeypatch.setattr("faceattr.inference.label.label_to", job)
        monkeypatch.setattr("faceattr.cli.label.open_attributes", lambda how, _: given.update(how))
        assert main(["label", ".", "-o", "t.csv", *arguments]) == 2
        return given

    return parse


@pytest.mark.parametrize(
    ("text", "expected"), [("1h", 3600), ("1.5min", 90), ("250ms", 0.25), ("0", 0)]
)
def test_a_distance_in_time_may_be_hours(typed, text, expected):
    assert typed("--every", text)["every"] == expected


def test_options_of_before_work_and_tell_their_new_names(typed, capsys):
    given = typed("--upright", "--require", "is_face=yes", "--filter", "mood=calm")
    assert given["auto_rotate"] is True
    assert given["filter"] == {"is_face": "yes", "mood": "calm"}
    printed = capsys.readouterr().err
    assert "--upright is called --auto-rotate now" in printed
    assert "--require is called --filter now" in printed
    with pytest.raises(SystemExit):
        main(["label", "--help"])
    assert "--upright" not in capsys.readouterr().out


def test_the_runtime_and_its_old_name_and_where_the_job_runs(typed, capsys):
    assert typed("--runtime", "keras", "--engine", "local")["engine"] == "keras"
    assert "called" not in capsys.readouterr().err
    given = typed("--engine", "litert")
    assert given["engine"] == "litert" and "place" not in given
    assert "--engine litert is called --runtime litert now" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["label", ".", "--engine", "spark"])
    assert ended.value.code == 2
    assert "a job runs on local, ray. Received: 'spark'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["live --web", "explain shipped a.png -o s.png"])
def test_the_runtime_is_typed_alike_elsewhere(command, monkeypatch, capsys):
    seen = []

    def opened(given, _):
        seen.append(given["engine"])
        raise ValueError("that is all")

    monkeypatch.setattr("faceattr.cli.explain.open_attributes", opened)
    monkeypatch.setattr("faceattr.cli.live.open_attributes", opened)
    for option in ("--runtime", "--engine"):
        assert main([*command.split(), option, "litert"]) == 2
    assert seen == ["litert", "litert"]
    assert capsys.readouterr().err.count("--engine is called --runtime now") == 1


def test_a_hint_installs_an_extra_as_faceattr_was_installed(tmp_path, monkeypatch):
    root = Path(files.__file__).resolve().parents[1]
    monkeypatch.chdir(root)
    assert files.install_command("web") == 'pip install -e ".[web]"'
    monkeypatch.chdir(tmp_path)
    assert files.install_command("web") == f'pip install -e "{root}[web]"'
    monkeypatch.setattr(files, "__file__", str(tmp_path / "site-packages/faceattr/outputs.py"))
    assert files.install_command("web") == 'pip install "faceattr[web]"'


def test_help_answers_without_keras():
    code = "import sys; from faceattr.cli import main\ntry: main(['label', '--help'])\n"
    code += "except SystemExit: print('keras' in sys.modules, 'cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False False") and "--resume" in done.stdout


def test_a_package_that_is_missing_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "faceattr.inference.label", None)
    with pytest.raises(ModuleNotFoundError):  # ours is a bug, or a broken installation
        main(["label", "x.png"])

    def label(**given):
        import_module("no_such_package.of_others")

    monkeypatch.setattr("faceattr.cli.label.label", label)
    assert main(["label", "x.png"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("faceattr: This needs the package no_such_package, which is not")
    monkeypatch.setenv("KERAS_BACKEND", "no_such_package")
    assert main(["label", "x.png"]) == 2
    assert "KERAS_BACKEND has Keras compute with no_such_package" in capsys.readouterr().err
    assert "pip install -e" in said and "[" not in said
