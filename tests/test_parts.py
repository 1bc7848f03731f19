"""Parts of a job on many machines, done by a worker without any cluster."""

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from time import sleep

import pandas as pd
import pyarrow
import pytest
from use_store import s3, upload
from use_toys import GreenSquares, save_pictures

from faceattr.images.inputs import Inputs
from faceattr.inference import cluster as on_cluster
from faceattr.inference import part_worker, storage
from faceattr.inference.batch import Labeller
from faceattr.inference.cluster import Workers, spread
from faceattr.inference.label import label_to
from faceattr.inference.metadata import settings_of
from faceattr.inference.part_worker import DIED, PartJob, PartWorker
from faceattr.inference.parts import Journal, Part, PartReport, Parts, in_parts
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.schema import columns
from faceattr.inference.table import TableOptions
from faceattr.progress import SILENT

RUN = {"id": "one", "started": "now"}


@pytest.fixture(scope="module")
def opened():
    return FaceAttributes.load(detector=GreenSquares(), threads=1)


@pytest.fixture
def inputs(tmp_path):
    folder = save_pictures(tmp_path / "in", 7)
    (folder / "p002.png").write_bytes(b"broken")
    return folder


@pytest.fixture
def job(opened, tmp_path):
    """A job whose page is written."""
    settings = settings_of(opened, 1.0)
    Parts(str(tmp_path / "out")).write_page(settings, RUN)
    how = {"every": 1.0, "max_pixels": 10**8, "host": "here", "cwd": str(tmp_path)}
    load = {"model": None, "detector": GreenSquares(), "threads": 1}
    return PartJob(output=str(tmp_path / "out"), run="one", load=load, settings=settings, **how)


def part_of(inputs):
    """All inputs of a folder, or some by name, in one part."""
    if isinstance(inputs, list):
        return Part(0, tuple(map(os.fsencode, inputs)))
    return next(in_parts(iter(Inputs(inputs)), 100, lambda _: False))


def labelled(folder):
    """The rows of a folder of parts, sorted."""
    return pd.read_parquet(folder).sort_values(["path", "face"]).reset_index(drop=True)


def test_parts_keep_order_and_leave_out_what_is_done(tmp_path):
    files = list(Inputs(save_pictures(tmp_path, 7)))
    whole = list(in_parts(iter(files), 3, lambda _: False))
    assert [part.number for part in whole] == [0, 1, 2]
    assert [file for part in whole for file in part.files] == files
    done = {os.fsdecode(path) for path in whole[1].paths}
    assert list(in_parts(iter(files), 3, done.__contains__)) == [whole[0], whole[2]]
    assert len({part.name for part in whole}) == 3
    assert list(in_parts(iter([]), 3, lambda _: False)) == []


def test_a_small_job_is_spread_over_all_workers(tmp_path):
    whole = list(in_parts(iter(Inputs(save_pictures(tmp_path, 7))), 1000, lambda _: False))
    apart = spread(whole, 4)
    assert [len(part.paths) for part in apart] == [2, 2, 2, 1]
    assert [path for part in apart for path in part.paths] == list(whole[0].paths)
    assert spread(whole, 1) == whole and spread([], 4) == []


def test_a_part_has_the_rows_of_a_job_on_one_machine(inputs, job, opened, tmp_path):
    report = PartWorker(job).label(part := part_of(inputs))
    label_to(tmp_path / "local.parquet", inputs, opened)
    ours = pd.read_parquet(tmp_path / "out" / part.name)
    pd.testing.assert_frame_equal(ours, pd.read_parquet(tmp_path / "local.parquet"))
    assert (report.files, report.looked_at) == (7, 7)
    assert report.statuses == {"ok": 7, "no_face": 2, "unreadable": 1}
    (failure,) = report.failures
    assert failure[0].endswith("p002.png") and "not a picture" in failure[1]
    assert sum(count for task, _, count in report.answers if task == "gender") == 7
    assert not os.listdir(tmp_path / "out/_work")
    assert PartWorker(job).label(part).statuses == report.statuses  # read back, not done again


def test_where_a_worker_died_inputs_are_done_one_by_one(inputs, job, tmp_path, monkeypatch):
    worker, parts, part = PartWorker(job), Parts(job.output), part_of(inputs)
    seen, real = [], part_worker._samples

    def dies_at(path):
        def samples(files, every, readers):
            for sample in real(files, every, readers):
                seen.append(sample.file.path[-8:])
                if sample.file.path.endswith(path):
                    raise KeyboardInterrupt  # as sudden as a kill
                yield sample

        return samples

    monkeypatch.setattr(part_worker, "_samples", dies_at("p001.png"))
    deaths = [{}, {}, {1: 1}, {1: 2}]
    for known in deaths:
        with pytest.raises(KeyboardInterrupt):
            worker.label(part)
        assert parts.journal(part) == Journal(None if known == {} and len(seen) < 3 else 1, known)
    worker.label(part)
    rows = labelled(tmp_path / "out")
    assert rows.loc[rows["path"].str.endswith("p001.png"), "reason"].tolist() == [DIED]
    assert rows["path"].nunique() == 7 and parts.journal(part) is None


