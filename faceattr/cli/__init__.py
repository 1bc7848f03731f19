"""The command line: one file a command, each a parse and one call.

Defaults live in the library; an option that was not typed is not passed on. Heavy imports
happen inside the commands, so that `faceattr --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from faceattr import __version__
from faceattr.cli import audit, compare, evaluate, explain, export, heads, label, live, train
from faceattr.cli.options import FAILED, INTERRUPTED, WRONG_INPUT

COMMANDS = (label, live, audit, train, compare, evaluate, heads, explain, export)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 failed, 2 wrong input, 130 interrupted)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    given = vars(_parser().parse_args(argv))
    command = given.pop("command")
    try:
        return command(**given)
    except KeyboardInterrupt:
        print("faceattr: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"faceattr: {error}", file=sys.stderr)
        return WRONG_INPUT
    except Exception as error:
        if not _is_of_opencv(error):
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        print(f"faceattr: OpenCV cannot go on: {reason}.", file=sys.stderr)
        return FAILED


def _is_of_opencv(error: Exception) -> bool:
    # Whatever raises it has imported it; `faceattr --help` need not.
    opencv = sys.modules.get("cv2")
    return opencv is not None and isinstance(error, opencv.error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="faceattr", description="Read attributes off faces with a model of your own."
    )
    parser.add_argument("--version", action="version", version=f"faceattr {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_command(commands)
    return parser
