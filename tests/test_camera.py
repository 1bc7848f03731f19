"""Sources of moving pictures: one contract, and one sentence when one fails."""

from http.server import BaseHTTPRequestHandler

import cv2
import numpy as np
import pytest
from PIL import Image
from use_loopback import website
from use_scenes import Person, Scene
from use_videos import FakeCamera, write_video

from faceattr.images import camera as feed_module
from faceattr.images.camera import is_live, open_feed


@pytest.fixture(scope="module")
def images():
    scene = Scene(Person(0, lambda n: (40 + 4 * n, 90)), count=30)
    return [scene.image(number) for number in range(30)]


def taken(source, **how):
    with open_feed(source, **how) as feed:
        return list(feed.frames())


def test_a_video_gives_every_frame_in_rgb_with_its_second(tmp_path, images):
    frames = taken(write_video(tmp_path / "walk.mp4", images))
    assert [frame.number for frame in frames] == list(range(30))
    assert frames[10].time == pytest.approx(0.4)
    red, green, blue = frames[5].image[90, 60].astype(int)
    assert red > 150 and green < 120 and blue < 120


def test_frames_that_are_not_wanted_are_passed_over_but_counted(tmp_path, images):
    with open_feed(write_video(tmp_path / "walk.mp4", images)) as feed:
        numbers = [frame.number for frame in feed.frames(lambda second: second >= 0.8)]
    assert numbers == list(range(20, 30))


def test_a_folder_gives_its_pictures_by_name_at_the_rate_that_is_asked_for(tmp_path, images):
    for number, image in enumerate(images[:3]):
        Image.fromarray(image).save(tmp_path / f"{number:03}.png")
    frames = taken(tmp_path, rate=10)
    assert [frame.time for frame in frames] == [0, 0.1, 0.2]
    np.testing.assert_array_equal(frames[2].image, images[2])


def test_a_folder_with_a_broken_picture_breaks_off_there(tmp_path, images):
    Image.fromarray(images[0]).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    with open_feed(tmp_path) as feed:
        frames = feed.frames()
        assert next(frames).number == 0
        with pytest.raises(OSError, match=r"1.png: not a picture"):
            next(frames)


@pytest.mark.parametrize("rate", [0, -5, float("nan")])
def test_a_rate_is_more_than_0(tmp_path, rate):
    with pytest.raises(ValueError, match="more than 0 frames a second"):
        taken(tmp_path, rate=rate)


def test_a_video_that_breaks_off_gives_what_it_has_and_says_so(tmp_path, images):
    whole = write_video(tmp_path / "walk.mp4", images, movflags="faststart").read_bytes()
    (tmp_path / "broken.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    frames = []
    with (
        open_feed(tmp_path / "broken.mp4") as feed,
        pytest.raises(OSError, match=r"broken.mp4: breaks off after 0\.\d of 1.2 s"),
    ):
        for frame in feed.frames():
            frames.append(frame)
    assert 5 < len(frames) < 28


def test_what_is_no_source_is_named_in_one_sentence(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    for source, error, sentence in [
        ("gone.mp4", FileNotFoundError, "There is no video gone.mp4. A source is a camera"),
        (tmp_path / "text.mp4", ValueError, "not a video that FFmpeg reads"),
        (tmp_path / "empty", ValueError, "There are no images in"),
        (None, ValueError, "A source is a camera's number, .* Received: NoneType"),
        (["a"], ValueError, "A source is a camera's number, .* Received: list"),
        (97, OSError, "camera 97"),
        ("98", OSError, "camera 98"),
    ]:
        with pytest.raises(error, match=r"(?i)" + sentence):
            taken(source)


def test_a_stream_that_does_not_answer_is_named():
    with pytest.raises(OSError, match=r"The stream http://127.0.0.1:9/x does not answer"):
        taken("http://127.0.0.1:9/x")


def test_cameras_and_streams_are_live_and_files_are_not():
    assert is_live(0) and is_live("1") and is_live("rtsp://host/a") and is_live("http://h/v.mjpg")
    assert not is_live("clip.mp4") and not is_live("frames/") and not is_live("C:\\clip.mp4")


def test_a_stream_over_http_is_read_until_it_ends(images):
    jpegs = [cv2.imencode(".jpg", image[:, :, ::-1])[1].tobytes() for image in images]

    class Mjpeg(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for jpeg in jpegs:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")

    frames = []
    with (
        website(Mjpeg) as (address, _),
        open_feed(f"{address}/live.mjpg") as feed,
        pytest.raises(OSError, match="unplugged or broke off after"),
    ):
        for frame in feed.frames():
            frames.append(frame)
    assert feed.is_live and len(frames) >= 28


def test_a_camera_that_is_unplugged_says_so_and_is_released(monkeypatch):
    monkeypatch.setattr(feed_module.cv2, "VideoCapture", FakeCamera)
    frames = []
    with (
        open_feed(0) as feed,
        pytest.raises(OSError, match="camera 0 gives no more images: it was unplugged"),
    ):
        for frame in feed.frames():
            frames.append(frame)
    assert len(frames) == 5 and frames[0].image[0, 0].tolist() == [0, 0, 250]
    assert feed.video.is_released and feed.rate == feed_module.RATE
