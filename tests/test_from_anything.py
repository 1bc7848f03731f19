"""Images from anywhere: one function, one batch method, an object that pickles."""

import csv
import io
import json
import math
import os
import pickle
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pandas
import pyarrow
import pytest
from conftest import save_toy
from PIL import Image
from use_loopback import website
from use_toys import GreenSquares, attributes, draw, encoded, save_pictures

from faceattr.cli import main
from faceattr.detection.centerface import CenterFace
from faceattr.images import fetch as fetching
from faceattr.images.fetch import fetch
from faceattr.images.load import load_image, read_image
from faceattr.inference.batch import analyze
from faceattr.inference.predictor import FaceAttributes
from faceattr.inference.schema import columns
from faceattr.tasks import GENDER

IMAGE = draw(2)
CONTENT = encoded(IMAGE)


class Part(bytes):
    """The first half of what the answer says that it has."""


@pytest.fixture
def server():
    """Answers on loopback: what `pages` holds by path, or a status."""
    pages: dict = {}

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self):
            answer = pages.get(self.path, 404)
            status, content = (answer, b"") if isinstance(answer, int) else (200, answer)
            self.send_response(302 if str(content)[2:].startswith("to ") else status)
            if str(content)[2:].startswith("to "):
                self.send_header("Location", content.decode()[3:])
            if isinstance(content, dict):
                return self.drip(content)
            if isinstance(content, Part):
                self.send_header("Content-Length", str(2 * len(content)))
            self.end_headers()
            for part in content if isinstance(content, list) else [content]:
                try:
                    self.wfile.write(part)
                except OSError:
                    return
                time.sleep(0.2 if isinstance(content, list) else 0)

        def drip(self, headers):
            """A header now and then, for longer than anybody should wait."""
            try:
                for name, value in headers.items():
                    self.send_header(name, value)
                    self.flush_headers()
                    time.sleep(0.2)
            except OSError:
                pass

    with website(Pages) as (address, _):
        yield address, pages


