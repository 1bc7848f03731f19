"""From what somebody typed to a manifest: ``TASK=PATH`` or ``PATH``, any number of them.

`read_source` chooses the reader of one source. `read_labels` reads several and gives every label
the name of its class, `unite` finds faces and puts all into one manifest; `read_for_model` does
both for the tasks of a model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from faceattr.data.class_folders import read_folder
from faceattr.data.csv_manifest import read_cells, read_manifest
from faceattr.data.face_finder import FaceFinder
from faceattr.data.label_map import LABELS_AS_WRITTEN, LabelMap, normalize_labels
from faceattr.data.manifest import Manifest, Source, TasksByName, merge_sources
from faceattr.data.public_datasets import FER2013_FILE, read_fer2013, read_listing
from faceattr.data.splits import assign_splits, sources_with_val, with_stated_splits
from faceattr.detection.base import Detector
from faceattr.files import spelled
from faceattr.images.crop import CropRule
from faceattr.model import hub
from faceattr.progress import SILENT, Progress
from faceattr.tasks import EXPRESSION, KNOWN_TASKS, refuse_unknown

MANIFEST = "manifest.csv"
SOURCE = "source"  # a column for reports: which source a face came from


class ReadingSettings(TypedDict, total=False):
    """The arguments of `ReadingConfig`, but for `tasks`."""

    label_map: LabelMap
    detector: Detector | None
    find_faces_in: Collection[str] | None
    cache: str | Path | None


class ReadingTasksSettings(ReadingSettings, total=False):
    """The arguments of `ReadingConfig`."""

    tasks: Collection[str] | None


@dataclass(frozen=True)
class ReadingConfig:
    """How labelled images are read: keyword arguments that `train`, `evaluate` and `audit` share.

    Args:
        tasks: Columns to take from bare manifests; None for every column of class names.
        label_map: How the labels are to be understood.
        detector: Finds the faces in whole photographs; None: the images are faces.
        find_faces_in: Names of the sources that hold whole photographs; None: all, if any.
        cache: Folder of the crop cache.
    """

    tasks: Collection[str] | None = None
    label_map: LabelMap = LABELS_AS_WRITTEN
    detector: Detector | None = None
    find_faces_in: Collection[str] | None = None
    cache: str | Path | None = None

    @classmethod
    def of(cls, function: str, given: Mapping[str, Any]) -> ReadingConfig:
        """What a public function was given by name; TypeError for what it does not take."""
        known = ReadingTasksSettings.__annotations__
        if strangers := sorted(given.keys() - known.keys()):
            raise TypeError(
                f"{function}() has no argument {', '.join(strangers)}. Beside its own it takes how "
                f"sources are read: {', '.join(sorted(known))}."
            )
        return cls(**given)

    def finder(self, rule: CropRule, specs: Sequence[str]) -> FaceFinder:
        """What finds and crops the faces of these sources."""
        if not isinstance(rule, CropRule):
            raise ValueError(f"A crop rule is a CropRule, such as CropRule(48). Received: {rule!r}")
        there = dict.fromkeys(names_of(specs))
        refuse_unknown("source", self.find_faces_in or (), there, "to find faces in")
        cache = Path(self.cache) if self.cache else None
        return FaceFinder(rule, self.detector, cache, self.find_faces_in)


def read_source(
    spec: str, columns: Collection[str] | None = None, known: TasksByName = KNOWN_TASKS
) -> Source:
    """Read one source.

    Args:
        spec: ``"task=path"`` takes one task from PATH: a manifest CSV, a folder with a
            ``manifest.csv``, FER2013's own CSV or its folder, CelebA's or ExpW's folder with its
            list of labels, a tree of class folders, or one of UTKFace's file names. ``"path"``
            alone must be a CSV and gives every task in it.
        columns: Tasks to take from a bare CSV, as far as it has them; None for every column of
            class names.
        known: Tasks whose classes are fixed.

    Raises:
        FileNotFoundError: PATH does not exist, or names images that do not.
        ValueError: PATH cannot be read as any known layout.
    """
    task, equals, rest = spec.partition("=")
    if not equals or Path(spec).exists():
        task, rest = "", spec
    path = Path(rest)
    if not rest or not path.exists():
        raise FileNotFoundError(
            f"There is nothing at {rest or spec!r}. Expected a manifest CSV or a folder, "
            "as PATH or TASK=PATH."
        )
    inside = (path / name for name in (MANIFEST, FER2013_FILE))
    path = next((file for file in inside if file.is_file()), path)
    if not path.is_file():
        if not task:
            raise ValueError(f"{path} is a folder, so say what its labels are: TASK={path}")
        return read_listing(path, task) or read_folder(path, task)
    table, wanted = read_cells(path), {task} if task else columns
    if not {"emotion", "pixels"} <= set(table.columns):
        return read_manifest(path, table, wanted, known)
    if wanted is not None and EXPRESSION.name not in wanted:
        raise ValueError(f"{path} is FER2013's file: its task is expression, not {wanted}.")
    return read_fer2013(path, table)


def _read_named(
    specs: Sequence[str], columns: Collection[str] | None, known: TasksByName
) -> list[Source]:
    """Read sources as `read_source` does, each with its name beside its examples."""
    sources = []
    for spec, name in zip(specs, names_of(specs), strict=True):
        source = read_source(spec, columns, known)
        examples = tuple(
            replace(one, source=name, metadata={SOURCE: name, **one.metadata})
            for one in source.examples
        )
        sources.append(replace(source, examples=examples))
    return sources


def unite(
    sources: Sequence[Source],
    known: TasksByName = KNOWN_TASKS,
    finder: FaceFinder | None = None,
    progress: Progress = SILENT,
) -> Manifest:
    """Put sources with their labels together, and set validation rows aside.

    `finder` finds the faces first, and near-duplicates are set aside together; without one nobody
    looks at the images.
    """
    if finder:
        sources = [finder.faces_of(source, progress) for source in sources]
    return _with_val_set_aside(merge_sources(sources, known), finder, progress)


def _with_val_set_aside(
    manifest: Manifest, finder: FaceFinder | None, progress: Progress
) -> Manifest:
    alike = partial(finder.near_duplicates, progress=progress) if finder else None
    return replace(manifest, examples=assign_splits(manifest.examples, alike))


def read_labels(
    specs: Sequence[str],
    columns: Collection[str] | None = None,
    label_map: LabelMap = LABELS_AS_WRITTEN,
    known: TasksByName = KNOWN_TASKS,
) -> tuple[list[Source], tuple[str, ...]]:
    """Sources whose labels are as they are meant, and notes on what was changed, without images."""
    sources, notes = normalize_labels(_read_named(specs, columns, known), label_map, known)
    there = sorted({name for source in sources for name in source.tasks})
    refuse_unknown("task", columns or (), there, "in the sources")
    return sources, notes


def read_for_model(
    specs: Sequence[str],
    known: TasksByName,
    label_map: LabelMap = LABELS_AS_WRITTEN,
    finder: FaceFinder | None = None,
    *,
    aside: bool = False,
    progress: Progress = SILENT,
) -> Manifest:
    """Read sources for the tasks (and class orders) that a model knows, `known` by name.

    Splits are those of `faceattr.data.splits.with_stated_splits`; `aside` sets validation rows
    aside where a source has none of its own, as `unite` does, and lets `finder` find no face where
    no split depends on that.
    """
    every = {**KNOWN_TASKS, **known}
    sources, notes = normalize_labels(_read_named(specs, known, every), label_map, every)
    if finder and not (aside and _all_have_val(sources)):
        sources = [finder.faces_of(source, progress) for source in sources]
    manifest = replace(merge_sources(sources, every), notes=notes)
    names = [task.name for task in manifest.tasks]
    if not set(names) & set(known):
        raise ValueError(
            f"The model answers {', '.join(known)}, and the labels are of {', '.join(names)}: they "
            "tell nothing about it."
        )
    if aside:
        return _with_val_set_aside(manifest, finder, progress)
    return replace(manifest, examples=with_stated_splits(manifest.examples))


def _all_have_val(sources: Sequence[Source]) -> bool:
    examples = [example for source in sources for example in source.examples]
    return {example.source for example in examples} == sources_with_val(examples)


def names_of(specs: Sequence[str]) -> list[str]:
    """The short names of sources: of their folders, or of their files without the ending.

    ``fer2013/``, ``expression=data/fer2013`` and ``fer2013/manifest.csv`` are all ``fer2013``.
    Those of the same name are told apart by the folders that they lie in: ``a/train``, ``b/train``.
    """
    paths = [_parts_of(spec) for spec in specs]
    return [spelled("/".join(next(_unique_ends(path, paths)))) for path in paths]


def _parts_of(spec: str) -> tuple[str, ...]:
    """The folders to a source and its short name."""
    path = Path(spec if Path(spec).exists() else spec.rpartition("=")[2]).resolve()
    if path.is_file() and path.name in (MANIFEST, FER2013_FILE):
        path = path.parent
    return (*path.parent.parts, path.stem if path.is_file() else path.name)


def _unique_ends(
    path: tuple[str, ...], paths: Sequence[tuple[str, ...]]
) -> Iterator[tuple[str, ...]]:
    """Ends of a path that no other path has, the shortest first."""
    others = [other for other in paths if other != path]
    for start in reversed(range(len(path))):
        if all(other[-len(path[start:]) :] != path[start:] for other in others):
            yield path[start:]


def without_folders(spec: str) -> str:
    """A source or a file as it may be told to others: without where it lies on this machine."""
    if hub.is_hub_name(spec):
        return spec
    task, equals, text = spec.rpartition("=")
    path = Path(text)
    # Many manifests are called alike: their folders tell them apart.
    name = f"{path.parent.name}/{path.name}" if path.name == MANIFEST else path.name
    return spelled(f"{task}{equals}{name}")


def without_spelling(told: str) -> str:
    """What spellings of one source, as `without_folders` tells them, have in common: neither the
    task nor the name of a manifest in its folder.
    """
    return told.rpartition("=")[2].removesuffix(f"/{MANIFEST}")
