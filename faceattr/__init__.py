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

import importlib
import os
import sys
import warnings
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

# module: its public names
_MODULES = {
    "tasks": ("AGE_GROUP", "EXPRESSION", "GENDER", "Task"),
    "images.crop": ("CropRule", "crop"),
    "images.load": ("load_image", "read_image"),
    "detection.base": ("Face",),
    "model.file": ("Description",),
    "data.label_map": ("LabelMap",),
    "evaluation.evaluate": ("evaluate",),
    "auditing.audit": ("audit",),
    "exporting.export": ("export",),
    "training.config": (
        *("Augmentation", "FINETUNE", "FROZEN", "Network", "Phase", "SCRATCH", "Settings"),
        "TaskSampling",
    ),
    "training.heads": ("edit_heads",),
    "training.new_heads": ("NewHeads",),
    "training.train": ("train",),
    "inference.batch": ("analyze",),
    "inference.label": ("label",),
    "inference.predictor": ("FaceAttributes",),
    "inference.results": ("DescribedFace", "Prediction"),
}
# name: where it is, and what it is called there
_PLACES = {name: (module, name) for module, names in _MODULES.items() for name in names}
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
