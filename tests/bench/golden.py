"""Records what `faceattr doctor` expects of the shipped model: python tests/bench/golden.py

To be run when another model ships; tests/test_doctor.py says so.
"""

import json

from faceattr.doctor import GOLDEN, answers
from faceattr.model.file import shipped_model
from faceattr.model.runtime import sha256_of

if __name__ == "__main__":
    path = shipped_model()
    recorded = {"sha256": sha256_of(path), "probabilities": answers(path, "keras")}
    GOLDEN.write_text(json.dumps(recorded) + "\n", encoding="utf-8")
