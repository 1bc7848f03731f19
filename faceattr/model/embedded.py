"""The copy for LiteRT that a model file carries beside its network.

LiteRT starts in a tenth of a second and needs neither TensorFlow nor Keras. The copy says of which
network it was made, by a hash: once that has changed, the copy is not used any more.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from faceattr.files import to_jsonable
from faceattr.model.file import (
    CONFIG_MEMBER,
    COPY_MEMBER,
    WEIGHTS_MEMBER,
    open_archive,
    replace_members,
)

ABOUT_MEMBER = f"{COPY_MEMBER}.json"
PRECISIONS = ("int8", "float16", "float32")  # of a copy, in the order in which they are tried


@dataclass(frozen=True)
class EmbeddedCopy:
    """What a copy says about itself.

    Args:
        precision: ``"int8"`` (weights; activations are rounded for each crop by itself),
            ``"float16"`` (weights alone) or ``"float32"``.
        sha256: Of the copy.
        network: SHA-256 of the network that it was made of: its layers and its weights.
        parity: How far it answers alike, a `faceattr.exporting.parity.ParityReport` as a dict.
        provenance: By which versions.
    """

    precision: str
    sha256: str
    network: str
    parity: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def embed(
    path: str | Path,
    copy: bytes,
    precision: str,
    parity: Mapping[str, Any],
    provenance: Mapping[str, Any],
    output: str | Path | None = None,
) -> EmbeddedCopy:
    """Put a copy, a ``.tflite`` file made of its network, into a model file, or into `output`; the
    file is whole or unchanged."""
    with open_archive(Path(path)) as archive:
        network = _sha256_of_network(archive)
    digest = hashlib.sha256(copy).hexdigest()
    about = EmbeddedCopy(precision, digest, network, parity, provenance)
    text = json.dumps(to_jsonable(asdict(about)), indent=1, sort_keys=True)
    replace_members(path, {COPY_MEMBER: copy, ABOUT_MEMBER: text}, output)
    return about


def describe_copy(path: str | Path) -> EmbeddedCopy | None:
    """What a model file's copy says about itself; None without one of the network as it is now."""
    with open_archive(Path(path)) as archive:
        return _about(archive)


def read_copy(path: str | Path) -> tuple[EmbeddedCopy, bytes] | None:
    """A model file's copy, or None as `describe_copy`."""
    with open_archive(Path(path)) as archive:
        about = _about(archive)
        content = archive.read(COPY_MEMBER) if about else b""
    if about is None:
        return None
    if hashlib.sha256(content).hexdigest() != about.sha256:
        raise ValueError(
            f"The LiteRT copy inside {path} is not the one that was checked when it was made: "
            f"`faceattr export {path} --embed` makes it anew, --runtime keras does without."
        )
    return about, content


def _about(archive: zipfile.ZipFile) -> EmbeddedCopy | None:
    if not {COPY_MEMBER, ABOUT_MEMBER} <= set(archive.namelist()):
        return None
    try:
        about = EmbeddedCopy(**json.loads(archive.read(ABOUT_MEMBER)))
    except (RecursionError, TypeError, ValueError):  # of another version of faceattr
        return None
    is_known = about.precision in PRECISIONS
    return about if is_known and about.network == _sha256_of_network(archive) else None


def _sha256_of_network(archive: zipfile.ZipFile) -> str:
    digest = hashlib.sha256(archive.read(CONFIG_MEMBER))
    with archive.open(WEIGHTS_MEMBER) as weights:
        while block := weights.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
