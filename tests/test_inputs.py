"""What somebody types becomes files: in order, each once, and no loop is followed."""

import codecs
import contextlib
import io
import os
import shutil
import sys
import tracemalloc
from pathlib import Path

import pytest

from faceattr.images import inputs
from faceattr.images.inputs import Inputs


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def names(paths, start, **how):
    return [os.path.relpath(each.path, start) for each in Inputs(paths, **how)]


def test_an_empty_folder_has_no_pictures(tmp_path):
    assert list(Inputs(tmp_path)) == [] and Inputs(tmp_path).count == 0


def test_nothing_given_is_an_error():
    with pytest.raises(ValueError, match="nothing to read"):
        Inputs([])


def test_a_folder_is_read_recursively_in_order_without_what_is_no_picture(tmp_path):
    touch(tmp_path, "b.JPG", "a/z.png", "a/notes.txt", ".hidden.jpg", "c.heic", "._b.jpg")
    assert names(tmp_path, tmp_path) == ["a/z.png", "b.JPG", "c.heic"]


def test_a_photograph_of_any_camera_or_telephone_has_its_row(tmp_path):
    photographs = ["3d.MPO", "canon.HIF", "iphone.heic", "pixel.avif", "samsung.jxl"]
    touch(tmp_path, *photographs, "raw.dng")
    assert names(tmp_path, tmp_path) == photographs


def test_a_large_folder_costs_little_memory_a_file(monkeypatch):
    class Entry:
        def __init__(self, number):
            self.name = f"{number:09}.jpg"

        def is_dir(self):
            return False

    @contextlib.contextmanager
    def scandir(folder):
        yield map(Entry, range(20_000))

    monkeypatch.setattr(inputs.os, "scandir", scandir)
    files = iter(Inputs("."))
    tracemalloc.start()
    next(files)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 110 * 20_000


def test_videos_are_known_by_their_names(tmp_path):
    touch(tmp_path, "a.jpg", "clip.MP4", "d.vob", "tv.M2TS", "tv.m2t", "tv.ts")
    assert [each.is_video for each in Inputs(tmp_path)] == [False, *[True] * 4]
    # Most of these are TypeScript: only who is named counts.
    assert [each.is_video for each in Inputs(tmp_path / "tv.ts")] == [True]


def test_a_link_loop_ends(tmp_path):
    touch(tmp_path, "a/x.jpg")
    (tmp_path / "a/back").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert names(tmp_path, tmp_path) == ["a/x.jpg"]


def test_a_linked_folder_is_followed(tmp_path):
    touch(tmp_path / "elsewhere", "x.jpg")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "in", tmp_path) == ["in/link/x.jpg"]


def test_paths_stay_as_they_were_given(tmp_path, monkeypatch):
    monkeypatch.chdir(touch(tmp_path, "photos/x.jpg"))
    assert [each.name for each in Inputs("photos")] == ["photos/x.jpg"]
    assert [each.name for each in Inputs("./photos/x.jpg")] == ["./photos/x.jpg"]


