"""One self-describing ``.keras`` file: the network and what must be known to use it.

The file is Keras' own archive with more members, ``faceattr.json`` and what
`faceattr.model.embedded` puts there, so that plain ``keras.saving.load_model`` opens it without
this package. Its weights are stored in half precision and compute in float32.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faceattr.files import FULL, atomic_write, refuse_existing, to_jsonable, validate_output_path
from faceattr.images.crop import CropRule
from faceattr.model import hub
from faceattr.tasks import Task

if TYPE_CHECKING:
    import keras

FORMAT = 1
MEMBER = "faceattr.json"
WEIGHTS_MEMBER = "model.weights.h5"
CONFIG_MEMBER = "config.json"
COPY_MEMBER = "faceattr.tflite"  # the network once more, for LiteRT
EXPORTED = (".onnx", ".tflite", ".xml")  # what `faceattr export` writes beside folders
LARGEST_TEXT = 16 << 20  # bytes; the shipped model's longest is 25 thousand
EXPANSION = 20  # times a file's size: weights hardly shrink, what unpacks to more is no model
# What a description called things until version 0.1.
OLD_NAMES = {"made": "provenance", "level": "align"}
OLD_NAMES |= {"trunk": "backbone", "taps": "feature_layers"}
# What the models that come with the package are called, and their files.
SHIPPED, SHIPPED_SLIM = "shipped", "shipped-slim"
SHIPPED_FILES = {SHIPPED: "faceattr.keras", SHIPPED_SLIM: "faceattr-slim.keras"}


@dataclass(frozen=True)
class Description:
    """What a model file says about itself.

    Args:
        tasks: The heads and their class orders.
        crop: How a face must be cut for this model.
        network: How the network was built: ``{"pooling": "max", "dropout": 0.5}``.
        data: One record per split: rows and SHA-256 of labels and pixels.
        scores: By task, what was measured on the validation rows; beside the tasks ``by_size``,
            ``min_face``, ``half_precision`` and, of added heads, ``forgetting``.
        provenance: By which versions, when, with which recipe.
        licence: Terms of the weights; a model inherits those of its data.
        colour: Channel order and dtype of a crop.
    """

    tasks: tuple[Task, ...]
    crop: CropRule
    network: Mapping[str, Any] = field(default_factory=dict)
    data: tuple[Mapping[str, Any], ...] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "not stated"
    colour: str = "RGB uint8"

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"A model has one or more tasks, each named once. Received: {names}")
        for name in ("network", "scores", "provenance"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} is a mapping. Received: {getattr(self, name)!r:.80}")
        if not all(isinstance(part, Mapping) for part in self.data):
            raise ValueError(f"data is a sequence of mappings. Received: {self.data!r:.80}")
        if not isinstance(self.licence, str):
            raise ValueError(f"The licence is a text. Received: {self.licence!r:.80}")

    def to_json(self) -> str:
        return json.dumps(to_jsonable({"format": FORMAT, **asdict(self)}), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Description:
        """Raises ValueError where the text is not a description of this format."""
        try:
            given = json.loads(text)
        except RecursionError:
            raise ValueError("its description is nested too deeply") from None
        version = given.pop("format", None) if isinstance(given, dict) else None
        if version != FORMAT:
            raise ValueError(
                f"its description has format {version!r:.80}, and this faceattr reads format "
                f"{FORMAT}; another version of faceattr wrote it"
            )
        crop = _record(CropRule, "the crop", _with_todays_names(given.get("crop")))
        tasks = tuple(_record(Task, "a task", task) for task in _items(given, "tasks"))
        network = _with_todays_names(given.get("network", {}))
        given |= {"tasks": tasks, "crop": crop, "network": network}
        given["data"] = tuple(_items(given, "data"))
        return _record(cls, "the description", _with_todays_names(given))


def _with_todays_names(given: Any) -> Any:
    return (
        {OLD_NAMES.get(k, k): of for k, of in given.items()} if isinstance(given, dict) else given
    )


def _items(given: Mapping[str, Any], name: str) -> list[Any]:
    items = given.get(name, [])
    if not isinstance(items, list):
        raise ValueError(f"{name} is a list. Received: {items!r:.80}")
    return items


def _record(kind: type, what: str, given: Any) -> Any:
    """A record of JSON's words; ValueError where they are not its own."""
    words = {word.name: word.default is word.default_factory is MISSING for word in fields(kind)}
    missing = {word for word, needed in words.items() if needed}
    if not isinstance(given, dict) or not missing <= given.keys() <= words.keys():
        received = sorted(given) if isinstance(given, dict) else given
        raise ValueError(
            f"{what} says {', '.join(sorted(missing))} and nothing but {', '.join(words)}. "
            f"Received: {received!r:.200}"
        )
    return kind(**given)


