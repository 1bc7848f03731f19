"""Short forms of the campaigns, and that the campaigns can fail."""

import hashlib
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent / "campaigns"))

import cluster
import corrupt
import disk
import failing
import files
import golden
import inputs
import kills
import long
import power
import together
import web

PACKAGE = Path(__file__).parents[1] / "faceattr"
# What another process imports warns in its own way.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", corrupt.CHANGES)
def test_a_change_is_drawn_by_its_seed_and_changes_the_file(name):
    content, other = bytes(range(256)) * 8, b"other" * 100
    changed = {
        corrupt.CHANGES[name](content, other, np.random.default_rng(seed)) for seed in range(9)
    }
    assert len(changed) > 5 and content not in changed
    first, again = (corrupt.corrupted(content, other, np.random.default_rng(3)) for _ in "12")
    assert first == again


def test_the_campaign_of_inputs_sees_a_row_that_is_missing_and_an_answer_that_differs(tmp_path):
    kinds = {name: "good .jpg 0" for name in ("a.jpg", "b.jpg", "c.jpg")}
    rows = [
        {"path": f"{tmp_path}/inputs/{name}", "status": "ok", "gender": gender}
        for name, gender in (("a.jpg", "male"), ("b.jpg", "female"))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    broken = inputs.judge(tmp_path, kinds, 1, "Traceback (most recent call last)")["broken"]
    assert broken["without a row"] == ["c.jpg"]
    assert broken["same file, other answer"] == ["good .jpg 0"]
    assert {"exit code", "tracebacks"} <= set(broken)


def test_the_campaign_of_inputs_counts_the_memory_of_the_command_alone():
    ours = bytearray(b"x") * (600 << 20)  # what a child is told to have held, too
    sleeping = [sys.executable, "-c", "import time; print(); time.sleep(60)"]
    with subprocess.Popen(sleeping, stdout=subprocess.PIPE) as child:
        child.stdout.read(1)
        assert 1 << 20 < inputs.peak_memory(child.pid) < len(ours)
        child.kill()
    assert inputs.peak_memory(child.pid) == 0


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        ({"code": 0}, "another answer"),
        ({"code": 2, "err": "faceattr: one sentence.\n"}, None),
        ({"code": 2, "err": "faceattr: one.\nfaceattr: two.\n"}, "not one sentence"),
        ({"code": -11}, "exit code -11"),
        ({"code": "hangs"}, "exit code hangs"),
        ({"code": 1, "traceback": "Traceback: x"}, "Traceback: x"),
    ],
)
def test_the_campaign_of_files_sees_what_is_not_kept(tmp_path, outcome, fault):
    subject = files.Subject(tmp_path, "a", lambda folder: [], lambda folder, outcome: "other")
    found = files._fault({"err": "", "traceback": None, **outcome}, subject, tmp_path, "expected")
    assert (found or "").startswith(fault or "") and bool(found) == bool(fault)


@pytest.mark.slow
def test_broken_inputs_have_rows():
    assert inputs.run(120, seed=7)["broken"] == {}


@pytest.mark.slow
def test_broken_manifests_and_model_files_are_refused_or_answer_as_the_whole_ones():
    found = files.run(4, 7, ("manifest", "keras", "onnx", "tflite.json", "cache"))
    assert {name: of["broken"] for name, of in found.items() if of["broken"]} == {}
    assert found["attacks"]["count"] == 3


@pytest.mark.slow
def test_a_killed_job_is_gone_on_with_to_the_same_files():
    found = kills.run(2, 7, ("label csv, crops, gallery", "label parquet"))
    assert all(of["kills"] >= 2 and of["ends"] for of in found.values())
    assert [of["broken"] for of in found.values()] == [[], []]


