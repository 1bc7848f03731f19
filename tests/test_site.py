"""The page for the browser: what is written, what is refused, and that it answers like Python."""

import html
import http.server
import json
import re
import shutil

import cv2
import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from skimage import data
from use_browser import Browser, camera_of
from use_loopback import files_of, website
from use_videos import write_sound

from faceattr.cli import main
from faceattr.detection.base import reduced
from faceattr.detection.centerface import CenterFace
from faceattr.exporting import site, web_runtime
from faceattr.exporting.compact import compact, rounded
from faceattr.exporting.site import export_site
from faceattr.files import cache_folder
from faceattr.images.crop import CropRule, crop
from faceattr.inference.predictor import FaceAttributes
from faceattr.model import file as model_file
from faceattr.tasks import Task

pytest.importorskip("tf2onnx", reason="needs faceattr[onnx]")
MOOD = Task("mood", ("<b>laughing</b>", "crying"))
TINT = Task("a_tint", ("blue", "green", "red"))
FAKE_RUNTIME = {web_runtime.SCRIPT: b"run();\n//# sourceMappingURL=x", web_runtime.ENGINE: b"\0asm"}


def small_onnx(seed=0):
    """A convolution and a matrix with a few thousand weights, and a name in each of its parts."""
    random = np.random.default_rng(seed)
    weights = {
        "kernel": random.normal(0, 0.1, (32, 16, 3, 3)).astype("float32"),
        "matrix": random.normal(0, 0.1, (32, 40)).astype("float32"),
        "axes": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Squeeze", ["b", "axes"], ["c"]),
        helper.make_node("MatMul", ["c", "matrix"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 16, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 40))],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def answer(model):
    x = np.random.default_rng(1).random((1, 16, 8, 8), "float32")
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("precision", "share", "error"), [("float16", 0.55, 1e-3), ("int8", 0.32, 0.02)]
)
def test_compact_weights_take_less_room_and_answer_alike(precision, share, error):
    whole, small = small_onnx(), compact(small_onnx(), precision)
    onnx.checker.check_model(small)
    assert len(small.SerializeToString()) < share * len(whole.SerializeToString())
    right = answer(whole)
    assert 0 < np.abs(answer(small) - right).max() < error * np.abs(right).max()


def test_rounded_kernels_keep_their_sums():
    kernels = np.random.default_rng(0).normal(0, 40, (8, 5, 3, 3))
    whole = rounded(kernels)
    assert np.array_equal(whole, np.round(whole)) and np.abs(whole - kernels).max() < 1
    assert np.abs((whole - kernels).sum(axis=(2, 3))).max() <= 0.5
    assert np.array_equal(rounded(kernels[:, :, 0, 0]), np.round(kernels[:, :, 0, 0]))


def test_int8_refuses_a_file_that_is_too_old():
    model = small_onnx()
    model.opset_import[0].version = 9
    with pytest.raises(ValueError, match=r"opset 13 or newer\. Received: 9"):
        compact(model, "int8")


def test_another_package_is_refused_and_a_missing_network_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: tmp_path / "cache")
    with pytest.raises(OSError, match=r"npm pack onnxruntime-web@1.30.0` fetches .*--web-runtime"):
        web_runtime.runtime_files()
    with pytest.raises(FileNotFoundError, match="There is no"):
        web_runtime.runtime_files(tmp_path / "none.tgz")
    (tmp_path / "other.tgz").write_bytes(b"another")
    with pytest.raises(OSError, match="its SHA-256 is another"):
        web_runtime.runtime_files(tmp_path / "other.tgz")
    assert not (tmp_path / "cache").exists() or not any((tmp_path / "cache").glob("*.tgz"))