def test_files_bytes_open_files_and_pillow_give_the_same(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(CONTENT)
    with open(path, "rb") as file:
        sources = [str(path), path, CONTENT, memoryview(CONTENT), file, Image.open(path), IMAGE]
        for source in sources:
            np.testing.assert_array_equal(load_image(source), IMAGE)
    np.testing.assert_array_equal(read_image(path), IMAGE)


def test_arrays_of_every_kind_become_rgb_uint8():
    np.testing.assert_array_equal(load_image((IMAGE / 255).astype("float32")), IMAGE)
    np.testing.assert_array_equal(load_image(IMAGE[..., ::-1], bgr=True), IMAGE)
    assert load_image(IMAGE[..., ::-1], bgr=True).flags.c_contiguous
    grey = IMAGE[..., 0]
    for one in (grey, grey[..., None]):
        np.testing.assert_array_equal(load_image(one), np.dstack([grey] * 3))
    clear = np.dstack([IMAGE, np.full(grey.shape, 255, "uint8")])
    np.testing.assert_array_equal(load_image(clear), IMAGE)
    clear[..., 3] = 0
    assert (load_image(clear) == 255).all()


def test_floats_that_overshoot_a_little_are_clipped():
    for kind in ("float16", "float32", "float64"):
        levels = load_image(np.array([[-0.011, 0.5, 1.0000002, 1.004]], kind))
        assert levels[0, :, 0].tolist() == [0, 128, 255, 255]


def test_an_open_image_of_pillow_is_turned_upright():
    exif = Image.Exif()
    exif[274] = 6
    lying = Image.open(io.BytesIO(encoded(IMAGE, exif=exif)))
    assert load_image(lying).shape == (IMAGE.shape[1], IMAGE.shape[0], 3)
    assert lying.size == (IMAGE.shape[1], IMAGE.shape[0])  # the caller's own stays as it is


@pytest.mark.parametrize(
    ("source", "how", "message"),
    [
        (IMAGE * 2.0, {}, r"floats lie between 0 and 1 .* Received: 0 to 480"),
        (np.array([[0, 1.0500001]]), {}, r"between 0 and 1 .* Received: 0 to 1\.0500001"),
        (np.full((4, 4, 3), np.nan), {}, "floats lie between 0 and 1"),
        (IMAGE.astype("int32"), {}, "Received: int32"),
        (IMAGE > 3, {}, "Received: bool"),
        (np.moveaxis(IMAGE, -1, 0), {}, r"channels first: np.moveaxis\(image, 0, -1\)"),
        (IMAGE[None], {}, r"Received: \(1, 90, 200, 3\)"),
        (np.zeros((0, 4, 3), "uint8"), {}, r"has pixels. Received: .* of shape \(0, 4, 3\)"),
        (np.zeros((4, 0)), {}, r"has pixels. Received: .* of shape \(4, 0\)"),
        ("", {}, "The path of the image is empty"),
        (b"", {}, "empty file"),
        (b"no image", {}, "the file given: not a picture"),
        (CONTENT[:200], {}, "damaged or truncated"),
        (io.StringIO("text"), {}, "open it with 'rb'"),
        (7, {}, "Received: int"),
        (None, {}, "Received: NoneType"),
        ("http://127.0.0.1/a.png", {}, "fetched with allow_urls=True alone"),
        (b"x", {"bgr": True}, "bgr=True is for arrays"),
        (Image.new("L", (40, 40)), {"max_pixels": 1000}, "too large: 40x40"),
    ],
)
def test_everything_odd_is_one_sentence(source, how, message):
    with pytest.raises(ValueError, match=message) as told:
        load_image(source, **how)
    assert "\n" not in str(told.value) and len(str(told.value)) < 250


def test_a_missing_file_is_told():
    with pytest.raises(FileNotFoundError):
        load_image("nowhere.png")


def test_an_address_is_fetched_where_that_is_allowed(server):
    address, pages = server
    pages |= {"/a.png": CONTENT, "/moved": b"to /a.png"}
    for place in ("/a.png", "/moved"):
        np.testing.assert_array_equal(load_image(address + place, allow_urls=True), IMAGE)
    with pytest.raises(OSError, match=r"/none.png cannot be fetched: 404"):
        load_image(f"{address}/none.png", allow_urls=True)
    pages["/away"] = b"to file:///etc/passwd"
    with pytest.raises(OSError, match="cannot be fetched"):
        load_image(f"{address}/away", allow_urls=True)
    with pytest.raises(OSError, match="cannot be fetched"):
        load_image("http://127.0.0.1:9/a.png", allow_urls=True)


def test_what_is_fetched_is_bounded_in_size_and_time(server, monkeypatch):
    address, pages = server
    pages |= {"/large": b"x" * 5000, "/slow": [b"x"] * 50}
    with pytest.raises(ValueError, match=r"more than 0\.001 million bytes"):
        fetch(f"{address}/large", max_bytes=1000)
    with pytest.raises(ValueError, match=r"not there after 0\.5 seconds"):
        fetch(f"{address}/slow", seconds=0.5)
    pages["/drips"] = {f"X-{number}": "x" for number in range(50)}
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"not there after 0\.5 seconds"):
        fetch(f"{address}/drips", seconds=0.5)
    assert time.monotonic() - start < 5
    monkeypatch.setattr(fetching, "PATIENCE", 0.05)
    with pytest.raises(OSError, match="timed out"):
        fetch(f"{address}/slow")


def test_an_address_may_have_letters_and_spaces(server):
    address, pages = server
    pages["/gr%C3%B6%C3%9Fe%201.png?a=%C3%A9&b=%41"] = CONTENT
    given = f"{address}/größe 1.png?a=é&b=%41"
    np.testing.assert_array_equal(load_image(given, allow_urls=True), IMAGE)
    port = address.rpartition(":")[2]
    with pytest.raises(ValueError, match=r"a user's name or a password in it is not fetched"):
        load_image(f"http://me:secret@localhost:{port}/a.png", allow_urls=True)
    with pytest.raises(OSError, match=r"http://\[bad is no address"):
        load_image("http://[bad", allow_urls=True)


def test_an_answer_that_breaks_off_is_no_damaged_image(server):
    address, pages = server
    pages["/a.png"] = CONTENT
    pages["/half.png"] = Part(CONTENT)
    with pytest.raises(OSError, match=r"/half.png cannot be fetched: its answer broke off"):
        load_image(f"{address}/half.png", allow_urls=True)


def test_one_image_may_be_given_in_any_form():
    ours = attributes()
    expected = [face["mood"].probabilities for face in ours(IMAGE)]
    assert len(expected) == 2
    for source in (CONTENT, Image.fromarray(IMAGE)):
        assert [face["mood"].probabilities for face in ours(source)] == expected
    assert [face["mood"].probabilities for face in ours(IMAGE[..., ::-1], bgr=True)] == expected


def mixed(folder):
    """Sixty-odd inputs of every kind, some of them broken."""
    paths = sorted(save_pictures(folder, 40).iterdir())
    (folder / "bad.png").write_bytes(b"bad")
    arrays = [draw(number % 3, tint=number) for number in range(12)]
    odd = [b"", "nowhere.png", None, np.zeros((3, 3)) - 1, folder / "bad.png", "http://x/y.png"]
    return [*paths, *arrays, *odd, *(path.read_bytes() for path in paths[:12])]


