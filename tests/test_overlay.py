"""What is drawn on live frames: readable, in place, and what shall be hidden is hidden."""

import numpy as np
import pytest

from faceattr.detection.base import Face
from faceattr.images.draw import COLOURS, line_of
from faceattr.inference.results import NO_ANSWER, Prediction
from faceattr.live.overlay import View, colour_of, draw_live
from faceattr.live.tracking import LiveFace

HAPPY = Prediction("happy", 0.87, {"happy": 0.87, "sad": 0.13})


def picture(level, size=(360, 640)):
    return np.full((*size, 3), level, np.uint8)


def noise(size=(360, 640)):
    return np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)


def face(box=(200, 100, 300, 220), track=1, answer=HAPPY, **how):
    return LiveFace(Face(box, None, 0.9), {"mood": answer}, track=track, **how)


def changed(before, after):
    ys, xs = np.nonzero((before != after).any(axis=2))
    return (xs.min(), ys.min(), xs.max(), ys.max()) if len(xs) else None


def test_no_face_and_no_figures_leave_the_picture_as_it_is():
    image = noise()
    drawn = draw_live(image, [], View())
    np.testing.assert_array_equal(drawn, image)
    assert drawn is not image


@pytest.mark.parametrize("level", [0, 128, 255])
def test_box_and_letters_stand_out_on_any_ground(level):
    image = picture(level)
    drawn = draw_live(image, [face()], View())
    assert (image == level).all(), "the frame itself is left as it is"
    x0, y0, x1, y1 = changed(image, drawn)
    assert x0 <= 200 and y0 <= 100 and x1 >= 300 and y1 > 230
    assert (drawn == colour_of(1)).all(axis=2).sum() > 100
    plate = drawn[228:245, 204:260]
    assert plate.max() > 240 and np.median(plate) < 110


@pytest.mark.parametrize("size", [(120, 160), (720, 1280), (2160, 3840)])
def test_letters_grow_with_the_picture(size):
    height, width = size
    box = (0.4 * width, 0.3 * height, 0.5 * width, 0.5 * height)
    image = picture(200, size)
    _, _, _, bottom = changed(image, draw_live(image, [face(box)], View()))
    assert 0.05 * height < bottom - box[3] < 0.35 * height


@pytest.mark.parametrize("box", [(-30, -20, 40, 60), (600, 320, 700, 420), (0, 0, 640, 360)])
def test_faces_at_the_border_are_drawn_inside_the_picture(box):
    for view in (View(), View(bars=True), View(blur=True), View(mirror=True)):
        assert draw_live(picture(90), [face(box)], view).shape == (360, 640, 3)


def test_bars_are_as_long_as_their_probabilities():
    answer = Prediction("a", 0.8, {"a": 0.8, "b": 0.2, "c": 0.0})
    drawn = draw_live(picture(255), [face(answer=answer)], View(bars=True))
    panel = drawn[100:, 330:]
    shown = (panel == colour_of(1)).all(axis=2).sum(axis=1).max()
    empty = (panel == (70, 74, 82)).all(axis=2).sum(axis=1).max()
    assert shown / empty == pytest.approx(0.8, abs=0.05)


def test_a_blurred_face_keeps_nothing_but_a_few_coarse_squares():
    image = noise()
    lost = face((450, 100, 550, 220), track=2)
    drawn = draw_live(image, [face()], View(blur=True), lost=[lost])
    for left in (230, 480):
        inside = drawn[130:190, left : left + 40]
        assert len(np.unique(inside.reshape(-1, 3), axis=0)) <= 20
    assert (drawn[300:, :150] == image[300:, :150]).all()


def test_a_mirrored_picture_has_its_boxes_on_the_other_side_and_letters_that_can_be_read():
    image = noise()
    drawn = draw_live(image, [face()], View(mirror=True))
    np.testing.assert_array_equal(drawn[:90], image[:90, ::-1])
    x0, _, x1, _ = changed(image[:, ::-1], drawn)
    assert 330 <= x0 <= 345 and x1 < 540


def test_plates_give_way_to_other_faces_and_to_each_other():
    boxes = [(200, 100, 300, 200), (200, 205, 300, 305)]
    drawn = draw_live(picture(255), [face(boxes[0]), face(boxes[1], track=2)], View())
    lower_face = drawn[215:295, 210:290]
    assert (lower_face == 255).all()


def test_figures_stand_in_the_corner_and_can_be_switched_off():
    image = picture(120)
    _, _, right, bottom = changed(image, draw_live(image, [], View(), "30 frames/s"))
    assert right < 200 and bottom < 40
    assert changed(image, draw_live(image, [], View(figures=False), "30 frames/s")) is None


def test_help_names_every_key_in_the_middle():
    image = picture(120)
    x0, y0, x1, y1 = changed(image, draw_live(image, [], View(help=True)))
    assert abs((x0 + x1) / 2 - 320) < 3 and abs((y0 + y1) / 2 - 180) < 3


def test_a_face_too_small_gets_a_grey_box_and_no_words():
    drawn = draw_live(picture(255), [face(answer=NO_ANSWER, too_small=True)], View())
    assert (drawn[230:] == 255).all() and not (drawn == colour_of(1)).all(axis=2).any()


def test_answers_are_put_in_words():
    assert line_of("mood", HAPPY) == "happy 87 %"
    assert line_of("mood", Prediction(None, 0.4, {"happy": 0.4})) == "mood unsure"
    assert line_of("mood", NO_ANSWER) == "mood …"


def test_a_track_keeps_its_colour_and_neighbours_differ():
    assert colour_of(3) == colour_of(3) and len({colour_of(n) for n in range(1, 9)}) == len(COLOURS)
