"""The page: who may ask, what may be sent, and what a real browser makes of it."""

import asyncio
import base64
import json
import re
import socket
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack

import cv2
import numpy as np
import pandas
import pytest
from use_browser import Browser, camera_of
from use_loopback import serving, wait_for
from use_scenes import Person, Scene, astronaut_video, attributes
from use_toys import encoded
from use_videos import record, write_sound

from faceattr.cli import main
from faceattr.files import install_command
from faceattr.inference.predictor import FaceAttributes
from faceattr.live import web
from faceattr.live.web import MOST_BYTES, frame_of
from faceattr.serving import server as protocol

uvicorn = pytest.importorskip("uvicorn", reason="needs faceattr[web]")
pytest.importorskip("websockets", reason="needs faceattr[web]")
from starlette.websockets import WebSocketDisconnect  # noqa: E402
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402


def served(attributes, **how):
    return serving(web.application(attributes, **how), ws_max_size=MOST_BYTES)


class Squares:
    """Finds people of `use_scenes` by their colour, through JPEG and without a truth."""

    provenance = {"name": "squares"}  # noqa: RUF012
    long_side = None

    def __call__(self, image):
        from faceattr.detection.base import Face

        found = []
        for channel in range(3):
            others = np.delete(image, channel, axis=2).max(axis=2).astype(int)
            strong = image[:, :, channel] - others > 60
            _, _, stats, _ = cv2.connectedComponentsWithStats(strong.astype(np.uint8))
            found += [
                Face((float(x), float(y), float(x + w), float(y + h)), None, 0.9)
                for x, y, w, h, _ in stats[1:]
                if min(w, h) > 20
            ]
        return found


def of_squares():
    attributes_of_scene = attributes(Scene())
    attributes_of_scene.detector = Squares()
    return attributes_of_scene


@pytest.fixture(scope="module")
def port():
    with served(of_squares()) as port:
        yield port


def packed(image, second=0.0):
    jpeg = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    return struct.pack("<d", second) + jpeg.tobytes()


def answer_to(socket, message):
    socket.send(message)
    return json.loads(socket.recv(timeout=20))


def fetch(port, path="/", **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read(), answer.headers


def test_the_page_loads_nothing_from_elsewhere(port):
    page, headers = fetch(port)
    assert b"faceattr" in page and b"http" not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    about = json.loads(fetch(port, "/about")[0])
    assert about["tasks"][0]["name"] == "person" and about["columns"][:3] == [
        "time",
        "frame",
        "track",
    ]


def test_a_walking_face_keeps_its_number_over_the_websocket(port):
    scene = Scene(Person(0, lambda n: (60 + 4 * n, 90)), count=20)
    with connect(f"ws://127.0.0.1:{port}/look") as socket:
        answers = [answer_to(socket, packed(frame.image, frame.time)) for frame in scene.frames()]
    assert {face["track"] for answer in answers for face in answer["faces"]} == {1}
    last = answers[-1]["faces"][0]
    assert abs(last["box"][0] - scene.people[0].box(19)[0]) < 8
    assert last["answers"]["person"]["label"] == "red"


def test_nobody_in_the_picture_is_an_answer(port):
    with connect(f"ws://127.0.0.1:{port}/look") as socket:
        assert answer_to(socket, packed(Scene().image(0)))["faces"] == []


def test_a_new_source_begins_anew(port):
    image = Scene(Person(1, lambda n: (100, 90))).image(0)
    with connect(f"ws://127.0.0.1:{port}/look") as socket:
        for second in (0, 0.1):
            first = answer_to(socket, packed(image, second))
        socket.send("new")
        again = answer_to(socket, packed(image, 0))
    assert first["frame"] == 1 and again["frame"] == 0 and again["faces"][0]["track"] == 1


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (b"", "no JPEG"),
        (b"words", "no JPEG"),
        (struct.pack("<d", 0) + b"<svg onload=alert(1)>", "no JPEG"),
        (struct.pack("<d", 0) + encoded(np.zeros((8, 8, 3), np.uint8)), "no JPEG"),
        (struct.pack("<d", float("nan")) + packed(np.zeros((8, 8, 3), np.uint8))[8:], "no JPEG"),
        (packed(np.zeros((40, 40, 3), np.uint8))[:60], "no JPEG"),
        (packed(np.zeros((4001, 4000, 3), np.uint8)), "is larger"),
    ],
)
def test_what_is_no_picture_is_refused_and_the_next_one_is_answered(port, message, sentence):
    with connect(f"ws://127.0.0.1:{port}/look") as socket:
        assert sentence in answer_to(socket, message)["error"]
        assert "faces" in answer_to(socket, packed(Scene().image(0)))


