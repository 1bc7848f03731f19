from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from faceattr.data import near_duplicates
from faceattr.data.crops import CachedCrops, cache_crops
from faceattr.data.dataset import LabeledDataset
from faceattr.data.manifest import Example
from faceattr.data.near_duplicates import (
    NEAR,
    SURE,
    detail,
    find_near_duplicates,
    fingerprints_of,
    hashes_of,
    near_duplicate_sets,
    near_pairs,
)
from faceattr.data.splits import connected_sets
from faceattr.images.crop import CropRule

SIZE = 48


def portraits(count, size=SIZE):
    """Smooth patterns, no two alike."""
    generator = np.random.default_rng(0)
    return [
        cv2.resize(
            generator.integers(0, 256, (7, 7, 3)).astype("uint8"),
            (size, size),
            interpolation=cv2.INTER_CUBIC,
        )
        for _ in range(count)
    ]


def brighter(face):
    """The same photograph from another editor: lighter, flatter, saved as JPEG."""
    changed = (face * 0.7 + 50).astype("uint8")
    return cv2.imdecode(cv2.imencode(".jpg", changed)[1], cv2.IMREAD_COLOR)


def rows(faces):
    return LabeledDataset(np.stack(faces), np.arange(len(faces)), {})


def looks(faces):
    return fingerprints_of(np.stack(faces), np.arange(len(faces)))


def test_no_faces_have_no_near_duplicates():
    nothing = fingerprints_of(np.zeros((0, SIZE, SIZE, 3), "uint8"), np.arange(0))
    assert len(near_pairs(nothing).first) == 0
    assert len(near_pairs(looks(portraits(2)), nothing).first) == 0


def test_a_copy_saved_again_is_a_near_duplicate_and_no_exact_one():
    faces = portraits(6)
    faces.append(brighter(faces[2]))
    pairs = near_pairs(looks(faces))
    assert pairs.first.tolist() == [2]
    assert pairs.second.tolist() == [6]
    assert NEAR < pairs.similarity[0] < 1.001
    assert len(set(hashes_of(np.stack(faces), np.arange(7)))) == 7


def test_the_shortcut_misses_no_pair_and_invents_none(monkeypatch):
    generator = np.random.default_rng(1)
    base = portraits(40)
    faces = [
        np.clip(face + generator.normal(0, spread, face.shape), 0, 255).astype("uint8")
        for face in base
        for spread in (5, 40, 90)
    ]
    seen = looks(faces)
    monkeypatch.setattr("faceattr.data.near_duplicates.TOGETHER", 16)
    pairs = near_pairs(seen, above=0.9)
    flat = seen.fine.reshape(len(seen), -1)
    expected = np.argwhere(np.triu(flat @ flat.T, 1) > 0.9)
    assert len(expected) > 20
    found = sorted(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert found == [tuple(pair) for pair in expected.tolist()]


def test_blank_pictures_are_near_duplicates_only_pixel_for_pixel():
    black, grey = np.zeros((SIZE, SIZE, 3), "uint8"), np.full((SIZE, SIZE, 3), 90, "uint8")
    assert len(near_pairs(looks([black, grey, black])).first) == 0
    assert find_near_duplicates(rows([black, grey]), rows([black])).tolist() == [True, False]


def test_rows_with_near_duplicates_among_others_are_told_exactly_or_nearly():
    faces = portraits(5)
    val = rows([faces[0], brighter(faces[1]), faces[4]])
    train = rows(faces[:4])
    assert find_near_duplicates(val, train).tolist() == [True, True, False]
    assert find_near_duplicates(val, rows([faces[3]])).tolist() == [False, False, False]


@pytest.mark.parametrize("size", [32, 96])
def test_near_duplicates_are_found_at_other_crop_sizes(size):
    faces = portraits(4, size)
    assert near_pairs(looks([*faces, brighter(faces[3])])).second.tolist() == [4]


def test_what_hangs_together_through_others_is_one_set():
    sets = connected_sets([["ann", "", "ann", "", None, None], list("abcbcd")])
    assert sets[0] == sets[2] == sets[4]
    assert sets[1] == sets[3]
    assert len(set(sets.tolist())) == 3


def test_near_duplicates_in_files_share_a_number_and_unreadable_files_stand_alone(tmp_path):
    faces = portraits(3)
    for name, face in {"a": faces[0], "b": faces[1], "c": brighter(faces[0])}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), face)
    for name in ("d", "e"):
        (tmp_path / f"{name}.png").write_text("no picture")
    examples = [Example(Path(tmp_path / f"{name}.png")) for name in "abcde"]
    a, b, c, d, e = near_duplicate_sets(cache_crops(examples, CropRule(), tmp_path / "cache"))
    assert a == c
    assert len({a, b, d, e}) == 4


def test_a_mirrored_copy_is_a_near_duplicate():
    faces = portraits(5)
    mirrored = brighter(faces[1])[:, ::-1]
    assert find_near_duplicates(rows([mirrored]), rows(faces)).tolist() == [True]
    pairs = near_pairs(looks([*faces, mirrored]))
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([1], [5])
    assert detail(faces[1], mirrored) > SURE


@pytest.fixture
def compared(monkeypatch):
    """How many pairs of faces were compared in full."""
    counts = []

    def counted(how, one, other):
        counts.append(len(one))
        return einsum(how, one, other)

    einsum = np.einsum
    monkeypatch.setattr(near_duplicates.np, "einsum", counted)
    return counts


def test_many_copies_of_a_face_are_compared_once(compared):
    one, other = portraits(2)
    faces = np.stack([*[one] * 300, *[other] * 300, brighter(one)])
    sets = near_duplicate_sets(CachedCrops(faces, np.arange(len(faces))))
    assert sets.tolist() == [sets[0]] * 300 + [sets[300]] * 300 + [sets[0]]
    assert len(set(sets)) == 2
    again = find_near_duplicates(rows([*faces, *[brighter(other)] * 300]), rows(faces))
    assert again.all()
    assert sum(compared) < 20


def test_faces_are_compared_in_tables_of_bounded_size(monkeypatch):
    monkeypatch.setattr(near_duplicates, "CELLS", 64)
    faces = portraits(9)
    pairs = near_pairs(looks([*faces, brighter(faces[3]), faces[3][:, ::-1]]))
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [
        *[(3, 9), (3, 10), (9, 10)]
    ]


def test_mirrored_faces_take_no_memory_of_their_own():
    faces = looks(portraits(3))
    assert np.shares_memory(faces.mirrored().fine, faces.fine)


@pytest.mark.parametrize(("pixels", "copies"), [(3, 1), (6, 0)])
def test_a_shift_by_a_fiftieth_of_the_side_is_one_and_by_a_twenty_fourth_is_none(pixels, copies):
    photograph = astronaut()[60:204]
    faces = [photograph[:, x : x + 144] for x in (150, 150 + pixels)]
    faces = [cv2.resize(face, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for face in faces]
    assert len(near_pairs(looks(faces)).first) == copies
