"""What this installation consists of, whether it answers as it should, and the cure where not."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from faceattr import __version__
from faceattr.files import OPENCV, cache_folder, install_command, without_package
from faceattr.progress import suppress_stderr

GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 0.05  # of a probability: int8 rounds otherwise on another processor, by less
LITTLE_ROOM = 1e9  # bytes
# What is compiled, and fails to load where a library of the system is missing.
COMPILED = ("numpy", "cv2", "av", "onnxruntime", "ai_edge_litert.interpreter", "h5py", "pyarrow")
SYSTEM_CURE = (
    "install the system's library that is named (Debian: apt-get install libgl1 libglib2.0-0)"
)
HEADLESS = "pip uninstall opencv-python && pip install opencv-python-headless"


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what to do about it: nothing where all is well."""

    name: str
    told: str
    cure: str = ""

    @property
    def is_wrong(self) -> bool:
        return bool(self.cure)


def doctor() -> Iterator[Finding]:
    """Examine this installation, one finding after the other; nothing is opened or fetched.

    It takes seconds: TensorFlow is asked for its devices, and the shipped model about four drawn
    crops.
    """
    for look in (versions, packages, libraries, devices, cameras, screen, cache, detector, model):
        yield from _examined(look)


def _examined(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    # Whatever breaks is a finding too: the other looks may tell why.
    try:
        yield from look()
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        cure = "see what is wrong above; else report this line"
        if isinstance(error, ModuleNotFoundError):
            cure = without_package(error)
        yield Finding(look.__name__, reason, cure)


def versions() -> Iterator[Finding]:
    """faceattr, Python and the machine."""
    yield Finding("faceattr", f"{__version__} in {Path(__file__).parent}")
    wanted = SpecifierSet(metadata.metadata("faceattr")["Requires-Python"])
    own = platform.python_version()
    cure = "" if own in wanted else f"make an environment with a Python that is {wanted}"
    yield Finding("python", f"{own} on {platform.platform()}", cure)


def packages() -> Iterator[Finding]:
    """Every required package against its bounds; which extras are complete."""
    installed = _installed()
    required = [Requirement(line) for line in metadata.requires("faceattr") or ()]
    found = [_package(one, installed) for one in required if one.marker is None]
    yield from (finding for finding in found if finding.is_wrong)
    yield Finding("packages", ", ".join(finding.told for finding in found))
    yield from _opencv(installed)
    yield Finding("extras", ", ".join(_extras(required, installed)) or "none is installed")


def _installed() -> dict[str, str]:
    found = ((one.metadata["Name"], one.version) for one in metadata.distributions())
    return {canonicalize_name(name): version for name, version in found if name}


def _package(one: Requirement, installed: Mapping[str, str]) -> Finding:
    names = OPENCV if one.name in OPENCV else (one.name,)
    name = next((name for name in names if name in installed), None)
    if name is None:
        return Finding(one.name, "is not installed", f'pip install "{one}"')
    version = installed[name]
    cure = f'pip install "{name}{one.specifier}"'
    fits = one.specifier.contains(version, prereleases=True)
    return Finding(name, f"{name} {version}", "" if fits else cure)


def _opencv(installed: Mapping[str, str]) -> Iterator[Finding]:
    found = [name for name in OPENCV if name in installed]
    if len(found) > 1:
        cure = f"pip uninstall {' '.join(found)} && pip install {found[0]}"
        yield Finding("opencv", f"{' and '.join(found)} overwrite each other's files", cure)


def _extras(required: list[Requirement], installed: Mapping[str, str]) -> Iterator[str]:
    for extra in metadata.metadata("faceattr").get_all("Provides-Extra") or ():
        own = [one for one in required if one.marker and one.marker.evaluate({"extra": extra})]
        own = [one for one in own if canonicalize_name(one.name) != "faceattr"]
        if own and all(canonicalize_name(one.name) in installed for one in own):
            yield extra


def libraries() -> Iterator[Finding]:
    """What is compiled can be loaded."""
    for name in COMPILED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            cure = HEADLESS if name == "cv2" and "libGL" in str(error) else SYSTEM_CURE
            yield Finding(name, f"cannot be loaded: {error}", cure)


def devices() -> Iterator[Finding]:
    """What computes: the backend of Keras, processors, GPUs."""
    from faceattr.model.runtime import count_threads

    with suppress_stderr():
        import keras
        import tensorflow as tf

        gpus = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
                for gpu in tf.config.list_physical_devices("GPU")]  # fmt: skip
    yield Finding("backend", f"{keras.backend.backend()} (keras {keras.__version__})")
    yield Finding("processors", f"{count_threads()}, {platform.machine()}")
    unseen = not gpus and Path("/dev/nvidia0").exists()
    cure = 'pip install "tensorflow[and-cuda]", or leave it: training uses the processors'
    yield Finding("gpus", ", ".join(gpus) or "none that TensorFlow sees", cure if unseen else "")


