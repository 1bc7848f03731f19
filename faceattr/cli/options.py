"""What the commands share: how options are declared, parsed and passed on."""

from __future__ import annotations

import argparse
import sys

FOUND = 1
FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130


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


def by_name(kind) -> dict:
    """How an option of ``name=value,…`` is declared, with values of one kind."""
    return {"action": Merged, "type": pairs(kind)}


def start_keras() -> None:
    """Import Keras and let TensorFlow say its greetings unheard."""
    from faceattr.labelling.opening import silence

    with silence():
        import keras

        keras.ops.zeros(1)


def add_precision(parser: argparse.ArgumentParser) -> None:
    """In how many bits the network computes."""
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="bfloat16 is twice as fast where the processor has it (float32)",
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
    add("--detector", help="as for `faceattr label`; asks for --find-faces")
    add("--offline", action="store_true", help="never download the detector's file")


def detector_of(given: dict):
    """The detector that was asked for, or None; takes its options out of what was typed."""
    offline, name = given.pop("offline", False), given.pop("detector", None)
    if not (given.pop("find_faces", False) or name):
        return None
    from faceattr.pictures.choose import choose_detector

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    return choose_detector(name or "auto", offline=offline, say=say)