def validate_output(path: Path, *, overwrite: bool = False) -> None:
    """Raise ValueError or OSError where no model file can get this name, or one is there."""
    if path.suffix != ".keras":
        raise ValueError(f"A model file's name ends in .keras. Received: {path}")
    validate_output_path(path)
    refuse_existing(path, overwrite=overwrite)


def save(
    model: keras.Model, description: Description, path: str | Path, *, half: bool = True
) -> None:
    """Write a model and its description as one ``.keras`` file.

    Args:
        model: A model of `faceattr.model.build` without batch normalisation.
        description: What the file shall say about it.
        path: Ends in ``.keras``. An existing file is replaced only when the new one is whole.
        half: Store the weights in half precision.
    """
    path = Path(path)
    validate_output(path, overwrite=True)
    with (
        atomic_write(path) as part,
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder,
    ):
        whole = Path(folder, "whole.keras")
        model.save(whole)
        _rewrite(whole, part, description, "float16" if half else "float32")


def _rewrite(whole: Path, small: Path, description: Description, dtype: str) -> None:
    """Copy the archive with weights of `dtype`, without how it was compiled, described."""
    weights = whole.with_suffix(".h5")
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(small, "w") as target:
        for name in source.namelist():
            if name == WEIGHTS_MEMBER:
                _convert(Path(source.extract(name, whole.parent)), weights, dtype)
                target.write(weights, name)
            elif name == CONFIG_MEMBER:
                config = json.loads(source.read(name))
                config.pop("compile_config", None)
                target.writestr(name, json.dumps(config))
            else:
                target.writestr(name, source.read(name))
        target.writestr(MEMBER, description.to_json())


def describe_anew(path: str | Path, description: Description) -> None:
    """Replace the description inside a model file, leaving the network as it is."""
    replace_members(path, {MEMBER: description.to_json()})


def replace_members(
    path: str | Path, members: Mapping[str, str | bytes], output: str | Path | None = None
) -> None:
    """Write a model file anew, by default over itself, with other contents of some members, by
    name; it is whole or unchanged."""
    with open_archive(Path(path)) as source:
        kept = {name: source.read(name) for name in source.namelist() if name not in members}
    output = path if output is None else output
    with atomic_write(output) as part, zipfile.ZipFile(part, "w") as target:
        for name, content in {**kept, **members}.items():
            target.writestr(name, content)


def _convert(source: Path, target: Path, dtype: str) -> None:
    """Copy an HDF5 file of weights with float32 arrays stored as `dtype`.

    The optimiser stays behind: it is twice the network and of no use to whoever applies it.
    """
    import h5py

    def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name.split("/")[0] == "optimizer":
            return
        if isinstance(item, h5py.Dataset):
            is_weight = item.dtype == "float32"
            with np.errstate(over="ignore"):
                values = item[()].astype(dtype) if is_weight else item[()]
            if is_weight and not np.isfinite(values).all():
                raise ValueError(f"The weights {name} are not finite numbers in {dtype}.")
            made = new.create_dataset(name, data=values)
        else:
            made = new.require_group(name)
        made.attrs.update(item.attrs)

    with h5py.File(source) as old, h5py.File(target, "w") as new:
        new.attrs.update(old.attrs)
        old.visititems(copy)


def describe(path: str | Path) -> Description:
    """Read a model file's description without loading the network (or Keras)."""
    path = path_of(path)
    if is_saved_model(path) or (path.suffix in EXPORTED and path.is_file()):
        raise ValueError(
            f"{path} is an exported model: it labels and can be evaluated. Everything else needs "
            "the .keras file that it was made from."
        )
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder and no model. Expected a .keras file, what `faceattr export` "
            f"wrote, or {' or '.join(SHIPPED_FILES)}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {path}. {_model_meant(path)}")
    with open_archive(path) as archive:
        text = archive.read(MEMBER) if MEMBER in archive.namelist() else None
    if text is None:
        raise ValueError(
            f"{path} does not say what it is: it has no {MEMBER} inside. Expected a model "
            "that `faceattr train` saved, not one saved again by Keras or by another program."
        )
    try:
        return Description.from_json(text)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {str(error).rstrip('.')}.") from None


