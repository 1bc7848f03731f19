"""The live demo as it is typed: files without a window, a real window under Xvfb, its keys."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
import pandas
import pytest
from PIL import ImageGrab
from use_display import Screen
from use_scenes import astronaut_video
from use_videos import FakeCamera, frames_of, record

from faceattr.cli import main
from faceattr.cli.live import BROKE_OFF
from faceattr.images import camera
from faceattr.images.draw import COLOURS
from faceattr.live import viewer
from faceattr.live.viewer import require_screen

DEMO = Path(__file__).parent.parent / "demo.py"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return record(tmp_path_factory.mktemp("clip") / "clip.mp4", astronaut_video())


def live(*arguments):
    return main(["live", "--offline", "--detector", "centerface", *map(str, arguments)])


def test_a_video_is_annotated_and_written_to_a_timeline(clip, tmp_path, toy_model_path, capfd):
    outputs = ["-o", tmp_path / "out.mp4", "-o", tmp_path / "out.csv"]
    assert live(clip, "--headless", *outputs, "--model", toy_model_path, "--bars") == 0
    assert len(frames_of(tmp_path / "out.mp4")) == 100
    table = pandas.read_csv(tmp_path / "out.csv")
    assert table["frame"].nunique() == 100 and set(table["track"]) == {1}
    assert table["expression"].notna().all()
    printed = capfd.readouterr().err
    assert "100 frames, 1 people" in printed and "out.mp4" in printed and "oneDNN" not in printed


def test_folders_of_outputs_are_made(clip, tmp_path, toy_model_path):
    output = tmp_path / "new/deep/faces.csv"
    assert live(clip, "--headless", "-o", output, "--model", toy_model_path) == 0
    assert len(pandas.read_csv(output)) == 100


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_a_full_disk_is_one_sentence_and_code_1(clip, tmp_path, toy_model_path, capsys):
    (tmp_path / "out.mp4").symlink_to("/dev/full")
    how = ["--headless", "--model", toy_model_path, "--quiet", "--overwrite"]
    assert live(clip, *how, "-o", tmp_path / "out.mp4") == BROKE_OFF == 1
    printed = capsys.readouterr().err.strip()
    assert "out.mp4 cannot be written: No space left on device." in printed
    assert "\n" not in printed


def test_what_opencv_cannot_do_is_one_sentence_and_code_1(
    clip, tmp_path, monkeypatch, toy_model_path, capsys
):
    def fail(*arguments):
        cv2.resize(np.zeros((0, 0, 3), np.uint8), (9, 9))

    monkeypatch.setattr(viewer, "draw_live", fail)
    how = ["--headless", "--model", toy_model_path, "--quiet", "-o", tmp_path / "out.mp4"]
    assert live(clip, *how) == 1
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("faceattr: OpenCV cannot go on: ") and "resize" in printed
    assert "\n" not in printed and "Traceback" not in printed


@pytest.mark.slow
def test_headless_without_outputs_only_tells_the_figures(clip, toy_model_path, capfd):
    assert live(clip, "--headless", "--model", toy_model_path) == 0
    assert "looks/s" in capfd.readouterr().err
    assert live(clip, "--headless", "--model", toy_model_path, "--quiet") == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gone.mp4", "--headless"], "There is no video gone.mp4"),
        (["97", "--headless"], "camera 97"),
        (["clip", "--headless", "-o", "a.avi"], "An output is a video"),
        (["clip", "--headless", "-o", "clip/a.csv"], "is not a folder that takes files"),
        (["clip", "--headless", "--model", "gone.keras"], "There is no model file gone.keras"),
        (["clip", "--headless", "--detect-every", "0"], "at least 1"),
        (["clip", "--headless", "--time-constant", "-1"], "not negative"),
        (["clip", "--headless", "--rate", "-5"], "more than 0 frames a second"),
        (["clip", "--headless", "--min-confidence", "70"], "between 0 and 1"),
        (["clip", "--headless", "--port", "9000"], "--port asks for --web"),
        (["clip", "--snapshots", "clip"], "Snapshots need a folder"),
        (["clip"], "There is no screen for a window"),
        (["clip", "--headless", "-o", "clip", "--overwrite"], "is the source itself"),
        (["clip", "--headless", "-o", "link.mp4", "--overwrite"], "is the source itself"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(
    clip, tmp_path, monkeypatch, capsys, toy_model_path, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    model = [] if "--model" in arguments else ["--model", toy_model_path]
    (tmp_path / "link.mp4").symlink_to(clip)
    typed = [re.sub(r"^clip\b", str(clip), part) for part in arguments]
    assert live(*typed, *model) == 2
    printed = capsys.readouterr().err.strip()
    assert sentence in printed and printed.startswith("faceattr: ") and "\n" not in printed


def test_a_screen_that_does_not_answer_is_reported_rather_than_aborting(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":4711")
    with pytest.raises(OSError, match=r"No window can be opened on the screen :4711.*--headless"):
        require_screen()


def test_a_camera_that_is_unplugged_leaves_whole_outputs_and_code_1(
    tmp_path, monkeypatch, toy_model_path, capsys
):
    class Slow(FakeCamera):
        left = 20

        def grab(self):
            time.sleep(0.04)
            return super().grab()

    monkeypatch.setattr(camera.cv2, "VideoCapture", Slow)
    outputs = ["-o", tmp_path / "out.mp4", "-o", tmp_path / "out.csv"]
    assert live("0", "--headless", "--model", toy_model_path, *outputs) == 1
    printed = capsys.readouterr().err
    assert "unplugged" in printed and "What was written so far stays" in printed
    monkeypatch.undo()
    assert len(frames_of(tmp_path / "out.mp4")) >= 15
    assert len(pandas.read_csv(tmp_path / "out.csv")) == 0


def test_a_video_that_breaks_off_leaves_whole_outputs_and_code_1(
    tmp_path, clip, toy_model_path, capsys
):
    # Frames at the end are missing while the file's index still names them.
    whole = tmp_path / "whole.mp4"
    copy_video(clip, whole, movflags="faststart")
    content = whole.read_bytes()
    (tmp_path / "broken.mp4").write_bytes(content[: len(content) * 6 // 10])
    outputs = ["-o", tmp_path / "out.mp4", "-o", tmp_path / "out.csv"]
    how = ["--headless", "--model", toy_model_path]
    assert live(tmp_path / "broken.mp4", *how, *outputs) == BROKE_OFF == 1
    printed = capsys.readouterr().err
    assert "breaks off after" in printed and "Traceback" not in printed
    assert (
        len(frames_of(tmp_path / "out.mp4"))
        == pandas.read_csv(tmp_path / "out.csv").frame.max() + 1
    )


def copy_video(source, target, rounds=1, **options):
    """Put the packets of a video into another file, several times in a row."""
    with av.open(str(target), "w", options=options) as out, av.open(str(source)) as file:
        video = file.streams.video[0]
        packets = [packet for packet in file.demux(video) if packet.dts is not None]
        stream = out.add_stream_from_template(video)
        for _ in range(rounds):
            for packet in packets:
                packet.stream = stream
                out.mux(packet)
                packet.time_base = video.time_base
                packet.pts += video.duration
                packet.dts += video.duration


@contextmanager
def job(clip, model, *arguments, environment=None):
    given = ["--detector", "centerface", "--model", str(model), *map(str, arguments)]
    running = subprocess.Popen(
        [sys.executable, str(DEMO), str(clip), *given],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {}), "PYTHONPATH": str(DEMO.parent)},
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory, clip):
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    copy_video(clip, path, rounds=30)
    return path


@pytest.mark.slow
def test_ctrl_c_ends_it_with_playable_outputs(long_clip, tmp_path, toy_model_path):
    outputs = ["-o", tmp_path / "out.mp4", "-o", tmp_path / "out.csv"]
    with job(long_clip, toy_model_path, "--headless", *outputs) as running:
        video = tmp_path / "out.mp4"
        while not video.exists() or video.stat().st_size < 30_000:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, printed = running.communicate(timeout=30)
    assert running.returncode == 130 and "Traceback" not in printed
    written = len(frames_of(tmp_path / "out.mp4"))
    assert 20 < written < 3000
    assert pandas.read_csv(tmp_path / "out.csv")["frame"].max() == written - 1


@pytest.fixture
def screen():
    screen = Screen()
    yield screen
    screen.end()


def photograph(screen, path):
    ImageGrab.grab(xdisplay=screen.display).save(path)
    return cv2.imread(str(path)).astype(int)


@pytest.mark.slow
def test_the_window_shows_faces_and_obeys_its_keys(screen, long_clip, tmp_path, toy_model_path):
    where = ["--snapshots", tmp_path, "-o", tmp_path / "out.mp4", "--bars"]
    with job(long_clip, toy_model_path, *where, environment=screen.environment) as running:
        _watch_and_press(screen, running, tmp_path)
    (snapshot,) = tmp_path.glob("faceattr-*.png")
    assert cv2.imread(str(snapshot)).shape == (270, 480, 3)
    assert len(frames_of(tmp_path / "out.mp4")) > 20


def _watch_and_press(screen, running, tmp_path):
    window = screen.window("faceattr", running)
    for _ in range(50):  # the window is there before its first picture, and that before an answer
        playing = [photograph(screen, tmp_path / f"{n}.png") for n in range(2)]
        moves = (playing[0] != playing[1]).any(axis=2).mean() > 0.005
        framed = [(np.abs(playing[0] - colour[::-1]).max(axis=2) < 12).sum() for colour in COLOURS]
        if moves and max(framed) > 100:
            break
    assert moves, "the picture moves"
    assert max(framed) > 100, "a face is framed"
    screen.press(window, "space")
    for _ in range(20):  # a key takes as long as a frame that is being drawn
        paused = [photograph(screen, tmp_path / f"{n}.png") for n in (2, 3)]
        if still := (paused[0] == paused[1]).all():
            break
    assert still, "the picture stands still"
    screen.press(window, "space")
    for key in ("h", "m", "p", "s", "i", "x"):
        screen.press(window, key)
        time.sleep(0.2)
    helped = photograph(screen, tmp_path / "5.png")
    middle = helped[120:150, 180:300]
    assert middle.mean() < playing[0][120:150, 180:300].mean(), "help covers the middle"
    screen.press(window, "q")
    _, printed = running.communicate(timeout=30)
    assert running.returncode == 0 and "saved " in printed


@pytest.mark.slow
def test_escape_ends_it(screen, long_clip, toy_model_path):
    with job(long_clip, toy_model_path, environment=screen.environment) as running:
        window = screen.window("faceattr", running)
        time.sleep(0.5)
        screen.press(window, "Escape")
        _, printed = running.communicate(timeout=30)
    assert running.returncode == 0 and "Traceback" not in printed
