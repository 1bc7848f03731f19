"""What the commands share: how options are declared, parsed and passed on."""

from __future__ import annotations

import argparse
import difflib
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
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


class Merged(argparse.Action):
    """What is typed again comes on top of the pairs before, the last value of a name counts."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        before = getattr(namespace, self.dest, None)
        if isinstance(before, dict) and isinstance(values, dict):
            values = before | values
        setattr(namespace, self.dest, values)


def old_names(parser: argparse.ArgumentParser, names: dict[str, str]) -> None:
    """Let options be typed by the names that they had before; a hint on stderr tells the new one.

    Args:
        parser: It has the options by their new names.
        names: By old name the new one, ``{"--upright": "--auto-rotate"}``.
    """
    for old, new in names.items():
        action = parser._option_string_actions[new]
        how = {name: getattr(action, name) for name in ("nargs", "type", "dest", "choices")}
        parser.add_argument(old, action=_OldName, renamed=action, help=argparse.SUPPRESS, **how)


class _OldName(argparse.Action):
    def __init__(self, *given, renamed: argparse.Action, **how) -> None:
        super().__init__(*given, **how)
        self._renamed = renamed

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        new = self._renamed.option_strings[-1]
        print(f"faceattr: {option_string} is called {new} now.", file=sys.stderr)
        self._renamed(parser, namespace, values, new)


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


def start_keras() -> None:
    """Import Keras and let TensorFlow say its greetings unheard."""
    from faceattr.progress import suppress_stderr

    with suppress_stderr():
        import keras

        keras.ops.zeros(1)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """What computes the answers, with how many threads and in how many bits."""
    parser.add_argument(
        "--engine",
        choices=("auto", "keras", "litert"),
        help="keras: the network itself; litert: the fast copy inside the model file; auto: the "
        "copy where there is one",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="how many compute (one a processor)"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="of the network itself: bfloat16 is twice as fast where the processor has it",
    )


def add_flip(parser: argparse.ArgumentParser) -> None:
    """How often the network is asked about a face."""
    parser.add_argument(
        "--flip",
        action="store_true",
        help="average the answers on each face and its mirror image, in twice the time",
    )


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that may find faces in whole photographs themselves."""
    add = parser.add_argument
    add(
        "--find-faces",
        action="store_true",
        help="the pictures are whole photographs: take the largest face of each",
    )
    add(
        "--find-faces-in",
        action="extend",
        type=names,
        metavar="SOURCE,…",
        help="the same for these sources alone, by the names of their folders or files",
    )
    add("--detector", help="as for `faceattr label`; asks for --find-faces")
    add("--offline", action="store_true", help="never download the detector's file")


def detector_of(given: dict):
    """The detector that was asked for, or None; takes its options out of what was typed."""
    offline, name = given.pop("offline", False), given.pop("detector", None)
    if not (given.pop("find_faces", False) or "find_faces_in" in given or name):
        return None
    from faceattr.cli.console import Aside
    from faceattr.detection.base import choose_detector

    return choose_detector(name or "auto", offline=offline, progress=Aside())


def open_attributes(given: dict, progress):
    """Open model and detector; takes what is typed for `FaceAttributes.load` out of `given`.

    Raises:
        OSError, ValueError: One of them cannot be had; the message says the cure.
    """
    import inspect

    from faceattr.detection.base import choose_detector
    from faceattr.inference.predictor import FaceAttributes
    from faceattr.progress import suppress_stderr

    offline, name = given.pop("offline", False), given.pop("detector", "auto")
    named = (FaceAttributes, FaceAttributes.load)
    own = ("model", *(name for of in named for name in inspect.getfullargspec(of).kwonlyargs))
    how = {name: given.pop(name) for name in own if name in given}
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


def _order(text: str) -> tuple[str, str]:
    task, equals, order = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected TASK=ORDER. Received: {text!r}")
    return task.strip(), order.strip().lower()


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
        action="append",
        type=_order,
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
        help="labelled pictures of a new head; all heads of the model are kept, and only the new "
        "ones learn unless --epochs finetune=N opens the backbone; may be repeated",
    )
    add(
        "--evaluate-on",
        nargs="+",
        metavar="[TASK=]PATH",
        help="labelled pictures that only show what the old heads lose",
    )
    old_names(parser, {"--judge": "--evaluate-on"})


OLD_HEADS = "old"


def _distilled(text: str) -> dict[str, float | None]:
    """``old``, ``task=share,…``, or both."""
    names = text.split(",")
    rest = ",".join(name for name in names if name != OLD_HEADS)
    return dict.fromkeys(set(names) & {OLD_HEADS}) | (pairs(float)(rest) if rest else {})


class _Keep(argparse.Action):
    """``--keep`` was an option of its own."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        distill = parser._option_string_actions["--distill"]
        print("faceattr: --keep is called --distill old now.", file=sys.stderr)
        distill(parser, namespace, {OLD_HEADS: None})


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
    add("--temperature", type=float, help="above 1 a teacher's answers become softer (1)")
    parser.add_argument("--keep", action=_Keep, nargs=0, help=argparse.SUPPRESS)


def distillation_of(given: dict):
    """Whose answers count as labels, None without any; takes it out of `given`."""
    from faceattr.training.distill import Distillation

    names = {"sure": "thresholds", "distill": "shares", "temperature": "temperature"}
    fields = {field: given.pop(name) for name, field in names.items() if name in given}
    teachers = tuple(given.pop("teacher", ()))
    shares = dict(fields.get("shares", {}))
    if OLD_HEADS in shares and shares[OLD_HEADS] is None:
        fields |= {"old_heads": True, "shares": {n: s for n, s in shares.items() if n != OLD_HEADS}}
    return Distillation(teachers, **fields) if teachers or fields else None


def label_map_of(given: dict):
    """How labels are to be understood; takes it out of `given`."""
    from faceattr.data.label_map import LabelMap

    renamed: dict[str, dict[str, str]] = {}
    for task, old, new in given.pop("map", ()):
        renamed.setdefault(task, {})[old] = new
    return LabelMap(renamed, dict(given.pop("order", ())), given.pop("votes", {}))


def new_heads_of(sources: Sequence[str], distillation, given: dict):
    """What is added to a model, None where nothing is; takes it out of `given`."""
    from faceattr.training.add_heads import NewHeads

    added, compared = tuple(given.pop("add", ())), tuple(given.pop("evaluate_on", ()))
    if added or compared or (distillation and distillation.old_heads):
        return NewHeads(added, compared)
    if not sources:
        raise ValueError("There is nothing to learn from: give [TASK=]PATH, or --add TASK=PATH.")
    return None
