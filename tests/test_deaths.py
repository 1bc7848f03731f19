"""A job that dies at an input goes on, and at last gets past it."""

import faulthandler
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from use_toys import attributes, draw, save_pictures

from faceattr.images.inputs import InputFile
from faceattr.inference import label as labelling
from faceattr.inference.samples import DIED, MOST_DEATHS, Deaths, Sample, samples_of

# As a crash of a native library: the process is gone, nothing can be caught.
DEADLY = """
import ctypes, sys
from use_toys import attributes
from faceattr.images import video
from faceattr.inference import label, samples

def read(source, *how, _real=samples.read_picture, **more):
    if str(source).endswith("p3.png"):
        ctypes.string_at(0)
    return _real(source, *how, **more)

def frames(path, every, start, _real=video.frames):
    for second, frame in _real(path, every, start=start):
        if second == 2:
            ctypes.string_at(0)
        yield second, frame

samples.read_picture, video.frames = read, frames
label.label_to("t.csv", ".", attributes(), workers=4, resume=True)
"""


def died_in(table: Path, *names: str, crash: bytes = b"Fatal Python error") -> Deaths:
    """What a process leaves that dies while it reads these."""
    deaths = Deaths(table, resume=True)
    deaths.__enter__()
    for name in names:
        deaths.note(name)
    faulthandler.disable()
    deaths._crash.write(crash)
    deaths._crash.close()
    deaths._file.close()
    return deaths


def test_a_kill_from_outside_blames_nothing(tmp_path):
    for _ in range(MOST_DEATHS):
        died_in(tmp_path / "t.csv", "a", crash=b"")
    assert not Deaths(tmp_path / "t.csv", resume=True)


def test_what_was_read_at_three_deaths_is_left_unread(tmp_path):
    table, file = tmp_path / "t.csv", InputFile("odd \udcff\n" + "x" * 5000)
    name = file.name
    for _ in range(MOST_DEATHS):
        assert not Deaths(table, resume=True).is_deadly(name)
        assert died_in(table, "other", name)._counts[name] == 0
    with Deaths(table, resume=True) as deaths:
        assert deaths and deaths.is_deadly(name) and not deaths.is_deadly("other")
        assert deaths.noted(Sample(file)).reason == DIED
        assert deaths.noted(Sample(InputFile("other"))).reason is None
    assert list(tmp_path.iterdir()) == []


def test_a_job_leaves_the_handler_of_crashes_as_it_was(tmp_path, capsys):
    for is_watched in (True, False):
        faulthandler.enable(sys.__stderr__) if is_watched else faulthandler.disable()
        with Deaths(tmp_path / "t.csv", resume=False):
            assert faulthandler.is_enabled()
        assert faulthandler.is_enabled() == is_watched


def test_only_what_was_read_last_is_blamed(tmp_path):
    died_in(tmp_path / "t.csv", "first", "second")
    assert dict(Deaths(tmp_path / "t.csv", resume=True)._counts) == {"second": 1}


@pytest.mark.parametrize("content", [b"", b"\xff\n", b"[1]\nx", b"3", b'{"a": "b"}\n'])
def test_a_damaged_note_blames_nobody(tmp_path, content):
    (tmp_path / ".t.csv.reading").write_bytes(content)
    with Deaths(tmp_path / "t.csv", resume=True) as deaths:
        assert not deaths.is_deadly("x")


def test_a_job_that_begins_anew_forgets(tmp_path):
    died_in(tmp_path / "t.csv", "a")
    assert not Deaths(tmp_path / "t.csv", resume=False)


def test_a_deadly_video_is_left_unread(tmp_path):
    for _ in range(MOST_DEATHS):
        died_in(tmp_path / "t.csv", "a.mp4")
    with Deaths(tmp_path / "t.csv", resume=True) as deaths:
        (sample,) = samples_of([InputFile("a.mp4", True)], 1.0, deaths=deaths)
    assert sample.reason == DIED


@pytest.mark.parametrize("deaths", [0, 1])
def test_after_a_death_what_comes_first_is_read_alone(tmp_path, monkeypatch, deaths):
    monkeypatch.setattr(labelling, "MOST_WAITING", 6)
    ahead = []

    def prefetched(work, samples, workers):
        ahead.extend(samples)
        yield from map(work, ahead)

    monkeypatch.setattr(labelling, "prefetch_map", prefetched)
    save_pictures(tmp_path / "in", 20)
    for _ in range(deaths):
        died_in(tmp_path / "t.csv", "x")
    labelling.label_to(tmp_path / "t.csv", tmp_path / "in", attributes(), workers=1, resume=True)
    assert len(ahead) == 20 - deaths * (6 + 4)
    assert len(pandas.read_csv(tmp_path / "t.csv").path.unique()) == 20


@pytest.mark.slow
def test_a_job_that_a_crash_ends_gets_past_the_picture_and_the_video(tmp_path):
    record = pytest.importorskip("use_videos").record
    save_pictures(tmp_path, 8)
    names = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / names[3]).rename(tmp_path / "p3.png")
    record(tmp_path / "z.mp4", [draw(1)] * 5, 1)
    here = Path(__file__).parent
    found = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    how = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": found}, "check": False}
    codes = []
    while not codes or (codes[-1] < 0 and len(codes) < 20):
        run = subprocess.run([sys.executable, "-c", DEADLY], **how)
        codes.append(run.returncode)
    # The video may be open already when the picture ends the first process.
    assert codes[-1] == 0 and len(codes) in (2 * MOST_DEATHS, 1 + 2 * MOST_DEATHS)
    rows = pandas.read_csv(tmp_path / "t.csv")
    died = rows[rows.reason == DIED]
    assert died.path.tolist() == ["./p3.png", "./z.mp4"]
    assert rows[rows.path == "./z.mp4"].time.tolist()[0] == 0  # what was written stays
    assert not (tmp_path / ".t.csv.reading").exists()
