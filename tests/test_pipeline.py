"""Pictures go through decoding, detecting and predicting at once, in order, in full batches."""

import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image
from use_toys import GreenSquares, attributes, draw, save_pictures

from faceattr.images.inputs import InputFile, Inputs
from faceattr.images.load import BYTES_A_PIXEL, MemoryBudget, read_image
from faceattr.inference import label as job
from faceattr.inference import samples as reading
from faceattr.inference.label import describe_samples
from faceattr.inference.pipeline import StageTimes
from faceattr.inference.samples import Sample, samples_of


def described(folder, describe, **how):
    items = samples_of(Inputs(folder), every=1.0)
    return list(describe_samples(items, describe, **how))


def test_no_items_give_no_records():
    assert list(describe_samples([], attributes())) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_comes_back_in_order_with_its_own_faces(tmp_path, workers):
    records = described(save_pictures(tmp_path, 23), attributes(), workers=workers)
    assert [r.sample.file.path[-8:-4] for r in records] == [f"p{n:03}" for n in range(23)]
    assert [len(r.faces) for r in records] == [n % 4 for n in range(23)]


def test_answers_belong_to_their_faces(tmp_path):
    folder, describe = save_pictures(tmp_path, 12), attributes()
    for record in described(folder, attributes()):
        alone = describe(read_image(record.sample.file.path))
        assert [f["mood"].probabilities for f in record.faces] == [
            f["mood"].probabilities for f in alone
        ]


def test_n_faces_make_no_more_calls_than_full_batches(tmp_path):
    folder, describe = save_pictures(tmp_path, 24), attributes(batch_size=8)
    faces = sum(len(r.faces) for r in described(folder, describe))
    assert faces == 36 and len(describe.model.shapes) == 5
    assert {shape[0] for shape in describe.model.shapes} == {8}


def test_one_picture_with_more_faces_than_a_batch(tmp_path):
    Image.fromarray(draw(9, side=20, size=(60, 300))).save(tmp_path / "many.png")
    (record,) = described(tmp_path, attributes(batch_size=4))
    assert len(record.faces) == 9 and all(f["mood"].label for f in record.faces)


def test_a_bad_file_is_a_record_and_the_others_go_on(tmp_path):
    save_pictures(tmp_path, 6)
    (tmp_path / "p002.png").write_bytes(b"")
    (tmp_path / "p003.png").unlink()
    (tmp_path / "p003.png").symlink_to(tmp_path / "gone.png")
    records = described(tmp_path, attributes())
    assert [r.sample.reason for r in records] == [
        None,
        None,
        "empty file",
        "No such file or directory",
        None,
        None,
    ]


class HalfSize(GreenSquares):
    """A detector that is content with 400 pixels."""

    long_side = 400


@pytest.mark.parametrize(("side", "decodes"), [(400, 1), (50, 2)])
def test_boxes_are_those_of_the_full_picture_and_small_faces_are_cut_from_it(
    tmp_path, side, decodes, monkeypatch
):
    image = np.full((1200, 1600, 3), 230, np.uint8)
    image[400 : 400 + side, 800 : 800 + side] = (10, 200, 10)
    Image.fromarray(image).save(tmp_path / "large.jpg", quality=95)
    read, sizes = reading.read_picture, []

    def spy(path, at_least=None, **how):
        picture = read(path, at_least, **how)
        sizes.append(max(picture.image.shape))
        return picture

    monkeypatch.setattr(reading, "read_picture", spy)
    (record,) = described(tmp_path, attributes(detector=HalfSize()))
    assert sizes == [800, 1600][:decodes]
    assert record.faces[0].box == pytest.approx((800, 400, 800 + side, 400 + side), abs=8)


