import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import shaded

from faceattr.data import crops as crops_module
from faceattr.data.crops import cache_crops
from faceattr.data.manifest import Example
from faceattr.data.store import DATABASE, open_store
from faceattr.images.crop import CropRule, crop

RULE = CropRule(32)


@pytest.fixture
def examples(tmp_path):
    made = []
    for level in range(0, 250, 50):
        path = tmp_path / f"{level}.png"
        cv2.imwrite(str(path), shaded(level))
        made.append(Example(path))
    return made


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def test_no_examples_give_no_crops(folder):
    cached = cache_crops([], RULE, folder)
    assert cached.array.shape == (0, 32, 32, 3)
    assert len(cached.rows) == 0


def test_a_network_drive_of_windows_keeps_a_cache(folder, monkeypatch):
    """SQLite takes no URI that names a machine."""
    monkeypatch.setattr(Path, "as_uri", lambda path: f"file://server/share/{path.name}")
    with open_store(folder) as store:
        store.put_faces({"a": [1]})
        assert store.faces("a") == {"a": [1]}


def test_a_cache_that_cannot_be_made_is_one_sentence(folder):
    folder.write_text("a file")
    with pytest.raises(OSError, match=r"crops cannot be made: .*\. Give a folder .* --cache"):
        open_store(folder / "crops").__enter__()


def test_a_cached_crop_is_the_crop(examples, folder):
    cached = cache_crops(examples, RULE, folder)
    for row, level in zip(cached.rows, range(0, 250, 50), strict=True):
        expected = crop(shaded(level)[..., ::-1], None, RULE)  # cv2 wrote it as BGR
        np.testing.assert_array_equal(cached.array[row], expected)
    assert isinstance(cached.array, np.memmap)


def test_the_next_run_decodes_nothing(examples, folder, monkeypatch):
    first = cache_crops(examples, RULE, folder)
    monkeypatch.setattr(crops_module, "load_image", lambda path: 1 / 0)
    again = cache_crops(examples[::-1], RULE, folder)
    np.testing.assert_array_equal(again.array[again.rows[::-1]], first.array[first.rows])


def test_content_box_and_rule_decide_not_the_name(examples, folder, tmp_path):
    copy = Example(Path(examples[0].path).rename(tmp_path / "renamed.png"))
    boxed = Example(examples[1].path, box=(0, 0, 20, 20))
    first = cache_crops([copy, *examples[1:]], RULE, folder)
    again = cache_crops([copy, boxed, examples[1]], RULE, folder)
    assert again.rows.tolist() == [first.rows[0], 5, first.rows[1]]
    with_margin = cache_crops([boxed], CropRule(32, 0.5), folder)
    assert with_margin.rows.tolist() == [6]


def test_pictures_in_memory_are_cached_too(folder):
    pixels = shaded(90)
    cached = cache_crops([Example(Path("fer.csv#1"), pixels=pixels)], RULE, folder)
    np.testing.assert_array_equal(cached.array[cached.rows[0]], crop(pixels, None, RULE))


def test_unusable_pictures_are_left_out_and_counted(examples, folder, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    outside = Example(examples[0].path, box=(90, 90, 99, 99))
    given = [Example(tmp_path / "text.png"), outside, examples[1]]
    cached = cache_crops(given, RULE, folder)
    assert cached.rows.tolist() == [-1, -1, 0]
    assert cached.left_out(given) == {
        f"unreadable image: {tmp_path / 'text.png'}": 1,
        f"box empty or outside the image: {examples[0].path}": 1,
    }


@pytest.mark.parametrize(
    ("crops_lost", "keys_lost"), [(0, 0), (1, 0), (3000, 0), (7000, 0), (0, 2)]
)
def test_a_run_killed_while_writing_costs_only_the_last_crops(
    examples, folder, crops_lost, keys_lost
):
    whole = cache_crops(examples, RULE, folder)
    expected = np.array(whole.array[whole.rows])
    del whole
    content = (folder / "32-3.crops").read_bytes()
    (folder / "32-3.crops").write_bytes(content[: len(content) - crops_lost])
    with closing(sqlite3.connect(folder / DATABASE)) as database, database:
        database.execute("DELETE FROM rows WHERE place >= ?", (5 - keys_lost,))
    again = cache_crops(examples, RULE, folder)
    np.testing.assert_array_equal(again.array[again.rows], expected)


def test_a_crop_that_a_power_cut_left_as_zeros_is_cut_again(examples, folder):
    first = cache_crops(examples, RULE, folder)
    expected, row = np.array(first.array[first.rows]), int(first.rows[2])
    del first
    with open(folder / "32-3.crops", "r+b") as file:
        file.seek(row * 32 * 32 * 3)
        file.write(bytes(32 * 32 * 3))
    again = cache_crops(examples, RULE, folder)
    np.testing.assert_array_equal(again.array[again.rows], expected)
    assert again.rows[2] != row


def test_keys_are_written_when_their_crops_are_on_the_disk(examples, folder, monkeypatch):
    seen = []

    def synced(descriptor):
        with closing(sqlite3.connect(folder / DATABASE)) as database:
            (keys,) = database.execute("SELECT count(*) FROM rows").fetchone()
        seen.append(((folder / "32-3.crops").stat().st_size, keys))

    monkeypatch.setattr("os.fsync", synced)
    cache_crops(examples, RULE, folder)
    assert seen == [(5 * 32 * 32 * 3, 0)]


def test_what_an_older_faceattr_kept_is_left_alone(examples, folder):
    folder.mkdir()
    (folder / "32-2.crops").write_bytes(b"older")
    (folder / "32-2.index").write_text("older")
    cache_crops(examples, RULE, folder)
    assert (folder / "32-2.crops").read_bytes() == b"older"


def test_two_processes_that_write_at_once_lose_nothing(folder):
    """Each puts its own rows and those of both, batch by batch."""
    with open_store(folder):
        pass
    code = (
        "import sys, numpy as np; from pathlib import Path; from faceattr.data.store import *\n"
        "with open_store(Path(sys.argv[1])) as store:\n"
        "    rows = store.rows('x.features', (4,), 'float32')\n"
        "    for n in range(20):\n"
        "        own = {f'{sys.argv[2]} {n}': np.full(4, n), f'both {n}': np.full(4, -n)}\n"
        "        rows.put(own)\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(folder), who]) for who in "ab"]
    assert [run.wait() for run in runs] == [0, 0]
    with open_store(folder) as store:
        rows = store.rows("x.features", (4,), "float32")
        for who, sign in (("a", 1), ("b", 1), ("both", -1)):
            places = rows.places([f"{who} {n}" for n in range(20)])
            np.testing.assert_array_equal(rows.array()[places][:, 0], sign * np.arange(20))
        assert len(rows.array()) == 60


def test_who_may_not_write_can_read(examples, folder, monkeypatch):
    first = cache_crops(examples, RULE, folder)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    again = cache_crops(examples, RULE, folder)
    np.testing.assert_array_equal(again.rows, first.rows)
    with pytest.raises(OSError, match=r"cache\.sqlite cannot be used .* another folder"):
        cache_crops([Example(examples[0].path, box=(0, 0, 9, 9))], RULE, folder)


def test_two_runs_may_begin_in_a_folder_that_is_not_there_yet(folder, monkeypatch):
    made = Path.mkdir

    def made_meanwhile(path, *given, **how):
        made(path, parents=True, exist_ok=True)
        made(path, *given, **how)

    monkeypatch.setattr(Path, "mkdir", made_meanwhile)
    with open_store(folder) as store:
        assert len(store.rows("32.crops", (2,), "uint8").array()) == 0
