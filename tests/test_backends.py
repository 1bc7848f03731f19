"""The same `faceattr train` runs on JAX, and its file opens on TensorFlow with the same answers."""

import importlib.util
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import shaded

from faceattr.model import file as model_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed"),
]

WITHOUT_TENSORFLOW = """
import json, sys
class NoTensorflow:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoTensorflow())
import numpy as np
from faceattr.model import file as model_file
from faceattr.cli import main
code = main(sys.argv[2:])
model, _ = model_file.load(sys.argv[1])
answers = model.predict_on_batch(np.load("crops.npy"))
there = {name: np.asarray(rows).tolist() for name, rows in answers.items()}
json.dump(there, open("jax.json", "w"))
sys.exit(code)
"""


@pytest.mark.parametrize(
    "way", ["--schedule=joint", "--schedule=alternating", "--combine=uncertainty"]
)
def test_jax_trains_without_tensorflow_and_tensorflow_opens_the_file(tmp_path, way):
    crops = np.stack([shaded(60 + 130 * (i % 2), seed=i, size=32) for i in range(24)])
    np.save(tmp_path / "crops.npy", crops)
    for i, crop in enumerate(crops):
        path = tmp_path / "shades" / ("light" if i % 2 else "dark") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), crop)
    command = "train shade=shades -o my.keras "
    command += f"--weights none --size 32 --epochs scratch=1 --batch-size 4 --cache cache {way}"
    subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, "my.keras", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        check=True,
        timeout=300,
    )
    model, _ = model_file.load(tmp_path / "my.keras")
    there = json.loads((tmp_path / "jax.json").read_text())
    np.testing.assert_allclose(model.predict_on_batch(crops)["shade"], there["shade"], atol=1e-4)
    # It answers by what it sees; after a few steps it may be very sure of a wrong answer.
    assert np.ptp(np.log(np.array(there["shade"]) + 1e-9), axis=0).max() > 0.1
