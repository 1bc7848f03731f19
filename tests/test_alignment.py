"""Level eyes: a tilted face is cut like an upright one, the same way wherever faces are cut."""

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data
from use_toys import ColourModel, attributes

from faceattr.detection.base import Face
from faceattr.images.crop import CropRule, crop, eye_tilt
from faceattr.images.inputs import InputFile
from faceattr.images.video import Frame
from faceattr.inference.artifacts import Artifacts, artifact_path
from faceattr.inference.label import label, label_to
from faceattr.live.face_tracker import FaceTracker
from faceattr.model import file as model_file
from faceattr.tasks import GENDER

RULE = CropRule(48)
EYES = ((196.0, 115.0), (252.0, 115.0))  # a pair of level points in the astronaut's face


def portrait(side):
    """The astronaut's face in the middle of a picture, its square's side so many pixels."""
    scale = side / 130
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.resize(
        data.astronaut()[:300, 74:374], None, fx=scale, fy=scale, interpolation=method
    )
    middle = 150 * scale, 115 * scale
    eyes = tuple(((x - 74) * scale, y * scale) for x, y in EYES)
    box = tuple(float(round(m - side / 2)) for m in middle)
    return image, (*box, box[0] + side, box[1] + side), eyes


def tilted(side, degrees):
    """The same, turned clockwise about the middle of the box."""
    image, box, eyes = portrait(side)
    middle = (box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2
    matrix = cv2.getRotationMatrix2D(middle, -degrees, 1)
    turned = cv2.warpAffine(
        image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return turned, box, tuple(tuple(matrix @ (x, y, 1)) for x, y in eyes)


def apart(one, other):
    return np.abs(one.astype(int) - other).mean()


@pytest.mark.parametrize("side", [33, 48, 61, 130, 399, 1000])
@pytest.mark.parametrize("degrees", [20, -20, 41])
def test_a_tilted_face_is_cut_like_the_upright_one(side, degrees):
    upright = crop(*portrait(side)[:2], RULE)
    image, box, eyes = tilted(side, degrees)
    assert apart(crop(image, box, RULE, eyes), upright) < 3
    assert apart(crop(image, box, RULE), upright) > 25


def test_level_eyes_change_nothing():
    image, box, eyes = portrait(130)
    nearly = (eyes[0], (eyes[1][0], eyes[1][1] + 0.5))
    for points in (eyes, nearly):
        np.testing.assert_array_equal(crop(image, box, RULE, points), crop(image, box, RULE))


def test_large_levelled_faces_are_averaged_not_sampled():
    stripes = np.zeros((700, 700, 3), "uint8")
    stripes[:, ::2] = 200
    face = crop(stripes, (100, 100, 600, 600), RULE, ((200, 300), (400, 350)))
    assert np.abs(face.astype(int) - 100).max() <= 3


@pytest.mark.parametrize(
    "points",
    [
        ((110, 80), (114, 81)),  # a profile
        ((110, 80), (110, 80)),
        ((80, 80), (90, 130)),  # more than 45 degrees
        ((150, 110), (90, 100)),  # on its head
        ((80, 80), (float("nan"), 90)),
        ((80, 80), (float("inf"), 90)),
    ],
)
def test_a_face_whose_landmarks_tell_no_tilt_is_cut_as_it_lies(points):
    image, box, _ = portrait(130)
    assert eye_tilt(points, 130) == 0
    np.testing.assert_array_equal(crop(image, box, RULE, points), crop(image, box, RULE))


def test_what_lies_outside_repeats_the_border():
    image = np.full((90, 90, 3), 50, "uint8")
    image[:, :30] = 200
    face = crop(image, (-40, 10, 30, 80), RULE, ((-20, 30), (10, 40)))
    assert (face[8:40, :30] == 200).all()


def test_a_thin_picture_and_an_enormous_box_are_cut_too():
    eyes = ((0.0, 0.0), (20_000.0, 4_000.0))
    for shape in ((1, 50_000, 3), (40, 30, 3)):
        assert crop(np.zeros(shape, "uint8"), (0, 0, 49_000, 30), RULE, eyes).shape == (48, 48, 3)


@pytest.mark.parametrize("turn", range(4))
def test_a_lying_tilted_face_is_set_upright_and_level(turn):
    image, box, eyes = tilted(130, 20)
    expected = crop(image, box, RULE, eyes)
    height, width = image.shape[:2]
    lying = np.ascontiguousarray(np.rot90(image, -turn))

    def point(x, y):
        return ((x, y), (height - y, x), (width - x, height - y), (y, width - x))[turn]

    corners = np.array([point(*box[:2]), point(*box[2:])])
    there = (*corners.min(0), *corners.max(0))
    found = crop(lying, there, RULE, tuple(point(*eye) for eye in eyes), turn)
    assert apart(found, expected) < 1.5
    assert apart(crop(lying, there, RULE, None, turn), expected) > 20


def test_a_rule_can_forbid_it():
    image, box, eyes = tilted(130, 20)
    plain = crop(image, box, CropRule(48, align=False), eyes)
    np.testing.assert_array_equal(plain, crop(image, box, RULE))


def test_a_description_from_before_alignment_loads_and_means_yes():
    text = model_file.Description((GENDER,), CropRule(48, align=False)).to_json()
    assert not model_file.Description.from_json(text).crop.align
    before = text.replace('"align"', '"level"')
    assert not model_file.Description.from_json(before).crop.align
    old = text.replace('"align": false,', "")
    assert old != text and model_file.Description.from_json(old).crop == CropRule(48)


# The same crop in every use


class Tilted:
    """Finds the one tilted face of these tests."""

    provenance = {"name": "tilted"}  # noqa: RUF012
    long_side = None
    upright_score = 0.9

    def __call__(self, image):
        _, box, eyes = tilted(130, 20)
        return [Face(box, (*eyes, *eyes, eyes[0]), 0.95)]


class Remembering(ColourModel):
    """Keeps the crops that it was asked about."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def predict_on_batch(self, crops):
        self.seen += [crop for crop in crops if crop.any()]
        return super().predict_on_batch(crops)


@pytest.fixture
def describe():
    describe = attributes(detector=Tilted())
    describe.model = Remembering()
    return describe


def test_python_folder_and_live_show_the_model_the_same_crop(describe, tmp_path, monkeypatch):
    image, box, eyes = tilted(130, 20)
    Image.fromarray(image).save(tmp_path / "a.png")
    describe(image)
    label_to(tmp_path / "t.csv", tmp_path / "a.png", describe)
    monkeypatch.setattr("faceattr.inference.label.FaceAttributes.load", lambda **how: describe)
    list(label(tmp_path / "a.png"))
    FaceTracker(describe).update(Frame(image, 0, 0.0))
    expected = crop(image, box, describe.crop_rule, eyes)
    assert len(describe.model.seen) == 4
    assert all((crop == expected).all() for crop in describe.model.seen)


def test_a_saved_crop_is_what_the_model_saw_at_the_picture_s_own_size(describe, tmp_path):
    image, box, eyes = tilted(130, 20)
    Image.fromarray(image).save(tmp_path / "a.png")
    label_to(
        tmp_path / "t.csv", tmp_path / "a.png", describe, artifacts=Artifacts(crops=tmp_path / "c")
    )
    saved = Image.open(
        artifact_path(tmp_path / "c", InputFile(str(tmp_path / "a.png")), ending=".0.jpg")
    )
    assert saved.size == (130, 130)
    rule = describe.crop_rule
    assert apart(crop(np.asarray(saved), None, rule), crop(image, box, rule, eyes)) < 3
