import cv2
import numpy as np
import pytest
from use_toys import GreenSquares, draw

from faceattr.data.crops import cache_crops
from faceattr.data.face_finder import find_faces
from faceattr.data.manifest import Example
from faceattr.data.store import DATABASE
from faceattr.images.crop import CropRule, crop


class Counting(GreenSquares):
    """Counts how often it is asked."""

    calls = 0

    def __call__(self, image):
        self.calls += 1
        return super().__call__(image)


@pytest.fixture
def photos(tmp_path):
    """A photograph with a face, one with none, one with a small and a large face."""
    two = draw(1, side=20)
    two[10:80, 120:190] = (0, 200, 0)
    made = []
    for name, image in {"one": draw(1), "none": draw(0), "two": two}.items():
        path = tmp_path / f"{name}.png"
        cv2.imwrite(str(path), image[..., ::-1])
        made.append(Example(path, {"mood": name}))
    return made


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def test_no_pictures_have_no_faces(folder):
    search = find_faces([], GreenSquares(), folder)
    assert search.examples == search.without == ()
    assert list(search.lines()) == []


def test_the_largest_face_stands_for_its_picture(photos, folder):
    search = find_faces(photos, GreenSquares(), folder)
    assert [example.labels["mood"] for example in search.examples] == ["one", "two"]
    assert [example.box for example in search.examples] == [(10, 20, 50, 60), (120, 10, 190, 80)]
    assert search.crowded == 1


def test_pictures_without_a_face_are_left_out_by_name(photos, folder):
    search = find_faces(photos, GreenSquares(), folder)
    assert search.without == (photos[1],)
    first, second = search.lines()
    assert first == f"left out: 1 (no face found: {photos[1].path})"
    assert "1 images with several faces" in second


def test_the_next_run_asks_no_detector_and_finds_the_same(photos, folder):
    detector = Counting()
    first = find_faces(photos, detector, folder)
    renamed = [Example(e.path.rename(e.path.with_suffix(".PNG")), e.labels) for e in photos]
    again = find_faces(renamed, detector, folder)
    assert detector.calls == 3
    assert [e.box for e in again.examples] == [e.box for e in first.examples]


def test_another_detector_looks_for_itself(photos, folder):
    find_faces(photos, GreenSquares(), folder)
    other = Counting()
    other.provenance = {"name": "another"}
    find_faces(photos, other, folder)
    assert other.calls == 3


def test_what_is_a_face_already_is_left_alone(photos, folder):
    boxed = Example(photos[0].path, box=(0, 0, 9, 9))
    cut = Example(photos[0].path, pixels=draw(0))
    assert find_faces([boxed, cut], GreenSquares(), folder).examples == (boxed, cut)


def test_what_cannot_be_read_is_left_to_the_crop_cache_to_tell(folder, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    examples = [Example(tmp_path / "text.png"), Example(tmp_path / "missing.png")]
    search = find_faces(examples, GreenSquares(), folder)
    assert search.examples == tuple(examples)
    assert search.without == ()
    (told,) = cache_crops(examples, CropRule(), folder).left_out(examples).items()
    assert told == (f"unreadable image: {tmp_path / 'text.png'}, {tmp_path / 'missing.png'}", 2)


def test_the_face_is_cut_and_levelled_as_label_does(photos, folder, tmp_path):
    class Tilted(GreenSquares):
        def __call__(self, image):
            tilted = ((20.0, 35.0), (40.0, 40.0), (30.0, 45.0), (22.0, 50.0), (38.0, 54.0))
            return [type(face)(face.box, tilted, 0.9) for face in super().__call__(image)]

    rule = CropRule(32)
    noise = np.random.default_rng(0).integers(0, 9, (90, 200, 3))
    image = draw(1, tint=60) - noise.astype("uint8")
    cv2.imwrite(str(tmp_path / "tilted.png"), image[..., ::-1])
    search = find_faces([Example(tmp_path / "tilted.png")], Tilted(), folder)
    again = find_faces([Example(tmp_path / "tilted.png")], Tilted(), folder)
    assert again == search
    cached = cache_crops(search.examples, rule, folder)
    (face,) = Tilted()(image)
    expected = crop(image, face.box, rule, face.landmarks)
    np.testing.assert_array_equal(cached.array[cached.rows[0]], expected)
    straight = cache_crops([Example(tmp_path / "tilted.png", box=face.box)], rule, folder)
    assert (straight.array[straight.rows[0]] != expected).any()


def test_a_memory_that_cannot_be_read_is_told_with_the_cure(photos, folder):
    folder.mkdir()
    (folder / DATABASE).write_text("no database at all, and long enough to be looked at as one")
    with pytest.raises(OSError, match=r"cache\.sqlite cannot be used .* Delete it"):
        find_faces(photos, GreenSquares(), folder)
