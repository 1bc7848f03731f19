"""Tables that can be gone on with: whole inputs stay, a torn end goes, nothing comes twice."""

import codecs
import csv
import errno
import json
import os
import tracemalloc
from pathlib import Path

import pandas
import pytest
from use_toys import MOOD, SHADE

from faceattr.images.inputs import InputFile
from faceattr.inference.samples import samples_of
from faceattr.inference.schema import columns
from faceattr.inference.table import TableOptions, open_table, read_rows

COLUMNS = columns((MOOD, SHADE))
FORMS = ["t.csv", "t.jsonl", "t.parquet"]
ODD_NAMES = [
    'comma, and "quote".jpg',
    "new\nline.jpg",
    "carriage\rreturn.jpg",
    "ümläut 写真.jpg",
    "'; drop.jpg",
]


def row(path, face=0, faces=1, **cells):
    given = dict.fromkeys(COLUMNS) | {"path": path, "status": "ok", "face": face, "faces": faces}
    return given | {"mood": "calm", "mood_prob": 0.5, "x0": 1.5} | cells


def group(path, faces):
    if faces == 0:
        return [row(path, None, 0, status="no_face", mood=None, mood_prob=None)]
    return [row(path, face, faces) for face in range(faces)]


GROUPS = [
    group(name, i % 4) for i, name in enumerate([*ODD_NAMES, *map("p{}.jpg".format, "012345")])
]


def write(path, groups, **how):
    with open_table(path, COLUMNS, TableOptions(**how)) as table:
        for rows in groups:
            if rows[0]["path"] not in table.done:
                table.write(rows)
        table.finished = True
    return path


@pytest.mark.parametrize("name", FORMS)
def test_an_empty_table_has_its_columns(tmp_path, name):
    path = write(tmp_path / name, [])
    assert list(read_rows(path, COLUMNS)) == []
    if name.endswith("csv"):
        assert list(pandas.read_csv(path).columns) == list(COLUMNS)
    if name.endswith("parquet"):
        assert list(pandas.read_parquet(path).columns) == list(COLUMNS)


@pytest.mark.parametrize("name", FORMS)
def test_rows_come_back_as_they_were_written(tmp_path, name):
    path = write(tmp_path / name, GROUPS)
    assert list(read_rows(path, COLUMNS)) == [row for rows in GROUPS for row in rows]


