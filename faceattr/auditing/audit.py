"""What is wrong with labelled faces, before anybody trains on them: what `faceattr audit` does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from faceattr.auditing import checks, issues
from faceattr.auditing.issues import Audit, Finding
from faceattr.auditing.label_permutation import find_swaps
from faceattr.auditing.report import print_audit, write_audit
from faceattr.data import console
from faceattr.data.crop_cache import cache_crops
from faceattr.data.dataset import Rows
from faceattr.data.face_finder import Look
from faceattr.data.label_map import AS_WRITTEN, Spelling, respell
from faceattr.data.manifest import Source, targets, unite
from faceattr.data.sources import check_asked_for, check_find_faces_in, read_named, without_folders
from faceattr.detection.base import Detector
from faceattr.files import must_be_folder
from faceattr.images.crop import CropRule
from faceattr.images.load import PathLike, several
from faceattr.model import file as model_file
from faceattr.tasks import KNOWN_TASKS


def audit(
    sources: PathLike | Sequence[PathLike],
    *,
    tasks: Collection[str] | None = None,
    spelling: Spelling = AS_WRITTEN,
    model: str | Path | None = model_file.SHIPPED,
    detector: Detector | None = None,
    find_faces_in: Collection[str] | None = None,
    rule: CropRule | None = None,
    output: str | Path | None = None,
    cache: str | Path | None = None,
) -> Audit:
    """Look for all that is wrong with labelled faces, print it and, if asked, write it down.

    Args:
        sources: See `faceattr.data.sources.read_source`.
        tasks: Columns to take from bare manifests.
        spelling: How the labels are to be understood.
        model: What is asked whether names of classes were mixed up: a model file,
            ``"shipped"``, or None for nobody.
        detector: Finds the faces in whole photographs; None: the pictures are faces.
        find_faces_in: Names of the sources that hold whole photographs; None: all, if any.
        rule: How faces are cut to be compared.
        output: A folder for the findings, see `faceattr.auditing.report.write_audit`.
        cache: Folder of the crop cache.
    """
    if output is not None:
        must_be_folder(Path(output))
    folder = Path(cache) if cache is not None else None
    known, sources = KNOWN_TASKS, several(sources)
    check_find_faces_in(find_faces_in, sources)
    read, _ = respell(read_named(sources, tasks, known), spelling, known)
    check_asked_for(tasks, read)
    manifest = unite([_as_train_takes(source) for source in read], known)
    examples = manifest.examples
    findings = checks.divided_groups([e for source in read for e in source.examples])
    look = Look(rule or CropRule(), detector, folder, find_faces_in)
    search = look.search(examples)
    examples = search.examples
    findings += [Finding(issues.NO_FACE, "pictures", one) for one in search.without]
    bar = console.track(examples, "cutting faces")
    cached = cache_crops(examples, look.rule, folder, bar)
    findings += [
        Finding(issues.UNREADABLE, "pictures", examples[place], words=reason)
        for place, reason in cached.reasons.items()
    ]
    usable = np.flatnonzero(cached.rows >= 0)
    kept = [examples[place] for place in usable]
    rows = Rows(cached.array, cached.rows[usable], targets(manifest.tasks, kept), kept)
    findings += checks.looked_at(manifest.tasks, rows)
    if model is not None and kept:
        swaps = find_swaps(manifest.tasks, kept, model_file.path_of(model), folder)
        findings += [Finding(issues.SWAPPED, swap.task, words=str(swap)) for swap in swaps]
    names = tuple(map(without_folders, sources))
    counts = checks.counts_of(manifest.tasks, rows)
    found = Audit(names, manifest.tasks, rows, counts, tuple(findings), manifest.left_out)
    print_audit(found)
    if output is not None:
        write_audit(found, Path(output))
    return found


def _as_train_takes(source: Source) -> Source:
    """Where a source has val rows, those without a split train; else val is not set aside yet."""
    if not any(example.split == "val" for example in source.examples):
        return source
    examples = [replace(example, split=example.split or "train") for example in source.examples]
    return replace(source, examples=tuple(examples))
