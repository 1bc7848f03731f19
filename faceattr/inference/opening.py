"""Model and detector as they were typed, opened without the noise that libraries make."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from faceattr.detection.choose import choose_detector
from faceattr.inference.predictor import FaceAttributes

LOAD = ("model", "precision", *inspect.getfullargspec(FaceAttributes).kwonlyargs)


def open_typed(given: dict[str, Any], say: Callable[[str], None]) -> FaceAttributes:
    """Open model and detector.

    Args:
        given: What was typed; `detector`, `offline` and the arguments of
            `FaceAttributes.load` are taken out of it.
        say: Is told in one line when the usual detector cannot be had.

    Raises:
        OSError, ValueError: One of them cannot be had; the message says the cure.
    """
    offline = given.pop("offline", False)
    name = given.pop("detector", "auto")
    how = {name: given.pop(name) for name in LOAD if name in given}
    detector = choose_detector(name, offline=offline, say=say)
    with silence():
        return FaceAttributes.load(detector=detector, **how)


@contextmanager
def silence() -> Iterator[None]:
    """TensorFlow greets on the process' own standard error, which Python cannot intercept."""
    sys.stderr.flush()
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
