"""The folder job: complete, resumable, honest about how it was made."""

import importlib.metadata
import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest
from test_load import jpeg_bytes
from use_toys import OnEach, attributes, png_claiming, save_pictures

import faceattr.inference.label as folder_module
from faceattr.images.load import NO_PICTURE
from faceattr.inference.artifacts import Artifacts
from faceattr.inference.label import label, label_to
from faceattr.inference.metadata import versions

FORMS = ["t.csv", "t.jsonl", "t.parquet"]


def read(path):
    readers = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}
    if path.suffix == ".jsonl":
        return pandas.read_json(path, lines=True)
    return readers[path.suffix](path)


@pytest.mark.parametrize("name", FORMS)
def test_a_folder_becomes_a_table_with_every_picture(tmp_path, name):
    summary = label_to(tmp_path / name, save_pictures(tmp_path / "in", 10), attributes())
    frame = read(tmp_path / name)
    assert frame["path"].nunique() == 10 and len(frame) == 16
    assert frame["status"].value_counts().to_dict() == {"ok": 13, "no_face": 3}
    assert (summary.inputs, summary.faces, summary.resumed) == (10, 13, 0)
    assert sum(summary.answers["mood"].values()) == 13


def test_a_folder_without_pictures_is_told_and_nothing_is_written(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="no pictures in"):
        label_to(tmp_path / "t.csv", tmp_path / "in", attributes())
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_than_one_worker_are_refused_before_anything_is_written(tmp_path, workers):
    inputs = save_pictures(tmp_path / "in", 1)
    with pytest.raises(ValueError, match=f"At least 1 worker.* Received: {workers}"):
        label_to(tmp_path / "t.csv", inputs, attributes(), workers=workers)
    assert not list(tmp_path.glob("t.csv*"))


@pytest.mark.parametrize("every", [-1, math.nan, math.inf, "1s"])
def test_an_impossible_distance_of_frames_is_refused_before_anything_is_written(tmp_path, every):
    folder = save_pictures(tmp_path / "in", 1)
    told = r"Between two frames of a video are 0 seconds \(each frame\) or more .* Received: "
    with pytest.raises(ValueError, match=told):
        label_to(tmp_path / "t.csv", folder, attributes(), every=every)
    with pytest.raises(ValueError, match=told):
        next(label(folder, every=every, model="gone.keras"))
    assert sorted(tmp_path.iterdir()) == [folder]


def test_rows_in_python_are_those_of_the_table(tmp_path, monkeypatch):
    inputs = save_pictures(tmp_path / "in", 10)
    monkeypatch.setattr(folder_module.FaceAttributes, "load", lambda **how: attributes(**how))
    frame = pandas.DataFrame(label(inputs, min_face=5))
    label_to(tmp_path / "t.csv", inputs, attributes(min_face=5))
    frame.to_csv(tmp_path / "again.csv", index=False)
    pandas.testing.assert_frame_equal(read(tmp_path / "again.csv"), read(tmp_path / "t.csv"))


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("after", [0, 1, 7, 19])
def test_a_stopped_job_goes_on_to_the_same_table(tmp_path, name, after):
    inputs = save_pictures(tmp_path / "in", 20)
    label_to(tmp_path / name, inputs, attributes())
    broken, seen = tmp_path / f"broken-{name}", []
    how = {"progress": OnEach(seen.append), "stop": lambda: len(seen) >= after, "workers": 1}
    first = label_to(broken, inputs, attributes(), **how)
    assert (first.interrupted and first.inputs < 20) or after == 19
    second = label_to(broken, inputs, attributes(), resume=True)
    assert first.inputs + second.inputs == 20 and second.resumed == first.inputs
    if name.endswith("parquet"):
        pandas.testing.assert_frame_equal(read(broken), read(tmp_path / name))
    else:
        assert broken.read_bytes() == (tmp_path / name).read_bytes()


