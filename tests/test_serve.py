"""The server: what it answers, what it refuses, and what it does under load."""

import base64
import json
import re
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import numpy as np
import pytest
from use_browser import Browser
from use_loopback import wait_for
from use_toys import ColourModel, GreenSquares, attributes, encoded, png_claiming

pytest.importorskip("uvicorn", reason="needs faceattr[web]")
pytest.importorskip("python_multipart", reason="needs faceattr[web]")
from use_server import BATCHERS, ask, file_of, in_json, multipart, served

from faceattr.images.load import NO_PICTURE
from faceattr.serving import server as protocol
from faceattr.serving.limits import Limits


@pytest.fixture(scope="module")
def port():
    with served() as port:
        yield port


def expected(file, of=None):
    faces = (of or attributes())(file)
    return json.loads(json.dumps([face.to_dict() for face in faces]))


def test_an_image_without_a_face_has_none(port):
    said = ask(port, "/analyze", *multipart(file_of(0)))
    assert said.status == 200 and said.json == {"faces": [], "left_out": 0}


@pytest.mark.parametrize("packed", [multipart, in_json, lambda file: (file, "image/png")])
def test_every_way_of_sending_gets_the_answers_of_analyze(port, packed):
    file = file_of(3, tint=17)
    said = ask(port, "/analyze", *packed(file))
    assert said.status == 200 and len(said.json["faces"]) == 3
    assert said.json["faces"] == expected(file)


@pytest.mark.parametrize("packed", [multipart, in_json])
def test_a_batch_is_answered_like_its_images_one_by_one(port, packed):
    files = [file_of(number % 4, tint=31 * number) for number in range(9)]
    said = ask(port, "/analyze/batch", *packed(*files))
    assert [one["faces"] for one in said.json["results"]] == [expected(file) for file in files]


def test_an_image_that_cannot_be_read_is_told_beside_the_others(port):
    said = ask(port, "/analyze/batch", *multipart(file_of(1), b"words", file_of(2)))
    good, bad, other = said.json["results"]
    assert bad == {"error": NO_PICTURE}
    assert len(good["faces"]) == 1 and len(other["faces"]) == 2
    said = ask(port, "/analyze/batch", *multipart(b"", file_of(2)))
    assert said.json["results"] == [{"error": "empty file"}, other]
    texts = ["", base64.b64encode(file_of(2)).decode(), "%%"]
    said = ask(port, "/analyze/batch", json.dumps({"images": texts}).encode(), "application/json")
    bad = {"error": "An image in JSON is a file's content in base64. Received: '%%'"}
    assert said.json["results"] == [{"error": "empty file"}, other, bad]


@pytest.mark.parametrize(
    "spelled",
    [
        base64.encodebytes,
        lambda file: base64.encodebytes(file).replace(b"\n", b"\r\n  "),
        base64.urlsafe_b64encode,
        lambda file: base64.urlsafe_b64encode(file).rstrip(b"="),
    ],
    ids=["lines", "indented lines", "base64url", "base64url without ="],
)
def test_base64_of_every_spelling_is_read(port, spelled):
    files = [file_of(2, tint=tint) for tint in range(8)]
    assert any(b"_" in base64.urlsafe_b64encode(file) for file in files)
    body = json.dumps({"images": [spelled(file).decode() for file in files]}).encode()
    said = ask(port, "/analyze/batch", body, "application/json")
    assert [one["faces"] for one in said.json["results"]] == [expected(file) for file in files]


