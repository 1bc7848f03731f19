"""`faceattr label --engine ray`: what is typed wrongly is told before any work."""

import pytest
from use_toys import save_pictures

from faceattr.cli import main
from faceattr.cli.label_report import ClusterProgress, bar_of
from faceattr.inference.label import Started
from faceattr.inference.parts import PartReport


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """The one sentence that a command ends with, without a Ray having been asked."""
    save_pictures(tmp_path / "in", 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("faceattr.inference.cluster.connected", None)

    def run(*words, inputs="in"):
        assert main(["label", inputs, "--detector", "none", *words]) == 2
        said = capsys.readouterr().err.splitlines()
        return said[-1]

    return run


RAY = ("--engine", "ray", "-o", "out")


def test_ray_that_is_not_installed_is_told(told, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ray" else find(name)
    )
    assert "needs the package ray" in told(*RAY) and "[ray]" in told(*RAY)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", "No Ray answers at 127.0.0.1:9 (Connection refused): `ray start --head`"),
        ("ray://127.0.0.1:10001", "auto, on one of its machines, or as host:port"),
        ("somewhere", "auto, on one of its machines, or as host:port"),
    ],
)
def test_an_address_where_nobody_answers_is_told(told, address, message, monkeypatch):
    assert message in told(*RAY, "--address", address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert message in told(*RAY)


def test_inputs_and_outputs_are_looked_at_first(told, tmp_path):
    assert "no file or folder none" in told(*RAY, inputs="none")
    (tmp_path / "empty").mkdir()
    assert "There are no pictures in empty" in told(*RAY, inputs="empty")
    assert "a folder of Parquet parts" in told("--engine", "ray", "-o", "t.csv")
    assert "give -o FOLDER" in told("--engine", "ray")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/part-000000-0.parquet").write_bytes(b"torn")
    assert "has a table in it already" in told(*RAY)
    assert "is damaged" in told(*RAY, "--resume")
    assert "at least one of workers. Received: 0" in told(*RAY, "--overwrite", "--workers", "0")


def test_another_table_in_the_folder_is_told(told, tmp_path):
    import pandas as pd

    (tmp_path / "out").mkdir()
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "out/theirs.parquet")
    assert "has a table in it already" in told(*RAY)
    assert "other columns than this job writes" in told(*RAY, "--resume")
    assert "theirs.parquet was written by another program" in told(*RAY, "--overwrite")


def test_options_of_the_other_engine_are_told(told):
    assert "--gallery is for a job on this machine alone" in told(*RAY, "--gallery", "g.html")
    assert "--allow-urls is for a job on this machine alone" in told(*RAY, "--allow-urls")
    for option in ("--address", "--cpus-per-worker", "--num-gpus-per-worker"):
        assert f"{option} is for a cluster: add --engine ray" in told("-o", "t.csv", option, "1")


def test_what_ray_prints_is_one_sentence_beside_the_answer(told, monkeypatch, capsys):
    def lost(*given, **more):
        print("\x1b[33m(raylet)\x1b[0m A worker died. To troubleshoot:\n    [state-dump] 1")
        print("(raylet) The node with node id: 12ab has been marked dead")
        raise ValueError("the end")

    monkeypatch.setattr("faceattr.inference.cluster.label_to", lost)
    main(["label", "in", *RAY])
    out, said = capsys.readouterr()
    assert out == ""
    assert said.splitlines()[:2] == [
        "Ray: A worker died.",
        "Ray: The node with node id: 12ab has been marked dead.",
    ]
    main(["label", "in", *RAY, "--quiet"])
    assert "Ray:" not in capsys.readouterr().err


def test_progress_is_lines_in_a_log(capsys, monkeypatch):
    from rich.console import Console

    monkeypatch.setattr("faceattr.progress.EVERY", -1)
    progress = ClusterProgress(bar_of(Console(stderr=True, soft_wrap=True)))
    progress.show(Started(3000, 1000))
    progress.show(PartReport(1000, 1000, {"ok": 700, "no_face": 400}))
    last = capsys.readouterr().err.splitlines()[-1]
    assert "700 faces" in last and "pictures/s" in last and "2,000 of 3,000" in last