def test_new_pictures_are_added_by_going_on(tmp_path):
    inputs = save_pictures(tmp_path / "in", 5)
    label_to(tmp_path / "t.csv", inputs, attributes())
    save_pictures(tmp_path / "in", 8)
    summary = label_to(tmp_path / "t.csv", inputs, attributes(), resume=True)
    assert summary.inputs == 3 and read(tmp_path / "t.csv")["path"].nunique() == 8


def test_going_on_where_there_is_nothing_yet_begins(tmp_path):
    inputs = save_pictures(tmp_path / "in", 3)
    assert label_to(tmp_path / "t.csv", inputs, attributes(), resume=True).inputs == 3


# What the page beside the table says


def test_the_page_beside_the_table_says_how_it_was_made(tmp_path):
    inputs = save_pictures(tmp_path / "in", 5)
    label_to(tmp_path / "t.csv", inputs, attributes(min_confidence=0.4))
    page = json.loads((tmp_path / "t.csv.about.json").read_text())
    assert page["settings"]["detector"]["name"] == "green squares"
    assert page["settings"]["model"]["tasks"]["shade"] == ["dark", "light"]
    assert page["settings"]["min_confidence"] == 0.4
    assert page["faceattr"] and page["packages"]["keras"]
    assert page["runs"][0]["rows"]["ok"] == 6 and page["runs"][0]["ended"]


def test_the_page_names_whichever_build_of_opencv_there_is(monkeypatch):
    def version(name, known=importlib.metadata.version):
        return "5.0" if name == "opencv-python-headless" else known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert versions()["packages"]["opencv-python-headless"] == "5.0"


def test_each_run_into_a_table_is_on_the_page(tmp_path):
    inputs = save_pictures(tmp_path / "in", 5)
    label_to(tmp_path / "t.csv", inputs, attributes())
    time.sleep(0.002)
    label_to(tmp_path / "t.csv", inputs, attributes(), resume=True)
    runs = json.loads((tmp_path / "t.csv.about.json").read_text())["runs"]
    assert [run["looked_at"] for run in runs] == [5, 0] and runs[1]["there_before"] == 5


@pytest.mark.parametrize("damage", [None, "{", "[]", '{"settings": []}'])
def test_a_table_without_its_page_is_not_gone_on_with(tmp_path, damage):
    inputs = save_pictures(tmp_path / "in", 3)
    label_to(tmp_path / "t.csv", inputs, attributes())
    before = (tmp_path / "t.csv").read_bytes()
    page = tmp_path / "t.csv.about.json"
    page.unlink() if damage is None else page.write_text(damage)
    with pytest.raises(ValueError, match=r"t.csv.about.json.* missing or damaged"):
        label_to(tmp_path / "t.csv", inputs, attributes(flip=True), resume=True)
    assert (tmp_path / "t.csv").read_bytes() == before


@pytest.mark.parametrize("name", FORMS)
def test_a_job_killed_before_its_page_was_written_goes_on(tmp_path, name):
    inputs = save_pictures(tmp_path / "in", 3)
    label_to(tmp_path / name, inputs, attributes(), stop=lambda: True)
    (tmp_path / f"{name}.about.json").unlink()
    assert label_to(tmp_path / name, inputs, attributes(), resume=True).inputs == 3


def test_going_on_knows_a_folder_that_is_spelled_otherwise(tmp_path, monkeypatch):
    inputs = save_pictures(tmp_path / "in", 3)
    monkeypatch.chdir(tmp_path)
    label_to("t.csv", "in", attributes())
    for spelled in ("./in", inputs):
        assert label_to("t.csv", spelled, attributes(), resume=True).inputs == 0


