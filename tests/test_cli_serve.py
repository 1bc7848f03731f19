"""`faceattr serve`: who may ask, wrong options, and the command from its start to its end."""

import json
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faceattr.cli import main
from faceattr.files import install_command
from faceattr.serving.address import LOCAL_NAMES, is_named

pytest.importorskip("uvicorn", reason="needs faceattr[web]")
pytest.importorskip("python_multipart", reason="needs faceattr[web]")
from use_loopback import wait_for
from use_server import ask, file_of, multipart, served
from use_toys import attributes

from faceattr.serving.address import Address, checked_token

TOKEN = "correct horse battery"
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def port():
    with served() as port:
        yield port


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer guess", "Basic x", "Bearer \xe9"])
def test_without_the_token_only_the_page_and_the_health_are_told(given):
    with served(token=TOKEN) as port:
        how = {"Authorization": given} if given else {}
        for path, body in (("/analyze", b"x"), ("/model", None), ("/nothing", None)):
            said = ask(port, path, body, **how)
            assert said.status == 401 and said.headers["www-authenticate"] == "Bearer"
        assert all(ask(port, path, **how).status == 200 for path in ("/", "/health", "/page.js"))


def test_whoever_knows_the_token_may_ask_by_any_name_and_from_any_page():
    with served(token=TOKEN) as port:
        how = {"Authorization": f"Bearer {TOKEN}", "Host": "faces.example", "Origin": "http://a.b"}
        assert ask(port, "/analyze", file_of(1), "image/png", **how).status == 200


def test_without_a_token_other_sites_may_not_ask(port):
    for path in ("/", "/health", "/model"):
        assert ask(port, path, Host="evil.example").status == 400
        assert ask(port, path, Origin="http://evil.example").status == 403
    for origin in ("null", "http://[bad"):
        assert ask(port, "/model", Origin=origin).status == 403
    assert ask(port, "/model", Origin=f"http://127.0.0.1:{port}").status == 200


def test_names_of_hosts_have_no_case():
    assert is_named("LocalHost:8000", LOCAL_NAMES) and not is_named("Evil.example", LOCAL_NAMES)


@pytest.mark.parametrize(
    ("token", "host", "sentence"),
    [
        (None, "0.0.0.0", "FACEATTR_TOKEN"),
        ("  ", "0.0.0.0", "FACEATTR_TOKEN"),
        ("short", "127.0.0.1", "at least 16 characters"),
        ("é" * 20, "127.0.0.1", "ASCII"),
    ],
)
def test_a_token_is_asked_for_where_it_is_needed(token, host, sentence, free_port):
    with pytest.raises(ValueError, match=sentence):
        checked_token(token, Address(host, free_port))


def test_a_token_is_taken_without_the_end_of_its_line(free_port):
    address = Address("0.0.0.0", free_port)
    assert checked_token(f"{TOKEN}\n", address) == TOKEN
    assert checked_token(None, Address(port=free_port)) is None


@pytest.fixture
def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--host", "0.0.0.0"], "FACEATTR_TOKEN"),
        (["--host", "0.0.0.0", "--token-file", "nowhere.txt"], "nowhere.txt"),
        (["--port", "99999"], "between 1 and 65535. Received: 99999"),
        (["--max-bytes", "0"], "max_bytes is 1 or more. Received: 0"),
        (["--queue", "4"], "never finds room"),
        (["--timeout", "soon"], "A time is written like"),
        (["--timeout", "0s"], "more than 0 seconds"),
    ],
)
def test_wrong_options_are_one_sentence_before_the_model_is_opened(
    options, sentence, refused, monkeypatch, free_port
):
    monkeypatch.delenv("FACEATTR_TOKEN", raising=False)
    monkeypatch.setattr("faceattr.cli.serve.open_attributes", lambda *given: pytest.fail("opened"))
    port = [] if "--port" in options else ["--port", str(free_port)]
    assert sentence in refused(main(["serve", *port, *options]))


def test_a_port_in_use_is_told_before_the_model_is_opened(port, refused, monkeypatch):
    monkeypatch.setattr("faceattr.cli.serve.open_attributes", lambda *given: pytest.fail("opened"))
    assert "Choose another --port" in refused(main(["serve", "--port", str(port)]))


def test_a_port_that_was_taken_while_the_model_was_opened_is_told(free_port, refused, monkeypatch):
    with socket.socket() as other:

        def open_attributes(*given):
            other.bind(("127.0.0.1", free_port))
            other.listen()
            return attributes()

        monkeypatch.setattr("faceattr.cli.serve.open_attributes", open_attributes)
        told = refused(main(["serve", "--port", str(free_port)]))
    assert f"Nothing can be served on 127.0.0.1:{free_port}" in told and "(Ctrl-C" not in told


def test_what_is_wrong_with_a_host_or_a_token_file_is_told(refused, free_port, tmp_path):
    said = refused(main(["serve", "--host", "192.0.2.1", "--port", str(free_port)]))
    assert "Choose another --host" in said
    how = ["--port", str(free_port), "--token-file", str(tmp_path / "none")]
    assert "--token-file" in (said := refused(main(["serve", *how]))) and "No such file" in said


@pytest.mark.parametrize("package", ["uvicorn", "starlette", "python_multipart"])
def test_without_the_extra_its_name_is_told(package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["serve"]) == 2
    said = capsys.readouterr().err
    assert package in said and f"`{install_command('web')}` installs it" in said


@pytest.mark.slow
def test_the_command_answers_as_analyze_does_and_ends_what_it_has_begun(free_port):
    """With the model that ships; SIGTERM comes while a batch is at work."""
    import faceattr

    files = [path.read_bytes() for path in sorted(EXAMPLES.glob("*.jpg"))]
    words = ["serve", "--port", str(free_port), "--detector", "centerface"]
    command = [sys.executable, "-m", "faceattr", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with process, ThreadPoolExecutor() as pool:
        assert f"http://localhost:{free_port}" in process.stderr.readline()
        wait_for(lambda: answers(free_port))
        one_by_one = [ask(free_port, "/analyze", file, "image/jpeg").json for file in files]
        wanted = faceattr.analyze(files, detector="centerface")
        for said, faces in zip(one_by_one, wanted, strict=True):
            assert said["faces"] == json.loads(json.dumps([face.to_dict() for face in faces]))
        last = pool.submit(ask, free_port, "/analyze/batch", *multipart(*10 * files))
        threading.Event().wait(0.3)
        process.send_signal(signal.SIGTERM)
        assert last.result().json["results"] == 10 * one_by_one
        assert process.wait(30) == 0


def answers(port: int) -> bool:
    try:
        return ask(port, "/health").status == 200
    except OSError:
        return False
