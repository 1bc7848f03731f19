"""Frames come out of a video at even distances, upright, in RGB."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from faceattr.pictures.capture import frames, seconds


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


def test_what_is_no_video_is_said(tmp_path):
    (tmp_path / "x.mp4").write_text("words")
    with pytest.raises(ValueError, match="not a video"):
        list(frames(tmp_path / "x.mp4"))
    with pytest.raises(FileNotFoundError):
        list(frames(tmp_path / "gone.mp4"))


def test_the_decoder_says_nothing_of_its_own(clip):
    clip.write_bytes(clip.read_bytes()[:900])
    # FFmpeg reads how loud it may be once in a process, and here others have woken it.
    code = f"from faceattr.pictures.capture import frames; next(frames({str(clip)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()
    assert "not a video" in lines[-1] and not [line for line in lines if "moov" in line]


@pytest.mark.parametrize(
    ("text", "expected"), [("1s", 1), ("500ms", 0.5), ("2min", 120), ("0.25", 0.25), (".5 s", 0.5)]
)
def test_times_are_written_as_people_write_them(text, expected):
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "often", "-1s", "1h30", "s"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="Received"):
        seconds(text)