def cameras() -> Iterator[Finding]:
    """Cameras by their numbers, without opening one."""
    from faceattr.images.camera import cameras_of, why_not_permitted

    found = cameras_of()
    if found is None:
        yield Finding("cameras", "this system does not tell without opening them")
    elif not found:
        yield Finding("cameras", "none; a video file or a stream will do as well")
    for number in found or ():
        yield Finding("cameras", f"number {number}", why_not_permitted(number))


def screen() -> Iterator[Finding]:
    """Whether `live` could open a window."""
    import cv2

    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    why = ""
    if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
        why = "OpenCV is headless"
    elif sys.platform.startswith("linux") and not has_screen:
        why = "there is no screen"
    told = f"none: {why}; `live --headless` and `--web` work" if why else "there is a screen for it"
    yield Finding("window", told)


def cache() -> Iterator[Finding]:
    """The user's cache folder: whether it takes files, and how full it is."""
    from faceattr.data.store import stores_in

    folder = cache_folder()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    kept = sum(path.stat().st_size for path in stores_in())
    free = shutil.disk_usage(there).free
    cure = ""
    if not os.access(there, os.W_OK):
        cure = f"make {there} writable, or give `train --cache DIR` (XDG_CACHE_HOME moves it)"
    elif free < LITTLE_ROOM:
        cure = "make room, or empty it: faceattr cache --clear"
    yield Finding("cache", f"{folder}: {kept / 1e9:.2f} GB kept, {free / 1e9:.0f} GB free", cure)


def detector() -> Iterator[Finding]:
    """Which detector `auto` takes."""
    from faceattr.detection.yunet import cached_yunet

    try:
        yield Finding("detector", f"yunet, {cached_yunet(offline=True)}")
    except FileNotFoundError:
        yield Finding("detector", "centerface; yunet where its file can be fetched once")


def model() -> Iterator[Finding]:
    """The shipped model: its hash, and its answers about drawn crops."""
    from faceattr.model.file import shipped_model
    from faceattr.model.runtime import sha256_of

    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    path, reinstall = shipped_model(), "install faceattr anew: its model file is damaged"
    found = sha256_of(path)
    is_known = found == golden["sha256"]
    yield Finding("model", f"{path}, SHA-256 {found[:12]}…", "" if is_known else reinstall)
    for engine in ("litert", "keras"):
        off = largest_difference(answers(path, engine), golden["probabilities"])
        cure = "" if off <= TOLERANCE else _CURES[engine]
        yield Finding(f"answers ({engine})", f"within {off:.4f} of those recorded", cure)


_CURES = {
    "litert": "use `--runtime keras`, and report this line with your processor",
    "keras": f"install the versions that faceattr is tested with: {install_command('dev')}",
}


def answers(path: Path, engine: str) -> dict[str, list[list[float]]]:
    """Probabilities ``(4, classes)`` by task that a model file gives for the drawn crops."""
    from faceattr.model import runtime

    with suppress_stderr():
        network, about = runtime.load(path, engine)
        found: Mapping[str, Any] = network.predict_on_batch(drawn_crops(about.crop.size))
    return {name: np.asarray(rows).astype(float).round(5).tolist() for name, rows in found.items()}


def largest_difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Between probabilities of the same tasks; infinite where the tasks are others."""
    if found.keys() != expected.keys():
        return float("inf")
    return max(float(np.abs(np.subtract(found[name], expected[name])).max()) for name in expected)


def drawn_crops(size: int) -> np.ndarray:
    """Four faces out of ellipses, RGB ``uint8`` ``(4, size, size, 3)``, the same everywhere."""
    down, across = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    crops = []
    for bend, skin in ((0.3, 210), (-0.3, 210), (0.3, 120), (-0.3, 120)):
        shade = np.full((size, size), 60.0)
        shade[(across / 0.75) ** 2 + down**2 < 1] = skin
        for side in (-0.32, 0.32):
            shade[((across - side) / 0.14) ** 2 + ((down + 0.25) / 0.08) ** 2 < 1] = 20
        mouth = np.abs(down - 0.5 + bend * across**2 * 4) < 0.06
        shade[mouth & (np.abs(across) < 0.35)] = 40
        crops.append(np.stack([shade, shade * 0.85, shade * 0.75], axis=-1))
    return np.round(crops).astype("uint8")