def test_inputs_in_a_store_are_read_ahead_and_have_the_rows_of_files(inputs, job, opened, tmp_path):
    with s3() as bucket:
        upload(inputs, f"{bucket}/in")
        part = part_of([f"{bucket}/in/{path.name}" for path in sorted(inputs.iterdir())])
        report = PartWorker(job).label(Part(0, (*part.paths, b"s3://bucket/in/gone.png")))
    assert report.statuses == {"ok": 7, "no_face": 2, "unreadable": 2}
    there = labelled(tmp_path / "out")
    expected = opened.label_batch([file.path for file in Inputs(inputs)]).to_pandas()
    assert there["x0"].dropna().tolist() == expected["x0"].dropna().tolist()
    (reason,) = there.loc[there["path"].str.endswith("gone.png"), "reason"]
    assert reason == "No such file or directory"


def test_a_kill_of_the_driver_casts_no_suspicion(job, inputs):
    parts, part = Parts(job.output), part_of(inputs)
    for journal, kept in ((Journal(), False), (Journal(2), True), (Journal(None, {2: 1}), True)):
        parts.write_journal(part, journal)
        parts.begin(job.settings, TableOptions(resume=True))
        assert (parts.journal(part) is not None) == kept


def test_a_worker_of_an_earlier_run_writes_nothing(inputs, job):
    Parts(job.output).write_page(job.settings, RUN | {"id": "two"})
    told = PartWorker(job)(block(part_of(inputs)))
    assert "Another faceattr has gone on with" in told["error"][0] and told["report"] == [None]
    assert Parts(job.output).names() == []


def test_what_an_earlier_run_writes_while_parts_are_read_is_not_done_again(
    inputs, job, monkeypatch
):
    """A driver that was thought dead, or whose workers are not yet: no row comes twice."""
    parts, left = Parts(job.output), []
    files = Inputs(inputs).count
    finished = Parts.finished

    def meanwhile(self, *known):
        yield from finished(self, *known)
        if not self.names():
            PartWorker(job)(block(part_of([str(inputs / "p000.png"), str(inputs / "p001.png")])))

    monkeypatch.setattr(Parts, "finished", meanwhile)
    monkeypatch.setattr(on_cluster, "shape_of", lambda workers: (1, 1))
    monkeypatch.setattr(
        on_cluster, "_reports", lambda given, *_: (left.extend(given), (yield from ()))
    )
    run = on_cluster._Run(
        parts, PartWorker(job)._columns, replace(job, run="two"), storage.Places(inputs), SILENT
    )
    summary = run.do(Workers(), 100)
    assert len(parts.names()) == 1 and summary.resumed == 2
    assert sum(len(part.paths) for part in left) == files - 2
    assert parts.page()["run"] == "two" and sum(parts.page()["rows"].values()) == 2


def test_the_page_is_of_the_latest_run(job):
    parts = Parts(job.output)
    assert Parts(f"{job.output}/none").is_of("one")
    parts.write_page(job.settings, RUN | {"id": "two"})
    assert parts.is_of("two") and not parts.is_of("one")


def block(part):
    paths = pyarrow.array([part.paths], pyarrow.list_(pyarrow.binary()))
    return pyarrow.table({"number": [part.number], "paths": paths})


def test_a_machine_that_lacks_something_says_what(inputs, job, tmp_path):
    part = part_of(inputs)
    another = replace(job, settings=job.settings | {"detector": {"name": "yunet"}})
    (told,) = PartWorker(another)(block(part))["error"]
    assert "would answer with another detector" in told and "install the same" in told
    unseen = replace(job, output=str(tmp_path / "unseen"))
    assert "does not see" in PartWorker(unseen)(block(part))["error"][0]
    away = Part(0, (b"/elsewhere/a.jpg", b"/elsewhere/b.jpg"))
    assert "has none of 2 inputs, /elsewhere/a.jpg" in PartWorker(job)(block(away))["error"][0]


def test_a_file_of_the_driver_goes_along(job, tmp_path, monkeypatch, toy_model_path):
    import ray

    content = {toy_model_path.name: toy_model_path.read_bytes()}
    about = {"sha256": part_worker.runtime.sha256_of(toy_model_path), "content": content}
    worker = PartWorker(replace(job, files={str(toy_model_path): about}))
    assert worker._here(toy_model_path) == toy_model_path  # it is the same here
    toy_model_path.rename(tmp_path / "elsewhere.keras")
    monkeypatch.setattr(ray, "get", lambda given: given)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    copy = worker._here(toy_model_path)
    assert copy.read_bytes() == content[toy_model_path.name] and copy.parent.parent == tmp_path
    assert worker._here(GreenSquares) is GreenSquares