@pytest.mark.parametrize("name", FORMS)
def test_pandas_reads_every_form(tmp_path, name):
    path = write(tmp_path / name, GROUPS)
    read = {".csv": pandas.read_csv, ".parquet": pandas.read_parquet}.get(
        path.suffix, lambda p: pandas.read_json(p, lines=True)
    )
    frame = read(path)
    assert len(frame) == sum(map(len, GROUPS)) and frame["path"][0] == ODD_NAMES[0]
    assert frame["mood_prob"].dtype == float


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_rows_are_in_the_file_as_soon_as_they_are_written(tmp_path, name):
    with open_table(tmp_path / name, COLUMNS) as table:
        table.write(GROUPS[1])
        assert b"new" in (tmp_path / name).read_bytes()


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_table_cut_at_any_byte_is_gone_on_with_and_ends_the_same(tmp_path, name):
    whole = write(tmp_path / name, GROUPS).read_bytes()
    path = tmp_path / f"cut-{name}"
    for length in range(0, len(whole) + 1, len(whole) // 150):
        path.write_bytes(whole[:length])
        write(path, GROUPS, resume=True)
        assert path.read_bytes() == whole, f"cut at byte {length}"


@pytest.mark.usefixtures("as_on_windows")
def test_a_parquet_table_is_gone_on_with_from_its_journal_or_from_itself(tmp_path):
    path, journal = tmp_path / "t.parquet", tmp_path / "t.parquet.part.jsonl"
    with open_table(path, COLUMNS) as table:
        table.write(GROUPS[0])
    assert journal.exists() and not path.exists()
    write(path, GROUPS[:5], resume=True)
    assert path.exists() and not journal.exists()
    write(path, GROUPS, resume=True)
    assert list(read_rows(path, COLUMNS)) == [row for rows in GROUPS for row in rows]


def test_going_on_costs_little_memory_a_picture(tmp_path):
    path = write(tmp_path / "t.csv", [group(f"/photos/{n:09}.jpg", 0) for n in range(5000)])
    tracemalloc.start()
    with open_table(path, COLUMNS, TableOptions(resume=True)) as table:
        items = samples_of([InputFile("/photos/x.jpg")], 1.0, table.done)
        assert next(items).file.path == "/photos/x.jpg"
        held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 350 * 5000


def test_a_finished_table_is_left_alone(tmp_path):
    before = write(tmp_path / "t.csv", GROUPS).read_bytes()
    assert write(tmp_path / "t.csv", GROUPS, resume=True).read_bytes() == before


def test_frames_of_a_video_are_inputs_of_their_own(tmp_path):
    with open_table(tmp_path / "t.csv", COLUMNS) as table:
        table.write([row("a.mp4", time=0.0)])
        table.write([row("a.mp4", time=1.5)])
    with open_table(tmp_path / "t.csv", COLUMNS, TableOptions(resume=True)) as table:
        assert table.done == {"a.mp4": {0.0, 1.5}}
        for broken in (row("a.mp4", None, 0), row("b.jpg", None, 0), row("b.mp4", None, 0)):
            table.write([broken | {"status": "unreadable"}])
        table.write([row("b.mp4", time=0.0)])
    with open_table(tmp_path / "t.csv", COLUMNS, TableOptions(resume=True)) as table:
        done = {"a.mp4": {0.0, 1.5, None}, "b.jpg": {None}, "b.mp4": {None, 0.0}}
        assert table.done == done


@pytest.mark.parametrize("name", FORMS)
def test_a_table_that_is_there_is_not_lost_by_accident(tmp_path, name):
    path = write(tmp_path / name, GROUPS)
    with pytest.raises(FileExistsError, match="--resume"):
        write(path, [])
    assert len(list(read_rows(path, COLUMNS))) > 5
    write(path, GROUPS[:1], overwrite=True)
    assert len(list(read_rows(path, COLUMNS))) == 1


def test_going_on_and_replacing_exclude_each_other():
    with pytest.raises(ValueError, match="exclude"):
        TableOptions(resume=True, overwrite=True)


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.CSV.gz"])
def test_an_unknown_ending_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"ends in \.csv, \.jsonl, \.parquet"):
        write(tmp_path / name, [])


@pytest.mark.parametrize("name", FORMS)
def test_a_table_of_another_model_is_not_gone_on_with(tmp_path, name):
    path = write(tmp_path / name, GROUPS)
    before = path.read_bytes()
    with (
        pytest.raises(ValueError, match="other columns"),
        open_table(path, columns((MOOD,)), TableOptions(resume=True)),
    ):
        pass
    assert path.read_bytes() == before


def test_a_table_that_was_damaged_in_the_middle_is_not_cut(tmp_path):
    path = write(tmp_path / "t.csv", GROUPS)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:8], b"oops", *lines[8:]]))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="damaged"):
        write(path, GROUPS, resume=True)
    assert path.read_bytes() == before


def test_two_jobs_do_not_write_one_table(tmp_path):
    with (
        open_table(tmp_path / "t.csv", COLUMNS),
        pytest.raises(ValueError, match=r"^Another faceattr is writing \S*/t.csv just now\.$"),
        open_table(tmp_path / "t.csv", COLUMNS, TableOptions(resume=True)),
    ):
        pass
    (tmp_path / "link.csv").symlink_to("t.csv")
    with (
        open_table(tmp_path / "t.csv", COLUMNS, TableOptions(resume=True)),
        pytest.raises(ValueError, match=r"^Another faceattr is writing"),
        open_table(tmp_path / "link.csv", COLUMNS, TableOptions(overwrite=True)),
    ):
        pass
    (tmp_path / "link.csv").unlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".t.csv.lock", "t.csv"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_link_to_a_table_stays_one(tmp_path, name):
    link, real = tmp_path / f"link{Path(name).suffix}", tmp_path / "elsewhere" / name
    real.parent.mkdir()
    link.symlink_to(real)
    write(link, GROUPS[:1])
    write(link, GROUPS[:2], resume=True, retry_unreadable=True)
    assert link.is_symlink()
    assert len(list(read_rows(real, COLUMNS))) == sum(map(len, GROUPS[:2]))
    other = tmp_path / f"other{link.suffix}"
    other.symlink_to(tmp_path / "blob")
    with pytest.raises(ValueError, match=r"is a link to .*blob, whose name ends otherwise"):
        write(other, GROUPS[:1])


