"""`faceattr doctor` says what is wrong, and what is to be done."""

import importlib
import io
import json
import sys
from importlib import metadata

import numpy as np
import pytest
from packaging.requirements import Requirement

from faceattr import cli, doctor
from faceattr.model.file import shipped_model
from faceattr.model.runtime import sha256_of


def test_the_recorded_answers_are_of_the_model_that_ships():
    recorded = json.loads(doctor.GOLDEN.read_text("utf-8"))
    assert recorded["sha256"] == sha256_of(shipped_model()), "run: python tests/bench/golden.py"


def test_the_copy_answers_the_drawn_crops_as_recorded():
    recorded = json.loads(doctor.GOLDEN.read_text("utf-8"))["probabilities"]
    found = doctor.answers(shipped_model(), "litert")
    assert doctor.largest_difference(found, recorded) < doctor.TOLERANCE


def test_drawn_crops_are_four_different_faces_of_uint8():
    crops = doctor.drawn_crops(48)
    assert crops.shape == (4, 48, 48, 3) and crops.dtype == np.uint8
    assert len({crop.tobytes() for crop in crops}) == 4


@pytest.mark.parametrize(
    ("found", "difference"),
    [({"mood": [[0.2, 0.8]]}, 0.1), ({"other": [[0.3, 0.7]]}, float("inf"))],
)
def test_answers_of_other_tasks_are_infinitely_far_away(found, difference):
    expected = {"mood": [[0.3, 0.7]]}
    assert doctor.largest_difference(found, expected) == pytest.approx(difference)


@pytest.mark.parametrize(
    ("installed", "told", "cure"),
    [
        ({"keras": "3.15.1"}, "keras 3.15.1", ""),
        ({"keras": "2.15.0"}, "keras 2.15.0", 'pip install "keras<4,>=3.15"'),
        ({}, "is not installed", 'pip install "keras<4,>=3.15"'),
    ],
)
def test_a_package_beyond_its_bounds_has_a_cure(installed, told, cure):
    found = doctor._package(Requirement("keras>=3.15,<4"), installed)
    assert (found.told, found.cure) == (told, cure)
    assert found.is_wrong == bool(cure)


def test_a_backend_that_is_missing_has_a_cure(monkeypatch):
    def look():
        raise ModuleNotFoundError("No module named 'jax'", name="jax")
        yield

    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (found,) = doctor._examined(look)
    assert "KERAS_BACKEND" in found.cure and '[jax]"` installs it' in found.cure


def test_headless_opencv_does_and_two_of_them_do_not():
    headless = {"opencv-python-headless": "5.0.0"}
    assert not doctor._package(Requirement("opencv-python>=5"), headless).is_wrong
    assert not list(doctor._opencv(headless))
    (two,) = doctor._opencv({**headless, "opencv-python": "5.0.0"})
    assert two.is_wrong and "overwrite each other" in two.told


def test_an_extra_counts_once_all_of_it_is_there():
    required = [Requirement(f'{name}; extra == "web"') for name in ("starlette", "uvicorn")]
    both = {"starlette": "1", "uvicorn": "1"}
    assert "web" in doctor._extras(required, both)
    assert "web" not in doctor._extras(required, {"uvicorn": "1"})


def test_a_library_of_the_system_that_is_missing_is_named_with_its_cure(monkeypatch):
    def refuse(name):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", refuse)
    (found,) = doctor.libraries()
    assert found.name == "cv2" and "headless" in found.cure


def test_cameras_are_told_without_opening_one(monkeypatch):
    monkeypatch.setattr("cv2.VideoCapture", None)
    monkeypatch.setattr("faceattr.images.camera.cameras_of", lambda: [0, 2])
    monkeypatch.setattr("os.access", lambda path, how: path == "/dev/video0")
    first, second = doctor.cameras()
    assert not first.is_wrong and "usermod" in second.cure


def test_a_cache_that_takes_no_files_is_wrong(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (sound,) = doctor.cache()
    assert not sound.is_wrong and str(tmp_path) in sound.told
    monkeypatch.setattr("os.access", lambda path, how: False)
    (closed,) = doctor.cache()
    assert "--cache DIR" in closed.cure


def test_another_python_is_wrong(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    findings = {one.name: one for one in doctor.versions()}
    assert findings["python"].is_wrong and not findings["faceattr"].is_wrong


def test_a_damaged_model_is_a_finding_and_the_others_are_told(monkeypatch, tmp_path):
    broken = tmp_path / "faceattr.keras"
    broken.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    monkeypatch.setattr("faceattr.model.file.shipped_model", lambda name="shipped": broken)
    first, second = doctor._examined(doctor.model)
    assert "its model file is damaged" in first.cure
    assert second.is_wrong and second.name == "model" and "Error" in second.told


def test_what_is_wrong_ends_the_command_with_1(monkeypatch, capsys):
    looks = [doctor.Finding("python", "3.11.7"), doctor.Finding("cache", "closed", "open it")]
    monkeypatch.setattr(doctor, "doctor", lambda: iter(looks))
    assert cli.main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "✗ cache" in printed and "cure: open it" in printed and "1 to mend" in printed
    monkeypatch.setattr(doctor, "doctor", lambda: iter(looks[:1]))
    assert cli.main(["doctor"]) == 0
    assert "all is well" in capsys.readouterr().out


def test_a_letter_that_a_file_of_windows_lacks_does_not_end_a_command(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, "cp1252", write_through=True))
    monkeypatch.setattr(doctor, "doctor", lambda: iter([doctor.Finding("python", "3.11.7")]))
    assert cli.main(["doctor"]) == 0
    assert written.getvalue().startswith(rb"\u2713 python")


@pytest.mark.slow
def test_this_installation_is_sound(capsys):
    findings = list(doctor.doctor())
    assert not [one for one in findings if one.is_wrong]
    told = {one.name: one.told for one in findings}
    assert metadata.version("keras") in told["packages"] and "keras" in sys.modules
