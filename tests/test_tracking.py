"""Tracks on drawn sequences where it is known who is who."""

from itertools import pairwise

import numpy as np
import pytest
from use_scenes import PERSON, ByColour, Person, Scene, attributes, background, texture

from faceattr.detection.base import Face
from faceattr.live.face_tracker import (
    FaceTracker,
    InferenceBudget,
    is_scene_cut,
    make_thumbnail,
    propagate_boxes,
)
from faceattr.live.tracking import Smoothing, Tracks, overlap


def seen_by(scene, model=None, **how):
    tracker = FaceTracker(attributes(scene, model), **how)
    return [tracker.update(frame) for frame in scene.frames()]


def owner(scene, number, face):
    """The colour of whom a shown face lies over, by the truth; None where two overlap."""
    boxes = [(overlap(p.box(number), face.box), p.colour) for p in scene.people if p.box(number)]
    touched = [colour for share, colour in boxes if share > 0.2]
    return touched[0] if len(touched) == 1 else None


def owners_by_track(scene, seens):
    owners = {}
    for seen in seens:
        for face in seen.faces:
            owners.setdefault(face.track, set()).add(owner(scene, seen.number, face))
    return owners


def labels_by_track(seens):
    labels = {}
    for seen in seens:
        for face in seen.faces:
            labels.setdefault(face.track, []).append(face["person"].label)
    return labels


def test_nobody_in_the_picture_gives_no_faces_and_searches_every_frame():
    scene = Scene(count=7)
    assert [seen.faces for seen in seen_by(scene)] == [()] * 7
    assert scene.searched == list(range(7))


def test_a_face_that_walks_keeps_its_number_and_is_searched_every_third_frame():
    scene = Scene(Person(0, lambda n: (40 + 4 * n, 90 + 20 * np.sin(n / 8))), count=60)
    seens = seen_by(scene)
    assert {face.track for seen in seens for face in seen.faces} == {1}
    assert all(len(seen.faces) == 1 for seen in seens)
    assert len(scene.searched) <= 22


@pytest.mark.parametrize("detect_every", [1, 3, 6])
def test_boxes_between_two_searches_lie_where_the_face_is(detect_every):
    scene = Scene(Person(1, lambda n: (40 + 4 * n, 90)), count=60)
    seens = seen_by(scene, budget=InferenceBudget(detect_every=detect_every))
    overlaps = [overlap(s.faces[0].box, scene.people[0].box(s.number)) for s in seens]
    assert min(overlaps) > 0.75 and np.mean(overlaps) > 0.9


def test_an_answer_is_carried_to_a_later_frame_by_what_the_picture_shows():
    scene = Scene(Person(0, lambda n: (60 + 5 * n, 90)), count=30)
    seens = seen_by(scene)
    now = scene.image(14)
    (face,) = seens[10].faces_in(now, 14 / scene.rate)
    assert overlap(face.box, scene.people[0].box(14)) > 0.75
    assert overlap(seens[10].faces[0].box, scene.people[0].box(14)) < 0.5


@pytest.mark.parametrize("detect_every", [1, 3])
@pytest.mark.parametrize("speed", [3, 5, 8])
def test_two_who_cross_keep_their_numbers_and_labels(speed, detect_every):
    scene = Scene(
        Person(0, lambda n: (30 + speed * n, 85)),
        Person(2, lambda n: (290 - speed * n, 95)),
        count=260 // speed,
    )
    seens = seen_by(scene, budget=InferenceBudget(detect_every=detect_every))
    owners = owners_by_track(scene, seens)
    assert sorted(owners) == [1, 2]
    assert {frozenset(who - {None}) for who in owners.values()} == {frozenset({0}), frozenset({2})}
    for track, labels in labels_by_track(seens).items():
        (colour,) = owners[track] - {None}
        assert set(labels) == {PERSON.classes[colour]}
    assert len(seens[-1].faces) == 2


@pytest.mark.parametrize("turn", [20, 23, 29])
def test_two_who_meet_and_turn_back_are_told_apart_by_their_looks(turn):
    def there_and_back(left, direction):
        return lambda n: (left + direction * 4 * min(n, 2 * turn - n), 90)

    scene = Scene(Person(0, there_and_back(70, 1)), Person(1, there_and_back(250, -1)), count=58)
    owners = owners_by_track(scene, seen_by(scene))
    assert sorted(owners) == [1, 2]
    assert {frozenset(who - {None}) for who in owners.values()} == {frozenset({0}), frozenset({1})}


def test_a_face_that_was_away_for_a_second_keeps_its_number_and_after_a_long_time_does_not():
    def path(away):
        return lambda n: None if 20 <= n < 20 + away else (100, 90)

    short = seen_by(Scene(Person(0, path(20)), count=60))
    assert {face.track for seen in short for face in seen.faces} == {1}
    long = seen_by(Scene(Person(0, path(60)), count=100))
    assert {face.track for seen in long for face in seen.faces} == {1, 2}
    assert all(not seen.faces for seen in long[24:79])


def test_a_scene_cut_ends_all_tracks_and_light_that_fades_does_not():
    first = Person(0, lambda n: (100, 90) if n < 30 else None)
    scene = Scene(first, Person(1, lambda n: None if n < 30 else (105, 90)), count=60, cut_at=30)
    seens = seen_by(scene)
    assert {face.track for seen in seens[:30] for face in seen.faces} == {1}
    assert {face.track for seen in seens[30:] for face in seen.faces} == {2}
    assert seens[29].faces_in(scene.image(30), 30 / 25) == ()

    class Fading(Scene):
        def image(self, number):
            image = super().image(number)
            corner = image[0, 0].copy()
            image = (image * (1 - 0.7 * number / 60)).astype(np.uint8)
            image[0, 0] = corner
            return image

    faded = seen_by(Fading(Person(0, lambda n: (100, 90)), count=60))
    assert {face.track for seen in faded for face in seen.faces} == {1}


