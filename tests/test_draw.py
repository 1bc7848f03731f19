"""What is drawn onto a picture can be read, and leaves the picture's faces visible."""

import numpy as np
import pytest
from use_toys import attributes, draw

from faceattr.images.draw import INK, Canvas, draw_faces, lines_of


def contrast_at_the_box(image, face):
    """The largest step in brightness across the left edge of a box."""
    x0, y0, _, y1 = map(int, face.box)
    strip = image[(y0 + y1) // 2, max(0, x0 - 8) : x0 + 8].astype(int).mean(-1)
    return np.ptp(strip)


def test_without_faces_the_picture_is_unchanged():
    image = draw(0)
    assert (draw_faces(image, []) == image).all()


def picture_of(letter):
    canvas = Canvas(np.full((40, 40, 3), 255, np.uint8))
    canvas.text(letter, (5, 30), 24, INK)
    return canvas.image


@pytest.mark.parametrize("letters", ["süß", "été", "žlutý", "λόγος", "смех", "笑顔", "웃음"])
def test_words_of_other_alphabets_are_drawn(letters):
    missing = picture_of("\uffff")
    for letter in letters:
        drawn = picture_of(letter)
        assert (drawn < 255).any() and (drawn != missing).any()


@pytest.mark.parametrize("left", [0, 130, 240])
def test_answers_cover_no_face_wherever_it_lies_in_a_small_picture(left):
    image = np.full((100, 320, 3), 255, np.uint8)
    image[5:85, left : left + 80] = (10, 200, 10)
    (face,) = attributes()(image)
    drawn = draw_faces(image, [face])
    assert (drawn != image).any(-1).sum() > 500
    assert (drawn[12:78, left + 7 : left + 73] == image[12:78, left + 7 : left + 73]).all()


def test_the_picture_that_was_given_is_left_alone():
    image = draw(2)
    before = image.copy()
    assert draw_faces(image, attributes()(image)).shape == image.shape
    assert (image == before).all()


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_the_box_stands_out_on_any_ground(ground):
    faces = attributes()(draw(1, size=(300, 300), side=90))
    drawn = draw_faces(np.full((300, 300, 3), ground, np.uint8), faces)
    assert contrast_at_the_box(drawn, faces[0]) > 100


def test_lines_grow_with_the_picture():
    small, large = draw(1, size=(400, 400), side=160), draw(1, size=(2000, 2000), side=800)
    counts = [
        (draw_faces(image, attributes()(image)) != image).any(-1).mean() for image in (small, large)
    ]
    assert counts[0] == pytest.approx(counts[1], rel=0.6)


def test_the_inside_of_a_face_stays_free():
    image = draw(2, size=(400, 400), side=120)
    faces = attributes()(image)
    drawn = draw_faces(image, faces)
    for face in faces:
        x0, y0, x1, y1 = map(int, face.box)
        inside = np.s_[y0 + 10 : y1 - 10, x0 + 10 : x1 - 10]
        assert (drawn[inside] == image[inside]).all()


@pytest.mark.parametrize("size", [(60, 60), (20, 300), (300, 20)])
def test_a_face_that_fills_the_picture_is_no_reason_to_fail(size):
    image = np.full((*size, 3), (10, 200, 10), np.uint8)
    assert draw_faces(image, attributes()(image)).shape == image.shape


def test_each_task_has_a_line_and_a_withheld_answer_says_so():
    (face,) = attributes()(draw(1))
    mood = face["mood"]
    assert lines_of(face) == [
        f"{mood.label} {round(100 * mood.probability)} %",
        f"light {round(100 * face['shade'].probability)} %",
    ]
    (unsure,) = attributes(min_confidence=1.0)(draw(1))
    assert lines_of(unsure) == ["mood unsure", "shade unsure"]
    (small,) = attributes(min_face=500)(draw(1))
    assert lines_of(small) == []
