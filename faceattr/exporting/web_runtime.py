"""ONNX Runtime Web: one pinned version from npm, checked by its hash, kept in the user's cache."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from faceattr.files import atomic_write, cache_folder, fetch_once
from faceattr.model.runtime import sha256_of

VERSION = "1.30.0"
NAME = f"onnxruntime-web-{VERSION}.tgz"
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/{NAME}"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
SCRIPT = "ort.wasm.bundle.min.mjs"
ENGINE = "ort-wasm-simd-threaded.wasm"
TIMEOUT_SECONDS = 30


def runtime_files(given: str | Path | None = None) -> dict[str, bytes]:
    """The script and the engine of ONNX Runtime Web, by name, out of the package in the cache.

    `given` is the package as npm hands it out, which is copied there; else npm is asked once.
    OSError: It cannot be had, or is another version; the message says the cure.
    """
    archive = _cached(Path(given) if given is not None else None)
    with tarfile.open(archive) as package:
        members = {name: package.extractfile(f"package/dist/{name}") for name in (SCRIPT, ENGINE)}
        return {name: member.read() for name, member in members.items() if member}


def _cached(given: Path | None) -> Path:
    path = cache_folder() / NAME
    if given is not None:
        _check(given)
        with atomic_write(path) as part:
            shutil.copyfile(given, part)
    else:
        try:
            fetch_once(ADDRESS, SHA256, path, TIMEOUT_SECONDS)
        except (OSError, ValueError) as error:
            raise OSError(
                "ONNX Runtime Web, which runs the model in the browser, could not be fetched from "
                f"npm ({type(error).__name__}). Where there is a network, `npm pack "
                f"onnxruntime-web@{VERSION}` fetches {NAME}; give it by --web-runtime."
            ) from error
    return path


def _check(given: Path) -> None:
    if not given.is_file():
        raise FileNotFoundError(f"There is no {given}. Expected: {NAME} of npm.")
    if sha256_of(given) != SHA256:
        raise OSError(
            f"{given} is not onnxruntime-web {VERSION} as npm hands it out (its SHA-256 is "
            f"another). `npm pack onnxruntime-web@{VERSION}` fetches it."
        )