def test_patterns_are_expanded_but_a_file_of_that_name_comes_first(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/b/2.jpg", "a/b/notes.md", "odd[1].jpg")
    assert names(str(tmp_path / "a/**/*"), tmp_path) == ["a/1.jpg", "a/b/2.jpg"]
    assert names(str(tmp_path / "odd[1].jpg"), tmp_path) == ["odd[1].jpg"]


def test_a_pattern_goes_through_links_but_not_round_in_loops(tmp_path):
    touch(tmp_path, "in/a/b/1.jpg", "in/2.jpg", "elsewhere/3.jpg", "in/.hidden/4.jpg")
    for number in range(3):  # Python's own glob would take 3 ** 40 turns
        (tmp_path / f"in/a/back{number}").symlink_to(tmp_path / "in")
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    expected = ["in/2.jpg", "in/a/b/1.jpg", "in/link/3.jpg"]
    assert names(str(tmp_path / "in/**/*.jpg"), tmp_path) == expected
    assert names(str(tmp_path / "i*/**/*"), tmp_path) == expected
    assert names(str(tmp_path / "**/b/**/*.jpg"), tmp_path) == ["in/a/b/1.jpg"]
    assert names(str(tmp_path / "in/**"), tmp_path) == expected
    assert names(str(tmp_path / "in/*"), tmp_path) == expected
    with pytest.raises(FileNotFoundError, match="Nothing fits"):
        Inputs(str(tmp_path / "in/**/*.gone"))


def test_a_relative_pattern_gives_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(touch(tmp_path, "a/1.jpg", "2.jpg"))
    assert [each.name for each in Inputs("**/*.jpg")] == ["2.jpg", "a/1.jpg"]
    assert [each.name for each in Inputs("a/**/*.jpg")] == ["a/1.jpg"]


def test_a_text_file_lists_paths(tmp_path):
    touch(tmp_path, "1.jpg", "two words.jpg", "odd.ending")
    listed = tmp_path / "list.txt"
    listed.write_text(f"{tmp_path}/two words.jpg\n\n{tmp_path}/odd.ending\r\n")
    assert names(listed, tmp_path) == ["two words.jpg", "odd.ending"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_list_may_be_one_of_powershell(tmp_path, encoding):
    touch(tmp_path, "größe 1.jpg")
    start = codecs.BOM_UTF16_LE if encoding == "utf-16-le" else b""
    listed = tmp_path / "list.txt"
    listed.write_bytes(start + f"{tmp_path}/größe 1.jpg\r\n".encode(encoding))
    assert names(listed, tmp_path) == ["größe 1.jpg"]


def test_a_line_ends_where_it_ends_and_not_within_a_name(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"one\rtwo.jpg\nthree.jpg\r\n")
    assert [each.name for each in Inputs(listed)] == ["one\rtwo.jpg", "three.jpg"]


def test_a_missing_file_in_a_list_keeps_its_place(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("gone.jpg\n")
    assert [each.name for each in Inputs(listed)] == ["gone.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_standard_input_lists_paths_and_can_be_walked_twice(monkeypatch, encoding):
    listed = "a.jpg\nb.jpg\n".encode(encoding)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
    inputs = Inputs("-")
    assert inputs.count == 2
    assert [each.name for each in inputs] == ["a.jpg", "b.jpg"]


def test_what_is_given_twice_comes_once(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    assert names([tmp_path, tmp_path / "a.jpg"], tmp_path) == ["a.jpg", "b.jpg"]


def test_a_path_through_a_link_and_back_is_where_it_leads(tmp_path, monkeypatch):
    touch(tmp_path, "a/x.jpg", "real/x.jpg", "real/sub/y.jpg")
    (tmp_path / "a/link").symlink_to("../real/sub")
    monkeypatch.chdir(tmp_path)
    given = ["a/link/../x.jpg", "a/x.jpg", "real/x.jpg", f"/{tmp_path}/a/x.jpg"]
    assert [file.path for file in Inputs(given)] == given[:2]


def test_one_folder_spelled_in_three_ways_comes_once(tmp_path, monkeypatch):
    touch(tmp_path, "in/a.png", "in/b.png")
    monkeypatch.chdir(tmp_path)
    given = Inputs(["in", "./in", str(tmp_path / "in"), "./in/*.png"])
    assert [file.path for file in given] == ["in/a.png", "in/b.png"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(inputs.os, "scandir", refuse)
    with pytest.raises(PermissionError, match="may not be read, so its pictures would be missing"):
        list(Inputs(tmp_path))


def test_a_folder_that_vanishes_meanwhile_ends_nothing(tmp_path):
    for name in ("a", "z"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").touch()
    (tmp_path / "zz.jpg").touch()
    found = iter(Inputs(tmp_path))
    assert Path(next(found).path).parent.name == "a"
    shutil.rmtree(tmp_path / "z")
    assert [Path(file.path).name for file in found] == ["zz.jpg"]


def test_folders_of_the_job_itself_are_left_out(tmp_path):
    touch(tmp_path, "a.jpg", "out/a.jpg", "out/deep/a.jpg")
    for path in (tmp_path, tmp_path / "*", tmp_path / "**/*.jpg"):
        assert names(str(path), tmp_path, without=[tmp_path / "out"]) == ["a.jpg"]


@pytest.mark.parametrize("path", ["gone.jpg", "gone/", "*.gone"])
def test_a_missing_input_is_told_at_once(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone"):
        Inputs(path)


def test_a_name_that_is_no_utf8_is_still_text(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    (found,) = Inputs(tmp_path)
    assert found.name.endswith(r"caf\xe9.jpg")
    found.name.encode("utf-8")
    assert os.path.exists(found.path)


def test_an_address_is_told_where_it_may_be_given():
    with pytest.raises(ValueError, match=r"is an address.*allow_urls=True"):
        Inputs("https://example.org/a.jpg")