def test_a_message_beyond_the_limit_closes_the_line(port):
    with connect(f"ws://127.0.0.1:{port}/look") as socket, pytest.raises(ConnectionClosed):
        answer_to(socket, b"x" * (MOST_BYTES + 1))


def test_other_sites_may_neither_open_the_page_nor_the_websocket(port):
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(port, Host="evil.example")
    refused.value.close()
    assert refused.value.code == 400
    for headers in ({"Origin": name} for name in ("http://evil.example", "null", "http://[bad")):
        with (
            pytest.raises(InvalidStatus),
            connect(f"ws://127.0.0.1:{port}/look", additional_headers=headers),
        ):
            pass
    own = {"Origin": f"http://127.0.0.1:{port}"}
    with connect(f"ws://127.0.0.1:{port}/look", additional_headers=own):
        pass


def test_only_so_many_pages_are_answered_at_once(port):
    time.sleep(0.3)
    address = f"ws://127.0.0.1:{port}/look"
    with ExitStack() as stack:
        for _ in range(web.MOST_PAGES):
            stack.enter_context(connect(address))
        with pytest.raises(InvalidStatus):
            stack.enter_context(connect(address))


def test_pages_that_come_together_are_counted_before_they_are_let_in():
    class Page:
        scope, headers, said = {}, {}, ()

        async def accept(self):
            self.said = ("accepted",)
            await asyncio.sleep(0.01)
            raise WebSocketDisconnect

        async def close(self, code):
            self.said = ("refused",)

    async def come_together(pages):
        sessions = web._Sessions(lambda: None, lambda scope: None)
        await asyncio.gather(*map(sessions.answer, pages))
        return sessions._open

    pages = [Page() for _ in range(web.MOST_PAGES + 3)]
    assert asyncio.run(come_together(pages)) == 0
    assert sum(page.said == ("accepted",) for page in pages) == web.MOST_PAGES


def test_idle_pages_make_room_for_others(monkeypatch):
    monkeypatch.setattr(web, "IDLE_SECONDS", 0.3)
    with served(of_squares()) as port, ExitStack() as stack:
        address = f"ws://127.0.0.1:{port}/look"
        idle = [stack.enter_context(connect(address)) for _ in range(web.MOST_PAGES)]
        for socket in idle:
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=20)
            assert closed.value.rcvd.code == web.IDLE
        with connect(address) as socket:
            assert "faces" in answer_to(socket, packed(Scene().image(0)))


def test_a_page_that_is_at_work_outlives_connections_that_ask_nothing(monkeypatch):
    monkeypatch.setattr(protocol, "PATIENCE", 0.2)
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 4)
    monkeypatch.setattr(protocol, "GRACE", 0.0)
    with served(of_squares()) as port, ExitStack() as stack:
        page = stack.enter_context(connect(f"ws://127.0.0.1:{port}/look"))
        for _ in range(20):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
        assert line.recv(100) == b""  # it is closed
        assert "faces" in answer_to(page, packed(Scene().image(0)))
        assert fetch(port, "/about")[0]


