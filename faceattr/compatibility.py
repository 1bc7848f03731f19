"""What was called otherwise before; the old names work for one version, with a warning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C", bound=Callable[..., Any])


def renamed_arguments(**new_names: str) -> Callable[[C], C]:
    """Let a function, or a record, take keyword arguments by the names that they had before.

    Args:
        **new_names: By old name the new one: ``@renamed_arguments(spelling="label_map")``.
    """

    def decorate(called: Any) -> Any:
        is_class = isinstance(called, type)
        function = called.__init__ if is_class else called  # type: ignore[misc]

        @functools.wraps(function)
        def call(*args, **given):
            for old in new_names.keys() & given.keys():
                text = f"{called.__name__}({old}=) is called {new_names[old]}= now."
                warnings.warn(text, DeprecationWarning, stacklevel=2)
                given[new_names[old]] = given.pop(old)
            return function(*args, **given)

        if not is_class:
            return call
        called.__init__ = call
        return called

    return decorate
