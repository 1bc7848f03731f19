import numpy as np
import pytest

from faceattr.images.crop import CropRule, crop

RULE = CropRule(size=32)


def picture(height=60, width=80):
    """Every pixel tells its place: red is the column, green the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, rows * 0], axis=-1).astype("uint8")


def test_a_box_of_the_crop_size_is_copied_pixel_by_pixel():
    image = picture()
    face = crop(image, (10, 5, 42, 37), RULE)
    np.testing.assert_array_equal(face, image[5:37, 10:42])


def test_the_longer_side_of_the_box_makes_the_square():
    face = crop(picture(), (20, 10, 36, 42), RULE)  # 16 wide, 32 high, centre (28, 26)
    np.testing.assert_array_equal(face, picture()[10:42, 12:44])


def test_what_lies_outside_repeats_the_border():
    face = crop(picture(), (-10, 0, 22, 32), RULE)
    assert (face[:, :10, 0] == 0).all()
    np.testing.assert_array_equal(face[:, 10:], picture()[:32, :22])


def test_a_margin_widens_the_square():
    face = crop(picture(), (24, 14, 40, 30), CropRule(size=32, margin=1.0))
    np.testing.assert_array_equal(face, picture()[6:38, 16:48])


def test_without_a_box_the_whole_picture_is_the_face_and_has_no_margin():
    image = picture(32, 32)
    np.testing.assert_array_equal(crop(image, None, CropRule(32, margin=0.5)), image)


def test_big_faces_are_averaged_not_sampled():
    stripes = np.zeros((320, 320, 3), "uint8")
    stripes[:, ::2] = 200
    face = crop(stripes, None, RULE)
    assert abs(face.astype(int) - 100).max() <= 1


def test_the_result_is_uint8_rgb_of_the_rule_s_size():
    face = crop(picture(), (3.3, 4.7, 20.1, 30.2), CropRule(48))
    assert face.shape == (48, 48, 3)
    assert face.dtype == np.uint8


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 10, 20),
        (20, 10, 10, 20),
        (90, 0, 99, 9),
        (-9, 0, 0, 9),
        (79.9, 0, 90, 10),
        (0, 0, 1e6, 1e6),
        (0, 0, float("inf"), 9),
        (0, 0, float("nan"), 9),
    ],
)
def test_an_empty_or_outside_box_is_refused(box):
    with pytest.raises(ValueError, match="must touch the image"):
        crop(picture(), box, RULE)


def test_a_negative_margin_never_wraps_around():
    with pytest.raises(ValueError, match="must touch"):
        crop(picture(), (-10, 0, 2, 12), CropRule(32, margin=-0.4))


@pytest.mark.parametrize(("size", "margin"), [(31, 0), (48, -0.5), (48, 3)])
def test_a_rule_checks_itself(size, margin):
    with pytest.raises(ValueError, match="Received"):
        CropRule(size, margin)