def test_pictures_are_decoded_beside_the_event_loop(monkeypatch):
    def decoded(message):
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        beside.append(threading.current_thread().name)
        return frame_of(message)

    beside = []
    monkeypatch.setattr(web, "frame_of", decoded)
    with served(of_squares()) as port, connect(f"ws://127.0.0.1:{port}/look") as socket:
        assert "faces" in answer_to(socket, packed(Scene().image(0)))
    assert len(beside) == 1


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False), ("127.0.0.2", False)],
)
def test_other_machines_need_the_token_that_is_printed(
    host, local, monkeypatch, capsys, toy_model_path
):
    apps = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **how: apps.append(app))
    assert main(["live", "--web", "--host", host, "--model", str(toy_model_path), "--offline"]) == 0
    (address,) = re.findall(r"http://\S+", capsys.readouterr().err)
    token = "".join(re.findall(r"/\?token=([\w-]{20,})$", address))
    assert bool(token) != local
    with serving(apps[0], ws_max_size=MOST_BYTES) as port:
        asked = f"?token={token}" if token else ""
        assert fetch(port, f"/about{asked}")[0] and fetch(port, f"/{asked}")[0]
        with connect(f"ws://127.0.0.1:{port}/look{asked}"):
            pass
        for wrong in [] if local else ["", "?token=", "?token=guess", "?token=%C3%A9"]:
            for path in ("/", "/about"):
                with pytest.raises(urllib.error.HTTPError) as refused:
                    fetch(port, path + wrong)
                assert refused.value.code == 403
                assert b"the whole address that faceattr printed" in refused.value.read()
                refused.value.close()
            with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{port}/look{wrong}"):
                pass


def test_a_token_is_printed_even_to_the_quiet(monkeypatch, capsys, toy_model_path):
    monkeypatch.setattr(uvicorn, "run", lambda app, **how: None)
    how = ["--quiet", "--offline", "--model", str(toy_model_path)]
    assert main(["live", "--web", *how]) == 0 and capsys.readouterr().err == ""
    assert main(["live", "--web", *how, "--host", "0.0.0.0"]) == 0
    assert "?token=" in capsys.readouterr().err


def test_wrong_input_is_one_sentence_and_code_2(refused, capsys, toy_model_path):
    assert "--web has no use for source" in refused(main(["live", "--web", "clip.mp4"]))
    assert main(["live", "--web", "--port", "99999"]) == 2
    assert "between 1 and 65535. Received: 99999" in capsys.readouterr().err
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = str(taken.getsockname()[1])
        assert main(["live", "--web", "--port", number, "--model", str(toy_model_path)]) == 2
    assert "Choose another --port" in capsys.readouterr().err


