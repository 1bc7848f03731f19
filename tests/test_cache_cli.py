"""`faceattr cache` on stores that were made by hand."""

import os
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from faceattr import cli
from faceattr.data.store import DATABASE, delete_oldest, open_store


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "features").mkdir()
    names = ("48.crops", "features/old.features", "features/new.features")
    for age, name in zip((100, 200, 0), names, strict=True):
        (tmp_path / name).write_bytes(bytes(10_000_000))
        (tmp_path / name).with_suffix(".index").write_text("")
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    return tmp_path


def cache(folder, *options):
    return cli.main(["cache", "--cache", str(folder), *options])


def left(folder):
    return {path.name for path in folder.rglob("*") if path.suffix in (".crops", ".features")}


def test_an_empty_cache_has_nothing(tmp_path, capsys):
    assert cache(tmp_path) == 0
    assert capsys.readouterr().out == "    0.00 GB in all\n"


def test_what_is_there_is_shown_and_kept(folder, capsys):
    assert cache(folder) == 0
    assert "0.03 GB in all" in capsys.readouterr().out
    assert left(folder) == {"48.crops", "old.features", "new.features"}


def test_what_was_used_longest_ago_goes_first(folder):
    assert cache(folder, "--max-gb", "0.021") == 0
    assert left(folder) == {"48.crops", "new.features"}
    assert not (folder / "features/old.index").exists()


def test_all_of_it_is_deleted_on_request(folder, capsys):
    assert cache(folder, "--clear") == 0
    assert left(folder) == set()
    assert "0.00 GB in all" in capsys.readouterr().out


def test_a_negative_bound_is_refused(folder, refused):
    assert "from 0 on. Received: -1.0" in refused(cache(folder, "--max-gb", "-1"))


def test_a_damaged_database_does_not_keep_the_rest_from_being_deleted(folder):
    for damaged in (folder / "cache.sqlite", folder / "features/cache.sqlite"):
        damaged.write_text("no database at all")
    assert cache(folder, "--clear") == 0
    assert left(folder) == set() and not list(folder.rglob("*.sqlite"))


def test_a_run_that_has_the_store_open_goes_on_after_it_was_emptied(folder):
    with open_store(folder) as store:
        store.put_faces({"before": [1]})
        assert cache(folder, "--clear") == 0
        store.put_faces({"after": [2]})
        with open_store(folder) as another:
            assert another.faces(["before", "after"]) == {"after": [2]}
        store.rows("32-3.crops", (2,), "uint8").put({"kept": np.ones(2)})
        assert cache(folder, "--clear") == 0
    with open_store(folder) as store:
        assert store.faces(["before", "after"]) == {}
        assert store.rows("32-3.crops", (2,), "uint8").places(["kept"]) == [0]


def test_what_another_process_has_just_deleted_is_no_error(folder):
    gone = folder / "gone.crops"
    assert delete_oldest([gone, folder / "48.crops"], 0) == [folder / "48.crops"]


def test_a_database_that_another_run_is_writing_is_left_to_it(folder, monkeypatch, refused):
    monkeypatch.setattr("faceattr.data.store.PATIENCE", 0)
    with open_store(folder) as store:
        store.put_faces({"kept": [1]})
    with closing(sqlite3.connect(folder / DATABASE)) as writing:
        writing.execute("BEGIN IMMEDIATE")
        assert "Try again when no other run uses it" in refused(cache(folder, "--clear"))
    with open_store(folder) as store:
        assert store.faces(["kept"]) == {"kept": [1]}
