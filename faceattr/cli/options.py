"""What the commands share: how options are declared, parsed and passed on."""

from __future__ import annotations

import argparse
import difflib
import logging
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

FOUND = 1
FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130
TERMINATED = 143


class Parser(argparse.ArgumentParser):
    """A parser that says what may have been meant by a word that it does not know."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        known, unknown = super().parse_known_args(args, namespace)
        if typed := [word for word in unknown if word.startswith("-")]:
            options = self._option_string_actions
            today = [name for name, action in options.items() if action.help != argparse.SUPPRESS]
            meant = _meant(typed[0].split("=")[0], today)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return known, unknown

    def _check_value(self, action, value) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += _meant(str(value), map(str, action.choices))
            raise


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f". Did you mean {close[0]}?" if close else ""


TASKS = "columns to take from bare manifests"
DURATIONS = {"ms": 0.001, "": 1.0, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Seconds out of ``"1s"``, ``"500ms"``, ``"2min"``, ``"1h"``, ``"0.5"``.

    Raises:
        ValueError: It is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min|m|h|)\s*", text)
    if not match:
        raise ValueError(f"A time is written like 1s, 500ms, 2min or 1h. Received: {text!r}")
    return float(match[1]) * DURATIONS[match[2]]


def command(commands, function, summary: str) -> argparse.ArgumentParser:
    """A sub-command whose untyped options stay away from its function."""
    parser = commands.add_parser(
        function.__name__,
        help=summary,
        description=function.__doc__,
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(command=function)
    return parser


def names(text: str) -> list[str]:
    """``a,b``."""
    return [name.strip() for name in text.split(",")]


def pairs(kind):
    """A parser of ``name=value,name=value`` with values of one kind."""

    def parse(text: str) -> dict:
        try:
            pairs = [part.split("=") for part in text.split(",")]
            return {name.strip(): kind(value.strip()) for name, value in pairs}
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"expected name=value,name=value. Received: {text!r}"
            ) from None

    return parse


def priors(text: str) -> dict[str, str | dict[str, float]]:
    """``head=name,…``, or ``head:class=share,…`` of one head."""
    head, colon, shares = text.partition(":")
    return {head.strip(): pairs(float)(shares)} if colon else pairs(str)(text)


class Merged(argparse.Action):
    """What is typed again comes on top of the pairs before, the last value of a name counts."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        before = getattr(namespace, self.dest, None)
        if isinstance(before, dict) and isinstance(values, dict):
            values = before | values
        setattr(namespace, self.dest, values)


# How frequent classes are; may be repeated.
PRIORS: dict = {"action": Merged, "type": priors, "metavar": "HEAD=PRIOR,…|HEAD:CLASS=SHARE,…"}


def old_names(parser: argparse.ArgumentParser, names: Mapping[str, str]) -> None:
    """Let options be typed by the names that they had before; a hint on stderr tells the new one.

    `names` has by old name the new one: ``{"--upright": "--auto-rotate"}``, or the value of another
    option: ``{"--keep": "--distill old"}``.
    """
    for old, new in names.items():
        option, _, value = new.partition(" ")
        action = parser._option_string_actions[option]
        how = {name: getattr(action, name) for name in ("nargs", "type", "dest", "choices")}
        if value:
            how |= {"nargs": 0, "const": action.type(value)}  # type: ignore[operator,misc]
        parser.add_argument(
            old, action=_OldName, renamed=action, new=new, help=argparse.SUPPRESS, **how
        )


class _OldName(argparse.Action):
    def __init__(self, *given, renamed: argparse.Action, new: str, **how) -> None:
        super().__init__(*given, **how)
        self._renamed, self._new, self._is_told = renamed, new, False

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if not self._is_told:  # every section of a recipe may have it
            print(f"faceattr: {option_string} is called {self._new} now.", file=sys.stderr)
        self._is_told = True
        self._renamed(parser, namespace, self.const or values, option_string)


def by_name(kind) -> dict:
    """How an option of ``name=value,…`` is declared, with values of one kind."""
    return {"action": Merged, "type": pairs(kind)}