def test_answers_are_averaged_by_track_and_the_label_does_not_flicker():
    scene = Scene(Person(0, lambda n: (100, 60)), Person(2, lambda n: (220, 120)), count=200)
    seens = seen_by(scene, ByColour(wrong=0.45))
    for labels in labels_by_track(seens).values():
        settled = labels[15:]
        assert sum(a != b for a, b in pairwise(settled)) == 0
    truth = {labels[-1] for labels in labels_by_track(seens).values()}
    assert truth == {"red", "blue"}


def test_a_face_that_changes_is_shown_anew_within_a_second():
    tracks, image = Tracks([PERSON]), background()
    face, labels = Face((50, 50, 90, 90), None, 0.9), []
    for number in range(60):
        tracks.update(number / 25, [face], image)
        answer = [0.8, 0.1, 0.1] if number < 30 else [0.1, 0.8, 0.1]
        tracks.answer(1, number / 25, {"person": np.array(answer)})
        labels.append(tracks.shown()[0]["person"].label)
    assert labels[:30] == ["red"] * 30
    changed = labels.index("green")
    assert 30 + 5 < changed <= 30 + 25 and set(labels[changed:]) == {"green"}


def test_the_shown_label_stays_while_another_is_ahead_by_less_than_the_hysteresis():
    tracks = Tracks([PERSON], Smoothing(time_constant=0, hysteresis=0.1))
    tracks.update(0, [Face((50, 50, 90, 90), None, 0.9)], background())
    shown = []
    for number, ahead in enumerate([0.3, -0.05, 0.05, -0.05, -0.2]):
        answer = np.array([0.45 + ahead / 2, 0.45 - ahead / 2, 0.1])
        tracks.answer(1, number / 25, {"person": answer})
        shown.append(tracks.shown()[0]["person"].label)
    assert shown == ["red", "red", "red", "red", "green"]


def test_an_unsure_average_is_withheld_without_flicker():
    tracks = Tracks([PERSON], Smoothing(time_constant=0, hysteresis=0.1, min_confidence=0.5))
    tracks.update(0, [Face((50, 50, 90, 90), None, 0.9)], background())
    labels = []
    for number, top in enumerate([0.45, 0.52, 0.47, 0.52, 0.44, 0.47]):
        answer = np.array([top, (1 - top) / 2, (1 - top) / 2])
        tracks.answer(1, number, {"person": answer})
        labels.append(tracks.shown()[0]["person"].label)
    assert labels == [None, "red", "red", "red", None, None]


def test_a_crowd_is_asked_in_turns_and_nobody_is_forgotten():
    places = [(x, y) for y in (30, 90, 150) for x in range(25, 320, 50)]
    scene = Scene(*[Person(i % 3, lambda n, p=p: p, 24) for i, p in enumerate(places)], count=12)
    model = ByColour()
    seens = seen_by(scene, model, budget=InferenceBudget(ask_at_once=4))
    assert max(model.sizes) == 4 and all(seen.asked == 4 for seen in seens)
    faces = seens[-1].faces
    assert len(faces) == len(places) and all(face["person"].label for face in faces)
    assert max(seens[-1].time - face.asked for face in faces) <= 5 / 25


def test_faces_that_are_too_small_are_followed_but_not_asked_about():
    scene = Scene(Person(0, lambda n: (100, 90), side=7), count=9)
    model = ByColour()
    seens = seen_by(scene, model)
    assert model.rows == 0 and not model.sizes
    (face,) = seens[-1].faces
    assert face.too_small and face["person"].label is None and face.track == 1


def test_landmarks_move_with_their_box():
    tracks = Tracks([PERSON])
    tracks.update(0, [Face((50, 50, 90, 90), ((60, 60),) * 5, 0.9)], background())
    tracks.propagate(0.1, [(100.0, 50.0, 180.0, 130.0)])
    (face,) = tracks.shown()
    assert face.landmarks[0] == (120, 70)


@pytest.mark.parametrize("wrong", [{"time_constant": -1}, {"hysteresis": -0.1}, {"max_age": -1}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="not negative"):
        Smoothing(**wrong)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Smoothing(min_confidence=70)
    with pytest.raises(ValueError, match="at least 1"):
        InferenceBudget(detect_every=0)


def test_a_fast_face_is_followed_although_few_frames_are_looked_at():
    scene = Scene(Person(0, lambda n: (160 + 60 * np.sin(n / 12), 90)), count=90)
    tracker = FaceTracker(attributes(scene))
    seens = [tracker.update(frame) for frame in scene.frames() if frame.number % 4 == 0]
    assert {face.track for seen in seens for face in seen.faces} == {1}
    assert tracker.tracks.count == 1


def test_a_face_that_fills_much_of_the_picture_and_moves_fast_is_no_cut():
    def image(left):
        image = np.full((180, 320, 3), 200, np.uint8)
        image[20:160, left : left + 140] = texture(0, 140)
        return make_thumbnail(image)

    before, after = image(20), image(70)
    box = (20.0, 20.0, 160.0, 160.0)
    moved = propagate_boxes(before, after, [box])
    assert overlap(moved[0], (70, 20, 210, 160)) > 0.9
    assert not is_scene_cut(before, after, [box], moved)
    assert is_scene_cut(image(20), make_thumbnail(background(seed=4)), [box], [box])