@pytest.mark.parametrize("replaced", [False, True])
def test_a_table_that_is_replaced_or_removed_meanwhile_ends_the_job(tmp_path, replaced):
    with (
        pytest.raises(OSError, match="was replaced or removed while this job wrote it"),
        open_table(tmp_path / "t.csv", COLUMNS) as table,
    ):
        table.write(GROUPS[0])
        content = table.path.read_bytes()
        table.path.unlink()
        if replaced:
            table.path.write_bytes(content)
        table.write(GROUPS[1])


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that takes no files")
def test_a_folder_that_takes_no_files_is_no_other_job():
    with (
        pytest.raises(OSError, match=r"^/proc/t.csv cannot be written: /proc [a-z ]* files\.$"),
        open_table("/proc/t.csv", COLUMNS),
    ):
        pass


def test_a_lock_that_cannot_be_opened_names_the_table(tmp_path):
    (tmp_path / ".t.csv.lock").mkdir()
    with (
        pytest.raises(OSError, match=r"/t.csv cannot be written: Is a directory\.$"),
        open_table(tmp_path / "t.csv", COLUMNS),
    ):
        pass


def test_a_lock_that_was_opened_while_another_job_ended_still_counts(tmp_path):
    fcntl = pytest.importorskip("fcntl", reason="locks of this kind are POSIX'")
    with open_table(tmp_path / "t.csv", COLUMNS):
        waiting = os.open(tmp_path / ".t.csv.lock", os.O_RDWR)
    try:
        fcntl.flock(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (
            pytest.raises(ValueError, match="Another faceattr"),
            open_table(tmp_path / "t.csv", COLUMNS, TableOptions(resume=True)),
        ):
            pass
    finally:
        os.close(waiting)


class FullDisk:
    """A file that takes only so many bytes more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(bytes(data)[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 1, 40, 300])
def test_a_full_disk_is_one_sentence_and_loses_no_finished_row(tmp_path, room):
    path = tmp_path / "t.csv"
    with (
        pytest.raises(OSError, match=r"cannot be written: No space.*--resume") as caught,
        open_table(path, COLUMNS) as table,
    ):
        table.write(GROUPS[3])
        table._file = FullDisk(table._file, room)
        for rows in GROUPS:
            table.write(rows)
    assert "--resume" in str(caught.value)
    with open(path, newline="") as lines:
        read = list(csv.DictReader(lines))
    assert len(read) >= 3 and all(None not in r.values() for r in read)
    assert path.read_bytes().endswith(b"\n")


def test_a_folder_that_does_not_take_files_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write(tmp_path / "file" / "t.csv", [])


FORMULAS = ["=1+1", "+49", "-2", "@sum", "\tx", "'=1", "''-x", "'plain", "plain"]


def test_a_table_for_spreadsheets_has_no_formulas_and_comes_back_as_it_was(tmp_path):
    groups = [[row(name, x0=-1.5, reason="-")] for name in FORMULAS]
    path = write(tmp_path / "t.csv", groups[:4], spreadsheet=True)
    write(path, groups, spreadsheet=True, resume=True)
    frame = pandas.read_csv(path)
    assert frame["path"].tolist() == [f"'{name}" for name in FORMULAS[:7]] + FORMULAS[7:]
    assert set(frame["x0"]) == {-1.5} and set(frame["reason"]) == {"'-"}
    content = path.read_bytes()  # Excel takes it for UTF-8 by its first bytes, which come once
    assert content.startswith(codecs.BOM_UTF8) and content.count(codecs.BOM_UTF8) == 1
    back = list(read_rows(path, COLUMNS, spreadsheet=True))
    assert back == [each for rows in groups for each in rows]


def test_a_table_has_its_paths_as_they_are_unless_it_is_for_a_spreadsheet(tmp_path):
    path = write(tmp_path / "t.csv", [[row(name)] for name in FORMULAS])
    assert pandas.read_csv(path)["path"].tolist() == FORMULAS


def test_only_csv_is_for_spreadsheets(tmp_path):
    with pytest.raises(ValueError, match="leave --spreadsheet away"):
        write(tmp_path / "t.parquet", [], spreadsheet=True)


def test_jsonl_is_one_object_a_line_with_every_column(tmp_path):
    path = write(tmp_path / "t.jsonl", GROUPS)
    for line in path.read_text(encoding="utf-8").splitlines():
        assert list(json.loads(line)) == list(COLUMNS)
