"""Labelling on a real Ray of two nodes: the same table, whatever is killed."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from use_loopback import wait_for
from use_ray import HERE, DeadlySquares, SlowSquares, two_nodes, workers
from use_store import s3, upload
from use_toys import GreenSquares, OnEach, save_pictures
from use_videos import record

from faceattr.inference.cluster import Labeller, Workers, label, label_to
from faceattr.inference.label import label_to as label_here
from faceattr.inference.part_worker import DIED
from faceattr.inference.parts import PartReport
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.ray_connection import connected

pytestmark = pytest.mark.slow
ORDER = ["path", "time", "face"]
TWO = Workers(2, 1)


@pytest.fixture(scope="module")
def bucket():
    with s3() as place:  # before the cluster, whose workers inherit where it is
        yield place


@pytest.fixture(scope="module")
def cluster(bucket):
    with two_nodes() as running, connected(running.address):
        yield running


def rows_of(table):
    frame = pd.read_parquet(table)
    return frame.sort_values(ORDER, ignore_index=True)


def expected(folder, tmp_path, detector=None):
    """The table of a job on one machine."""
    ours = FaceAttributes.load(detector=detector or GreenSquares(), threads=1)
    label_here(tmp_path / "local.parquet", folder, ours)
    return rows_of(tmp_path / "local.parquet")


def plain(frame):
    """Sorted, with the types that its values have as text: engines have types of their own."""
    text = frame.sort_values(ORDER).to_csv(index=False)
    return pd.read_csv(io.StringIO(text))


def test_the_table_is_that_of_one_machine(cluster, tmp_path):
    folder = save_pictures(tmp_path / "in", 20)
    (folder / "p003.png").write_bytes(b"broken")
    record(folder / "clip.mp4", [np.asarray(Image.open(folder / "p001.png"))] * 15, 5)
    done = []
    how = {"address": cluster.address, "workers": TWO, "progress": OnEach(done.append, PartReport)}
    summary = label_to(tmp_path / "out", folder, detector=GreenSquares(), part_size=4, **how)
    pd.testing.assert_frame_equal(rows_of(tmp_path / "out"), expected(folder, tmp_path))
    assert len(done) == 7 and sum(report.files for report in done) == 21
    page = json.loads((tmp_path / "out/_metadata.json").read_text())
    assert page["finished"] and page["looked_at"] == summary.inputs == 23
    assert page["rows"]["unreadable"] == 1 and page["failures"][0]["path"].endswith("p003.png")
    assert page["settings"]["model"]["sha256"] and page["packages"]["ray"]
    assert sorted(os.listdir(tmp_path / "out"))[0] == "_metadata.json"
    assert not (tmp_path / "out/_work").exists()


def test_relative_paths_are_gone_on_with_from_their_folder_alone(cluster, tmp_path, monkeypatch):
    save_pictures(tmp_path / "in", 6)
    how = {"address": cluster.address, "workers": TWO, "detector": GreenSquares()}
    monkeypatch.chdir(tmp_path)
    label_to("out", "in", **how)
    monkeypatch.chdir(tmp_path / "in")
    with pytest.raises(ValueError, match=r"start at .*, and would mean other pictures here"):
        label_to("../out", "../in", resume=True, **how)


def test_a_bucket_into_a_bucket_and_on_with_it(cluster, bucket, tmp_path):
    folder = save_pictures(tmp_path / "in", 9)
    upload(folder, f"{bucket}/photos")
    how = {"address": cluster.address, "workers": TWO, "detector": GreenSquares()}
    pictures = f"{bucket}/photos/**/p00[0-4].png"
    assert label(pictures, f"{bucket}/faces", **how) == f"{bucket}/faces"
    summary = label_to(f"{bucket}/faces", f"{bucket}/photos", resume=True, **how)
    assert (summary.inputs, summary.resumed) == (4, 5)
    import pyarrow.parquet
    from pyarrow.fs import FileSystem

    system, path = FileSystem.from_uri(f"{bucket}/faces")
    table = pyarrow.parquet.read_table(path, filesystem=system).to_pandas()
    there = table.sort_values(ORDER, ignore_index=True)
    here = expected(folder, tmp_path)
    here["path"] = here["path"].str.replace(str(folder), f"{bucket}/photos")
    pd.testing.assert_frame_equal(there, here)


def test_workers_and_a_whole_node_may_be_killed(cluster, tmp_path):
    folder, rng = save_pictures(tmp_path / "in", 120), random.Random(1)
    node, killed, ended = cluster.add_node(num_cpus=2), [], threading.Event()

    def kill():
        while not ended.wait(rng.uniform(0.3, 2.5)):
            if len(killed) < 3 and (there := workers()):
                os.kill(rng.choice(there), signal.SIGKILL)
                killed.append(time.monotonic())
                if len(killed) == 2:
                    cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    how = {"address": cluster.address, "workers": Workers(3, 2), "detector": SlowSquares()}
    label_to(tmp_path / "out", folder, part_size=10, **how)
    ended.set()
    killer.join()
    assert len(killed) >= 2
    pd.testing.assert_frame_equal(rows_of(tmp_path / "out"), expected(folder, tmp_path))


def test_an_input_that_kills_its_worker_is_a_row(cluster, tmp_path):
    folder = save_pictures(tmp_path / "in", 6)
    deadly = np.asarray(Image.open(folder / "p003.png")).copy()
    deadly[0, 0] = 0
    Image.fromarray(deadly).save(folder / "p003.png")
    how = {"address": cluster.address, "workers": TWO, "detector": DeadlySquares()}
    summary = label_to(tmp_path / "out", folder, part_size=6, **how)
    assert summary.statuses["unreadable"] == 1 and summary.inputs == 6
    rows = rows_of(tmp_path / "out")
    assert rows.loc[rows["path"].str.endswith("p003.png"), "reason"].tolist() == [DIED]


def start(folder, *words, also=""):
    """The command as it is typed, in a folder; a picture takes a while."""
    program = (
        "import sys, use_ray, faceattr.inference.cluster as cluster; from faceattr.cli import main;"
        "before = cluster.label_to;"
        "slow = lambda *a, **k: before(*a, **(k | {'detector': use_ray.SlowSquares()}));"
        f"cluster.label_to = slow; {also}sys.exit(main())"
    )
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    return subprocess.Popen(
        [sys.executable, "-c", program, "label", "in", "-o", "out", "--detector", "none", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_parts(folder, count):
    wait_for(lambda: len(list(Path(folder, "out").glob("part-*"))) >= count, 200)


def test_the_driver_may_be_killed_or_asked_to_end(cluster, tmp_path):
    folder = save_pictures(tmp_path / "in", 100)
    ray = ["--engine", "ray", "--address", cluster.address, "--workers", "2"]
    first = start(tmp_path, *ray)
    wait_for_parts(tmp_path, 1)
    first.kill()
    first.communicate()
    second = start(tmp_path, *ray, "--resume")
    wait_for_parts(tmp_path, 3)
    second.send_signal(signal.SIGTERM)
    said = second.communicate()[1]
    assert second.returncode == 143 and "--resume" in said and "Traceback" not in said, said
    page = json.loads((tmp_path / "out/_metadata.json").read_text())
    assert not page["finished"] and page["runs"][-1]["interrupted"]
    last = start(tmp_path, *ray, "--resume")
    said = last.communicate()[1]
    assert last.returncode == 0 and "more were there before" in said, said
    names = rows_of(tmp_path / "out")
    names["path"] = [str(tmp_path / name) for name in names["path"]]
    pd.testing.assert_frame_equal(names, expected(folder, tmp_path))


def test_a_job_that_was_gone_on_with_ends_and_the_other_does_the_rest(cluster, tmp_path):
    folder = save_pictures(tmp_path / "in", 60)
    ray = ["--engine", "ray", "--address", cluster.address, "--workers", "1"]
    first = start(tmp_path, *ray)
    wait_for_parts(tmp_path, 1)
    second = start(tmp_path, *ray, "--resume")
    said = first.communicate()[1]
    assert first.returncode == 2 and "Another faceattr has gone on with" in said, said
    said = second.communicate()[1]
    assert second.returncode == 0, said
    assert json.loads((tmp_path / "out/_metadata.json").read_text())["finished"]
    names = rows_of(tmp_path / "out")
    names["path"] = [str(tmp_path / name) for name in names["path"]]
    pd.testing.assert_frame_equal(names, expected(folder, tmp_path))


def test_an_end_asked_for_while_a_part_is_counted_is_a_clean_one(cluster, tmp_path):
    save_pictures(tmp_path / "in", 20)
    asked = (
        "import os, signal; cluster._Run._count = lambda *_: os.kill(os.getpid(), signal.SIGTERM);"
    )
    ray = ["--engine", "ray", "--address", cluster.address, "--workers", "2"]
    said = (job := start(tmp_path, *ray, also=asked)).communicate()[1]
    assert job.returncode == 143 and "--resume" in said and "Traceback" not in said, said


def test_a_labeller_is_a_stage_of_somebody_s_pipeline(cluster, tmp_path):
    import ray.data

    folder = save_pictures(tmp_path / "in", 6)
    files = ray.data.read_binary_files(str(folder), include_paths=True)
    how = {"fn_constructor_kwargs": {"detector": GreenSquares()}, "num_cpus": 1}
    found = files.map_batches(Labeller, concurrency=1, batch_size=4, **how).to_pandas()
    found["path"] = [f"/{path.lstrip('/')}" for path in found["path"]]
    pd.testing.assert_frame_equal(plain(found), plain(expected(folder, tmp_path)))


@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas")
def test_a_labeller_is_a_function_for_spark(tmp_path, monkeypatch):
    spark_sql = pytest.importorskip("pyspark.sql", reason="PySpark is not installed")
    from shutil import which

    from pyspark.sql.pandas.types import from_arrow_schema

    if which("java") is None:
        pytest.skip("Spark needs Java, which is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE.parent), str(HERE)]))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    folder = save_pictures(tmp_path / "in", 6)
    builder = spark_sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
    try:
        paths = spark.createDataFrame([(str(path),) for path in sorted(folder.iterdir())], ["path"])
        labeller = Labeller(detector=GreenSquares())
        found = paths.mapInArrow(labeller.over, from_arrow_schema(labeller.schema)).toArrow()
    finally:
        spark.stop()
    found = found.to_pandas()
    pd.testing.assert_frame_equal(plain(found), plain(expected(folder, tmp_path)))
