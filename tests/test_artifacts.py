"""What a job leaves beside its table: crops, annotated copies, a gallery; videos as input."""

import errno
import os
import re
import sys
from collections import Counter
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np
import pandas
import pytest
from PIL import Image
from use_toys import MOOD, SHADE, GreenSquares, attributes, draw, save_pictures
from use_videos import write_video

from faceattr.cli.label_report import report
from faceattr.data.sources import read_source
from faceattr.images import video
from faceattr.images.inputs import InputFile
from faceattr.inference import gallery, samples
from faceattr.inference.artifacts import Artifacts, artifact_path, parts_below
from faceattr.inference.gallery import write_gallery
from faceattr.inference.label import label_to
from faceattr.inference.metadata import Summary
from faceattr.inference.schema import columns
from faceattr.inference.table import read_rows
from faceattr.tasks import Task


@pytest.mark.parametrize(
    ("path", "time", "expected"),
    [
        ("a.jpg", None, "a.jpg"),
        ("in/a.PNG", None, "in/a.PNG"),
        ("/abs/a.bmp", None, "_root/abs/a.bmp.jpg"),
        ("_/_a.jpg", None, "__/_a.jpg"),
        ("_root/a.jpg", None, "__root/a.jpg"),
        ("../up/a.jpg", None, "_/up/a.jpg"),
        ("clip.mp4", 12.5, "clip.mp4.0012.500s.jpg"),
        # The name of another one's copy:
        ("a.bmp.jpg", None, "a.bmp.jpg.jpg"),
        ("a.bmp.JPG.jpg", None, "a.bmp.JPG.jpg.jpg"),
        ("clip.mp4.0012.500s.jpg", None, "clip.mp4.0012.500s.jpg.jpg"),
        ("clip.ts.0012.500s.jpg", None, "clip.ts.0012.500s.jpg.jpg"),
        ("a.png.jpg", None, "a.png.jpg"),
        ("clip.mp4.jpg", None, "clip.mp4.jpg"),
    ],
)
def test_copies_keep_their_names_below_the_folder(path, time, expected):
    assert str(artifact_path("out", InputFile(path), time)) == f"out/{expected}"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (r"C:\photos\a.jpg", ["_C", "photos", "a.jpg"]),
        (r"D:\photos\a.jpg", ["_D", "photos", "a.jpg"]),
        (r"\\nas\D\photos\a.jpg", ["_share", "nas", "D", "photos", "a.jpg"]),
        (r"photos\a.jpg", ["photos", "a.jpg"]),
    ],
)
def test_copies_of_two_drives_have_folders_of_their_own(path, expected):
    assert parts_below(PureWindowsPath(path)) == expected


def test_copies_of_a_picture_and_of_another_with_its_path_from_the_root_are_two(
    tmp_path, monkeypatch
):
    inputs = save_pictures(tmp_path / "in", 2)
    monkeypatch.chdir(tmp_path)
    below = Path(*inputs.parts[1:])
    save_pictures(below, 2)
    extras = Artifacts(annotated="out", crops="crops")
    label_to("t.csv", [inputs, below], attributes(), artifacts=extras)
    assert len(list(Path("out").rglob("p*.png"))) == 4
    assert len(list(Path("crops").rglob("*.0.jpg"))) == 2


