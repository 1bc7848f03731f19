"""What the commands share: how options are declared, parsed and passed on."""

from __future__ import annotations

import argparse
import difflib
import logging
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
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


def pairs(kind, like: str = "name=value,name=value"):
    """A parser of ``name=value,name=value`` with values of one kind; `like` is an example."""

    def parse(text: str) -> dict:
        try:
            pairs = [part.split("=") for part in text.split(",")]
            return {name.strip(): kind(value.strip()) for name, value in pairs}
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {like}. Received: {text!r}") from None

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


def by_name(kind, *like: str) -> dict:
    """How an option of ``name=value,…`` is declared, with values of one kind."""
    return {"action": Merged, "type": pairs(kind, *like)}


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


def taken(given: dict, names: Iterable[str]) -> dict:
    """What was typed of some options, which are taken out of `given`."""
    return {name: given.pop(name) for name in names if name in given}


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
# What finds and describes faces, in every command that does.
DESCRIBING: dict[str, dict] = {
    "--model": {
        "metavar": "MODEL",
        "help": "a file of `faceattr train` or `faceattr export`, hf://user/model, or shipped-slim",
    },
    "--runtime": {
        "dest": "engine",
        "choices": RUNTIMES,
        "help": "keras: the network itself; litert: the fast copy inside the model file; auto: "
        "the copy where there is one",
    },
    "--threads": {"type": int, "metavar": "N", "help": "how many compute (one a processor)"},
    "--precision": {
        "choices": ("float32", "bfloat16"),
        "help": "of the network itself: bfloat16 is twice as fast where the processor has it",
    },
    "--flip": {
        "action": "store_true",
        "help": "average the answers on each face and its mirror image, in twice the time",
    },
    "--tta": {
        "type": int,
        "metavar": "N",
        "help": "average the answers on N shifted crops of each face, 1 to 5 (1)",
    },
    "--prior": {
        **PRIORS,
        "dest": "priors",
        "help": "how frequent the classes are among these faces: uniform, natural, the name of a "
        "source that taught the model, or shares of all classes; may be repeated",
    },
    "--detector": {
        "help": "auto, yunet, centerface, mtcnn, none (each picture is one face) or the path of a "
        "YuNet .onnx file"
    },
    "--offline": {"action": "store_true", "help": "never download the detector's file"},
    "--auto-rotate": {
        "action": "store_true",
        "help": "faces may lie on their sides or heads: find them and set them upright",
    },
    "--min-face": {"type": float, "metavar": "PIXELS", "help": "do not describe smaller faces"},
    "--min-confidence": {
        "type": float,
        "metavar": "P",
        "help": "give no answer where its probability is lower",
    },
    "--filter": {
        **by_name(str),
        "metavar": "TASK=CLASS,…",
        "help": "faces that the model answers otherwise get the status rejected (is_face=yes)",
    },
    "--batch-size": {
        "type": int,
        "metavar": "N",
        "help": "faces that go through the model at once (32)",
    },
}
# Those of them that label, live and serve have in common.
USUAL = (
    *("--model", "--runtime", "--threads", "--precision", "--detector", "--offline"),
    *("--auto-rotate", "--min-face", "--min-confidence"),
)


def add_describing(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(name, **DESCRIBING[name])


def open_attributes(given: dict, progress):
    """Open model and detector; takes what is typed for `FaceAttributes.load` out of `given`."""
    from faceattr.detection.choose import choose_detector
    from faceattr.inference.predictor import FaceAttributes, LoadSettings
    from faceattr.progress import suppress_stderr

    offline, name = given.pop("offline", False), given.pop("detector", "auto")
    how = taken(given, LoadSettings.__annotations__)
    detector = choose_detector(name, offline=offline, progress=progress)
    with suppress_stderr():
        return FaceAttributes.load(detector=detector, **how)