@pytest.mark.parametrize("side", [400, 50])
def test_keeping_whole_pictures_changes_nothing_that_is_found(tmp_path, side):
    """A reduced picture gives other numbers than the whole one: both jobs must look at the same."""
    noise = np.random.default_rng(0).integers(0, 60, (1200, 1600, 3), dtype=np.uint8)
    noise[400 : 400 + side, 800 : 800 + side] += np.array((10, 190, 10), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.jpg", quality=95)
    kept = []
    (with_whole,) = described(
        tmp_path,
        attributes(detector=HalfSize()),
        on_detections=lambda _, whole: kept.append(whole.image),
    )
    (without,) = described(tmp_path, attributes(detector=HalfSize()))
    assert with_whole == without and with_whole.faces
    assert [image.shape for image in kept] == [(1200, 1600, 3)]


def test_what_is_in_flight_is_bounded(tmp_path):
    """A consumer that stands still lets the producer run ahead only so far."""
    taken = []

    def endless():
        for number in range(10_000):
            taken.append(number)
            yield Sample(InputFile(f"{number}.png"), frame=draw(1), time=float(number))

    records = describe_samples(endless(), attributes(), workers=2)
    for _ in range(50):
        next(records)
    time.sleep(0.2)
    assert len(taken) <= 50 + 4 * 2 + 4 + 1
    records.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_memory_for_a_run_of_faceless_pictures_is_bounded_too():
    taken = []

    def faceless():
        for number in range(2_000):
            taken.append(number)
            yield Sample(InputFile("x"), frame=draw(number == 0))

    records = describe_samples(faceless(), attributes(batch_size=64), workers=1)
    next(records)  # would wait for a full batch of faces that never comes
    records.close()
    assert len(taken) < 500


@pytest.mark.parametrize("keep_frames", [False, True])
def test_frames_wait_only_where_they_are_needed_and_then_few(keep_frames):
    alive, most = [0], [0]

    class Frame(np.ndarray):
        def __del__(self):
            if self.base is not None and self.shape == (90, 200, 3):
                alive[0] -= 1

    def taken():
        for number in range(600):
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            yield Sample(InputFile("x"), float(number), draw(number == 0).view(Frame))

    describe = attributes(batch_size=16)
    records = describe_samples(taken(), describe, workers=1, keep_frames=keep_frames)
    for record in records:
        assert (record.sample.frame is not None) == keep_frames
    assert most[0] < 16 + 4 + 8


def test_pictures_wait_until_there_is_room_for_them_and_a_huge_one_goes_alone(
    tmp_path, monkeypatch
):
    room, most = MemoryBudget(2_000_000), []  # that of 1.8 pictures
    monkeypatch.setattr(job, "DECODE_MEMORY", room)
    find = GreenSquares.__call__

    def watched(self, image):
        most.append(room._size - room._free)
        time.sleep(0.002)
        return find(self, image)

    monkeypatch.setattr(GreenSquares, "__call__", watched)
    for number in range(12):
        size = (300, 300) if number != 5 else (900, 900)
        Image.fromarray(draw(1, size=size)).save(tmp_path / f"p{number:02}.png")
    records = described(tmp_path, attributes(), workers=4)
    assert [len(r.faces) for r in records] == [1] * 12
    assert max(most) == 2_000_000 and set(most) == {300 * 300 * BYTES_A_PIXEL, 2_000_000}
    assert room._free == 2_000_000


def test_a_second_reservation_takes_the_place_of_the_first(tmp_path):
    room = MemoryBudget(100)
    with room.reservation() as reserve, room.reservation() as other:
        reserve(60)
        other(40)
        reserve(10)
        other(90)
        assert room._free == 0
    assert room._free == 100


def test_two_jobs_at_once_leave_opencv_the_threads_that_it_had():
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        items = [Sample(InputFile("x"), frame=draw(1), time=float(n)) for n in range(40)]
        first, second = (describe_samples(items, attributes(), workers=2) for _ in range(2))
        next(first), next(second)
        first.close()
        assert cv2.getNumThreads() == 1
        second.close()
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_an_error_that_is_no_bad_file_is_not_hidden():
    class Broken:
        provenance, long_side = {"name": "broken"}, None

        def __call__(self, image):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(
            describe_samples([Sample(InputFile("x"), frame=draw(1))], attributes(detector=Broken()))
        )


def test_the_stage_times_tell_where_the_time_went(tmp_path):
    times = StageTimes()
    described(save_pictures(tmp_path, 5), attributes(), times=times)
    assert {"decode", "detect", "crop", "predict"} <= times.seconds.keys()


@pytest.mark.parametrize("error", [cv2.error("odd shape"), MemoryError()])
def test_a_picture_at_which_the_detector_gives_up_has_its_reason(error):
    class GivesUp:
        provenance, long_side = {"name": "gives up"}, None

        def __call__(self, image):
            raise error

    items = [Sample(InputFile("x"), frame=draw(1))]
    (record,) = describe_samples(items, attributes(detector=GivesUp()))
    assert record.sample.reason
