"""Read attributes off faces with a model of your own.

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
import warnings
from typing import Any

__version__ = "0.2.0"

# name: where it is, and what it is called there
_PLACES = {
    "AGE_GROUP": ("tasks", "AGE_GROUP"),
    "EXPRESSION": ("tasks", "EXPRESSION"),
    "GENDER": ("tasks", "GENDER"),
    "Task": ("tasks", "Task"),
    "CropRule": ("images.crop", "CropRule"),
    "crop": ("images.crop", "crop"),
    "Face": ("detection.base", "Face"),
    "load_image": ("images.load", "load_image"),
    "read_image": ("images.load", "load_image"),
    "Description": ("model.file", "Description"),
    "load_model": ("model.file", "load"),
    "save_model": ("model.file", "save"),
    "export": ("exporting.export", "export"),
    "NewHeads": ("training.heads", "NewHeads"),
    "Augmentation": ("training.config", "Augmentation"),
    "TaskSampling": ("training.config", "TaskSampling"),
    "Network": ("training.config", "Network"),
    "FINETUNE": ("training.config", "FINETUNE"),
    "FROZEN": ("training.config", "FROZEN"),
    "Phase": ("training.config", "Phase"),
    "SCRATCH": ("training.config", "SCRATCH"),
    "edit_heads": ("training.heads", "edit_heads"),
    "LabelMap": ("data.label_map", "LabelMap"),
    "Settings": ("training.config", "Settings"),
    "train": ("training.train", "train"),
    "audit": ("auditing.audit", "audit"),
    "evaluate": ("evaluation.evaluate", "evaluate"),
    "analyze": ("inference.analyze", "analyze"),
    "DescribedFace": ("inference.results", "DescribedFace"),
    "FaceAttributes": ("inference.predictor", "FaceAttributes"),
    "Prediction": ("inference.results", "Prediction"),
    "label": ("inference.label", "label"),
}
_OLD_NAMES = {
    "Adding": "NewHeads",
    "Mix": "TaskSampling",
    "Spelling": "LabelMap",
}  # for one version
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