def test_a_data_url_of_a_browser_is_read(port):
    body, kind = in_json(file_of(1))
    said = ask(port, "/analyze", body.replace(b': "', b': "data:image/png;base64,'), kind)
    assert len(said.json["faces"]) == 1


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "sentence"),
    [
        ("/analyze", b"words", "image/jpeg", 422, "not a picture"),
        ("/analyze", file_of(1)[:60], "image/png", 422, "truncated"),
        ("/analyze", b"", "image/jpeg", 400, "no image in the request"),
        ("/analyze", b"words", "text/plain", 415, "Received: text/plain"),
        ("/analyze", b"words", "", 415, "Received: no type"),
        ("/analyze", b"{", "application/json", 400, "no JSON"),
        ("/analyze", b"[" * 100_000, "application/json", 400, "no JSON"),
        ("/analyze", b"\xff\xfe", "application/json", 400, "no JSON"),
        ("/analyze", b"[]", "application/json", 400, "JSON looks like"),
        ("/analyze", b'{"image": 3}', "application/json", 400, '"image" looks like'),
        ("/analyze", b'{"image": "%%"}', "application/json", 400, "base64"),
        ("/analyze", '{"image": "é"}'.encode(), "application/json", 400, "base64"),
        ("/analyze", b'{"image": ""}', "application/json", 400, "no image in the request"),
        ("/analyze/batch", b"", "image/png", 400, "no image in the request"),
        ("/analyze", b'{"image": "a"}', "application/json", 400, "base64. Received: 'a'"),
        ("/analyze/batch", b'{"images": []}', "application/json", 400, "no image"),
        ("/analyze/batch", b'{"images": "a"}', "application/json", 400, '"images" looks like'),
        ("/analyze/batch", b'{"image": "aaaa"}', "application/json", 400, "JSON looks like"),
        ("/analyze", b"words", "multipart/form-data", 400, "multipart body cannot be read"),
        ("/analyze", b"words", "multipart/form-data; boundary=b", 400, "multipart body"),
        ("/analyze", b"--b--\r\n", "multipart/form-data; boundary=b", 400, "no image"),
        ("/analyze", *multipart(b"a", b"b"), 413, "/analyze/batch takes several"),
        ("/analyze/batch", *multipart(*[b"a"] * 33), 413, "--max-images"),
        ("/analyze/batch", *multipart(*[b"a"] * 99), 413, "At most 32 may be in this request"),
        ("/analyze", *multipart(*[b"a"] * 99), 413, "At most 1 may be in this request"),
        ("/analyze/batch", multipart(b"a", b"b")[0][:-3], multipart()[1], 400, "it was cut off"),
        ("/analyze/batch", multipart(b"a", b"b")[0][:-30], multipart()[1], 400, "it was cut off"),
        (
            "/analyze",
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nwords\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            400,
            "Every part is a file",
        ),
    ],
)
def test_what_is_malformed_gets_one_sentence(port, path, body, kind, status, sentence):
    said = ask(port, path, body, kind)
    assert (said.status, list(said.json)) == (status, ["error"])
    assert sentence in said.json["error"] and "\n" not in said.json["error"]
    assert ask(port, "/analyze", file_of(1), "image/png").status == 200


def test_bytes_of_a_refused_body_are_not_logged(port, caplog):
    assert ask(port, "/analyze", b"--a secret", multipart()[1]).status == 400
    assert ask(port, "/analyze", b"--c secret --b--", multipart()[1]).status == 400
    assert not caplog.records


@pytest.mark.parametrize(
    ("path", "body", "status"), [("/nothing", None, 404), ("/analyze", None, 405)]
)
def test_other_paths_and_methods_are_told_in_json(port, path, body, status):
    said = ask(port, path, body)
    assert said.status == status and "POST /analyze" in said.json["error"]


def test_an_image_that_claims_too_many_pixels_is_never_decoded(port):
    said = ask(port, "/analyze", png_claiming(30_000, 30_000), "image/png")
    assert said.status == 422 and "at most 50 million are read" in said.json["error"]


def test_a_body_that_is_too_large_is_refused_before_it_comes(port):
    with socket.create_connection(("127.0.0.1", port), 20) as line:
        head = "POST /analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
        line.sendall(f"{head}Content-Length: 99000000\r\n\r\n".encode())
        assert line.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_read_no_further_than_the_limit():
    with served(max_bytes=100_000) as port:
        pieces = (b"x" * 10_000 for _ in range(30))
        said = ask(port, "/analyze", pieces, "image/png", chunked=True, Transfer_Encoding="chunked")
        assert said.status == 413 and "more than 100,000 bytes" in said.json["error"]
        assert ask(port, "/analyze", file_of(1), "image/png").status == 200


