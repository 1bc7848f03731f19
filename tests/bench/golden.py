"""Records what `faceattr doctor` expects of the shipped model.

    python tests/bench/golden.py

To be run when another model ships; tests/test_doctor.py says so.
"""

from __future__ import annotations

import argparse
import json

from faceattr.doctor import GOLDEN, answers
from faceattr.model.file import shipped_model
from faceattr.model.runtime import sha256_of


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    path = shipped_model()
    recorded = {"sha256": sha256_of(path), "probabilities": answers(path, "keras")}
    GOLDEN.write_text(json.dumps(recorded) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
