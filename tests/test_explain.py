"""`faceattr explain`: the heat of one head among several, and the sheet."""

import keras
import numpy as np
import pytest
from use_toys import GreenSquares, OnEach, save_pictures

from faceattr import cli
from faceattr.images.crop import CropRule
from faceattr.images.load import read_image
from faceattr.inference.explain import Heat, explain, glowing
from faceattr.inference.predictor import FaceAttributes
from faceattr.model.file import Description
from faceattr.tasks import Task

SIDE = 32
LEFT, RIGHT = Task("left", ("dark", "light")), Task("right", ("dark", "light"))


def two_halves():
    """A network that judges the brightness of the left half, and of the right one."""
    crops = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(crops)
    x = keras.layers.Conv2D(2, 3, padding="same", activation="relu", name="block1_conv1")(x)
    heads = {}
    for task, sides in ((LEFT, (0, SIDE // 2)), (RIGHT, (SIDE // 2, 0))):
        half = keras.layers.Cropping2D(((0, 0), sides), name=f"{task.name}_half")(x)
        pooled = keras.layers.GlobalAveragePooling2D()(half)
        heads[task.name] = keras.layers.Dense(2, activation="softmax", name=task.name)(pooled)
    network = keras.Model(crops, heads)
    network.get_layer("block1_conv1").set_weights([np.full((3, 3, 3, 2), 0.03), np.zeros(2)])
    for task in (LEFT, RIGHT):
        kernel = np.array([[-3.0, 3.0], [-3.0, 3.0]])
        network.get_layer(task.name).set_weights([kernel, np.array([3.0, -3.0])])
    return network


@pytest.fixture(scope="module")
def heat():
    return Heat(two_halves(), SIDE)


LIGHT = np.full((3, SIDE, SIDE, 3), 230, "uint8")


def test_each_head_s_heat_lies_where_that_head_looks(heat):
    left = heat(LIGHT, "left", np.ones(3, int))
    right = heat(LIGHT, "right", np.ones(3, int))
    edge = SIDE // 2
    assert left.shape == (3, SIDE, SIDE)
    assert left[:, :, :edge].min() > 0.4 and left[:, :, edge:].max() < 0.01
    assert right[:, :, edge:].min() > 0.4 and right[:, :, :edge].max() < 0.01


def test_the_heat_is_of_the_class_that_is_asked_about(heat):
    asked = heat(LIGHT, "left", np.array([0, 1, 0]))
    assert asked.max(axis=(1, 2)).tolist() == [0, 1, 0]  # light speaks against dark


def test_a_brighter_spot_is_hotter(heat):
    crop = np.full((1, SIDE, SIDE, 3), 40, "uint8")
    crop[:, 8:12, 4:8] = 255
    spot = heat(crop, "left", np.array([1]))[0]
    assert np.unravel_index(spot.argmax(), spot.shape)[0] in range(7, 13)
    assert spot[8:12, 4:8].mean() > 3 * spot[20:, :12].mean()


def test_a_network_without_a_map_that_tells_places_apart_is_refused():
    network = two_halves()
    with pytest.raises(ValueError, match="'left' reads no feature map of 8 by 8 cells"):
        Heat(network, 7)(LIGHT[:1], "left", np.ones(1, int))


def test_heat_colours_only_where_it_is():
    face = glowing(LIGHT[0], np.pad(np.ones((SIDE, SIDE // 2)), ((0, 0), (0, SIDE // 2))))
    assert np.ptp(face[:, -20:].astype(int), axis=2).max() == 0
    assert np.ptp(face[:, :20].astype(int), axis=2).min() > 20


@pytest.fixture
def attributes():
    about = Description((LEFT, RIGHT), CropRule(SIDE))
    return FaceAttributes(two_halves(), about, GreenSquares(), batch_size=4)


def test_the_sheet_shows_every_face_with_every_head(tmp_path, attributes):
    pictures = save_pictures(tmp_path / "in", 4)  # with 0, 1, 2 and 3 faces
    done = explain(pictures, attributes, tmp_path / "sheet.png")
    assert (done.faces, done.inputs, done.more) == (6, 4, False)
    few = explain(pictures, attributes, tmp_path / "few.png", most=2)
    assert few.faces == 2 and few.more
    sheet, small = (read_image(tmp_path / name).shape for name in ("sheet.png", "few.png"))
    assert sheet[1] > 9 * 144 and sheet[0] > small[0]
    with pytest.raises(FileExistsError, match="exists already"):
        explain(pictures, attributes, tmp_path / "few.png")


def test_a_picture_is_not_replaced_by_its_sheet_and_unreadable_ones_are_told(tmp_path, attributes):
    pictures, told = save_pictures(tmp_path / "in", 4), []
    (pictures / "broken.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to(pictures / "p003.png")
    for output in (pictures / "p003.png", tmp_path / "link.png"):
        with pytest.raises(ValueError, match="is one of the pictures"):
            explain(pictures, attributes, output, overwrite=True)
    explain(pictures, attributes, tmp_path / "s.png", progress=OnEach(told.append, str))
    assert len(told) == 1 and told[0].startswith("left out: ") and "empty file" in told[0]


def test_pictures_without_faces_and_unknown_classes_are_told(tmp_path, attributes):
    pictures = save_pictures(tmp_path / "in", 1)
    with pytest.raises(ValueError, match="None of the 1 pictures has a face"):
        explain(pictures, attributes, tmp_path / "sheet.png")
    with pytest.raises(ValueError, match=r"no task mood in the model. The tasks are left, right"):
        explain(pictures, attributes, tmp_path / "sheet.png", of={"mood": "calm"})
    with pytest.raises(ValueError, match="'odd' is not a class"):
        explain(pictures, attributes, tmp_path / "sheet.png", of={"left": "odd"})
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-o s.png --most 0", "at least 1 face. Received: 0"),
        ("-o s.png --most -1", "at least 1 face. Received: -1"),
        ("-o s.txt", "ends in .png or .jpg. Received: s.txt"),
        ("-o there.png", "there.png exists already"),
    ],
)
def test_a_sheet_that_cannot_be_is_told_before_the_model_is_loaded(
    tmp_path, monkeypatch, refused, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_text("mine")
    assert message in refused(cli.main(["explain", "no.keras", "in", *options.split()]))


def test_a_missing_model_is_one_sentence(tmp_path, capsys):
    pictures = str(save_pictures(tmp_path / "in", 1))
    assert cli.main(["explain", "no.keras", pictures, "-o", str(tmp_path / "s.png")]) == 2
    assert "no model file no.keras" in capsys.readouterr().err