def is_saved_model(path: Path) -> bool:
    """Whether a folder is a SavedModel of TensorFlow, as `faceattr export` writes it."""
    return (path / "saved_model.pb").is_file()


def _model_meant(path: Path) -> str:
    """What a name that is no model's may have meant."""
    near = difflib.get_close_matches(str(path), SHIPPED_FILES, n=1)
    if (beside := path.with_name(f"{path.name}.keras")).is_file():
        near = [str(beside)]
    if near:
        return f"Did you mean {near[0]}?"
    name = path.name if path.suffix == ".keras" else f"{path.name}.keras"
    return (
        f"`faceattr train … -o {name}` makes one; {' and '.join(SHIPPED_FILES)} are there already."
    )


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A model file to read members of, none larger than a model's.

    Inflating stops at the size that a member declares, so bounding what is declared bounds what is
    read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            large = (WEIGHTS_MEMBER, COPY_MEMBER)
            texts = [m.file_size for m in members if m.filename not in large]
            most = EXPANSION * path.stat().st_size + LARGEST_TEXT
            if max(texts, default=0) > LARGEST_TEXT or sum(m.file_size for m in members) > most:
                raise zipfile.BadZipFile("it unpacks to more than a model can hold")
            yield archive
    except (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole .keras model file: {error}.") from None


def load(path: str | Path) -> tuple[keras.Model, Description]:
    """Read a model file.

    Returns:
        The network, RGB ``uint8`` crops ``(n, size, size, 3)`` to a dict of ``float32``
        probabilities ``(n, classes)`` by task name, and its description.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a faceattr model, damaged, or of another format.
    """
    path = path_of(path)
    description = describe(path)
    try:
        model = _load_network(path)
    except ModuleNotFoundError:  # of Keras' backend
        raise
    except Exception as error:  # Keras, HDF5 and TensorFlow raise whatever they stumble over
        if isinstance(error, OSError) and error.errno in FULL:  # Keras unpacks the weights there
            place = tempfile.gettempdir()
            raise OSError(f"{path} cannot be opened: {place} is full. Make room there.") from None
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise ValueError(f"{path} is damaged or of another Keras: {reason}") from error
    heads = model.output if isinstance(model.output, dict) else {}
    check_heads(path, description, {name: head.shape[-1] for name, head in heads.items()})
    return model, description


def _load_network(path: Path) -> keras.Model:
    import keras

    # load_model wants the ending .keras, and a model may be called anything.
    if path.suffix == ".keras":
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copyfile(path, Path(folder, "model.keras"))
        return keras.saving.load_model(copy, compile=False, safe_mode=True)


def check_heads(path: str | Path, description: Description, heads: Mapping[str, int]) -> None:
    """Raises ValueError unless a network's heads, by name the number of classes, are those that its
    description tells; `path` is for the message."""
    told = {task.name: len(task.classes) for task in description.tasks}
    if told != heads:
        said, has = (
            ", ".join(f"{name} with {classes} classes" for name, classes in sorted(one.items()))
            for one in (told, heads)
        )
        raise ValueError(
            f"{path} cannot be used: its description tells of {said}, and its network has "
            f"{has or 'no heads by name'}."
        )


def is_stored_in_half(path: str | Path) -> bool:
    """Whether a model file's weights are in half precision."""
    import h5py

    found: list[bool] = []

    def look(name: str, item: h5py.Group | h5py.Dataset) -> None:
        found.append(isinstance(item, h5py.Dataset) and item.dtype == "float16")

    with open_archive(Path(path)) as archive, h5py.File(archive.open(WEIGHTS_MEMBER)) as weights:
        weights.visititems(look)
    return any(found)


def path_of(model: str | os.PathLike[str], *, offline: bool = False) -> Path:
    """The file of a model: of ``"shipped"`` the one that comes with the package, of
    ``"shipped-slim"`` the small one, of ``"hf://user/model"`` the one that the hub has, or its
    cache (`offline`: the cache alone).
    """
    if hub.is_hub_name(model):
        return hub.fetch(os.fspath(model), offline=offline)
    return shipped_model(str(model)) if model in SHIPPED_FILES else Path(model)


def shipped_model(name: str = SHIPPED) -> Path:
    """A model that comes with the package: inside the wheel, or in ``weights/`` of a checkout."""
    here = Path(__file__).parents[1]
    for folder in (here / "weights", here.parent / "weights"):
        path = folder / SHIPPED_FILES[name]
        if path.is_file():
            return path
    raise FileNotFoundError(
        "This installation of faceattr carries no model: give one yourself (--model for label, "
        "--weights for train)."
    )
