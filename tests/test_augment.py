import numpy as np
import pytest

from faceattr.training.augment import augment
from faceattr.training.config import NO_AUGMENTATION, Augmentation
from faceattr.training.config import augmentation_with as usual_but

CROPS = np.random.default_rng(0).integers(0, 256, (6, 48, 48, 3), dtype="uint8")


def changed(seed=0, size=48, crops=CROPS, **amounts):
    how = Augmentation(**{**vars(NO_AUGMENTATION), **amounts})
    return augment(crops, size, how, np.random.default_rng(seed))


def test_no_crops_stay_no_crops():
    assert changed(crops=CROPS[:0]).shape == (0, 48, 48, 3)


def test_without_amounts_nothing_changes():
    np.testing.assert_array_equal(changed(), CROPS)


def test_the_same_chance_gives_the_same_crops():
    everything = vars(Augmentation())
    np.testing.assert_array_equal(changed(3, **everything), changed(3, **everything))
    assert (changed(3, **everything) != changed(4, **everything)).any()


def test_a_flip_is_a_mirror_image():
    np.testing.assert_array_equal(changed(flip=1), CROPS[:, :, ::-1])


def test_grey_takes_the_colour_away():
    grey = changed(grey=1)
    assert (grey[..., :1] == grey).all()


@pytest.mark.parametrize("size", [32, 40])
def test_the_result_has_the_size_that_was_asked_for(size):
    assert changed(size=size, **vars(Augmentation())).shape == (6, size, size, 3)


def test_shrinking_keeps_the_picture_in_its_place():
    ramp = np.broadcast_to(np.linspace(0, 240, 48)[None, :, None], (1, 48, 48, 3)).astype("uint8")
    small = changed(crops=ramp, size=24)[0, :, :, 0].astype(float)
    expected = ramp[0, :, :, 0].reshape(48, 24, 2).mean(axis=2)[::2]
    assert np.abs(small - expected).max() <= 2


@pytest.mark.parametrize(
    "name", ["turn", "shift", "zoom", "blur", "light", "erase", "dark", "jpeg", "yaw"]
)
def test_each_amount_changes_something_on_its_own(name):
    amount = {"turn": 20, "shift": 0.2, "zoom": 0.3, "light": 0.3, "yaw": 0.4}.get(name, 1)
    assert (changed(**{name: amount}) != CROPS).any()


@pytest.mark.parametrize(
    "amounts", [{"flip": 1.5}, {"light": -1}, {"turn": float("nan")}, {"zoom": 1}, {"smallest": 0}]
)
def test_impossible_amounts_are_refused(amounts):
    with pytest.raises(ValueError, match=f"{next(iter(amounts))} is a number from"):
        Augmentation(**amounts)


def test_a_crop_is_not_shrunk_to_more_than_its_size():
    assert (changed(blur=1, smallest=99) == CROPS).all()


def test_single_amounts_may_be_other_than_a_face_needs():
    assert usual_but({"flip": 0.0}) == Augmentation(flip=0)
    with pytest.raises(ValueError, match="no augmentation flips; there are flip, turn"):
        usual_but({"flips": 0.0})


def test_changing_the_light_neither_darkens_nor_brightens_on_average():
    grey = np.full((4000, 2, 2, 3), 100, "uint8")
    assert changed(crops=grey, size=2, light=0.1).mean() == pytest.approx(100, abs=0.1)


def test_a_black_surrounding_is_filled_and_the_face_stays():
    yy, xx = np.mgrid[:48, :48]
    inside = (yy - 24) ** 2 / 400 + (xx - 24) ** 2 / 256 < 1
    cut_out = np.where(inside[None, ..., None], np.maximum(CROPS, 60), 0)
    crops = np.stack([CROPS, cut_out], axis=1).reshape(12, 48, 48, 3)
    filled = changed(crops=crops, fill=1)[1::2]
    deep = (yy - 24) ** 2 / 256 + (xx - 24) ** 2 / 144 < 1
    np.testing.assert_array_equal(filled[:, deep], cut_out[:, deep])
    assert (filled[:, ~inside] > 20).any(axis=(1, 2)).all()


def test_what_has_no_black_surrounding_is_not_filled():
    np.testing.assert_array_equal(changed(fill=1), CROPS)
    black = np.zeros((1, 48, 48, 3), "uint8")
    np.testing.assert_array_equal(changed(crops=black, fill=1), black)


def test_darkness_takes_light_away_and_no_more_than_that():
    white = np.full((50, 8, 8, 3), 200, "uint8")
    means = changed(crops=white, size=8, dark=1).mean(axis=(1, 2, 3))
    assert 200 * 0.14 < means.min() < means.max() < 200 * 0.71
