"""From what somebody typed to a manifest: ``TASK=PATH`` or ``PATH``, any number of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from faceattr.data.csv_manifest import read_csv
from faceattr.data.face_finder import FaceFinder
from faceattr.data.fer2013 import FER2013_FILE
from faceattr.data.folders import read_folder
from faceattr.data.label_map import LABELS_AS_WRITTEN, LabelMap, normalize_labels
from faceattr.data.listings import listing_in, read_listing
from faceattr.data.manifest import Manifest, Source, TasksByName, merge_sources
from faceattr.data.splits import assign_splits
from faceattr.tasks import KNOWN_TASKS

MANIFEST = "manifest.csv"
SOURCE = "source"  # a column for reports: which source a face came from


def name_of(spec: str) -> str:
    """The short name of a source: that of its folder, else of its file, without an ending.

    ``fer2013/``, ``expression=data/fer2013`` and ``fer2013/manifest.csv`` are all ``fer2013``.
    """
    place = _place_of(spec)
    return place.stem if place.is_file() else place.name


def _place_of(spec: str) -> Path:
    """The folder of a source, or its file where that is called otherwise than usual."""
    path = Path(spec if Path(spec).exists() else spec.rpartition("=")[2]).resolve()
    return path.parent if path.is_file() and path.name in (MANIFEST, FER2013_FILE) else path


def names_of(specs: Sequence[str]) -> list[str]:
    """The names of sources; those of the same name are told apart by the folder they lie in."""
    places = [_place_of(spec) for spec in specs]
    short = [name_of(spec) for spec in specs]
    return [
        next(name for name in _longer_names(place, own) if _tells(name, place, places, short))
        for place, own in zip(places, short, strict=True)
    ]


def _longer_names(place: Path, name: str) -> Iterator[str]:
    """``name``, ``folder/name``, and so on up to the whole path."""
    folders = [folder.name for folder in place.parents]
    yield name
    yield from ("/".join([*folders[count::-1], name]) for count in range(len(folders)))


def _tells(name: str, place: Path, places: Sequence[Path], short: Sequence[str]) -> bool:
    """Whether no other place has this name as well."""
    others = (
        f"/{other.parent.as_posix()}/{own}"
        for other, own in zip(places, short, strict=True)
        if other != place
    )
    return not any(f"/{other}".endswith(f"/{name}") for other in others)


def without_folders(spec: str) -> str:
    """A source or a file as it may be told to others: without where it lies on this machine."""
    task, equals, text = spec.rpartition("=")
    path = Path(text)
    # Many manifests are called alike: their folders tell them apart.
    name = f"{path.parent.name}/{path.name}" if path.name == MANIFEST else path.name
    return f"{task}{equals}{name}"


def read_for_training(
    specs: Sequence[str],
    columns: Collection[str] | None = None,
    label_map: LabelMap = LABELS_AS_WRITTEN,
    known: TasksByName = KNOWN_TASKS,
    finder: FaceFinder | None = None,
) -> Manifest:
    """Read sources, unite them, and set validation rows aside for those that have none.

    Args:
        specs: ``"task=path"`` or ``"path"`` each, see `read_source`.
        columns: What bare manifest CSVs contribute, as far as they have it; None for every
            column of class names.
        label_map: How the labels are to be understood.
        known: Tasks whose classes are fixed.
        finder: How the pictures are looked at, so that twins are set aside together; None: not.
    """
    sources, notes = _read(specs, columns, label_map, known, finder)
    check_asked_for(columns, sources)
    return _with_splits(replace(merge_sources(sources, known), notes=notes), finder)


def check_asked_for(names: Collection[str] | None, sources: Sequence[Source]) -> None:
    """Raise ValueError where a task was asked for that no source has."""
    there = {name for source in sources for name in source.tasks}
    if strangers := sorted(set(names or ()) - there):
        raise ValueError(
            f"No source has a column {', '.join(strangers)}; their tasks are "
            f"{', '.join(sorted(there))}."
        )


def _with_splits(manifest: Manifest, finder: FaceFinder | None) -> Manifest:
    """Every row with a split. All sources are united first: what they share is on one side."""
    return replace(
        manifest, examples=assign_splits(manifest.examples, finder.alike if finder else None)
    )


def read_for_model(
    specs: Sequence[str],
    known: TasksByName,
    label_map: LabelMap = LABELS_AS_WRITTEN,
    finder: FaceFinder | None = None,
    *,
    aside: bool = False,
) -> Manifest:
    """Read sources for the tasks (and class orders) that a model knows.

    Args:
        specs: As for `read_for_training`.
        known: The model's tasks by name.
        label_map: How the labels are to be understood.
        finder: How the pictures are looked at; None: they are faces.
        aside: Set validation rows aside where a source has none of its own; else rows stay as
            they are.

    Raises:
        ValueError: No source has a label for any of the tasks.
    """
    every = {**KNOWN_TASKS, **known}
    sources, notes = _read(specs, known, label_map, every, finder)
    manifest = merge_sources(sources, every)
    manifest = _with_splits(manifest, None) if aside else manifest
    names = [task.name for task in manifest.tasks]
    if not set(names) & set(known):
        raise ValueError(
            f"The model answers {', '.join(known)}, and the labels are of {', '.join(names)}: they "
            "tell nothing about it."
        )
    return replace(manifest, notes=notes)


def _read(
    specs: Sequence[str],
    columns: Collection[str] | None,
    label_map: LabelMap,
    known: TasksByName,
    finder: FaceFinder | None,
) -> tuple[list[Source], tuple[str, ...]]:
    """Every source with its labels and faces as they are meant, and notes on what was changed."""
    read = read_named(specs, columns, known)
    sources, notes = normalize_labels(read, label_map, known)
    return [finder.faces_of(source) for source in sources] if finder else sources, notes


def check_find_faces_in(names: Collection[str] | None, specs: Sequence[str]) -> None:
    """Raise ValueError where one of these names is no source's."""
    there = dict.fromkeys(names_of(specs))
    if strangers := sorted(set(names or ()) - set(there)):
        raise ValueError(
            f"There is no source {', '.join(strangers)} to find faces in. "
            f"The sources are {', '.join(there)}."
        )


def read_named(
    specs: Sequence[str], columns: Collection[str] | None, known: TasksByName
) -> list[Source]:
    """Read sources as `read_source` does, each with its name beside its examples."""
    named = zip(specs, names_of(specs), strict=True)
    return [_named(read_source(spec, columns, known), name) for spec, name in named]


def _named(source: Source, name: str) -> Source:
    examples = (
        replace(e, source=name, metadata={SOURCE: name, **e.metadata}) for e in source.examples
    )
    return replace(source, examples=tuple(examples))


def read_source(
    spec: str, columns: Collection[str] | None = None, known: TasksByName = KNOWN_TASKS
) -> Source:
    """Read one source.

    Args:
        spec: ``"task=path"`` takes one task from PATH: a manifest CSV, a folder with a
            ``manifest.csv``, FER2013's own CSV or its folder, CelebA's or ExpW's folder with its
            list of labels, a tree of class folders, or one of UTKFace's file names. ``"path"``
            alone must be a CSV and gives every task in it.
        columns: Tasks to take from a bare CSV.
        known: Tasks whose classes are fixed.

    Raises:
        FileNotFoundError: PATH does not exist, or names pictures that do not.
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
    if path.is_file():
        return read_csv(path, {task} if task else columns, known)
    if task and (listing := listing_in(path)):
        return read_listing(listing, task)
    if not task:
        raise ValueError(f"{path} is a folder, so say what its labels are: TASK={path}")
    return read_folder(path, task)