def test_a_batch_is_a_table_and_broken_images_are_rows(tmp_path):
    table = attributes().label_batch(mixed(tmp_path / "in"))
    assert table.schema.names == list(columns(attributes().tasks))
    rows = table.to_pylist()
    assert sum(row["face"] in (None, 0) for row in rows) == 70
    reasons = [row["reason"] for row in rows if row["status"] == "unreadable"]
    told = ("empty file", "No such file", "NoneType", "between 0 and 1", "not a picture", "address")
    assert len(reasons) == 6
    assert all(words in reason for words, reason in zip(told, reasons, strict=True))
    assert rows[0]["path"].endswith("p000.png") and rows[-1]["path"] is None
    assert attributes().label_batch([]).num_rows == 0


@pytest.mark.parametrize("size", [1, 7, 64])
def test_rows_do_not_depend_on_how_many_images_come_at_once(tmp_path, size):
    images, ours = mixed(tmp_path / "in"), attributes()
    parts = [ours.label_batch(images[i : i + size]) for i in range(0, len(images), size)]
    assert pyarrow.concat_tables(parts).equals(ours.label_batch(images))


def test_a_batch_may_be_columns(tmp_path):
    folder, ours = save_pictures(tmp_path / "in", 5), attributes()
    names = [str(path) for path in sorted(folder.iterdir())]
    by_path = ours.label_batch({"path": np.array(names), "label": range(5)})
    contents = [Path(name).read_bytes() for name in names]
    assert by_path.num_rows > 5
    assert ours.label_batch({"path": names, "bytes": contents}).equals(by_path)
    assert ours.label_batch({"path": names, "bytes": [None, *contents[1:]]}).equals(by_path)
    arrays = [load_image(name) for name in names]
    assert ours.label_batch({"path": names, "image": arrays}).equals(by_path)
    assert ours.label_batch({"image": arrays})["path"].null_count == by_path.num_rows
    with pytest.raises(ValueError, match="a column of path, bytes, image"):
        ours.label_batch({"file": names})
    with pytest.raises(ValueError, match="Received: path 5, bytes 2"):
        ours.label_batch({"path": names, "bytes": contents[:2]})


@pytest.mark.parametrize(
    "table_of",
    [pandas.DataFrame, pyarrow.table, lambda of: pyarrow.RecordBatch.from_pydict(of)],
    ids=["pandas", "table", "record batch"],
)
def test_a_batch_may_be_a_table_with_empty_cells(tmp_path, table_of):
    folder, ours = save_pictures(tmp_path / "in", 3), attributes()
    names = [str(path) for path in sorted(folder.iterdir())]
    contents = [Path(name).read_bytes() for name in names]
    by_path = ours.label_batch({"path": names})
    assert ours.label_batch(table_of({"path": names, "label": [1, 2, 3]})).equals(by_path)
    half = table_of({"path": names, "bytes": [None, *contents[1:]]})
    assert ours.label_batch(half).equals(by_path)
    if table_of is pandas.DataFrame:
        arrays = [*map(load_image, names[:2]), None]
        mixed = ours.label_batch(table_of({"bytes": [None, None, contents[2]], "image": arrays}))
        assert mixed.drop_columns("path").equals(by_path.drop_columns("path"))
    nameless = ours.label_batch(table_of({"path": [None, None, names[2]], "bytes": contents}))
    assert set(nameless["path"].to_pylist()) == {None, names[2]}
    assert nameless.drop_columns("path").equals(by_path.drop_columns("path"))
    with pytest.raises(ValueError, match=r"a column of path, bytes, image. Received: file"):
        ours.label_batch(table_of({"file": names}))


@pytest.mark.parametrize("nothing", [None, math.nan, np.float32("nan"), pandas.NA])
def test_an_empty_cell_is_no_path_that_is_called_nan(nothing):
    table = attributes().label_batch({"path": [nothing], "bytes": [CONTENT]})
    assert table["path"].to_pylist() == [None, None] and table["status"][0].as_py() == "ok"


@pytest.mark.parametrize(
    "image",
    [
        *("a.png", Path("a.png"), CONTENT, memoryview(CONTENT), io.BytesIO(CONTENT)),
        *(Image.fromarray(IMAGE), IMAGE, IMAGE[..., 0], None),
    ],
    ids=lambda image: type(image).__name__,
)
def test_one_image_in_place_of_a_list_is_refused(image):
    with pytest.raises(ValueError, match=r"takes a list of images.*analyze takes one image"):
        attributes().label_batch(image)
    assert attributes().label_batch(IMAGE[None])["status"].to_pylist() == ["ok", "ok"]
    assert attributes().label_batch(np.zeros((5, 32, 32), "uint8")).num_rows == 5  # all grey


