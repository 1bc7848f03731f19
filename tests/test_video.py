"""Frames come out of a video at even distances, upright, in RGB."""

import subprocess
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest
from use_videos import write_video

from faceattr.cli.options import duration
from faceattr.images.video import BrokenOff, Video, frames, frames_at


@pytest.fixture
def clip(tmp_path):
    """Three seconds, ten frames a second, from black to red."""
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for number in range(30):
        writer.write(np.full((48, 64, 3), (0, 0, number * 8), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (1.0, [0, 1, 2]),
        (0.5, [0, 0.5, 1, 1.5, 2, 2.5]),
        (10, [0]),
        (0, [n / 10 for n in range(30)]),
    ],
)
def test_frames_come_at_even_distances(clip, every, expected):
    assert [second for second, _ in frames(clip, every)] == pytest.approx(expected)


def test_frames_are_rgb_and_belong_to_their_seconds(clip):
    for second, frame in frames(clip, 1.0):
        assert frame.shape == (48, 64, 3) and frame.dtype == np.uint8
        assert frame[..., 0].mean() == pytest.approx(second * 80, abs=12)
        assert frame[..., 2].mean() < 12


def test_a_start_passes_over_frames_but_keeps_the_distances(clip):
    assert [second for second, _ in frames(clip, 1.0, start=0.9)] == [1, 2]


def grey(number, size=(48, 64)):
    return np.full((*size, 3), number % 250, np.uint8)


# Thirty frames a second, then five, then one: as phones record in the dark.
UNEVEN = (
    [n / 30 for n in range(90)] + [3 + n / 5 for n in range(35)] + [10.0 + n for n in range(11)]
)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts"])
def test_a_variable_rate_is_sampled_by_the_clock_of_the_container(tmp_path, name):
    path = write_video(tmp_path / name, [grey(n) for n in range(len(UNEVEN))], UNEVEN)
    assert [second for second, _ in frames(path, 1.0)] == pytest.approx(range(21), abs=0.02)
    assert [second for second, _ in frames(path, 0)] == pytest.approx(UNEVEN, abs=0.001)
    levels = [image.mean() for _, image in frames(path, 2.0)]
    numbers = [int(np.argmin(np.abs(np.array(UNEVEN) - 2 * n))) for n in range(11)]
    assert levels == pytest.approx(numbers, abs=3)


def test_a_pause_is_neither_filled_nor_made_up_for(tmp_path):
    times = [n / 10 for n in range(15)] + [6 + n / 10 for n in range(15)]
    path = write_video(tmp_path / "a.mp4", [grey(n) for n in range(30)], times)
    assert [second for second, _ in frames(path, 1.0)] == pytest.approx([0, 1, 6, 7], abs=0.01)


IDENTITY = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
SHOWN = {  # the part of a matrix that turns, and what it makes of an image
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda image: image.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda image: np.rot90(image.transpose(1, 0, 2), 2),
}


@pytest.mark.parametrize("turn", SHOWN)
def test_how_a_phone_says_that_it_was_held_is_applied(tmp_path, turn):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:16, :16] = 250, 0, 0
    image[:16, -16:] = 0, 0, 250
    content = write_video(tmp_path / "a.mp4", [image] * 5).read_bytes()
    a, b, c, d = (value << 16 for value in turn)
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    head, _, tail = content.rpartition(IDENTITY)  # of the track; an earlier one is the film's
    (tmp_path / "a.mp4").write_bytes(head + matrix + tail)
    _, frame = next(frames(tmp_path / "a.mp4"))
    expected = SHOWN[turn](image)
    assert frame.shape == expected.shape and np.abs(frame.astype(int) - expected).mean() < 12


def test_pixels_that_are_wide_are_seen_as_wide(tmp_path):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = 250
    _, frame = next(frames(write_video(tmp_path / "a.mp4", [image] * 5, aspect=Fraction(3, 2))))
    assert frame.shape == (48, 96, 3)
    assert frame[:, :44].mean() > 230 and frame[:, 52:].mean() < 20
    (video := Video(tmp_path / "a.mp4")).close()
    assert video.aspect == Fraction(3, 2)  # PyAV would look it up in what is closed


def test_pixels_that_are_wider_than_any_are_taken_for_square(tmp_path):
    path = write_video(tmp_path / "a.mp4", [grey(9)] * 5, aspect=Fraction(200, 1))
    _, frame = next(frames(path))
    assert frame.shape == (48, 64, 3)