@pytest.mark.parametrize("letter", ["n", "ä", "写"])
def test_copies_of_a_picture_with_a_very_long_name_have_a_shorter_one(tmp_path, letter):
    inputs = save_pictures(tmp_path / "in", 2)
    for ending in ("1", "2"):
        long = letter * (246 // len(letter.encode())) + f"{ending}.png"
        (inputs / long).write_bytes((inputs / "p001.png").read_bytes())
    extras = Artifacts(crops=tmp_path / "crops", annotated=tmp_path / "out")
    label_to(tmp_path / "t.csv", inputs, attributes(), artifacts=extras)
    crops = [path.name for path in (tmp_path / "crops").rglob("*.jpg")]
    assert len(crops) == 3 and sum(name.startswith(letter) for name in crops) == 2
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4


def test_a_picture_that_is_gone_before_its_copy_is_drawn_has_a_row_that_says_so(
    tmp_path, monkeypatch
):
    inputs, extras = save_pictures(tmp_path / "in", 9), Artifacts(annotated=tmp_path / "out")
    read, names = samples.read_picture, []

    def fails_once(path, *how, **more):
        names.append(path)
        if path.endswith("p005.png") and names.count(path) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return read(path, *how, **more)

    monkeypatch.setattr(samples, "read_picture", fails_once)
    label_to(tmp_path / "t.csv", inputs, attributes(), artifacts=extras)
    frame = pandas.read_csv(tmp_path / "t.csv")
    assert frame["path"].nunique() == 9 and len(list((tmp_path / "out").rglob("*.png"))) == 8
    (row,) = frame[frame["path"].str.endswith("p005.png")].to_dict("records")
    assert (row["status"], row["reason"]) == ("unreadable", "Input/output error")
    monkeypatch.setattr(samples, "read_picture", read)
    again = {"resume": True, "retry_unreadable": True, "artifacts": extras}
    assert label_to(tmp_path / "t.csv", inputs, attributes(), **again).inputs == 1
    assert len(list((tmp_path / "out").rglob("*.png"))) == 9


def test_every_face_is_saved_as_the_model_wants_it_cut(tmp_path, monkeypatch):
    save_pictures(tmp_path / "in", 4)
    monkeypatch.chdir(tmp_path)
    label_to("t.csv", "in", attributes(), artifacts=Artifacts(crops="crops"))
    saved = sorted(str(p.relative_to(tmp_path / "crops")) for p in tmp_path.glob("crops/**/*.jpg"))
    assert saved == [
        f"in/p00{picture}.png.{face}.jpg" for picture in range(4) for face in range(picture)
    ]
    crop = np.asarray(Image.open(tmp_path / "crops/in/p001.png.0.jpg"))
    assert crop.shape == (40, 40, 3)
    assert (crop[2:-2, 2:-2, 1] > 140).all() and (crop[2:-2, 2:-2, 0] < 130).all()


def test_annotated_copies_have_the_boxes_of_their_own_picture(tmp_path, monkeypatch):
    save_pictures(tmp_path / "in", 9)
    (tmp_path / "in/bad.png").write_text("words")
    monkeypatch.chdir(tmp_path)
    label_to("t.csv", "in", attributes(), artifacts=Artifacts(annotated="out"))
    for number in range(9):
        before = np.asarray(Image.open(f"in/p{number:03}.png")).astype(int)
        after = np.asarray(Image.open(f"out/in/p{number:03}.png")).astype(int)
        assert (before != after).any() == (number % 4 > 0)
    assert not (tmp_path / "out/in/bad.png.jpg").exists()


def test_what_the_job_wrote_is_not_read_by_the_next_one(tmp_path):
    inputs = save_pictures(tmp_path / "in", 3)
    extras = Artifacts(crops=inputs / "crops", annotated=inputs / "out")
    first = label_to(tmp_path / "a.csv", inputs, attributes(), artifacts=extras)
    again = label_to(tmp_path / "b.csv", inputs, attributes(), artifacts=extras)
    assert first.inputs == again.inputs == 3


@pytest.mark.parametrize(
    ("given", "extras"),
    [
        ("in", Artifacts(annotated=".")),
        ("in/p000.png", Artifacts(annotated=".")),
        ("in", Artifacts(annotated="link")),
        ("in", Artifacts(crops=".")),
    ],
)
def test_a_folder_in_which_a_copy_would_be_the_input_is_refused(
    tmp_path, monkeypatch, given, extras
):
    inputs = save_pictures(tmp_path / "in", 2)
    (inputs / "p001.png.0.jpg").write_bytes((inputs / "p001.png").read_bytes())
    (tmp_path / "link").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in inputs.iterdir()}
    with pytest.raises(ValueError, match=r"would replace the input .*Choose a folder"):
        label_to("t.csv", given.format(here=tmp_path), attributes(), artifacts=extras)
    assert {path: path.read_bytes() for path in inputs.iterdir()} == before
    assert not (tmp_path / "t.csv").exists()


