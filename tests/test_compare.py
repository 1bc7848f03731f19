"""`faceattr compare` on drawn pictures."""

import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import toy_network
from PIL import Image
from test_train import data  # noqa: F401
from use_toys import OnEach

from faceattr import cli
from faceattr.cli.compare import certainty, print_results, results_table
from faceattr.data.sources import ReadingConfig, read_labels, unite
from faceattr.progress import Progress
from faceattr.training import network as network_module
from faceattr.training.compare import (
    ALONE,
    Config,
    Result,
    Run,
    RunStarted,
    _append,
    _read_results,
    train_once,
)
from faceattr.training.compare import compare as run_compare
from faceattr.training.config import FROZEN, Auxiliary, Network, Settings

PHASE = replace(FROZEN, epochs=2, patience=1)
JOINT = Config("joint", Network(), Settings((PHASE,), batch_size=8, augment_repeats=0))
LOG = replace(JOINT, name="log", settings=replace(JOINT.settings, combine="log"))


@pytest.fixture
def sets(data, monkeypatch):  # noqa: F811
    monkeypatch.setattr(
        network_module, "new_model", lambda network, tasks, seed=0: toy_network(tasks)
    )
    return data


def sources(data):  # noqa: F811
    return (f"shade={data / 'shades'}", str(data / "tints.csv"))


def compare(configs, data, output, **how):  # noqa: F811
    return run_compare(configs, sources(data), output, cache=data / "cache", **how)


def results(**cells):
    """A table of two seeds: a config that is two points better than alone, on one of two tasks."""
    lines = [
        {"config": config, "seed": seed, "task": task, "n": 100, "run": f"{config}{seed}"}
        | {"accuracy": 0.5 + (config != ALONE and task == "shade") * 0.02 + seed / 10}
        | {"images": 10, "minutes": 1.0, "megabytes": 5.0}
        for config in (ALONE, "joint")
        for seed in (0, 1)
        for task in ("shade", "tint")
    ]
    return pd.DataFrame(lines)


def untrained(run):
    """What a training of a run might bring."""
    one = Result(run.name, 0, "", 9, 0.5, 0.5, 8, 0.1, 5.0, "rows", run.fingerprint)
    return [replace(one, task=task) for task in ([run.alone] if run.alone else ["shade", "tint"])]


@pytest.mark.slow
def test_every_config_sees_the_same_rows_as_often_and_the_baseline_comes_first(sets, tmp_path):
    table = compare([JOINT, LOG], sets, tmp_path / "c.csv", seeds=1, perform=train_once)
    assert list(table["config"].unique()) == [ALONE, "joint", "log"]
    assert (
        table.groupby(["config", "seed"])["task"].apply(list).map(sorted).map(tuple).nunique() == 1
    )
    together = table[table["config"] != ALONE]
    assert together["rows"].nunique() == 1
    assert set(together["images"]) == {2 * 20 * 8}  # 20 steps at least, patience or not
    assert table["accuracy"].between(0, 1).all() and (table["minutes"] > 0).all()


@pytest.mark.slow
def test_what_is_said_of_one_task_s_layers_is_left_out_where_another_is_alone(data, tmp_path):  # noqa: F811
    layers = {"shade": "block2_pool"}
    slim = Network(
        "none", backbone="vgg16-slim", norm=False, feature_layers=layers, dtype="float32"
    )
    auxiliary = (Auxiliary("shade", "block1_pool"),)
    config = replace(JOINT, network=slim, settings=replace(JOINT.settings, auxiliary=auxiliary))
    table = compare([config], data, tmp_path / "c.csv", seeds=1, perform=train_once)
    assert list(table["config"]) == [ALONE, ALONE, "joint", "joint"]


def test_a_comparison_goes_on_behind_what_is_finished(sets, tmp_path):
    done = []

    def perform(run):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(run)
        return untrained(run)

    with pytest.raises(KeyboardInterrupt):
        compare([JOINT], sets, tmp_path / "c.csv", seeds=1, perform=perform)
    assert len(pd.read_csv(tmp_path / "c.csv")) == 2
    rest = []
    places, progress = ([JOINT], sets, tmp_path / "c.csv"), OnEach(rest.append, RunStarted)
    table = compare(*places, seeds=1, perform=untrained, progress=progress)
    assert [(one.run.name, one.number, one.total) for one in rest] == [("joint", 3, 3)]
    assert len(table) == 4


