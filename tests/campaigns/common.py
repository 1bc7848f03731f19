"""What the campaigns share: the command, what holds at every end of it, and the report."""

from __future__ import annotations

import json
import math
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Collection

FACEATTR = [sys.executable, "-m", "faceattr"]


_seconds = math.inf


def is_time_left(began: float) -> bool:
    """Whether a part of a campaign, begun then by the monotonic clock, may begin another try."""
    return time.monotonic() < began + _seconds


def fault_of(code: object, errors: str, codes: Collection[object] = (0, 2)) -> str | None:
    """What an end of a command has of what it must not have: None, or the fault.

    A command ends with one of `codes`, without a traceback, and says one sentence where that is
    not 0.
    """
    if "Traceback" in errors:
        return errors
    if code not in codes:
        return f"exit code {code}: {errors}"
    said = sum(line.startswith("faceattr: ") for line in errors.splitlines())
    return f"not one sentence: {errors}" if code and said != 1 else None


def main(
    description: str,
    run: Callable[..., dict],
    default: int,
    *,
    counted: str = "count",
    only: str | None = None,
) -> int:
    """The command line of a campaign: run it, print its record, 1 where something is broken.

    Args:
        description: The campaign's docstring.
        run: Takes ``count`` and ``seed``, and ``only`` where there is a help text for it.
        default: How many.
        counted: What the option for that is called.
        only: Which parts can be chosen; None: there are none.
    """
    parser = ArgumentParser(description=description.split("\n")[0])
    parser.add_argument(f"--{counted}", dest="count", type=int, default=default)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="for each part; then count")
    if only:
        parser.add_argument("--only", nargs="*", default=(), help=only)
    given = vars(parser.parse_args())
    global _seconds
    _seconds = 60 * given.pop("minutes")
    record = run(**given)
    print(json.dumps(record, indent=1))
    parts = [record, *(part for part in record.values() if isinstance(part, dict))]
    return int(any(part.get("broken") for part in parts))