@contextmanager
def handled(number: signal.Signals, handler: Callable[..., object]) -> Iterator[None]:
    """A signal goes to a handler meanwhile; in a thread other than the main one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def start_keras(*, on_several_machines: bool = False) -> None:
    """Import Keras and let TensorFlow greet unheard; meet the other machines of a run."""
    from faceattr.progress import suppress_stderr

    logging.getLogger("tensorflow").setLevel(logging.ERROR)

    with suppress_stderr():
        import keras

        if on_several_machines:
            from faceattr.training.devices import begin

            begin()
        keras.ops.zeros(1)


RUNTIMES = ("auto", "keras", "litert")


def add_runtime(parser: argparse.ArgumentParser, *, was_engine: bool = True) -> None:
    """What computes the answers, with how many threads and in how many bits.

    Args:
        parser: Gets the options.
        was_engine: Whether ``--engine`` is nothing but what ``--runtime`` was called before.
    """
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="keras: the network itself; litert: the fast copy inside the model file; auto: the "
        "copy where there is one",
    )
    if was_engine:
        old_names(parser, {"--engine": "--runtime"})
    parser.add_argument(
        "--threads", type=int, metavar="N", help="how many compute (one a processor)"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="of the network itself: bfloat16 is twice as fast where the processor has it",
    )


def add_tta(parser: argparse.ArgumentParser) -> None:
    """How often the network is asked about a face."""
    parser.add_argument(
        "--flip",
        action="store_true",
        help="average the answers on each face and its mirror image, in twice the time",
    )
    parser.add_argument(
        "--tta",
        type=int,
        metavar="N",
        help="average the answers on N shifted crops of each face, 1 to 5 (1)",
    )


def add_reading_options(parser: argparse.ArgumentParser, tasks: str = TASKS) -> None:
    """How labelled images are read, in train, evaluate and audit; `tasks` is a help text."""
    add = parser.add_argument
    add("--tasks", action="extend", type=names, metavar="TASK,…", help=tasks)
    add(
        "--find-faces",
        action="store_true",
        help="the images are whole photographs: take the largest face of each",
    )
    add(
        "--find-faces-in",
        action="extend",
        type=names,
        metavar="SOURCE,…",
        help="the same for these sources alone, by the names of their folders or files",
    )
    add("--detector", metavar="NAME", help="as for `faceattr label`; asks for --find-faces")
    add("--offline", action="store_true", help="never download the detector's file")
    add("--cache", metavar="DIR", help="folder of the crop cache")
    add_label_options(parser)


def reading_of(given: dict) -> dict:
    """What was typed, with the detector and the label map that it asks for."""
    label_map, offline = label_map_of(given), given.pop("offline", False)
    name = given.pop("detector", None)
    if not (given.pop("find_faces", False) or "find_faces_in" in given or name):
        return {**given, "label_map": label_map}
    from faceattr.cli.console import Aside
    from faceattr.detection.base import choose_detector

    detector = choose_detector(name or "auto", offline=offline, progress=Aside())
    return {**given, "label_map": label_map, "detector": detector}


def open_attributes(given: dict, progress):
    """Open model and detector; takes what is typed for `FaceAttributes.load` out of `given`.

    Raises:
        OSError, ValueError: One of them cannot be had; the message says the cure.
    """
    from inspect import Parameter, signature

    from faceattr.detection.base import choose_detector
    from faceattr.inference.predictor import FaceAttributes
    from faceattr.progress import suppress_stderr

    offline, name = given.pop("offline", False), given.pop("detector", "auto")
    named = [signature(one).parameters.values() for one in (FaceAttributes, FaceAttributes.load)]
    keywords = [one.name for of in named for one in of if one.kind is Parameter.KEYWORD_ONLY]
    how = {n: given.pop(n) for n in ("model", *keywords) if n in given}
    if "runtime" in given:
        how["engine"] = given.pop("runtime")
    detector = choose_detector(name, offline=offline, progress=progress)
    with suppress_stderr():
        return FaceAttributes.load(detector=detector, **how)


def _renaming(text: str) -> tuple[str, str, str]:
    """``OLD=NEW`` for every task, ``TASK:OLD=NEW`` for one."""
    old, equals, new = text.partition("=")
    task, _, name = old.rpartition(":")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected [TASK:]OLD=NEW. Received: {text!r}")
    return task.strip(), name.strip(), new.strip()


def add_label_options(parser) -> None:
    """How labels are to be understood."""
    add = parser.add_argument_group("labels that are spelt otherwise").add_argument
    add(
        "--map",
        action="append",
        type=_renaming,
        metavar="[TASK:]OLD=NEW",
        help="what the data call OLD is class NEW, or unknown if NEW is empty; may be repeated",
    )
    add(
        "--order",
        **by_name(str.lower),
        metavar="TASK=ORDER",
        help="whose numbers the labels are: expression=fer2013, fer+, raf-db, affectnet or "
        "imagefolder; gender=utkface or imdb-wiki",
    )
    add(
        "--votes",
        **by_name(float),
        metavar="TASK=SHARE",
        help="how much the votes beside a label count, of 1 (0: the label alone): columns "
        "TASK:CLASS, or FER+'s",
    )


def add_new_heads(parser) -> None:
    """Heads that are added to a model that keeps its own."""
    add = parser.add_argument_group("adding a head to the model of --weights").add_argument
    add(
        "--add",
        action="append",
        metavar="TASK=PATH",
        help="labelled images of a new head; all heads of the model are kept, and only the new "
        "ones learn unless --epochs finetune=N opens the backbone; may be repeated",
    )
    add(
        "--evaluate-on",
        nargs="+",
        metavar="[TASK=]PATH",
        help="labelled images that only show what the old heads lose",
    )
    old_names(parser, {"--judge": "--evaluate-on"})


OLD_HEADS = "old"


def _distilled(text: str) -> dict[str, float | None]:
    """``old``, ``task=share,…``, or both."""
    names = text.split(",")
    rest = ",".join(name for name in names if name != OLD_HEADS)
    return dict.fromkeys(set(names) & {OLD_HEADS}) | (pairs(float)(rest) if rest else {})


def add_distillation(parser) -> None:
    """Models whose answers count as labels."""
    add = parser.add_argument_group("distillation").add_argument
    add(
        "--teacher",
        action="append",
        metavar="MODEL",
        help="its answers are labels of training rows that have none, where it is sure enough; "
        "repeated: the mean of several",
    )
    add("--sure", **by_name(float), metavar="TASK=P,…", help="how sure it must be (0.8)")
    add(
        "--distill",
        action=Merged,
        type=_distilled,
        metavar="old|TASK=SHARE,…",
        help="TASK=SHARE: how much a teacher's answers count beside a label that is known, of 1 "
        "(0); old: hold the heads of the model that gets new ones to their own answers",
    )
    add(
        "--doubt",
        **by_name(float),
        metavar="TASK=P,…",
        help="labels that the teacher finds less probable count as unknown (0)",
    )
    add(
        "--temperature",
        type=float,
        metavar="X",
        help="above 1 a teacher's answers become softer (1)",
    )
    old_names(parser, {"--keep": "--distill old"})


def distillation_of(given: dict):
    """Whose answers count as labels, None without any; takes it out of `given`."""
    from faceattr.training.distill import Distillation

    names = {"sure": "thresholds", "doubt": "doubts", "temperature": "temperature"}
    fields = {field: given.pop(name) for name, field in names.items() if name in given}
    shares, teachers = dict(given.pop("distill", {})), tuple(given.pop("teacher", ()))
    if shares.get(OLD_HEADS, 0) is None:
        fields["old_heads"] = shares.pop(OLD_HEADS) is None
    if shares:
        fields["shares"] = shares
    return Distillation(teachers, **fields) if teachers or fields else None


def label_map_of(given: dict):
    """How labels are to be understood; takes it out of `given`."""
    from faceattr.data.label_map import LabelMap

    renamed: dict[str, dict[str, str]] = {}
    for task, old, new in given.pop("map", ()):
        renamed.setdefault(task, {})[old] = new
    return LabelMap(renamed, given.pop("order", {}), given.pop("votes", {}))


def new_heads_of(sources: Sequence[str], distillation, given: dict):
    """What is added to a model, None where nothing is; takes it out of `given`."""
    from faceattr.training.add_heads import NewHeads

    added, compared = tuple(given.pop("add", ())), tuple(given.pop("evaluate_on", ()))
    if added or compared or (distillation and distillation.old_heads):
        return NewHeads(added, compared)
    if not sources:
        raise ValueError("There is nothing to learn from: give [TASK=]PATH, or --add TASK=PATH.")
    return None
