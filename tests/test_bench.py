"""The benchmarks start, and those that a toy is enough for run on one."""

import runpy
import sys
from pathlib import Path

import cv2
import pytest
from PIL import Image
from skimage import data

BENCHES = sorted((Path(__file__).parent / "bench").glob("*.py"))
# What imports code that is neither Keras' nor ours to mend warns in its own way.
pytestmark = pytest.mark.filterwarnings("ignore")


def start(monkeypatch, path, *words):
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_every_benchmark_says_how_it_is_used(path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        start(monkeypatch, path, "--help")
    assert ended.value.code == 0 and "usage:" in capsys.readouterr().out


def test_the_speed_of_labelling_is_measured(tmp_path, monkeypatch, capsys, toy_model_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(data.astronaut()).resize((256, 256)).save(tmp_path / "in/a.jpg")
    path = Path(__file__).parent / "bench/label_speed.py"
    threads = cv2.getNumThreads()
    how = ["--model", toy_model_path, "--rounds", "1", "--without", "b", "c"]
    start(monkeypatch, path, tmp_path / "in", *how)
    printed = capsys.readouterr().out
    assert "2 pictures, detector centerface" in printed and "of the kernels' limit" in printed
    assert cv2.getNumThreads() == threads