def test_lines_end_once_where_the_system_s_own_are_longer(tmp_path, monkeypatch):
    monkeypatch.setattr("os.linesep", "\r\n")  # pandas asks for it, and a text file adds it
    results = [Result("a", 0, "shade", 9, 0.5, 0.5, 64, 0.1, 99.5, "rows", "run")] * 2
    for _ in range(2):
        _append(tmp_path / "table.csv", results)
    text = (tmp_path / "table.csv").read_bytes()
    assert b"\r" not in text and text.count(b"\n") == 5


def test_hashes_that_look_like_numbers_are_none(tmp_path):
    hashes = ("0123456712345678", "12345678901e3456")
    _append(tmp_path / "c.csv", [Result("a", 0, "shade", 9, 0.5, 0.5, 64, 0.1, 9.5, *hashes)])
    (line,) = _read_results(tmp_path / "c.csv").to_dict("records")
    assert (line["rows"], line["run"]) == hashes


def test_a_config_that_was_renamed_or_has_its_like_is_in_the_table_by_its_name(sets, tmp_path):
    done = []

    def perform(run):
        done.append(run.fingerprint)
        return untrained(run)

    like = replace(LOG, name="like")
    for configs in ([JOINT, LOG], [replace(JOINT, name="first"), LOG, like]):
        table = compare(configs, sets, tmp_path / "c.csv", seeds=2, perform=perform)
    assert list(table["config"].unique()) == [ALONE, "first", "log", "like"]
    assert len(table) == 4 * 2 * 2  # seeds, tasks
    assert len(done) == len(set(done)) == 8


def test_on_a_full_disk_the_results_of_a_run_are_added_whole_or_not_at_all(sets, tmp_path):
    resource = pytest.importorskip("resource", reason="Windows has no limit of files")

    table, before = tmp_path / "c.csv", resource.getrlimit(resource.RLIMIT_FSIZE)
    compare([JOINT], sets, table, seeds=1, perform=untrained)
    whole = table.read_text()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 50, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            compare([JOINT], sets, table, seeds=2, perform=untrained)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert table.read_text() == whole
    assert (
        len(compare([JOINT], sets, table, seeds=2, perform=untrained)) == 2 * len(whole.split()) - 2
    )


