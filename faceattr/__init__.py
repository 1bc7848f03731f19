"""Read attributes from faces with a model of your own.

The public names, each imported when it is first used, so that `import faceattr` is instant:

Labelling: `analyze`, `FaceAttributes`, `DescribedFace`, `Prediction`, `Face`, `load_image`
(`read_image` is the same), `crop`, `CropRule`, `label`.
Training: `audit`, `train`, `evaluate`, `edit_heads`, `NewHeads`, `LabelMap`, `Network`, `Settings`,
`Phase`, `FROZEN`, `FINETUNE`, `SCRATCH`, `TaskSampling`, `Augmentation`.
Both: `Task`, `EXPRESSION`, `GENDER`, `AGE_GROUP`, `load_model`, `save_model`, `Description`,
`export`.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

__version__ = "0.2.0"

# Nothing tells anybody that it is used: packages that would do so read this when they are imported.
for _name, _value in {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime, to Microsoft
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}.items():
    os.environ.setdefault(_name, _value)
# OpenVINO and NNCF have no such switch, but do without the package that tells Google Analytics.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# By public name where it is, and what it is called there: the stub says so to type checkers.
_PLACES = {
    alias.asname: (str(statement.module).removeprefix("faceattr."), alias.name)
    for statement in ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8")).body
    if isinstance(statement, ast.ImportFrom)
    for alias in statement.names
    if alias.asname
}
_PLACES |= {"load_model": ("model.file", "load"), "save_model": ("model.file", "save")}
# For one version.
_OLD_NAMES = {"Adding": "NewHeads", "Mix": "TaskSampling", "Spelling": "LabelMap"}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name in _OLD_NAMES:
        new = _OLD_NAMES[name]
        warnings.warn(f"faceattr.{name} is called {new} now.", DeprecationWarning, stacklevel=2)
        return __getattr__(new)
    if name not in _PLACES:
        raise AttributeError(f"faceattr has no {name!r}; its public names are {__all__}")
    module, own_name = _PLACES[name]
    return getattr(importlib.import_module(f"faceattr.{module}"), own_name)


def __dir__() -> list[str]:
    return __all__