def test_the_campaign_of_kills_sees_files_that_differ(tmp_path):
    (tmp_path / "made").mkdir()
    numbers = itertools.count()
    job = kills.Job(("--version",), lambda folder: {"table": str(next(numbers))}, resume=())
    found = kills.campaign(job, tmp_path / "made", 1, 7)
    assert found["kills"] >= 1
    assert {fault["fault"] for fault in found["broken"]} == {"differs"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_failing_disk_loses_no_finished_row():
    found = failing.run(3, 7, ("label csv, crops, gallery",))["label csv, crops, gallery"]
    assert found["codes"] == {"EIO: 2": 1, "EROFS: 2": 1, "ESTALE: 2": 1}
    assert found["broken"] == []


def test_the_campaign_of_disks_sees_what_is_not_gone_on_with(tmp_path):
    job = kills.Job(("label",), lambda folder: {"table": "a"})
    assert disk.gone_on_with(job, tmp_path / "a", 0, {"table": "a"}) is None
    assert disk.gone_on_with(job, tmp_path / "a", 0, {"table": "b"}) == "what is left differs"
    (tmp_path / "a").mkdir()
    assert "not gone on with" in disk.gone_on_with(job, tmp_path / "a", 2, {"table": "a"})


def test_the_campaign_of_clusters_sees_a_table_that_differs_and_what_is_printed(
    tmp_path, monkeypatch
):
    table = pd.DataFrame({name: [1, 2] for name in cluster.ORDER})
    program = "import pathlib, shutil; pathlib.Path('out').mkdir(exist_ok=True);"
    program += "shutil.copy('found.parquet', 'out/part.parquet')"

    def start(folder, _, *more, printed=""):
        (folder / "said.txt").write_text("")
        (folder / "printed.txt").write_text(printed)
        waits = "" if more else "; import time; time.sleep(60)"  # only the resumed one ends
        return subprocess.Popen([sys.executable, "-c", program + waits], cwd=folder)

    def broken(found, **how):
        found.to_parquet(tmp_path / "found.parquet")
        monkeypatch.setattr(cluster, "start", partial(start, **how))
        run = cluster.campaign("driver", None, tmp_path, table, count=1, seed=1, seconds=0.5)
        assert (run["kills"], run["ends"]) == (1, 1)
        return [fault["fault"] for fault in run["broken"]]

    assert broken(table[::-1]) == []
    assert broken(table[:1]) == ["the table differs"]
    assert broken(table, printed="(raylet)") == ["on standard output: (raylet)"]


def test_the_drawn_faces_are_those_whose_answers_are_stored():
    digest = hashlib.sha256(golden.faces().tobytes()).hexdigest()
    assert digest == golden.stored()["faces"]


def test_the_campaign_of_golden_answers_sees_one_that_moved():
    answers = {name: np.array(of) for name, of in golden.stored()["answers"].items()}
    assert golden.compare(answers) == (0, 0)
    answers["gender"][3] += (0.25, -0.25)
    largest, mean = golden.compare(answers)
    assert largest == pytest.approx(0.25) and 0 < mean < 0.01


def test_the_fast_copy_of_the_shipped_model_gives_the_stored_answers():
    ((_, precision, _, _, is_kept),) = golden.run(("LiteRT, the copy inside",))
    assert precision == "int8" and is_kept


@pytest.mark.slow
def test_every_runtime_gives_the_stored_answers():
    found = list(golden.run())
    assert {name for name, *_ in found} == set(golden.ENGINES)
    assert [name for name, *_, is_kept in found if not is_kept] == []
    assert golden.stored()["model"] == golden.model_hash()


def test_the_campaign_of_power_cuts_drops_what_is_not_synced(tmp_path):
    whole, half, late = (tmp_path / name for name in ("whole", "half", "late"))
    for path in (whole, half, late):
        path.write_bytes(b"x" * 1000)
    log = tmp_path / power.SYNCS
    log.write_text(f"{whole.stat().st_ino} 1000\n{half.stat().st_ino} 400\n")
    assert power.drop_unsynced(tmp_path, np.random.default_rng(0)) == 2
    assert whole.stat().st_size == 1000
    assert 400 <= half.stat().st_size < 1000 and late.stat().st_size < 1000
    log.write_text(f"all {half.stat().st_mtime_ns + 10**12}\n")
    assert power.drop_unsynced(tmp_path, np.random.default_rng(1)) == 0


@pytest.mark.slow
def test_a_job_whose_power_is_cut_is_gone_on_with_to_the_same_rows(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # put back afterwards
    monkeypatch.setenv("FACEATTR_SYNCS", "")
    found = power.run(2, 7, ("label csv",))["label csv"]
    assert found["kills"] >= 2 and found["ends"] and found["broken"] == []


def samples(memory, files=7.0):
    n = 200
    noise = np.random.default_rng(0).normal(0, 1 << 20, n)
    held = np.full(n, 500 << 20) + noise + memory * np.linspace(0, 1, n)
    return long.Samples(np.arange(n) / 2, held, np.full(n, files), np.full(n, 9.0))


def test_the_campaign_of_long_work_sees_what_grows():
    assert samples(memory=0).faults() == []
    (leak,) = samples(memory=200 << 20).faults()
    assert leak.startswith("memory grows by 1")
    (opened,) = samples(memory=0, files=np.linspace(7, 90, 200)).faults()
    assert opened.startswith("files rise from")


@pytest.mark.slow
def test_a_long_job_has_all_rows():
    found = long.run(400, only=("label", "live"))
    assert [of["broken"] for of in found.values()] == [[], []]


@pytest.mark.slow
def test_jobs_on_one_machine_leave_what_lone_ones_leave():
    found = together.run(2, only=("label csv", "label jsonl"))
    assert found["jobs"] == 2 and found["page_asked"] >= 1 and found["broken"] == []


def test_the_campaign_of_many_at_once_sees_files_that_differ_and_a_page_that_is_gone(tmp_path):
    job = kills.Job(("--version",), lambda folder: {"table": "other"})
    (tmp_path / "errors.txt").write_text("")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert together._fault("x", job, tmp_path, ended, {"x": {"table": "t"}}) == "x: differs"
    assert together._fault("x", job, tmp_path, ended, {"x": {"table": "other"}}) is None
    assert not together.answers(together.free_port())


@pytest.mark.slow
def test_enemies_of_the_server_and_the_page_get_nothing(monkeypatch):
    monkeypatch.setattr(web, "LONG_ENOUGH", 4.0)
    monkeypatch.setattr(web, "CROWDED", 2.0)
    monkeypatch.setattr(web, "KEPT", 0.0)  # other tests use the processors, too
    found = web.run(12, 7, ("foreign_origin", "without_token", "bodies", "frames", "idle"))
    assert {name: of["broken"] for name, of in found.items() if of["broken"]} == {}
    assert found["page: without_token"]["tries"] == 12 and found["serve: idle"]["tries"] == 24
    assert all(of["honest_answers"] >= 1 for of in found.values() if "ratio" in of)


def test_the_campaign_of_enemies_sees_what_is_answered():
    pytest.importorskip("uvicorn", reason="needs faceattr[web]")
    from use_server import served

    rng = np.random.default_rng(0)
    for hosts, is_open in ((("127.0.0.1",), False), (None, True)):
        with served(hosts=hosts) as port:
            target = web.Target("serve", "127.0.0.1", port)
            assert bool(web.ENEMIES["foreign_host"][0](target, rng)) == is_open


def test_nothing_is_unpickled_or_evaluated():
    unsafe = re.compile(r"\bpickle\.|joblib|allow_pickle=True|yaml\.load\(|(?<![\w.])(eval|exec)\(")
    sources = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    assert len(sources) > 50
    assert [str(path) for path, text in sources.items() if unsafe.search(text)] == []


@pytest.mark.parametrize("host", ["192.0.2.1", "example.org"])
def test_a_test_that_asks_for_another_machine_fails(host):
    with pytest.raises(ConnectionRefusedError, match="loopback alone"):
        socket.create_connection((host, 80), timeout=1)


def test_a_test_may_ask_this_machine():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