@pytest.mark.parametrize("name", FORMS)
def test_what_could_not_be_read_is_tried_again_only_when_asked(tmp_path, name):
    inputs, table = save_pictures(tmp_path / "in", 6), tmp_path / name
    good = [(inputs / file).read_bytes() for file in ("p001.png", "p003.png")]
    (inputs / "p001.png").write_bytes(b"")
    (inputs / "p003.png").write_bytes(b"")
    label_to(table, inputs, attributes())
    (inputs / "p001.png").write_bytes(good[0])
    assert label_to(table, inputs, attributes(), resume=True).inputs == 0
    again = {"resume": True, "retry_unreadable": True}
    assert label_to(table, inputs, attributes(), **again).inputs == 2
    frame = read(table)
    assert len(frame) == 7 and frame["path"].nunique() == 6
    broken = frame[frame["status"] == "unreadable"]
    assert [Path(path).name for path in broken["path"]] == ["p003.png"]
    (inputs / "p003.png").write_bytes(good[1])
    label_to(table, inputs, attributes(), **again)
    label_to(tmp_path / f"whole-{name}", inputs, attributes())
    order = ["path", "face"]
    pandas.testing.assert_frame_equal(
        read(table).sort_values(order, ignore_index=True),
        read(tmp_path / f"whole-{name}").sort_values(order, ignore_index=True),
    )


def test_trying_again_belongs_to_going_on(tmp_path):
    with pytest.raises(ValueError, match="add --resume"):
        label_to(tmp_path / "t.csv", tmp_path, attributes(), retry_unreadable=True)


def test_the_page_of_a_table_that_is_replaced_is_forgotten(tmp_path):
    inputs = save_pictures(tmp_path / "in", 2)
    for size in (10, 20):
        label_to(tmp_path / "t.csv", inputs, attributes(min_face=size), overwrite=True)
    page = json.loads((tmp_path / "t.csv.about.json").read_text())
    assert len(page["runs"]) == 1 and page["settings"]["min_face"] == 20


def test_a_second_job_into_a_table_that_is_being_written_changes_nothing(tmp_path):
    inputs, table = save_pictures(tmp_path / "in", 20), tmp_path / "t.csv"

    def second(_):
        with pytest.raises(ValueError, match="Another faceattr is writing"):
            label_to(table, inputs, attributes(), overwrite=True)
        raise RuntimeError("a kill")

    with pytest.raises(RuntimeError, match="a kill"):
        label_to(table, inputs, attributes(), progress=OnEach(second))
    label_to(table, inputs, attributes(), resume=True)
    assert read(table)["path"].nunique() == 20


@pytest.mark.parametrize("name", FORMS)
def test_a_table_with_the_words_of_before_is_gone_on_with_in_todays(tmp_path, name):
    inputs, table, filter = save_pictures(tmp_path / "in", 9), tmp_path / name, {"mood": "odd"}
    label_to(table, inputs, attributes(filter=filter))
    whole, rejected = read(table), (read(table)["status"] == "rejected").sum()
    assert rejected > 2
    first = sorted(inputs.iterdir())[:4]
    label_to(table, first, attributes(filter=filter), overwrite=True)
    with_old_words(table)
    label_to(table, inputs, attributes(filter=filter), resume=True)
    pandas.testing.assert_frame_equal(read(table), whole)
    page = json.loads((tmp_path / f"{name}.about.json").read_text())
    assert page["settings"]["filter"] == filter and page["settings"]["model"]["crop"]["align"]


@pytest.mark.parametrize("name", FORMS)
def test_a_table_of_relative_paths_is_gone_on_with_from_its_folder_alone(
    tmp_path, monkeypatch, name
):
    first, other = tmp_path / "first", tmp_path / "other"
    for folder in (first, other):
        save_pictures(folder / "in", 5)
    monkeypatch.chdir(first)
    label_to(name, "in", attributes())
    whole = read(first / name)
    for there, inputs in ((other, "in"), (tmp_path, "first/in")):
        monkeypatch.chdir(there)
        with pytest.raises(ValueError, match=r"start at .*first, and would mean other pictures"):
            label_to(first / name, inputs, attributes(), resume=True)
    monkeypatch.chdir(first)
    label_to(name, ["in", first / "in"], attributes(), resume=True)
    assert read(first / name).equals(whole)
    first.rename(moved := tmp_path / "moved")  # with all that is in it
    monkeypatch.chdir(moved)
    assert label_to(name, "in", attributes(), resume=True).inputs == 0