def toy_network(tasks, size):
    """Colours in, heads out, with a convolution for the exporter."""
    crops = keras.Input((size, size, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, -1, dtype="float32")(crops)
    x = keras.layers.Conv2D(32, 3, strides=2, activation="relu")(x)
    x = keras.layers.Conv2D(32, 3, strides=2, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    heads = {t.name: keras.layers.Dense(len(t.classes), "softmax", name=t.name)(x) for t in tasks}
    return keras.Model(crops, heads)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A model file of two tasks, one class of which looks like markup."""
    return toy_file(tmp_path_factory.mktemp("model") / "mood & tint.keras", (MOOD, TINT))


def toy_file(path, tasks):
    keras.utils.set_random_seed(3)
    description = model_file.Description(
        tasks, CropRule(32, 0.1), licence="<i>ours</i>", scores={"min_face": 20}
    )
    model_file.save(toy_network(tasks, 32), description, path)
    return path


@pytest.fixture(scope="module")
def written(toy, tmp_path_factory):
    """The folder of the toy's page, with something else for the runtime."""
    folder = tmp_path_factory.mktemp("page") / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_runtime, "runtime_files", lambda given: FAKE_RUNTIME)
        export_site(toy, folder)
    return folder


def test_the_page_has_its_own_files_alone_and_loads_nothing_from_elsewhere(written):
    about = json.loads((written / "model.json").read_text())
    assert sorted(about["owned"]) == sorted(path.name for path in written.iterdir())
    page = html.unescape((written / "index.html").read_text())
    assert "default-src 'none'" in page and "connect-src 'self'" in page
    for name in (
        "index.html",
        "page.js",
        "ask.js",
        "worker.js",
        "model.js",
        "page.css",
        "site.css",
    ):
        assert not re.search(
            r"(?:https?:)?//[a-z]", re.sub(r"// [^\n]*", "", (written / name).read_text())
        )
    assert b"sourceMappingURL" not in (written / web_runtime.SCRIPT).read_bytes()
    for use in re.findall(r'(?:src|href)="([^"#:]+)"', page):
        assert (written / use.split("?")[0]).is_file()
    assert "Star-Clouds" in (written / "LICENCES.txt").read_text()


def marks_of(folder):
    """What the scripts, styles and modules of a page are asked for with."""
    asks = r"""(?:src="|href="|from "\./)[\w.]+\.(?:js|mjs|css)(?:\?v=(\w+))?\""""
    files = [folder / "index.html", *(folder / name for name in site.OWN)]
    found = [mark for file in files for mark in re.findall(asks, file.read_text())]
    assert len(found) == 12
    return set(found)


def about_of(folder):
    """The name of what the page has to know."""
    (name,) = re.findall(r'data-about="(about-\w{8}\.json)"', (folder / "index.html").read_text())
    assert [path.name for path in folder.glob("about-*")] == [name]
    return name


def test_what_a_browser_may_keep_has_another_name_when_it_changes(
    toy, written, tmp_path, monkeypatch
):
    monkeypatch.setattr(web_runtime, "runtime_files", lambda given: FAKE_RUNTIME)
    folder = tmp_path / "site"
    shutil.copytree(written, folder)
    before, (mark,) = about_of(folder), marks_of(folder)
    assert (folder / before).read_bytes() == (folder / "model.json").read_bytes()
    assert re.fullmatch("[0-9a-f]{8}", mark)
    other = toy_file(tmp_path / "tint.keras", (TINT,))
    export_site(other, folder, overwrite=True)
    assert about_of(folder) != before and marks_of(folder) == {mark}
    changed = {**FAKE_RUNTIME, web_runtime.SCRIPT: b"walk();"}
    monkeypatch.setattr(web_runtime, "runtime_files", lambda given: changed)
    before = about_of(folder)
    export_site(other, folder, overwrite=True)
    assert about_of(folder) != before and mark not in marks_of(folder)
    about = json.loads((folder / "model.json").read_text())
    assert sorted(about["owned"]) == sorted(path.name for path in folder.iterdir())


def test_what_a_model_says_is_text_on_the_page(written):
    page = (written / "index.html").read_text()
    assert "&lt;b&gt;laughing" in page and "<b>laughing" not in page and "<i>ours" not in page
    assert "<title>mood &amp; tint</title>" in page


def test_the_page_knows_tasks_crop_rule_and_smallest_face(written):
    about = json.loads((written / "model.json").read_text())
    assert [task["classes"] for task in about["tasks"]] == [list(MOOD.classes), list(TINT.classes)]
    assert about["crop"] == {"size": 32, "margin": 0.1, "align": True} and about["min_face"] == 20
    assert about["detector_long_side"] == CenterFace().long_side
    for part in about["files"].values():
        assert (written / part["name"]).stat().st_size == part["bytes"]
    assert about["provenance"]["precision"] == "int8"
    assert all(head["difference"] <= 0.02 for head in about["parity"]["heads"].values())


def test_weights_that_change_an_answer_too_much_are_not_kept(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(web_runtime, "runtime_files", lambda given: FAKE_RUNTIME)
    monkeypatch.setattr(site, "LARGEST_CHANGE", 0.0)
    with pytest.raises(ValueError, match="answers alike: mood: a probability changes by"):
        export_site(toy, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_only_a_page_of_faceattr_is_replaced_and_other_files_stay(
    toy, written, tmp_path, monkeypatch
):
    monkeypatch.setattr(web_runtime, "runtime_files", lambda given: FAKE_RUNTIME)
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="holds other files"):
        export_site(toy, tmp_path, overwrite=True)
    with pytest.raises(FileExistsError, match="--overwrite"):
        export_site(toy, written)
    about = json.loads((written / "model.json").read_text())
    (written / "model-old.onnx.gz").write_bytes(b"old")
    (written / "CNAME").write_text("example.org")
    owned = [*about["owned"], "model-old.onnx.gz", "../outside"]
    (written / "model.json").write_text(json.dumps(about | {"owned": owned}))
    (written.parent / "outside").write_text("mine")
    export_site(toy, written, overwrite=True)
    assert (written / "CNAME").exists() and (written.parent / "outside").exists()
    assert not (written / "model-old.onnx.gz").exists()
    (written / "CNAME").unlink()


def test_wrong_options_are_one_sentence_and_code_2(toy, tmp_path, refused):
    cases = {
        "A page takes int8 by itself": ["--to", "web", "--int8"],
        "is for to='web' alone. Received: to='onnx'": ["--to", "onnx", "--web-runtime", "x.tgz"],
        "There is no": ["--to", "web", "--web-runtime", str(tmp_path / "none.tgz")],
    }
    for said, options in cases.items():
        assert said in refused(main(["export", str(toy), "-o", str(tmp_path / "site"), *options]))


# ---- in a real browser


def needs_runtime():
    if not (cache_folder() / web_runtime.NAME).is_file():
        pytest.skip("onnxruntime-web is not in the cache")


@pytest.fixture(scope="module")
def astronaut(tmp_path_factory):
    path = tmp_path_factory.mktemp("astronaut") / "astronaut.png"
    cv2.imwrite(str(path), data.astronaut()[:, :, ::-1])
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser whose camera shows the astronaut walking to the right."""

    def images():
        for number in range(40):
            frame = np.full((720, 1280, 3), 190, "uint8")
            frame[104:616, 150 + 5 * number : 662 + 5 * number] = data.astronaut()
            yield frame

    with Browser(camera_of(tmp_path_factory.mktemp("camera"), images())) as browser:
        yield browser


@pytest.fixture(scope="module")
def toy_page(toy, tmp_path_factory):
    needs_runtime()
    folder = tmp_path_factory.mktemp("real") / "site"
    export_site(toy, folder)
    with files_of(folder) as known:
        yield known


FACE = "window.faceattr.answer?.faces[0]"
MESSAGE = "document.getElementById('message')?.textContent"


@pytest.mark.slow
def test_a_picture_and_the_camera_are_answered_in_the_browser(
    toy, toy_page, browser, astronaut, tmp_path
):
    url, asked = toy_page
    browser.open(url)
    browser.wait("window.faceattr.isReady", 90)
    browser.give_file("file", astronaut)
    face = json.loads(browser.wait(f"JSON.stringify({FACE}) ?? ''", 60))
    (expected,) = FaceAttributes.load(toy, "centerface", engine="keras")(data.astronaut())
    assert np.abs(np.subtract(face["box"], expected.box)).max() < 2
    for task in (MOOD, TINT):
        found = face["answers"][task.name]["probabilities"]
        for name, probability in expected[task.name].probabilities.items():
            assert abs(found[name] - probability) < 0.02
    browser.photograph(tmp_path / "page.png")
    browser.click("camera")
    browser.wait(f"!!window.faceattr.stream && {FACE}?.answers.mood.label", 60)
    browser.wait("window.faceattr.rows.length >= 3", 60)
    cells = browser.ask("window.faceattr.rows[0].split(',').length")
    assert cells == browser.ask("window.faceattr.about.columns.length")
    browser.click("camera")
    assert browser.errors == []
    assert not [path for path in asked if "?" in re.sub(r"\?v=[0-9a-f]{8}$", "", path)]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(961, 960), (960, 641), (1282, 1920), (860, 1280), (97, 1024)])
def test_the_page_reduces_an_image_to_the_size_of_the_detector_in_python(toy_page, browser, size):
    browser.open(toy_page[0])
    high, wide = size
    image = f"{{ data: new Uint8ClampedArray({3 * high * wide}), width: {wide}, height: {high} }}"
    found = f"import('./centerface.js').then(of => of.prepared({image}, 480))"
    expected, _ = reduced(np.zeros((high, wide, 3), np.uint8), 480)
    assert browser.ask(f"{found}.then(of => [of.height, of.width])") == list(expected.shape[:2])


@pytest.mark.slow
def test_the_page_and_its_worker_can_reach_no_other_server(toy_page, browser, tmp_path):
    url, _ = toy_page
    browser.open(url)
    with files_of(tmp_path) as (other, asked_there):
        tried = f"fetch('{other}/x').then(() => 'reached', () => 'refused')"
        assert browser.ask(tried) == "refused"
        in_worker = f"""new Promise(done => {{
          const code = new Blob(["{tried}.then(postMessage)"], {{ type: "text/javascript" }});
          const worker = new Worker(URL.createObjectURL(code), {{ type: "module" }});
          worker.onmessage = event => done(event.data);
        }})"""
        assert browser.ask(in_worker) == "refused"
        assert asked_there == []


@pytest.mark.slow
def test_a_page_opened_as_a_file_says_what_is_missing(toy_page, toy, browser, tmp_path, written):
    browser.do("Page.navigate", url=(written / "index.html").as_uri())
    assert "python -m http.server" in browser.wait(f"{MESSAGE} ?? ''")


class Kept(http.server.SimpleHTTPRequestHandler):
    """What is asked for may be kept for ten minutes; only the page itself is asked for anew."""

    def end_headers(self):
        self.send_header("Cache-Control", "no-store" if self.path == "/" else "max-age=600")
        super().end_headers()


@pytest.mark.slow
def test_a_page_that_is_loaded_again_answers_with_its_own_model(toy, browser, tmp_path):
    needs_runtime()
    export_site(toy, tmp_path / "site")
    other = toy_file(tmp_path / "tint.keras", (TINT,))
    with website(Kept, directory=tmp_path / "site") as (url, asked):
        browser.open(url)
        browser.wait("window.faceattr.isReady", 90)
        browser.open(url)
        browser.wait("window.faceattr.isReady", 90)
        assert sum("page.js" in path for path in asked) == 1
        export_site(other, tmp_path / "site", overwrite=True)
        browser.open(url)
        assert browser.ask("document.title") == "tint"
        assert browser.ask("window.faceattr.about.tasks.map(task => task.name).join()") == "a_tint"
        browser.wait("window.faceattr.isReady", 90)
        assert not [path for path in asked if path.endswith((".js", ".mjs", ".css"))]
        assert browser.errors == []


@pytest.mark.slow
def test_a_page_that_was_replaced_says_so(written, browser, tmp_path):
    shutil.copytree(written, tmp_path / "site")
    (tmp_path / "site" / about_of(written)).unlink()
    with files_of(tmp_path / "site") as (url, _):
        browser.do("Page.navigate", url=url)
        replaced = "This page has been replaced by a newer one: reload it."
        browser.wait(f"{MESSAGE} === '{replaced}'")


@pytest.mark.slow
def test_sound_alone_and_a_line_do_not_make_the_page_deaf(toy_page, browser, astronaut, tmp_path):
    browser.open(toy_page[0])
    browser.wait("window.faceattr.isReady", 90)
    browser.give_file("file", write_sound(tmp_path / "sound.mp4"))
    browser.wait(f"{MESSAGE} === 'sound.mp4 has no pictures.'")
    cv2.imwrite(str(tmp_path / "line.png"), np.zeros((1, 10000, 3), np.uint8))
    browser.give_file("file", tmp_path / "line.png")
    browser.wait("window.faceattr.answer?.faces.length === 0", 60)
    browser.give_file("file", astronaut)
    browser.wait(f"{FACE}?.answers.mood.label", 60)
    assert browser.errors == []


def boxes_around(face, count, seed=0):
    """Boxes and eyes as a detector might have given them: shifted, of other sizes, tilted."""
    random = np.random.default_rng(seed)
    x0, y0, x1, y1 = face.box
    side = face.side
    for _ in range(count):
        x, y = random.normal(((x0 + x1) / 2, (y0 + y1) / 2), 0.08 * side)
        half = side * random.uniform(0.15, 0.9)
        angle = np.radians(random.uniform(-50, 50))
        eyes = 0.4 * half * np.array([np.cos(angle), np.sin(angle)])
        box = (x - half, y - half, x + half, y + half)
        yield box, ((x - eyes[0], y - eyes[1]), (x + eyes[0], y + eyes[1]))


ASKING = """(async () => {
  const { crop } = await import("./crop.js"), { openNetworks } = await import("./model.js");
  const about = window.faceattr.about, networks = await openNetworks(about);
  const bitmap = await createImageBitmap(await (await fetch("astronaut.png")).blob());
  const pen = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  pen.drawImage(bitmap, 0, 0);
  const { data, width, height } = pen.getImageData(0, 0, bitmap.width, bitmap.height);
  window.asking = { crop, networks, about, image: { data, width, height } };
  return JSON.stringify(await networks.detect(window.asking.image));
})()"""
ANSWERS = """(async given => {{
  const {{ crop, networks, about, image }} = window.asking;
  const crops = given.map(([box, eyes]) => crop(image, box, about.crop, eyes).data);
  const bytes = new Uint8Array(crops.flatMap(crop => [...crop]));
  const answers = await networks.predict(bytes, crops.length);
  return JSON.stringify([answers, crops.map(crop => [...crop])]);
}})({})"""


@pytest.mark.slow
def test_the_shipped_model_answers_200_crops_in_the_browser_as_in_python(
    browser, astronaut, tmp_path
):
    needs_runtime()
    export_site("shipped", tmp_path / "site")
    attributes = FaceAttributes.load("shipped", "centerface", engine="keras")
    image = data.astronaut()
    (face,) = attributes.find(image)
    given = list(boxes_around(face, 200))
    crops = [crop(image, box, attributes.crop_rule, eyes) for box, eyes in given]
    answers = attributes.predict(crops)
    (tmp_path / "site" / "astronaut.png").write_bytes(astronaut.read_bytes())
    found, cut = [], []
    with files_of(tmp_path / "site") as (url, _):
        browser.open(url)
        (seen,) = json.loads(browser.ask(ASKING))
        for start in range(0, len(given), 10):
            some, pixels = json.loads(
                browser.ask(ANSWERS.format(json.dumps(given[start : start + 10])))
            )
            found, cut = found + some, cut + pixels
    assert np.abs(np.subtract(seen["box"], face.box)).max() < 1
    assert np.abs(np.subtract(seen["landmarks"], face.landmarks)).max() < 1
    difference = np.abs(np.reshape(cut, np.shape(crops)).astype(int) - np.array(crops))
    assert difference.mean() < 0.5 and np.quantile(difference, 0.99) <= 4
    for task in attributes.tasks:
        mine = np.stack([one[task.name] for one in answers])
        theirs = np.array([one[task.name] for one in found])
        assert mine.std(axis=0).max() > 0.05
        assert np.abs(mine - theirs).max() < 0.02
