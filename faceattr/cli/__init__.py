"""The command line: one file a command, each a parse and one call.

Defaults live in the library; an option that was not typed is not passed on. Heavy imports
happen inside the commands, so that `faceattr --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module

from faceattr import __version__
from faceattr.cli.options import FAILED, INTERRUPTED, TERMINATED, WRONG_INPUT, Parser, handled
from faceattr.files import without_package

COMMANDS = (
    *("label", "live", "serve", "audit", "train", "compare", "evaluate", "heads", "average"),
    *("explain", "export", "push", "cache", "doctor"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0 done, 1 failed, 2 wrong input, 130 interrupted by Ctrl-C, 143 by a request to end (SIGTERM).
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with suppress(AttributeError):  # none behind pythonw; a notebook's takes any letter
        # A pipe or a file of Windows may lack a letter, as one of latin-1 does.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    given = vars(_parser().parse_args(argv))
    command = given.pop("command")
    with _sigterm_as_ctrl_c() as terminated:
        try:
            code = command(**given)
        except KeyboardInterrupt:
            print("faceattr: interrupted", file=sys.stderr)
            code = INTERRUPTED
        except (ValueError, OSError) as error:
            print(f"faceattr: {error}", file=sys.stderr)
            code = WRONG_INPUT
        except ModuleNotFoundError as error:  # an image of a server alone has no Keras, say
            if (error.name or "faceattr").partition(".")[0] == "faceattr":
                raise
            print(f"faceattr: {without_package(error)}", file=sys.stderr)
            code = WRONG_INPUT
        except Exception as error:
            if not _is_of_opencv(error):
                raise
            reason = " ".join(str(error).split()).rstrip(".")
            print(f"faceattr: OpenCV cannot go on: {reason}.", file=sys.stderr)
            code = FAILED
    return TERMINATED if code == INTERRUPTED and terminated.is_set() else code


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[threading.Event]:
    """Schedulers ask a job to end by SIGTERM: it does what Ctrl-C does, and sets the event."""
    terminated = threading.Event()

    def end(number: int, frame) -> None:
        terminated.set()
        interrupt = signal.getsignal(signal.SIGINT)
        # A job in the background is started with Ctrl-C ignored.
        (interrupt if callable(interrupt) else signal.default_int_handler)(number, frame)

    with handled(signal.SIGTERM, end):
        yield terminated


def _is_of_opencv(error: Exception) -> bool:
    # Whatever raises it has imported it; `faceattr --help` need not.
    opencv = sys.modules.get("cv2")
    return opencv is not None and isinstance(error, opencv.error)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="faceattr", description="Read attributes from faces with a model of your own."
    )
    parser.add_argument("--version", action="version", version=f"faceattr {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"faceattr.cli.{name}").add_command(commands)
    return parser