def test_what_is_read_is_told_before_the_first_run(sets, tmp_path):
    (sets / "shades/dark/0.png").write_text("no image")
    told = []

    class Noted(Progress):
        def show(self, record):
            told.append(record)

        def track(self, items, what):
            told.append(what)
            return items

    def perform(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare([JOINT], sets, tmp_path / "c.csv", perform=perform, progress=Noted())
    *read, started = told
    assert isinstance(started, RunStarted)
    assert any("left out: 1 (" in str(line) for line in read)
    assert any("column age" in str(line) for line in read) and "faces" in read[0]


def test_near_duplicates_stay_on_one_side_of_its_split_too(sets, tmp_path):
    """Ten faces, each of them mirrored as well: as training, no val row has its copy in train."""
    folder = tmp_path / "copies/dark"
    folder.mkdir(parents=True)
    faces = np.random.default_rng(0).integers(0, 255, (10, 6, 6, 3), "uint8")
    for number, face in enumerate(faces):
        large = Image.fromarray(face).resize((64, 64), Image.BICUBIC)
        large.save(folder / f"{number}.png")
        large.transpose(Image.FLIP_LEFT_RIGHT).save(folder / f"{number} mirrored.png")
    read = []
    run_compare(
        [JOINT],
        [f"shade={sets / 'shades'}", f"shade={tmp_path / 'copies'}"],
        tmp_path / "c.csv",
        seeds=1,
        perform=lambda run: read.append(run.manifest) or untrained(run),
        cache=tmp_path / "cache",
    )
    copies = [one for one in read[0].examples if one.source == "copies"]
    sides = {}
    for one in copies:
        sides.setdefault(one.path.stem.split()[0], set()).add(one.split)
    assert {one.split for one in copies} == {"train", "val"}
    assert all(len(splits) == 1 for splits in sides.values())


def test_a_detector_is_refused(sets, tmp_path):
    with pytest.raises(ValueError, match="takes images of faces"):
        compare([JOINT], sets, tmp_path / "c.csv", detector=object(), perform=pytest.fail)


def test_other_settings_are_another_run(sets):
    read = unite(read_labels(sources(sets))[0])
    names = {
        Run(config, seed, sources(sets), ReadingConfig(), read, alone).fingerprint
        for config in (JOINT, LOG)
        for seed in (0, 1)
        for alone in (None, "shade")
    }
    assert len(names) == 8


@pytest.mark.parametrize(
    ("configs", "told"),
    [
        ([], "no config"),
        ([JOINT, JOINT], "joint, joint"),
        ([replace(LOG, name=ALONE)], "called alone"),
    ],
)
def test_configs_need_names_of_their_own(sets, tmp_path, configs, told):
    with pytest.raises(ValueError, match=told):
        compare(configs, sets, tmp_path / "c.csv", perform=train_once)


def test_a_setting_that_does_not_fit_stops_it_before_any_training(sets, tmp_path):
    odd = replace(LOG, settings=replace(LOG.settings, loss_weights={"age": 2.0}))
    with pytest.raises(ValueError, match="no task age to weigh"):
        compare([JOINT, odd], sets, tmp_path / "c.csv", perform=pytest.fail)


def test_another_table_is_left_alone(sets, tmp_path):
    (tmp_path / "c.csv").write_text("path,mood\na.png,calm\n")
    with pytest.raises(ValueError, match="no table of a comparison"):
        compare([JOINT], sets, tmp_path / "c.csv", perform=pytest.fail)
    assert (tmp_path / "c.csv").read_text() == "path,mood\na.png,calm\n"


def test_the_printed_table_is_whole_on_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    print_results(results())
    printed = capsys.readouterr().out
    assert "| joint" in printed and "…" not in printed and "images |" in printed


def test_the_table_says_what_sharing_gave():
    columns = {column.header: list(column.cells) for column in results_table(results()).columns}
    assert columns["config"] == [ALONE, "joint"]
    assert columns["shade"] == ["55.0 ± 7.1", "57.0 ± 7.1"]
    assert columns["minutes"] == ["1.0 ± 0.0", "1.0 ± 0.0"]
    first, second = (
        list(column.cells) for column in results_table(results()).columns if column.header == "gain"
    )
    assert first == ["-", "+2.0 ± 0.0"]
    assert second == ["-", "+0.0 ± 0.0"]


def test_few_rows_are_said_to_leave_much_open():
    assert next(certainty(results())).startswith("shade: scored on 100 rows; an accuracy of 56.0%")


def test_the_command_reads_recipes_and_prints_a_table(sets, tmp_path, monkeypatch, capsys):
    run_here = "faceattr.training.compare.train_in_subprocess"
    perform = {None: train_once, "shade": untrained, "tint": untrained}
    monkeypatch.setattr(run_here, lambda run, begin: perform[run.alone](run))
    (tmp_path / "configs.toml").write_text(
        'epochs = "frozen=1,finetune=0"\nbatch-size = 8\n'
        'copies = 0\n[by-turns]\nschedule = "alternating"\n'
    )
    places = f"--on {' '.join(sources(sets))} --cache {sets / 'cache'} -o {tmp_path / 'c.csv'}"
    assert (
        cli.main(["compare", str(tmp_path / "configs.toml"), "--seeds", "1", *places.split()]) == 0
    )
    printed = capsys.readouterr().out
    assert "| by-turns |" in printed and "by-turns, seed 0: shade" in printed


def test_a_recipe_has_no_seed_of_its_own(sets, tmp_path, capsys):
    (tmp_path / "configs.toml").write_text('epochs = "frozen=1"\nseed = 5\n')
    places = f"--on {' '.join(sources(sets))} -o {tmp_path / 'c.csv'}"
    assert cli.main(["compare", str(tmp_path / "configs.toml"), *places.split()]) == 2
    assert "the seeds are 0, 1, …, the same for all" in capsys.readouterr().err


IN_A_SUBPROCESS = """
import signal
from functools import partial
from faceattr.training.compare import train_in_subprocess
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
begin = "import time; print('there', flush=True); time.sleep(90)"
train_in_subprocess(None, begin=partial(exec, begin))
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_training_ends_with_the_process_that_began_it(sent):
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen([sys.executable, "-c", IN_A_SUBPROCESS], **how) as job:
        assert any(line == b"there\n" for line in job.stdout)
        job.send_signal(sent)
        said, _ = job.communicate(timeout=40)  # until nobody holds its output any more
    assert job.returncode == -sent and (b"KeyboardInterrupt" in said) == (sent == signal.SIGINT)


@pytest.mark.slow
def test_each_training_has_a_process_of_its_own(sets, tmp_path):
    config = replace(JOINT, network=Network(weights="none", backbone="vgg16-slim"))
    table = compare([config], sets, tmp_path / "c.csv", seeds=1)
    assert (table["megabytes"] > 100).all() and len(table) == 4