def test_copies_may_lie_above_inputs_that_they_do_not_touch(tmp_path, monkeypatch):
    save_pictures(tmp_path / "in", 2)
    monkeypatch.chdir(tmp_path)
    label_to("t.csv", tmp_path / "in", attributes(), artifacts=Artifacts(crops=".", annotated="."))
    assert (tmp_path / "t.csv").exists()


def test_a_face_on_its_side_is_saved_upright(tmp_path):
    upright = draw(1, size=(90, 130))
    upright[0, 0] = 255
    upright[20:30, 10:50] = (10, 255, 10)
    (tmp_path / "in").mkdir()
    Image.fromarray(np.rot90(upright, -1)).save(tmp_path / "in/a.png")

    class LooksUpOnly(GreenSquares):
        def __call__(self, image):
            return super().__call__(image) if image[0, 0].min() == 255 else []

    describe = attributes(detector=LooksUpOnly(), auto_rotate=True)
    label_to(
        tmp_path / "t.csv", tmp_path / "in", describe, artifacts=Artifacts(crops=tmp_path / "out")
    )
    (path,) = (tmp_path / "out").rglob("*.jpg")
    face = np.asarray(Image.open(path))[8:-8, 8:-8]
    assert face[:6, :, 1].mean() > face[-6:, :, 1].mean() + 30
    assert pandas.read_csv(tmp_path / "t.csv")["turn"].tolist() == [1]


def test_a_copy_that_cannot_be_written_is_one_sentence_and_the_table_stays(tmp_path):
    inputs = save_pictures(tmp_path / "in", 6)
    in_the_way = tmp_path / "out" / "_root"
    in_the_way.parent.mkdir()
    in_the_way.write_text("a file, not a folder")
    for extras in (Artifacts(crops=tmp_path / "out"), Artifacts(annotated=tmp_path / "out")):
        with pytest.raises(OSError, match=r"cannot be written: .*--resume"):
            label_to(tmp_path / "t.csv", inputs, attributes(), artifacts=extras, overwrite=True)
    in_the_way.unlink()
    label_to(tmp_path / "t.csv", inputs, attributes(), artifacts=extras, resume=True)
    assert pandas.read_csv(tmp_path / "t.csv")["path"].nunique() == 6
    assert len(list((tmp_path / "out").rglob("p*.png"))) == 6


# The gallery


def test_a_gallery_that_is_there_is_replaced_only_if_that_is_asked_for(tmp_path):
    inputs = save_pictures(tmp_path / "in", 2)
    page, table = tmp_path / "page.html", tmp_path / "t.csv"
    page.write_text("mine")
    with pytest.raises(FileExistsError, match=r"page.html exists already"):
        label_to(table, inputs, attributes(), artifacts=Artifacts(gallery=page))
    assert page.read_text() == "mine" and not table.exists()
    label_to(table, inputs, attributes(), artifacts=Artifacts(gallery=page), resume=True)
    assert page.read_text() != "mine"


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    save_pictures(tmp_path / "in & out", 12)
    monkeypatch.chdir(tmp_path)
    summary = label_to("t.csv", "in & out", attributes(), artifacts=Artifacts(gallery="page.html"))
    return (tmp_path / "page.html").read_text(), summary


def test_the_page_shows_every_face_under_its_answer(labelled):
    page, summary = labelled
    assert page.count('class="face"') == 2 * summary.faces
    for task, answers in summary.answers.items():
        for name, count in answers.items():
            assert f'id="{task}-{name}">{name} <small>{count} face' in page