def test_addresses_in_a_batch(server):
    address, pages = server
    pages["/a.png"] = CONTENT
    table = attributes().label_batch([f"{address}/a.png", f"{address}/b.png"], allow_urls=True)
    assert table["status"].to_pylist() == ["ok", "ok", "unreadable"]
    assert table["path"][0].as_py() == f"{address}/a.png"
    assert "404" in table["reason"][2].as_py()


def test_an_opened_model_pickles_with_its_settings(toy_model_path):
    how = {
        "min_confidence": 0.2,
        "filter": {"gender": "male"},
        "threads": 1,
        "flip": True,
        "tta": 2,
    }
    ours = FaceAttributes.load(toy_model_path, "none", batch_size=3, **how)
    again = pickle.loads(pickle.dumps(ours))
    names = ("path", "engine", "precision", "min_face", "batch_size", *how)
    assert [getattr(again, n) for n in names] == [getattr(ours, n) for n in names]
    image = draw(1)
    assert again(image) == ours(image)


def test_a_detector_pickles_by_its_name_or_as_it_is(toy_model_path):
    named = FaceAttributes.load(toy_model_path, "centerface", offline=True)
    own = FaceAttributes.load(toy_model_path, CenterFace(long_side=320))
    toy = FaceAttributes.load(toy_model_path, GreenSquares())
    for ours in (named, own, toy):
        again = pickle.loads(pickle.dumps(ours))
        assert type(again.detector) is type(ours.detector)
        assert again.detector.provenance == ours.detector.provenance
        assert again.find(IMAGE) == ours.find(IMAGE)


def test_a_model_object_without_a_path_does_not_pickle():
    with pytest.raises(ValueError, match=r"take FaceAttributes.load\(path\)"):
        pickle.dumps(attributes())


def test_one_line_analyses_one_image_or_several_and_keeps_the_model(toy_model_path, monkeypatch):
    opened, load = [], FaceAttributes.load

    def counted(**how):
        opened.append(how)
        return load(**how)

    monkeypatch.setattr(FaceAttributes, "load", counted)
    how = {"model": toy_model_path, "detector": "none"}
    (face,) = analyze(CONTENT, **how)
    found = json.loads(json.dumps(face.to_dict()))
    assert found["box"] == [0, 0, 200, 90] and found["gender"]["label"] in ("female", "male")
    assert sum(found["gender"]["probabilities"].values()) == pytest.approx(1)
    one, two = analyze([CONTENT, IMAGE], **how)
    assert one == two == [face] and len(opened) == 1
    frame = analyze([IMAGE, b"x"], as_frame=True, **how)
    assert frame["status"].tolist() == ["ok", "unreadable"]
    (rejected,) = (
        analyze(IMAGE, filter={"gender": "female"}, **how)
        + analyze(IMAGE, filter={"gender": "male"}, **how)[:0]
    )
    assert rejected.rejected == (face["gender"].label != "female") and len(opened) == 3
    with pytest.raises(TypeError, match="min_fase"):
        analyze(IMAGE, min_fase=3, **how)


def test_a_model_that_was_replaced_is_opened_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    for seed, path in enumerate(("m.keras", "new.keras", "other/m.keras")):
        save_toy(tmp_path / path, (GENDER,), seed=seed)

    def answer():
        (face,) = analyze(IMAGE, model="m.keras", detector="none")
        return face["gender"].probability

    found = [answer()]
    os.replace("new.keras", "m.keras")
    found.append(answer())
    monkeypatch.chdir(tmp_path / "other")
    found.append(answer())
    assert len(set(found)) == 3


def test_label_prints_rows_without_an_output(
    toy_model_path, tmp_path, refused, capsys, monkeypatch
):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    how = ["label", str(tmp_path), "--model", str(toy_model_path), "--detector", "none"]
    assert main(how) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["path"].endswith("a.png") and row["status"] == "ok" and row["gender"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(how) == 0
    shown = capsys.readouterr().out
    assert "gender" in shown and "%" in shown and "," in shown and "gender_prob" not in shown
    assert "--resume needs a table: give -o TABLE" in refused(main([*how, "--resume"]))


def test_the_rows_of_a_long_list_are_put_into_columns_piece_by_piece(monkeypatch):
    images = [draw(1, tint=tint) for tint in (0, 20, 40, 60, 80)]
    whole = attributes().label_batch(images)
    monkeypatch.setattr("faceattr.inference.table.ROWS_AT_ONCE", 2)
    pieces = attributes().label_batch(images)
    assert [len(chunk) for chunk in pieces["path"].chunks] == [2, 2, 1]
    assert pieces.equals(whole)
    assert attributes().label_batch([]).schema == whole.schema
