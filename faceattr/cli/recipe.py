"""Recipes: what to train and how, in a TOML file of the long options of `faceattr train`.

Keys are option names without their dashes, values are what one would type. A section is a
recipe of its own, on top of what stands above all sections::

    epochs = "finetune=2"

    [log]
    combine = "log"
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

AddOptions = Callable[[argparse.ArgumentParser], None]


class _Words(argparse.ArgumentParser):
    """A parser that raises instead of leaving the program; `prog` says where the words stand."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog}: {message}")


def read_recipe(spec: str, add_options: AddOptions) -> dict[str, Any]:
    """The one recipe that `spec` names; see `read_recipes`."""
    recipes = read_recipes(spec, add_options)
    if len(recipes) != 1:
        raise ValueError(f"{spec} has recipes {', '.join(recipes)}: name one, as {spec}:NAME.")
    return next(iter(recipes.values()))


def read_recipes(spec: str, add_options: AddOptions) -> dict[str, dict[str, Any]]:
    """The recipes of ``FILE`` (one, called like the file, if it has no section) or ``FILE:NAME``.

    Each is a mapping of parsed options; `add_options` declares on a parser which ones there are.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no TOML, has no such recipe, or something in it is no option.
    """
    path, name, content = _read(spec)
    shared = {key: value for key, value in content.items() if not isinstance(value, dict)}
    sections = {key: value for key, value in content.items() if isinstance(value, dict)}
    recipes = sections or {path.stem: {}}
    if name and name not in recipes:
        raise ValueError(f"{path} has no recipe {name!r}; it has {', '.join(recipes)}.")
    chosen = {name: recipes[name]} if name else recipes
    parser = _Words(
        prog=str(path), add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    add_options(parser)
    below, read = _parsed(shared, parser), {}
    for key, own in chosen.items():
        parser.prog = f"{path} [{key}]"
        read[key] = merge_options(below, _parsed(own, parser))
    return read


def _read(spec: str) -> tuple[Path, str, dict[str, Any]]:
    """The file of ``FILE`` or ``FILE:NAME``, the name, and what the file says."""
    file, _, name = spec.rpartition(":")
    if Path(spec).is_file() or not file:
        file, name = spec, ""
    try:
        return Path(file), name, tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no recipe file {file}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a TOML file: {error}") from None


def merge_options(options: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Parsed options under others that win; learning rates do so by phase and by branch."""
    rates = {**options.get("learning_rate", {}), **above.get("learning_rate", {})}
    return {**options, **above, **({"learning_rate": rates} if rates else {})}


def _parsed(recipe: Mapping[str, Any], parser: argparse.ArgumentParser) -> dict[str, Any]:
    words = []
    for key, value in recipe.items():
        if value is False or not isinstance(value, str | int | float):
            parser.error(f"{key} is a text or a number, as one would type it.")
        words.append(f"--{key}" if value is True else f"--{key}={value}")
    return vars(parser.parse_args(words))