@pytest.mark.parametrize("name", ["joined.ts", "joined.mpg"])
def test_recordings_that_were_joined_go_on_where_the_clock_begins_anew(tmp_path, monkeypatch, name):
    parts = [[grey(100 * part + 2 * n) for n in range(50)] for part in (0, 1)]
    for number, images in enumerate(parts):
        write_video(tmp_path / f"{number}.ts", images)
    joined = b"".join((tmp_path / f"{number}.ts").read_bytes() for number in (0, 1))
    (tmp_path / name).write_bytes(joined)
    found = list(frames(tmp_path / name, 0))
    assert [second for second, _ in found] == pytest.approx(np.arange(100) / 25, abs=0.002)
    wanted = [second for second, _ in found[::7]]
    decoded, timed = [], Video.timed
    counted = lambda self: (decoded.append(0) or each for each in timed(self))  # noqa: E731
    monkeypatch.setattr(Video, "timed", counted)
    monkeypatch.setattr("faceattr.images.video.SEEK_SECONDS", 0.1)
    for (_, whole), (_, single) in zip(found[::7], frames_at(tmp_path / name, wanted), strict=True):
        np.testing.assert_array_equal(whole, single)
    assert len(decoded) == 99  # the last wanted one is the last but one


@pytest.mark.parametrize(("name", "how"), [("a.mp4", {"movflags": "faststart"}), ("a.mkv", {})])
def test_a_truncated_video_gives_what_it_has_and_breaks_off(tmp_path, name, how):
    noise = [np.random.default_rng(n).integers(0, 255, (48, 64, 3), np.uint8) for n in range(75)]
    path = write_video(tmp_path / name, noise, **how)
    assert len(list(frames(path, 0))) == 75
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    given = []
    with pytest.raises(BrokenOff, match=rf"{name}: breaks off after 1\.\d of 3\.0 s$") as broken:
        given += (second for second, _ in frames(path, 0))
    assert given == [] or given[-1] < broken.value.second < 2.2
    assert [second for second, _ in frames_at(path, [0, 1])] == [0, 1]


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_a_clock_that_does_not_begin_at_0_breaks_nothing_off(tmp_path, name):
    times = [10 + number / 25 for number in range(50)]
    path = write_video(tmp_path / name, [grey(n) for n in range(50)], times)
    assert len(list(frames(path, 0))) == 50


def test_sound_that_is_longer_or_shorter_breaks_nothing_off(tmp_path):
    for name, sound in [("a.mkv", 3.0), ("b.mkv", 1.0), ("c.mp4", 3.0), ("d.mp4", 1.0)]:
        path = write_video(tmp_path / name, [grey(n) for n in range(50)], sound=sound)
        assert len(list(frames(path, 0))) == 50


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_frames_at_given_seconds_are_those_of_the_whole_and_cost_little(
    tmp_path, monkeypatch, name
):
    path = write_video(tmp_path / name, [grey(n) for n in range(750)])
    whole = list(frames(path, 1.0))
    chosen = [whole[number] for number in (0, 3, 17, 18, 29)]
    given = list(frames_at(path, [300, *(second for second, _ in reversed(chosen)), chosen[1][0]]))
    assert [second for second, _ in given] == [second for second, _ in chosen]
    for (_, image), (_, expected) in zip(given, chosen, strict=True):
        np.testing.assert_array_equal(image, expected)
    decoded = []
    timed = Video.timed
    monkeypatch.setattr(
        Video, "timed", lambda self: (decoded.append(0) or each for each in timed(self))
    )
    list(frames_at(path, [whole[28][0]]))
    assert len(decoded) < 60


def test_what_is_no_video_is_said(tmp_path):
    (tmp_path / "x.mp4").write_text("words")
    with pytest.raises(ValueError, match="not a video"):
        list(frames(tmp_path / "x.mp4"))
    with pytest.raises(FileNotFoundError):
        list(frames(tmp_path / "gone.mp4"))


def test_the_decoder_says_nothing_of_its_own(clip):
    clip.write_bytes(clip.read_bytes()[:900])
    # FFmpeg reads how loud it may be once in a process, and here others have woken it.
    code = f"from faceattr.images.video import frames; next(frames({str(clip)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()
    assert "not a video" in lines[-1] and not [line for line in lines if "moov" in line]


@pytest.mark.parametrize("module", ["images.video", "images.camera", "live.outputs", "live.viewer"])
def test_opencv_is_loaded_before_av_or_its_windows_hang(module):
    code = f"import faceattr.{module}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert loaded.index("cv2") < loaded.index("av")


@pytest.mark.parametrize(
    ("text", "expected"), [("1s", 1), ("500ms", 0.5), ("2min", 120), ("0.25", 0.25), (".5 s", 0.5)]
)
def test_times_are_written_as_people_write_them(text, expected):
    assert duration(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "often", "-1s", "1h30", "s"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="Received"):
        duration(text)