def test_a_table_of_whole_paths_is_gone_on_with_from_anywhere(tmp_path, monkeypatch):
    inputs = save_pictures(tmp_path / "in", 5)
    label_to(tmp_path / "t.csv", inputs, attributes())
    monkeypatch.chdir(inputs)
    assert label_to(tmp_path / "t.csv", inputs, attributes(), resume=True).inputs == 0


def test_a_table_whose_paths_have_an_old_word_is_not_written_anew(tmp_path, monkeypatch):
    inputs, table = save_pictures(tmp_path / "dropped", 5), tmp_path / "t.csv"
    label_to(table, inputs, attributes())
    monkeypatch.setattr("faceattr.inference.table.rewritten", lambda *given, **how: pytest.fail())
    label_to(table, inputs, attributes(), resume=True)


def with_old_words(table):
    """The table and its page as version 0.1.0 wrote them."""
    page = table.with_name(f"{table.name}.about.json")
    text = page.read_text()
    for new, old in (("auto_rotate", "upright"), ("filter", "require"), ("align", "level")):
        assert f'"{new}"' in text
        text = text.replace(f'"{new}"', f'"{old}"')
    page.write_text(text)
    if table.suffix == ".parquet":
        read(table).replace({"status": {"rejected": "dropped"}}).to_parquet(table, index=False)
    else:
        table.write_bytes(table.read_bytes().replace(b"rejected", b"dropped"))


def test_a_table_is_not_gone_on_with_under_other_settings(tmp_path):
    inputs = save_pictures(tmp_path / "in", 5)
    label_to(tmp_path / "t.csv", inputs, attributes())
    with pytest.raises(ValueError, match="another min_face"):
        label_to(tmp_path / "t.csv", inputs, attributes(min_face=30), resume=True)


def test_a_table_for_a_spreadsheet_is_gone_on_with_as_one_and_has_its_gallery(
    tmp_path, monkeypatch
):
    save_pictures(tmp_path / "=in", 6)
    monkeypatch.chdir(tmp_path)
    extras, seen = Artifacts(gallery="page.html"), []
    how = {"spreadsheet": True, "artifacts": extras}
    stopping = {"progress": OnEach(seen.append), "stop": lambda: len(seen) > 2}
    label_to("t.csv", "=in", attributes(), **how, **stopping)
    with pytest.raises(ValueError, match="another spreadsheet"):
        label_to("t.csv", "=in", attributes(), resume=True)
    label_to("t.csv", "=in", attributes(), **how, resume=True)
    assert set(pandas.read_csv("t.csv")["path"]) == {f"'=in/p00{n}.png" for n in range(6)}
    assert 'title="=in/p001.png"' in Path("page.html").read_text()


# Broken files


