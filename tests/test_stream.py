"""`watch`: files frame by frame, cameras by the clock; nothing freezes, all threads end."""

import threading
import time

import numpy as np
import pytest
from use_scenes import ByColour, Person, Scene, attributes
from use_toys import OnEach

from faceattr.live import viewer
from faceattr.live.face_tracker import InferenceBudget
from faceattr.live.overlay import View
from faceattr.live.stream import watch
from faceattr.live.viewer import Outputs, Viewer


def walker(count=40):
    return Scene(Person(0, lambda n: (40 + 4 * n, 90)), count=count)


class Camera(Scene):
    """A scene that goes on whether it is watched or not, at 50 frames a second."""

    is_live = True
    rate = 50.0
    name = "camera 7"
    broken_after = 10**9

    def frames(self, wanted=lambda second: True):
        start = time.monotonic()
        for frame in super().frames():
            time.sleep(max(0, start + frame.time - time.monotonic()))
            if frame.number == self.broken_after:
                raise OSError("camera 7 was unplugged.")
            yield type(frame)(frame.image, frame.number, frame.time)


def test_every_frame_of_a_file_comes_in_order_with_its_own_answers():
    scene = walker()
    moments = list(watch(scene, attributes(scene)))
    assert [frame.number for frame, _ in moments] == list(range(40))
    for frame, (face,) in moments:
        assert abs(face.box[0] - scene.people[0].box(frame.number)[0]) < 6
        assert face.track == 1 and face["person"].label == "red"


def test_the_same_file_gives_the_same_answers_twice():
    def answers():
        scene = walker(20)
        moments = watch(scene, attributes(scene))
        return [(face.track, face.box, face["person"]) for _, faces in moments for face in faces]

    assert answers() == answers()


@pytest.mark.parametrize("blur", [True, False])
def test_every_frame_is_detected_from_the_first_on_while_faces_are_blurred(blur):
    scene, searches = walker(30), []
    describe = attributes(scene)
    find = describe.find
    describe.find = lambda image: searches.append(1) or find(image)
    with watch(scene, describe, every_frame=True) as watching:
        shown = Viewer(watching, Outputs(headless=True), View(blur=blur))
        shown.run(threading.Event())
    assert len(searches) >= 30 if blur else len(searches) <= 15


class Recorder:
    """Stands for `VideoFile`: keeps the pictures."""

    pictures = []  # noqa: RUF012

    def __init__(self, path, rate, gap):
        self.pictures.clear()

    def write(self, image, second):
        self.pictures.append(image)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def is_sharp(picture, scene):
    """Whether a face of the scene can be seen in a drawn picture of it."""
    number = int(picture[0, 0, 0]) * 256 + int(picture[0, 0, 1])
    x0, y0, x1, y1 = (round(value) for value in scene.people[0].box(number))
    inside = np.s_[y0 + 4 : y1 - 4, x0 + 4 : x1 - 4]
    return (picture[inside] == scene.image(number)[inside]).mean() > 0.4


@pytest.mark.parametrize("every_frame", [True, False])
def test_no_face_is_recorded_sharp_while_faces_are_blurred(monkeypatch, tmp_path, every_frame):
    # A cut to another place, where the model is late and nothing can be carried on.
    person = Person(0, lambda n: (60, 90) if n < 30 else (230, 60), 50)
    kind = Scene if every_frame else Camera
    scene = kind(person, count=80, cut_at=30)
    slow = ByColour(wait=lambda: time.sleep(0.04))
    monkeypatch.setattr(viewer, "VideoFile", Recorder)
    outputs = Outputs([tmp_path / "a.mp4"], headless=True)
    with watch(scene, attributes(scene, slow), every_frame=every_frame) as watching:
        Viewer(watching, outputs, View(blur=True)).run(threading.Event())
    assert len(Recorder.pictures) > 10
    assert not any(is_sharp(picture, scene) for picture in Recorder.pictures)


def test_hiding_faces_begins_with_a_frame_that_is_detected(monkeypatch, tmp_path):
    scene = Camera(Person(0, lambda n: (60 + n, 90), 50), count=60)
    numbers = []
    with watch(scene, attributes(scene), budget=InferenceBudget(detect_every=10**6)) as watching:
        numbers += (next(watching)[0].number for _ in range(20))
        watching.only_detected = True
        for frame, faces in watching:
            numbers.append(frame.number)
            assert watching.latest.is_detected and watching.latest.number == frame.number
            assert len(faces) == 1 and faces == watching.latest.faces
    assert numbers == sorted(set(numbers))


def test_a_snapshot_that_cannot_be_saved_ends_nothing(tmp_path, monkeypatch):
    class Keys:
        def __init__(self):
            self.shown = 0

        def key(self, timeout):
            return "s" if self.shown == 1 else ""

        def show(self, image):
            self.shown += 1

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(viewer, "require_screen", lambda: None)
    monkeypatch.setattr(viewer, "Window", Keys)
    scene, said = walker(5), []
    outputs = Outputs(snapshots=tmp_path / "later")
    (tmp_path / "later").write_text("a file")
    with watch(scene, attributes(scene), every_frame=True) as watching:
        summary = Viewer(watching, outputs, View(), OnEach(said.append, object)).run(
            threading.Event()
        )
    assert "no snapshot was saved" in said[0]
    assert summary.frames == 5 and summary.failure is None and not summary.is_interrupted


def test_an_empty_source_ends_at_once():
    scene = walker(0)
    assert list(watch(scene, attributes(scene))) == []