def test_all_bodies_together_take_so_much_memory_and_no_more(monkeypatch):
    monkeypatch.setattr(Limits, "bytes_at_once", 100_000)
    head = b"POST /analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    with served() as port:
        with socket.create_connection(("127.0.0.1", port), 20) as line:
            line.sendall(head + b"Content-Length: 99000\r\n\r\n" + b"x" * 90_000)
            wait_for(lambda: ask(port, "/analyze", b"x" * 20_000, "image/png").status == 429)
        wait_for(lambda: ask(port, "/analyze", b"x" * 20_000, "image/png").status == 422)


def test_of_many_faces_the_largest_are_described_from_left_to_right():
    with served(max_faces=2) as port:
        image = np.full((120, 300, 3), 235, np.uint8)
        for left, side in ((10, 30), (60, 50), (130, 20), (180, 40)):
            image[10 : 10 + side, left : left + side] = (20, 200, 20)
        said = ask(port, "/analyze", encoded(image), "image/png").json
        whole = expected(encoded(image))
        assert said == {"faces": [whole[1], whole[3]], "left_out": 2}


class Held(ColourModel):
    """Answers once it is let go."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def predict_on_batch(self, crops):
        self.go.wait(20)
        return super().predict_on_batch(crops)


@pytest.fixture
def held():
    of = attributes()
    of.model = Held()
    yield of
    of.model.go.set()


def test_a_full_queue_says_when_to_come_back_and_loses_nothing(held):
    with served(held, queue=3, max_images=3) as port, ThreadPoolExecutor(3) as pool:
        kept = [
            pool.submit(ask, port, "/analyze", file_of(1, tint=n), "image/png") for n in range(2)
        ]
        wait_for(lambda: BATCHERS[port].waiting == 2)
        # Two more find no room, and one does.
        assert ask(port, "/analyze/batch", *multipart(*[file_of(1)] * 2)).status == 429
        kept.append(pool.submit(ask, port, "/analyze", file_of(1, tint=2), "image/png"))
        wait_for(lambda: BATCHERS[port].waiting == 3)
        said = ask(port, "/analyze", b"x", "image/png")
        assert int(said.headers["retry-after"]) >= 1 and "--queue" in said.json["error"]
        held.model.go.set()
        for number, answer in enumerate(kept):
            assert answer.result().json["faces"] == expected(file_of(1, tint=number))
        wait_for(lambda: BATCHERS[port].waiting == 0)


def test_whoever_waits_too_long_is_told_and_leaves_room_for_others(held):
    with served(held, seconds=0.3, queue=2, max_images=2) as port:
        said = ask(port, "/analyze", file_of(1), "image/png")
        assert said.status == 503 and "--timeout" in said.json["error"]
        assert "retry-after" in said.headers
        held.model.go.set()
        wait_for(lambda: ask(port, "/analyze", file_of(1), "image/png").status == 200)


def test_nobody_looks_at_an_image_whose_client_was_told_to_come_back():
    class Slow(GreenSquares):
        def __init__(self):
            self.go, self.count = threading.Event(), 0

        def __call__(self, image):
            self.count += 1
            self.go.wait(20)
            return super().__call__(image)

    detector = Slow()
    with served(attributes(detector=detector), seconds=0.3, workers=1) as port:
        said = ask(port, "/analyze/batch", *multipart(*[file_of(1)] * 5))
        assert said.status == 503
        wait_for(lambda: BATCHERS[port].waiting == 1)
        detector.go.set()
        wait_for(lambda: BATCHERS[port].waiting == 0)
        assert detector.count == 1


def test_a_body_that_trickles_is_given_up_and_nobody_waits_for_it():
    with served(seconds=0.5) as port, socket.create_connection(("127.0.0.1", port), 20) as line:
        head = "POST /analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
        line.sendall(f"{head}Content-Length: 1000\r\n\r\nab".encode())
        assert ask(port, "/analyze", file_of(1), "image/png").status == 200
        assert line.recv(4096).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("said", [b"", b"POST /analyze HT"])
def test_a_client_that_never_asks_is_left(said, monkeypatch):
    monkeypatch.setattr(protocol, "PATIENCE", 0.3)
    with served() as port, socket.create_connection(("127.0.0.1", port), 20) as line:
        line.sendall(said)
        assert line.recv(100) == b""


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"POST /analyze HT",
        b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nab",
    ],
)
def test_connections_that_ask_nothing_crowd_nobody_out(said, monkeypatch):
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 4)
    monkeypatch.setattr(protocol, "GRACE", 0.0)
    with served() as port, ExitStack() as stack:
        kept = stack.enter_context(closing(HTTPConnection("127.0.0.1", port, timeout=20)))
        for _ in range(20):
            kept.request("GET", "/health")  # on one connection, which is kept
            assert kept.getresponse().read() == b'{"status":"ok"}'
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            line.sendall(said)
            assert ask(port, "/health").status == 200


def test_a_connection_that_has_just_come_is_given_time_to_ask(monkeypatch):
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 2)
    monkeypatch.setattr(protocol, "GRACE", 20.0)
    with served() as port, ExitStack() as stack:
        made = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(6)]
        lines = [stack.enter_context(line) for line in made]
        for line in lines:
            line.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert line.recv(100).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 "))


def test_with_as_many_at_work_as_there_may_be_the_next_one_is_told(monkeypatch, held):
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 2)
    with served(held) as port, ThreadPoolExecutor() as pool:
        slow = [pool.submit(ask, port, "/analyze", file_of(1), "image/png") for _ in range(2)]
        wait_for(lambda: BATCHERS[port].waiting == 2)
        assert ask(port, "/health").status == 503
        held.model.go.set()
        assert [one.result().status for one in slow] == [200, 200]


def test_a_client_that_asks_now_and_then_is_kept(monkeypatch, held):
    monkeypatch.setattr(protocol, "PATIENCE", 0.2)
    with served(held) as port, ThreadPoolExecutor() as pool:
        slow = pool.submit(ask, port, "/analyze", file_of(1), "image/png")
        assert ask(port, "/health").status == 200
        threading.Event().wait(0.7)
        held.model.go.set()
        assert slow.result().status == 200


def test_a_client_that_goes_away_leaves_no_trace(port):
    head = b"POST /analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port), 20) as line:
            line.sendall(head + b"Content-Length: 1000\r\n\r\nab")
    assert ask(port, "/analyze", file_of(1), "image/png").status == 200


POST = b"POST /analyze HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"rubbish\r\n\r\n",
        b"\0\xff\xfe\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nLong: " + b"x" * 20_000,
        POST + b"Content-Length: -5\r\n\r\n",
        POST + b"Content-Length: many\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nwords",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nwords\r\n",
        POST + b"Transfer-Encoding: gzip\r\n\r\nwords",
    ],
    ids=lambda sent: repr(sent[-30:]),
)
def test_what_is_no_http_is_refused_and_the_next_one_is_answered(port, sent):
    with socket.create_connection(("127.0.0.1", port), 20) as line:
        line.sendall(sent)
        assert re.match(rb"HTTP/1.1 (4\d\d|501) ", line.recv(4096))
    assert ask(port, "/analyze", file_of(1), "image/png").status == 200


def test_a_client_that_goes_away_while_it_waits_leaves_its_place(held):
    file = file_of(1)
    with served(held, queue=1, max_images=1) as port:
        with socket.create_connection(("127.0.0.1", port), 20) as line:
            line.sendall(POST + f"Content-Length: {len(file)}\r\n\r\n".encode() + file)
            wait_for(lambda: BATCHERS[port].waiting == 1)
        held.model.go.set()
        wait_for(lambda: BATCHERS[port].waiting == 0)
        assert ask(port, "/analyze", file, "image/png").status == 200


def test_many_clients_share_batches_and_none_is_lost():
    of = attributes(batch_size=16)
    files = [file_of(1 + number % 3, tint=7 * number) for number in range(12)]
    wanted = [expected(file) for file in files]

    def client(number):
        places = [(number + step) % len(files) for step in range(20)]
        return [
            ask(port, "/analyze", *multipart(files[place])).json["faces"] == wanted[place]
            for place in places
        ]

    with served(of) as port, ThreadPoolExecutor(8) as pool:
        right = [one for many in pool.map(client, range(8)) for one in many]
    assert len(right) == 160 and all(right)
    assert sum(shape[0] for shape in of.model.shapes) >= 320
    assert len(of.model.shapes) < 160  # more than one image went into some


def test_what_fails_inside_is_told_to_everybody_who_waits_and_ends_nothing():
    class Breaks(ColourModel):
        def predict_on_batch(self, crops):
            if crops.mean() < 100:
                raise RuntimeError("broken")
            return super().predict_on_batch(crops)

    of = attributes()
    of.model = Breaks()
    with served(of) as port:
        said = ask(port, "/analyze", file_of(1), "image/png")
        assert said.status == 500 and list(said.json) == ["error"]
        assert ask(port, "/analyze", file_of(0), "image/png").status == 200
        assert ask(port, "/health").json == {"status": "ok"}


def test_nothing_is_put_on_a_disk(port, monkeypatch):
    def rolled(self):
        raise AssertionError("a part of a request went to a temporary file")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rolled)
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), "uint8")
    assert len(encoded(noise)) > 2_000_000
    assert ask(port, "/analyze", *multipart(encoded(noise))).status == 200


def test_the_model_tells_what_it_can_and_how_much_one_may_ask(port):
    said = ask(port, "/model").json
    assert [task["name"] for task in said["tasks"]] == ["mood", "shade"]
    assert said["detector"] == {"name": "green squares"}
    assert said["limits"] == {
        "max_bytes": 16_000_000,
        "max_pixels": 50_000_000,
        "max_faces": 100,
        "max_images": 32,
        "queue": 64,
        "seconds": 30.0,
    }


def test_the_description_has_every_path_and_its_references_lead_somewhere(port):
    spec = ask(port, "/openapi.json").json
    assert set(spec["paths"]) == {"/analyze", "/analyze/batch", "/health", "/model"}
    methods = [method for path in spec["paths"].values() for method in path.values()]
    assert all("403" in method["responses"] for method in methods)
    for reference in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(spec)):
        assert reference in spec["components"]["schemas"]
    face = ask(port, "/analyze", file_of(1), "image/png").json["faces"][0]
    assert set(face) == set(spec["components"]["schemas"]["Face"]["properties"])


def test_the_page_loads_nothing_from_elsewhere(port):
    page = ask(port, "/")
    assert b"faceattr serve" in page.text and b"http" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    script = ask(port, "/page.js")
    assert script.status == 200 and b"http" not in script.text


def test_the_page_shows_every_path_and_asks_about_a_file(port, tmp_path):
    (tmp_path / "one.png").write_bytes(file_of(2))
    with Browser(tmp_path / "none.mjpeg") as browser:
        browser.do("Page.navigate", url=f"http://127.0.0.1:{port}/")
        browser.wait("document.querySelectorAll('h3').length === 4")
        browser.give_file("files", tmp_path / "one.png")
        browser.ask("document.querySelector('button').click()")
        browser.wait("document.getElementById('answer').textContent.startsWith('200')")
        said = browser.ask("document.getElementById('answer').textContent")
        assert json.loads(said.partition("\n")[2])["faces"] == expected(file_of(2))
        browser.photograph(tmp_path / "page.png")
        browser.ask("history.replaceState(null, '', '/faces/')")  # as behind a proxy
        assert f":{port}/faces/analyze -F" in browser.ask("curl('/analyze', 'post')")
        assert browser.errors == []