def test_workers_that_start_together_put_a_file_in_place_together(job, tmp_path, monkeypatch):
    import ray

    content = {"large.keras": os.urandom(8 << 20)}
    files = {"/driver/large.keras": {"sha256": "0" * 64, "content": content}}
    workers, together = [PartWorker(replace(job, files=files)) for _ in range(8)], Barrier(8)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))

    def get(given):
        together.wait(20)
        return given

    monkeypatch.setattr(ray, "get", get)
    with ThreadPoolExecutor(8) as pool:
        copies = set(pool.map(lambda worker: worker._here("/driver/large.keras"), workers))
    (copy,) = copies
    assert Path(copy).read_bytes() == content["large.keras"]
    assert os.listdir(Path(copy).parent) == ["large.keras"]


@pytest.fixture
def written(inputs, job):
    PartWorker(job).label(part_of(inputs))
    return Parts(job.output)


def test_parts_that_are_there_are_neither_mixed_nor_replaced(written, job, opened, tmp_path):
    names, resume = columns(opened.tasks), TableOptions(resume=True)
    with pytest.raises(FileExistsError, match=r"has a table in it already.*--resume"):
        written.validate(names, TableOptions())
    written.validate(names, resume)
    with pytest.raises(ValueError, match="has other columns"):
        written.validate(names | {"hat": str}, resume)
    with pytest.raises(ValueError, match="begun with another min_face"):
        written.begin(job.settings | {"min_face": 99.0}, resume)
    (name,) = written.names()
    whole = storage.read(written.place(name))
    storage.write(written.place(name), whole[:500])
    with pytest.raises(ValueError, match=r"is damaged .*Delete it: --resume does it again"):
        list(written.finished(names))
    storage.write(written.place(name), whole)
    for page in (b"{", b"[]", b'{"settings": []}'):
        storage.write(written.place("_metadata.json"), page)
        with pytest.raises(ValueError, match="is missing or damaged"):
            written.begin(job.settings, resume)
    storage.delete(written.place("_metadata.json"))
    with pytest.raises(ValueError, match="is missing or damaged"):
        written.begin(job.settings, resume)
    written.begin(job.settings, TableOptions(overwrite=True))
    assert written.names() == []


def test_unreadable_inputs_can_be_tried_again(written, opened, inputs):
    names = columns(opened.tasks)
    written.retry_unreadable(names)
    ((_, table),) = written.finished(names)
    assert table["status"].to_pylist().count("unreadable") == 0
    assert len(set(table["path"].to_pylist())) == 6
    report = json.loads(table.schema.metadata[b"faceattr"])
    assert report["files"] == 6 and report["statuses"] == {"ok": 7, "no_face": 2}


@pytest.mark.parametrize(
    ("folder", "message"),
    [("t.csv", "a folder of Parquet parts"), ("a_file", "is a file"), ("a_file/x", "cannot be")],
)
def test_an_output_that_cannot_be_is_told(folder, message, tmp_path):
    (tmp_path / "a_file").write_text("")
    with pytest.raises((ValueError, OSError), match=message):
        Parts(str(tmp_path / folder)).validate({}, TableOptions())


def test_workers_check_themselves():
    for wrong in ({"count": 0}, {"cpus": 0}, {"gpus": -1}):
        with pytest.raises(ValueError, match="Received"):
            Workers(**wrong)


def test_a_labeller_is_small_opens_late_and_takes_any_batch(inputs, opened):
    labeller = pickle.loads(pickle.dumps(Labeller(detector=GreenSquares(), threads=1)))
    paths = [file.path for file in Inputs(inputs)]
    expected = opened.label_batch(paths)
    assert labeller.schema == expected.schema and "attributes" not in vars(labeller)
    assert labeller({"path": paths}).equals(expected)
    assert "attributes" not in vars(pickle.loads(pickle.dumps(labeller)))
    batches = pyarrow.table({"path": paths, "label": range(7)}).to_batches(3)
    assert pyarrow.Table.from_batches(labeller.over(batches)).equals(expected)


def test_an_impossible_distance_of_frames_is_refused_before_ray_is_met(inputs, tmp_path):
    pytest.importorskip("ray", reason="needs faceattr[ray]")
    with pytest.raises(ValueError, match="Between two frames of a video are 0 seconds"):
        on_cluster.label_to(tmp_path / "faces", inputs, every=-1, model="gone.keras")
    assert not (tmp_path / "faces").exists()


def test_parts_are_read_a_bounded_distance_ahead(opened, tmp_path, monkeypatch):
    names, parts, read = columns(opened.tasks), Parts(str(tmp_path)), []

    class Counted(Parts):
        def _read(self, name, columns):
            read.append(name)
            return super()._read(name, columns)

    for number in range(30):
        parts.write(Part(number, (b"a",)), [], names, PartReport(0))
    monkeypatch.setattr("faceattr.inference.parts.READERS", 2)
    finished = Counted(str(tmp_path)).finished(names)
    assert next(finished)[0] == parts.names()[0]
    sleep(0.2)
    assert len(read) <= 8
    assert len(list(finished)) == 29
    assert sorted(read) == parts.names()