def test_the_page_loads_nothing_and_escapes_names(labelled):
    page, _ = labelled
    assert "http" not in page and "<script src" not in page and "Faces of in &amp; out" in page
    assert 'href="in%20%26%20out/p001.png"' in page
    assert all(src.startswith("data:image/jpeg") for src in re.findall(r'src="([^"]+)', page))


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 elsewhere")
def test_a_name_that_is_no_utf_8_has_its_face_and_its_link_and_can_be_learnt(tmp_path, monkeypatch):
    folder = save_pictures(tmp_path / "in", 2)
    (odd := Path(os.fsdecode(os.fsencode(tmp_path / "f") + b"\xfc"))).mkdir()
    os.rename(folder / "p001.png", os.fsencode(folder / "l") + b"\xfct.png")
    (folder / r"l\xfct too.png").write_bytes((folder / "p000.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    label_to("t.csv", "in", attributes(), artifacts=Artifacts(gallery="page.html"))
    page = Path("page.html").read_text()
    assert 'href="in/l%FCt.png"' in page and "<em>gone</em>" not in page
    Path("m.csv").write_text("path,mood\nin/l\\xfct.png,calm\nin/l\\xfct too.png,wild\n")
    read = read_source("m.csv").examples
    assert [one.path.is_file() for one in read] == [True, True]
    (odd / "m.csv").write_text("path,mood\n../in/l\\xfct.png,calm\n")
    assert read_source(str(odd / "m.csv")).examples[0].path.is_file()


def test_the_surest_come_first(labelled):
    page, _ = labelled
    sections = page.split("<h3")[1:]
    for section in sections:
        shown = [float(p) for p in re.findall(r"--p:([\d.]+)", section)]
        assert shown and shown == sorted(shown, reverse=True)
    assert max(section.count("--p:") for section in sections) > 3


def test_an_answer_without_a_face_has_its_count_and_no_section(labelled):
    page, summary = labelled
    empty = [name for name in MOOD.classes if not summary.answers["mood"].get(name)]
    assert empty
    for name in empty:
        assert f"<b>{name}</b><i>0</i>" in page and f"mood-{name}" not in page


def test_of_very_many_faces_an_even_choice_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "MOST_A_CLASS", 5)
    names = columns((MOOD, SHADE))
    rows = [
        dict.fromkeys(names)
        | {"path": "gone.jpg", "status": "ok", "mood": "calm", "mood_prob": n / 100}
        | {"shade": None, "shade_prob": 0.5}
        for n in range(100)
    ]
    write_gallery(tmp_path / "p.html", lambda: iter(rows), (MOOD, SHADE), title="x")
    page = (tmp_path / "p.html").read_text()
    calm = page.split('id="mood-calm"')[1].split("<h3")[0]
    assert "100 faces, 5 of them shown evenly" in calm
    shown = re.findall(r"--p:([\d.]+)", calm)
    assert len(shown) == 5 and shown[0] == "0.990" and shown[-1] == "0.000"
    assert 'id="shade-unsure"' in page and "<em>gone</em>" in page


def test_a_class_that_is_called_unsure_does_not_swallow_withheld_answers(tmp_path):
    task = Task("mood", ("calm", "unsure"))
    names = columns((task,))
    rows = [
        dict.fromkeys(names)
        | {"path": "gone.jpg", "status": "ok", "mood": answer, "mood_prob": 0.5}
        for answer in ["unsure", "unsure", None, "calm"]
    ]
    write_gallery(tmp_path / "p.html", lambda: iter(rows), (task,), title="x")
    page = (tmp_path / "p.html").read_text()
    assert 'id="mood-unsure">unsure <small>2 faces' in page
    assert 'id="mood-unsure (withheld)">unsure (withheld) <small>1 face' in page
    cut_out = Summary(inputs=3, statuses=Counter(ok=1, no_face=2, unreadable=0))
    assert "--detector none" in "\n".join(report(cut_out, "t.csv", "green squares"))
    summary = Summary(answers={"mood": Counter({"unsure": 2, None: 1, "calm": 1})})
    assert summary.counts()["answers"]["mood"] == {"unsure": 2, "unsure (withheld)": 1, "calm": 1}
    printed = "\n".join(report(summary, "t.csv", "green squares"))
    assert "--detector none" not in printed
    assert "unsure 2, unsure (withheld) 1, calm 1" in printed


# Videos


@pytest.fixture
def clip(tmp_path):
    """Four seconds: a face from the second one on."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "in/clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (200, 90))
    for number in range(20):
        writer.write(draw(number >= 10)[..., ::-1].copy())
    writer.release()
    return path


def test_a_video_has_rows_for_each_of_its_seconds(tmp_path, clip):
    extras = Artifacts(
        crops=tmp_path / "crops", annotated=tmp_path / "out", gallery=tmp_path / "g.html"
    )
    label_to(tmp_path / "t.csv", clip, attributes(), artifacts=extras)
    frame = pandas.read_csv(tmp_path / "t.csv")
    assert frame["time"].tolist() == [0, 1, 2, 3]
    assert frame["status"].tolist() == ["no_face", "no_face", "ok", "ok"]
    assert len(list((tmp_path / "crops").rglob("*.jpg"))) == 2
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 4
    assert (tmp_path / "g.html").read_text().count("data:image") == 4


def test_a_video_is_gone_on_with_in_its_middle(tmp_path, clip):
    save_pictures(tmp_path / "in", 2)
    label_to(tmp_path / "t.csv", tmp_path / "in", attributes(), every=0.4)
    whole = (tmp_path / "t.csv").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "t.csv").write_bytes(whole[:length])
        label_to(tmp_path / "t.csv", tmp_path / "in", attributes(), every=0.4, resume=True)
        assert (tmp_path / "t.csv").read_bytes() == whole


def test_a_broken_video_has_a_row(tmp_path):
    (tmp_path / "x.mp4").write_text("words")
    label_to(tmp_path / "t.csv", tmp_path, attributes())
    row = pandas.read_csv(tmp_path / "t.csv").iloc[0]
    assert row["status"] == "unreadable" and "not a video" in row["reason"]


def test_a_truncated_video_has_a_row_from_where_it_breaks_off(tmp_path):
    grey = [np.random.default_rng(n).integers(0, 255, (90, 200, 1), np.uint8) for n in range(75)]
    noise = [np.repeat(image, 3, axis=2) for image in grey]
    (tmp_path / "in").mkdir()
    path = write_video(tmp_path / "in/a.mp4", noise, movflags="faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    table = tmp_path / "t.csv"
    label_to(table, tmp_path / "in", attributes())
    frame = pandas.read_csv(table)
    assert frame["status"].tolist() == ["no_face", "no_face", "unreadable"]
    assert frame["time"].tolist()[:2] == [0, 1] and 1 < frame["time"][2] < 2
    assert re.fullmatch(r"breaks off after 1\.\d of 3\.0 s", frame["reason"][2])
    whole = table.read_bytes()
    for length in (*range(0, len(whole), 97), len(whole)):
        table.write_bytes(whole[:length])
        label_to(table, tmp_path / "in", attributes(), resume=True)
        assert table.read_bytes() == whole
    label_to(table, tmp_path / "in", attributes(), resume=True, retry_unreadable=True)
    assert table.read_bytes() == whole


def film(path, seconds):
    """Ten frames a second; the face is in the picture from half of it on."""
    half = 5 * seconds
    images = [draw(number >= half) for number in range(2 * half)]
    return write_video(path, images, [number / 10 for number in range(2 * half)])


def test_a_gallery_opens_a_video_once_and_decodes_little_of_it(tmp_path, monkeypatch):
    film(tmp_path / "a.mp4", 40)
    label_to(tmp_path / "t.csv", tmp_path / "a.mp4", attributes(), every=8)
    rows = list(pandas.read_csv(tmp_path / "t.csv").query("status == 'ok'")["time"])
    assert rows == [24, 32]
    opened, decoded = [], []
    open_file, frames_of = video.av.open, video.Video._decoded
    monkeypatch.setattr(video.av, "open", lambda *a, **k: opened.append(a) or open_file(*a, **k))
    monkeypatch.setattr(
        video.Video,
        "_decoded",
        lambda self: (decoded.append(1) or each for each in frames_of(self)),
    )
    names = columns(attributes().tasks)
    page = tmp_path / "g.html"
    rows_of_table = lambda: read_rows(tmp_path / "t.csv", names)  # noqa: E731
    write_gallery(page, rows_of_table, attributes().tasks, title="film")
    assert page.read_text().count("data:image") >= 2
    assert len(opened) == 1 and 0 < len(decoded) < 100


def test_a_gallery_on_another_drive_links_to_whole_addresses(tmp_path, monkeypatch):
    def relpath(path, start):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    save_pictures(tmp_path / "in", 2)
    monkeypatch.setattr("faceattr.inference.gallery.os.path.relpath", relpath)
    label_to(
        tmp_path / "t.csv",
        tmp_path / "in",
        attributes(),
        artifacts=Artifacts(gallery=tmp_path / "g.html"),
    )
    assert (tmp_path / "in/p001.png").as_uri() in (tmp_path / "g.html").read_text()
