"""Where the job of `faceattr label` runs, as it is typed."""

from __future__ import annotations

import argparse
import sys

from faceattr.cli.options import RUNTIMES

LOCAL, RAY = ENGINES = ("local", "ray")


class Engine(argparse.Action):
    """``--engine local|ray``; what computes the network was typed here before ``--runtime`` was."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if values in RUNTIMES:
            print(
                f"faceattr: {option_string} {values} is called --runtime {values} now.",
                file=sys.stderr,
            )
            namespace.runtime = values
        elif values in ENGINES:
            namespace.engine = values
        else:
            raise argparse.ArgumentError(
                self, f"a job runs on {', '.join(ENGINES)}. Received: {values!r}"
            )