def test_a_slow_model_drops_frames_and_never_delays_the_picture():
    scene = Camera(Person(1, lambda n: (60 + n, 90)), count=120)
    slow = ByColour(wait=lambda: time.sleep(0.15))
    delays, shown = [], []
    with watch(scene, attributes(scene, slow)) as watching:
        for frame, faces in watching:
            delays.append(time.monotonic() - frame.captured)
            shown.append(faces)
    assert watching.updates < 25
    assert len(delays) > 90 and np.percentile(delays, 90) < 0.04
    assert any(shown), "answers did come"


def test_answers_of_a_slow_model_are_drawn_where_the_face_is_now():
    scene = Camera(Person(1, lambda n: (60 + 1.5 * n, 90)), count=120)
    slow = ByColour(wait=lambda: time.sleep(0.1))
    errors = [
        abs(face.box[0] - scene.people[0].box(frame.number)[0])
        for frame, faces in watch(scene, attributes(scene, slow))
        for face in faces
    ]
    # 0.1 s are 7 pixels of this walk
    assert len(errors) > 50 and np.median(errors) < 2


def test_a_slow_viewer_gets_the_newest_frame():
    scene = Camera(Person(0, lambda n: (100, 90)), count=100)
    ages, numbers = [], []
    for frame, _ in watch(scene, attributes(scene)):
        ages.append(time.monotonic() - frame.captured)
        numbers.append(frame.number)
        time.sleep(0.1)
    # Frames that wait in a queue would be older each time: seconds at the end.
    assert np.median(ages) < 0.1 and len(numbers) < 25 and numbers == sorted(numbers)


def test_a_file_that_is_watched_by_the_clock_takes_its_time():
    scene = walker(25)
    started = time.monotonic()
    moments = list(watch(scene, attributes(scene), every_frame=False))
    assert 0.8 < time.monotonic() - started < 2.5 and len(moments) > 15


def test_a_file_waits_while_paused_and_goes_on_where_it_was():
    scene = walker(40)
    with watch(scene, attributes(scene), every_frame=False) as watching:
        before = [next(watching)[0].number for _ in range(5)][-1]
        watching.pause()
        time.sleep(0.6)
        watching.resume()
        after = next(watching)[0].number
    assert after - before <= 4


def test_what_breaks_the_source_reaches_the_viewer_after_its_last_frame():
    scene = Camera(Person(0, lambda n: (100, 90)), count=60)
    scene.broken_after = 20
    numbers = []
    with pytest.raises(OSError, match="unplugged"), watch(scene, attributes(scene)) as watching:
        for frame, _ in watching:
            numbers.append(frame.number)
    assert numbers[-1] == 19


def test_what_breaks_the_model_reaches_the_viewer():
    def fail():
        raise ValueError("the model is broken")

    scene = Camera(Person(0, lambda n: (100, 90)), count=200)
    with pytest.raises(ValueError, match="the model is broken"):
        for _ in watch(scene, attributes(scene, ByColour(wait=fail))):
            pass


def test_a_camera_that_falls_silent_is_reported(monkeypatch):
    class Silent(Camera):
        def frames(self, wanted=None):
            yield from super().frames()
            time.sleep(1)

    monkeypatch.setattr("faceattr.live.stream.SILENT_SECONDS", 0.3)
    scene = Silent(count=3)
    with (
        watch(scene, attributes(scene)) as watching,
        pytest.raises(OSError, match="camera 7 has given no image for"),
    ):
        while True:
            watching.next(0.05)


def test_a_file_whose_frames_are_far_apart_is_waited_for(monkeypatch):
    class Slides(Scene):
        def frames(self, wanted=None):
            for frame in super().frames():
                yield type(frame)(frame.image, frame.number, 0.5 * frame.number)

    monkeypatch.setattr("faceattr.live.stream.SILENT_SECONDS", 0.1)
    scene = Slides(count=3)
    with watch(scene, attributes(scene), every_frame=False) as watching:
        summary = Viewer(watching, Outputs(headless=True), View()).run(threading.Event())
    assert (summary.frames, summary.failure) == (3, None)


def test_leaving_ends_all_threads():
    before = threading.active_count()
    scene = Camera(Person(0, lambda n: (100, 90)), count=10_000)
    with watch(scene, attributes(scene)) as watching:
        next(watching)
        assert threading.active_count() == before + 2
    assert threading.active_count() == before


def test_a_loop_that_is_left_ends_all_threads_and_the_source():
    before = threading.active_count()
    scene = Camera(Person(0, lambda n: (100, 90)), count=10_000)
    for frame, _ in watch(scene, attributes(scene)):
        if frame.number > 3:
            break
    assert threading.active_count() == before


def test_a_loop_that_is_left_can_be_gone_on_with_while_it_is_held():
    scene = walker(20)
    with watch(scene, attributes(scene)) as watching:
        for frame, _ in watching:
            if frame.number == 5:
                break
        assert [frame.number for frame, _ in watching] == list(range(6, 20))


@pytest.mark.parametrize("source", [None, ["a"]])
def test_what_is_no_source_is_refused_before_a_model_is_opened(source):
    with pytest.raises(ValueError, match=r"A source is .* Received: (NoneType|list)"):
        watch(source)


def test_every_frame_of_a_camera_cannot_be_had():
    scene = Camera(count=1)
    with pytest.raises(ValueError, match="cannot wait"):
        watch(scene, attributes(scene), every_frame=True)
