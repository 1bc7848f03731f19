"""Videos that play, even half written, and timelines that keep every row."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas
import pytest
from use_scenes import PERSON, Person, Scene, attributes
from use_videos import frames_of, record

from faceattr.images.camera import open_feed
from faceattr.live import outputs
from faceattr.live.outputs import (
    Timeline,
    VideoFile,
    save_snapshot,
    timeline_columns,
    validate_output,
)
from faceattr.live.stream import watch
from faceattr.live.viewer import Outputs


def grey(level, size=(90, 160)):
    return np.full((*size, 3), level, np.uint8)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_a_video_plays_with_the_frames_that_were_written(tmp_path, name):
    path = record(tmp_path / name, [grey(8 * number) for number in range(30)])
    levels = [image.mean() for image in frames_of(path)]
    assert len(levels) == 30
    np.testing.assert_allclose(levels, [8 * n for n in range(30)], atol=4)


def test_no_frame_leaves_no_file(tmp_path):
    with VideoFile(tmp_path / "a.mp4", 25):
        pass
    assert not (tmp_path / "a.mp4").exists()


def test_an_uneven_source_becomes_an_even_video_that_keeps_its_time(tmp_path):
    seconds = [3.0, 3.01, 3.5, 3.52, 4.0]
    with VideoFile(tmp_path / "a.mp4", 20) as video:
        for number, second in enumerate(seconds):
            video.write(grey(50 * number), second)
    assert abs(len(frames_of(tmp_path / "a.mp4")) - 21) <= 1


def test_a_long_pause_does_not_fill_the_video(tmp_path):
    with VideoFile(tmp_path / "a.mp4", 20, gap=1.0) as video:
        for second in (0.0, 0.05, 600.0, 600.05):
            video.write(grey(90), second)
    assert video.written <= 5


def test_a_file_that_stands_still_stands_still_in_its_copy(tmp_path):
    with VideoFile(tmp_path / "a.mp4", 20) as video:
        for second in (0.0, 0.05, 3.0, 3.05):
            video.write(grey(90), second)
    assert video.written == 62


def test_frames_of_another_or_an_odd_size_are_fitted(tmp_path):
    images = [grey(200, (91, 161)), grey(200, (400, 100))]
    first, second = frames_of(record(tmp_path / "a.mp4", images))
    assert first.shape == second.shape == (90, 160, 3)
    assert second[:, 80].mean() > 180 and second[:, 5].mean() < 20


KILLED = """
import os, sys, time
import numpy as np
from faceattr.live.outputs import VideoFile
video = VideoFile(sys.argv[1], 25)
for number in range(300):
    noise = np.random.default_rng(number).integers(0, 255, (90, 160, 3))
    video.write(noise.astype("uint8"), number / 25)
