from io import BytesIO

import numpy as np
import pytest
from conftest import SHADE, shaded
from PIL import Image

from faceattr.data.dataset import LabeledDataset
from faceattr.evaluation.robustness import CHANGES, robustness

FACE = np.random.default_rng(0).integers(60, 256, (48, 48, 3), dtype="uint8")


class Light:
    """Says light where a crop is bright on average."""

    def predict_on_batch(self, crops):
        light = crops.mean(axis=(1, 2, 3)) / 255
        return {"shade": np.stack([1 - light, light], axis=1).astype("float32")}


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "as it is"])
def test_each_change_makes_a_face_worse_and_keeps_its_form(name):
    before = FACE.copy()
    worse = CHANGES[name](FACE)
    np.testing.assert_array_equal(FACE, before)
    assert (worse.shape, worse.dtype) == (FACE.shape, FACE.dtype)
    assert (worse != FACE).mean() > 0.1


def test_a_jpeg_is_that_of_the_right_colours():
    x, y = np.meshgrid(np.arange(48), np.arange(48))
    face = np.stack([5 * x, 5 * y, 235 - 5 * x], axis=2).astype("uint8")
    saved = BytesIO()
    Image.fromarray(face).save(saved, "JPEG", quality=20)
    change = np.abs(np.asarray(Image.open(saved)).astype(int) - CHANGES["JPEG 20"](face))
    assert change.mean() < 0.5


def test_sunglasses_cover_the_eyes_and_a_mask_the_mouth():
    glasses, mask = (CHANGES[name](FACE).max(axis=2) for name in ("sunglasses", "mask"))
    assert (glasses[16, [14, 33]] < 25).all() and glasses[38, 24] > 25
    assert len(np.unique(CHANGES["mask"](FACE)[32:46, 20:28].reshape(-1, 3), axis=0)) == 1
    assert mask[10, 10] == FACE[10, 10].max()


def test_accuracy_is_told_by_change():
    crops = np.stack([shaded(level, size=48) for level in (30, 210) * 10])
    target = np.eye(2, dtype="float32")[[0, 1] * 10]
    found = robustness(Light(), (SHADE,), LabeledDataset(crops, np.arange(20), {"shade": target}))
    assert list(found.accuracy) == list(CHANGES)
    assert found.accuracy["as it is"] == {"shade": 1.0}
    assert found.accuracy["a quarter of the light"] == {"shade": 0.5}


def test_no_rows_have_no_accuracy():
    rows = LabeledDataset(
        np.zeros((0, 48, 48, 3), "uint8"), np.arange(0), {"shade": np.zeros((0, 2))}
    )
    assert robustness(Light(), (SHADE,), rows).accuracy == {}