def break_files(folder: Path, count: int) -> dict[str, str]:
    """Broken files of every kind; by path what the reason must contain."""
    good = jpeg_bytes()
    kinds = {
        "empty": (b"", "empty file"),
        "words": (b"These are words.\n" * 40, "not a picture"),
        "header": (good[:20], "not a picture"),
        "half": (good[: len(good) // 2], "truncated"),
        "zeros": (bytes(5000), "not a picture"),
        "bomb": (png_claiming(60_000, 60_000), "too large"),
        "torn-png": (png_claiming(64, 64), "damaged or truncated"),
        "riff": (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(20), ""),
        "pdf": (b"%PDF-1.4 nothing", "not a picture"),
        "gif": (b"GIF89a\x05", ""),
    }
    expected = {}
    for number in range(count):
        kind, (content, reason) = list(kinds.items())[number % len(kinds)]
        path = folder / f"bad{number:03}-{kind}{('.jpg', '.png', '.webp')[number % 3]}"
        path.write_bytes(content)
        expected[str(path)] = reason
    return expected


def test_three_hundred_broken_files_among_good_ones_all_have_their_row(tmp_path):
    inputs = save_pictures(tmp_path / "in", 40)
    expected = break_files(inputs, 300)
    (inputs / "gone.png").symlink_to(inputs / "nowhere.png")
    expected[str(inputs / "gone.png")] = "No such file"
    label_to(tmp_path / "t.csv", inputs, attributes())
    frame = read(tmp_path / "t.csv")
    bad = frame[frame["status"] == "unreadable"].set_index("path")
    assert set(bad.index) == set(expected)
    for path, reason in expected.items():
        assert reason in bad.loc[path, "reason"] and bad.loc[path, "reason"].strip()
    good = frame[frame["status"] != "unreadable"]
    assert good["path"].nunique() == 40 and (good["status"] == "ok").sum() == 60


def test_a_named_file_that_ends_like_nothing_is_told_how_videos_are_known(tmp_path):
    for name in ("clip", "clip.png"):
        (tmp_path / name).write_bytes(b"words")
    label_to(tmp_path / "t.csv", [tmp_path / "clip", tmp_path / "clip.png"], attributes())
    without, png = read(tmp_path / "t.csv")["reason"]
    assert png == NO_PICTURE
    assert without == f"{png}, and its name does not end like a video's (.mp4, .mov …)"


# Crashes

JOB = """
import sys
sys.path[:0] = [{tests!r}]
from use_toys import OnEach, attributes
from faceattr.inference.label import label_to
import time
label_to({output!r}, {inputs!r}, attributes(batch_size=8), resume=True,
         progress=OnEach(lambda result: time.sleep(0.002)))
"""


def kill_again_and_again(inputs: Path, output: Path, kills: int) -> int:
    """Start the job, kill it after a random time, `kills` times; returns how often it ran on."""
    tests = str(Path(__file__).parent)
    command = JOB.format(tests=tests, output=str(output), inputs=str(inputs))
    dice, cut = random.Random(kills), 0
    for _ in range(kills):
        job = subprocess.Popen([sys.executable, "-c", command])
        before = output.stat().st_size if output.exists() else 0
        while job.poll() is None and (output.stat().st_size if output.exists() else 0) <= before:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.05))
        cut += job.poll() is None
        job.kill()
        job.wait()
    subprocess.run([sys.executable, "-c", command], check=True)
    return cut


@pytest.mark.parametrize("name", ["t.csv"])
def test_a_job_that_is_killed_three_times_ends_with_the_same_table(tmp_path, name):
    inputs = save_pictures(tmp_path / "in", 150)
    label_to(tmp_path / name, inputs, attributes(batch_size=8))
    assert kill_again_and_again(inputs, tmp_path / f"killed-{name}", 3) == 3
    assert (tmp_path / f"killed-{name}").read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_job_that_is_killed_thirty_times_ends_with_the_same_table(tmp_path, name):
    inputs = save_pictures(tmp_path / "in", 1500)
    label_to(tmp_path / name, inputs, attributes(batch_size=8))
    assert kill_again_and_again(inputs, tmp_path / f"killed-{name}", 30) >= 25
    assert (tmp_path / f"killed-{name}").read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    """Resident memory after 3000 pictures is what it was after 600."""
    import resource

    inputs, seen, peaks = save_pictures(tmp_path / "in", 3000), [], {}

    def watch(result):
        seen.append(1)
        if len(seen) in (600, 3000):
            peaks[len(seen)] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    label_to(tmp_path / "t.csv", inputs, attributes(), progress=OnEach(watch))
    assert peaks[3000] - peaks[600] < 8 * 1024