print(video.written, flush=True)
time.sleep(60)
"""


def test_a_video_plays_although_everything_that_wrote_it_was_killed(tmp_path):
    job = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "a.mp4")], stdout=subprocess.PIPE, text=True
    )
    assert job.stdout.readline() == "300\n"
    job.kill()
    job.communicate()
    assert len(frames_of(tmp_path / "a.mp4")) >= 150


def test_a_timeline_has_a_row_a_face_and_frame(tmp_path):
    scene = Scene(Person(0, lambda n: (60, 90)), Person(2, lambda n: (200, 90)), count=12)
    with Timeline(tmp_path / "t.csv", [PERSON]) as timeline:
        for frame, faces in watch(scene, attributes(scene)):
            timeline.write(frame, faces)
    table = pandas.read_csv(tmp_path / "t.csv")
    assert list(table.columns) == timeline_columns([PERSON])
    assert len(table) == timeline.rows == 24 and table["track"].tolist() == [1, 2] * 12
    assert table["person"].tolist() == ["red", "blue"] * 12
    assert table["time"].iloc[-1] == pytest.approx(11 / 25)
    sums = table[["person:red", "person:green", "person:blue"]].sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=0.01)


def test_a_timeline_without_faces_is_its_header(tmp_path):
    with Timeline(tmp_path / "t.csv", [PERSON]):
        pass
    assert (tmp_path / "t.csv").read_text() == ",".join(timeline_columns([PERSON])) + "\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_a_timeline_that_cannot_be_written_says_why(tmp_path):
    (tmp_path / "t.csv").symlink_to("/dev/full")
    with (
        pytest.raises(OSError, match=r"t.csv cannot be written: No space left on device\.$"),
        Timeline(tmp_path / "t.csv", [PERSON]),
    ):
        pass


def test_on_a_full_disk_a_timeline_ends_with_a_whole_row(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource", reason="Windows has no limit of files")
    monkeypatch.setattr(outputs, "FLUSH_SECONDS", 0)
    scene, before = Scene(Person(0, lambda n: (60, 90)), count=30), resource.RLIMIT_FSIZE
    limits = resource.getrlimit(before)
    resource.setrlimit(before, (1000, limits[1]))
    try:
        with (
            pytest.raises(OSError, match="File too large"),
            Timeline(tmp_path / "t.csv", [PERSON]) as t,
        ):
            for frame, faces in watch(scene, attributes(scene)):
                t.write(frame, faces)
    finally:
        resource.setrlimit(before, limits)
    text = (tmp_path / "t.csv").read_text()
    assert 800 < len(text) < 1000 and text.endswith("\n")
    assert len({line.count(",") for line in text.splitlines()}) == 1


def test_a_face_that_was_not_asked_about_has_empty_cells(tmp_path):
    scene = Scene(Person(0, lambda n: (60, 90), side=6), count=3)
    with Timeline(tmp_path / "t.csv", [PERSON]) as timeline:
        for frame, faces in watch(scene, attributes(scene)):
            timeline.write(frame, faces)
    table = pandas.read_csv(tmp_path / "t.csv")
    assert len(table) == 3 and table["person"].isna().all() and table["person:red"].isna().all()


def test_outputs_are_checked_before_anything_is_opened(tmp_path):
    (tmp_path / "there.mp4").write_text("mine")
    (tmp_path / "folder.mp4").mkdir()
    validate_output(tmp_path / "new.mp4")
    validate_output(tmp_path / "there.mp4", overwrite=True)
    for path, error, sentence in [
        ("a.avi", ValueError, "An output is a video"),
        (tmp_path / "there.mp4", FileExistsError, "exists already"),
        (tmp_path / "there.mp4" / "a.csv", OSError, "is not a folder that takes files"),
        (tmp_path / "folder.mp4", IsADirectoryError, "is a folder"),
    ]:
        with pytest.raises(error, match=sentence):
            validate_output(path, overwrite=path == tmp_path / "folder.mp4")


def test_no_file_is_written_twice_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"a file of its own. Received: .*a.mp4, .*a.mp4"):
        Outputs([tmp_path / "a.mp4", f"{tmp_path}/./a.mp4"], headless=True)
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="a file of its own"):
        Outputs([tmp_path / "a.mp4", tmp_path / "link" / "a.mp4"], headless=True)


@pytest.mark.parametrize("name", ["new/deep/a.mp4", "new/deep/a.csv"])
def test_folders_of_outputs_are_made(tmp_path, name):
    validate_output(tmp_path / name)
    assert not (tmp_path / "new").exists()
    if name.endswith(".mp4"):
        record(tmp_path / name, [grey(9)])
    else:
        with Timeline(tmp_path / name, [PERSON]):
            pass
    assert (tmp_path / name).stat().st_size > 0


def test_a_snapshot_is_the_picture_in_a_folder_that_is_made(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    path = save_snapshot(image, tmp_path / "made")
    np.testing.assert_array_equal(cv2.imread(str(path))[:, :, ::-1], image)


LONG = [grey(0, (360, 640))] * 200


def test_a_video_that_cannot_be_written_says_why(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(OSError, match=r"a.mp4 cannot be written: .*Is a directory"):
        record(tmp_path / "a.mp4", LONG)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
@pytest.mark.parametrize("count", [3, 200])
def test_a_full_disk_is_told_even_after_the_last_frame(tmp_path, count):
    (tmp_path / "a.mp4").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"a.mp4 cannot be written: No space left on device\.$"):
        record(tmp_path / "a.mp4", LONG[:count])


LIMITED = """
import resource, sys
import numpy as np
from faceattr.live.outputs import VideoFile
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
with VideoFile(sys.argv[1], 25) as video:
    for number in range(40):
        video.write(np.full((90, 160, 3), 5 * number, np.uint8), number / 25)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of the size of files")
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_video_that_is_cut_short_is_an_error(tmp_path, name):
    job = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / name)], capture_output=True, text=True
    )
    assert job.returncode == 1
    assert job.stderr.strip().endswith(f"{name} cannot be written: File too large.")


@pytest.mark.parametrize("name", ["12:30.mp4", "file:a.mkv", "\udcff.mov"])
def test_any_name_of_a_file_will_do(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    record(name, [grey(9)])
    with open_feed(name) as feed:
        assert len(list(feed.frames())) == 1
