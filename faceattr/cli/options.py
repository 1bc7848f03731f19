"""What the commands share: how options are declared, parsed and passed on."""

from __future__ import annotations

import argparse

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
            return {name.strip(): kind(value) for name, value in pairs}
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"expected name=value,name=value. Received: {text!r}"
            ) from None

    return parse


def start_keras() -> None:
    """Import Keras and let TensorFlow say its greetings unheard."""
    from faceattr.labelling.opening import silence

    with silence():
        import keras

        keras.ops.zeros(1)