def test_without_the_extra_its_name_is_told(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert f"`{install_command('web')}` installs it" in refused(main(["live", "--web"]))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser whose camera shows two people who change places, and a video of a real face."""
    with Browser(camera_of(tmp_path_factory.mktemp("camera"), camera_images())) as browser:
        yield browser


def camera_images():
    """Red and blue for two seconds, then green and red: labels change."""
    for number in range(80):
        colours = (0, 2) if number < 40 else (1, 0)
        people = [
            Person(colour, lambda n, left=left: (left + 0.5 * (n % 40), 90), 50)
            for colour, left in zip(colours, (70, 220), strict=True)
        ]
        image = Scene(*people, cut_at=40).image(number)
        yield cv2.resize(image, (1280, 720), interpolation=cv2.INTER_LINEAR)


LABELS = "window.faceattr.answer?.faces.map(face => face.answers.person.label).sort().join()"


def test_a_browser_shows_its_camera_with_faces_whose_labels_change(port, browser, tmp_path):
    browser.open(f"http://127.0.0.1:{port}/")
    browser.click("camera")
    browser.wait(f"{LABELS} === 'blue,red'")
    browser.wait(f"{LABELS} === 'green,red'")
    for box in ("bars", "mirror"):
        browser.click(box)
    time.sleep(1)
    browser.photograph(tmp_path / "page.png")
    assert browser.ask("document.getElementById('figures').textContent").count("/s") == 2
    pixel = "[...document.getElementById('canvas').getContext('2d').getImageData(640,360,1,1).data]"
    assert sum(browser.ask(pixel)[:3]) > 60
    assert browser.ask("window.faceattr.rows.length") > 5
    rows = browser.ask("window.faceattr.rows[0].split(',').length")
    assert rows == browser.ask("window.faceattr.about.columns.length")
    browser.click("camera")
    assert browser.ask("window.faceattr.source === null")
    assert browser.errors == []


def test_a_browser_takes_pictures_and_videos_and_refuses_other_files(port, browser, tmp_path):
    image = Scene(Person(1, lambda n: (160, 90), 60)).image(0)
    (tmp_path / "one.png").write_bytes(encoded(image))
    scene = Scene(Person(2, lambda n: (40 + n, 90), 60), count=100)
    record(tmp_path / "walk.mp4", (frame.image for frame in scene.frames()))
    (tmp_path / "notes.txt").write_text("words")
    browser.open(f"http://127.0.0.1:{port}/")
    browser.give_file("file", tmp_path / "one.png")
    browser.wait(f"{LABELS} === 'green'")
    browser.give_file("file", tmp_path / "walk.mp4")
    browser.wait(f"{LABELS} === 'blue'")
    browser.give_file("file", tmp_path / "notes.txt")
    browser.wait("document.getElementById('message').textContent.includes('neither a picture')")
    assert browser.errors == []


def test_a_phone_that_is_turned_gives_faces_of_their_own_shape(port, browser):
    browser.open(f"http://127.0.0.1:{port}/")
    browser.ask(
        """{
          const scene = document.createElement("canvas"), pen = scene.getContext("2d");
          window.turn = (width, height) => { [scene.width, scene.height] = [width, height]; };
          turn(640, 360);
          setInterval(() => pen.fillRect(0, 0, scene.width, scene.height), 40);
          navigator.mediaDevices.getUserMedia = async () => scene.captureStream(25);
        }"""
    )
    browser.click("camera")
    browser.wait("window.faceattr.answer && canvas.width === 640")
    browser.ask("turn(360, 640)")
    browser.wait("video.videoWidth === 360")
    browser.wait("window.faceattr.answer && [canvas, sending].every(one => one.width === 360)")
    assert browser.ask("[canvas, sending].map(one => one.height)") == [640, 640]
    assert browser.errors == []


def test_a_blurred_face_is_gone_from_the_page(port, browser, tmp_path):
    image = Scene(Person(0, lambda n: (160, 90), 80)).image(0)
    (tmp_path / "one.png").write_bytes(encoded(image))
    browser.open(f"http://127.0.0.1:{port}/")
    browser.click("blur")
    browser.give_file("file", tmp_path / "one.png")
    browser.wait(f"{LABELS} === 'red'")
    time.sleep(0.3)
    read = "[...document.getElementById('canvas').getContext('2d')"
    pixels = np.array(browser.ask(f"{read}.getImageData(135, 70, 50, 25).data]")).reshape(-1, 4)
    assert len(np.unique(pixels, axis=0)) <= 20


def drop(browser, data, name="one.png", kind="image/png"):
    """Let a file fall on the page, as a mouse would."""
    encoded = base64.b64encode(data).decode()
    browser.ask(
        f"""{{
          const bytes = Uint8Array.from(atob("{encoded}"), letter => letter.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], "{name}", {{ type: "{kind}" }}));
          document.getElementById("stage").dispatchEvent(new DragEvent("drop", {{ dataTransfer }}));
        }}"""
    )


def test_a_dropped_picture_is_described_and_its_table_downloaded(port, browser, tmp_path):
    browser.open(f"http://127.0.0.1:{port}/")
    browser.do("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    image = Scene(Person(0, lambda n: (90, 90), 60), Person(2, lambda n: (230, 90), 60)).image(0)
    drop(browser, encoded(image))
    browser.wait(f"{LABELS} === 'blue,red'")
    browser.click("table")
    wait_for((tmp_path / "faceattr.csv").exists)
    table = pandas.read_csv(tmp_path / "faceattr.csv")
    assert set(table["person"]) == {"red", "blue"} and set(table["track"]) == {1, 2}
    assert list(table.columns) == json.loads(fetch(port, "/about")[0])["columns"]
    assert abs(table["x0"].min() - 60) < 8
    browser.click("snapshot")
    wait_for((tmp_path / "faceattr.png").exists)
    assert browser.errors == []


def test_what_is_transparent_is_white(port, browser):
    browser.open(f"http://127.0.0.1:{port}/")
    drop(browser, encoded(np.zeros((180, 320, 4), np.uint8)))
    browser.wait("!!window.faceattr.answer")
    pixel = "[...document.getElementById('canvas').getContext('2d').getImageData(60,60,1,1).data]"
    assert browser.ask(pixel) == [255, 255, 255, 255]


def test_a_dropped_file_that_pretends_to_be_a_picture_is_refused_on_the_page(port, browser):
    browser.open(f"http://127.0.0.1:{port}/")
    drop(browser, b"no picture at all")
    browser.wait("document.getElementById('message').textContent.includes('nothing that this')")
    assert browser.errors == [] and browser.ask("window.faceattr.source === null")


# The page waits for a camera, or for a picture, until the test calls what is in `gates`.
SLOW_CAMERA = """{
  window.gates = []; window.streams = [];
  const media = navigator.mediaDevices, real = media.getUserMedia.bind(media);
  media.getUserMedia = async wished => {
    const stream = await real(wished);
    streams.push(stream);
    await new Promise(done => gates.push(done));
    return stream;
  };
}"""
SLOW_PICTURE = """{
  window.gates = [];
  const real = window.createImageBitmap;
  window.createImageBitmap = async file => {
    if (!gates.length) await new Promise(done => gates.push(done));
    return real(file);
  };
}"""
RUNNING = "streams.filter(stream => stream.getTracks()[0].readyState === 'live').length"


def test_a_double_click_starts_one_camera_that_can_be_stopped(port, browser):
    browser.open(f"http://127.0.0.1:{port}/")
    browser.ask(SLOW_CAMERA)
    browser.click("camera")
    browser.click("camera")
    browser.wait("gates.length === 2")
    browser.ask("gates.forEach(open => open())")
    browser.wait("window.faceattr.source === video")
    assert browser.ask(RUNNING) == 1
    browser.click("camera")
    assert browser.ask(RUNNING) == 0 and browser.ask("window.faceattr.source === null")
    assert browser.errors == []


def test_a_camera_that_comes_late_does_not_take_the_place_of_a_picture(port, browser):
    browser.open(f"http://127.0.0.1:{port}/")
    browser.ask(SLOW_CAMERA)
    browser.click("camera")
    browser.wait("gates.length === 1")
    drop(browser, encoded(Scene(Person(1, lambda n: (160, 90), 60)).image(0)))
    browser.wait(f"{LABELS} === 'green'")
    browser.ask("gates[0]()")
    browser.wait(f"{RUNNING} === 0")
    assert browser.ask("window.faceattr.source instanceof ImageBitmap && !window.faceattr.stream")
    assert browser.errors == []


def test_of_two_pictures_the_one_that_was_opened_last_is_shown(port, browser):
    browser.open(f"http://127.0.0.1:{port}/")
    browser.ask(SLOW_PICTURE)
    drop(browser, encoded(Scene(Person(0, lambda n: (160, 90), 60)).image(0)))
    browser.wait("gates.length === 1")
    drop(browser, encoded(Scene(Person(1, lambda n: (160, 90), 60)).image(0)))
    browser.wait(f"{LABELS} === 'green'")
    browser.ask("window.shown = window.faceattr.source; gates[0]()")
    time.sleep(0.3)
    assert browser.ask("window.faceattr.source === window.shown")
    drop(browser, b"no picture at all")
    browser.wait("document.getElementById('message').textContent.includes('nothing that this')")
    assert browser.errors == []


def test_sound_alone_is_refused_and_a_line_is_a_picture(port, browser, tmp_path):
    browser.open(f"http://127.0.0.1:{port}/")
    browser.give_file("file", write_sound(tmp_path / "sound.mp4"))
    said = "document.getElementById('message').textContent"
    browser.wait(f"{said} === 'sound.mp4 has no pictures.'")
    assert browser.ask("window.faceattr.source === null")
    drop(browser, encoded(np.zeros((1, 5000, 3), np.uint8)))
    browser.wait("window.faceattr.answer?.faces.length === 0")
    assert browser.ask(said) == "" and browser.errors == []


def test_a_page_that_is_refused_asks_less_and_less_often_and_comes_in_at_last(browser):
    with served(of_squares()) as port, ExitStack() as stack:
        for _ in range(web.MOST_PAGES):
            stack.enter_context(connect(f"ws://127.0.0.1:{port}/look"))
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait("window.faceattr.wait >= 4000")
        said = browser.ask("document.getElementById('message').textContent")
        assert "no room for another page" in said
        stack.close()
        browser.wait("window.faceattr.socket.readyState === WebSocket.OPEN")


def test_an_idle_page_comes_back_when_there_is_something_to_look_at(browser, monkeypatch):
    monkeypatch.setattr(web, "IDLE_SECONDS", 0.5)
    image = Scene(Person(1, lambda n: (160, 90), 60)).image(0)
    with served(of_squares()) as port:
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait("window.faceattr.isIdle")
        drop(browser, encoded(image))
        browser.wait(f"{LABELS} === 'green'")
        assert browser.errors == []


def test_a_page_with_a_token_asks_with_it(browser):
    image = Scene(Person(1, lambda n: (160, 90), 60)).image(0)
    with served(of_squares(), token="secret") as port:
        browser.open(f"http://127.0.0.1:{port}/?token=secret")
        drop(browser, encoded(image))
        browser.wait(f"{LABELS} === 'green'")
        assert browser.errors == []


@pytest.mark.slow
def test_a_real_face_is_found_by_the_page_from_the_command_line(browser, tmp_path, toy_model_path):
    record(tmp_path / "face.mp4", astronaut_video(100))
    attributes = FaceAttributes.load(toy_model_path, "centerface")
    with served(attributes) as port:
        browser.open(f"http://localhost:{port}/")
        browser.give_file("file", tmp_path / "face.mp4")
        browser.wait("window.faceattr.answer?.faces[0]?.answers.gender.label", 60)
        assert browser.errors == []


def test_the_page_s_table_is_quoted_and_drops_nothing(port, browser, tmp_path):
    browser.open(f"http://127.0.0.1:{port}/")
    browser.do("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.wait("state.about !== null")
    shown = {"=1+1": "'=1+1", "@x": "'@x", "-5.0": "-5.0", "a,b": '"a,b"', 'say "a"': '"say ""a"""'}
    for text, cell in shown.items():
        assert browser.ask(f"cell({json.dumps(text)})") == cell
    browser.ask("""{
      const given = { label: "a, b", probability: 1, probabilities: {} };
      const answers = Object.fromEntries(state.about.tasks.map(task => [task.name, given]));
      const face = { track: 1, box: [1, 2, 3, 4], detection: 1, answers };
      for (let i = 0; i < 25000; i++) keepRows({ time: i, frame: i, faces: [face] });
    }""")
    browser.click("table")
    wait_for((tmp_path / "faceattr.csv").exists)
    table = pandas.read_csv(tmp_path / "faceattr.csv")
    assert table["frame"].tolist() == list(range(25000))
    assert set(table["person"]) == {"a, b"}
    assert browser.errors == []
