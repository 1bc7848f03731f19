"""Options out of a record: fields give names, types and choices, the docstring gives the help.

An option is declared once, as a field of the record that the library takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from inspect import getdoc
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from faceattr.cli.options import by_name
from faceattr.training.config import choices_of


def add_fields(parser, record: type, *names: str, **options: Mapping[str, Any]) -> None:
    """Declare an option for some fields of a record.

    Args:
        parser: Or a group of one.
        record: A dataclass whose docstring has a section ``Args:``.
        *names: Fields whose options are as the fields say.
        **options: By field, arguments of ``add_argument`` that differ from what the field says;
            ``flags`` are the option's names where it is not called like the field.
    """
    hints = get_type_hints(record, None, {"CropRule": Any})
    texts = _help_texts(record)
    every: dict[str, Mapping[str, Any]] = {**{name: {} for name in names}, **options}
    for name, changes in every.items():
        how = {"help": texts.get(name), "dest": name, **kind_of(hints[name]), **changes}
        flags = how.pop("flags", (f"--{name.replace('_', '-')}",))
        parser.add_argument(*flags, **how)


def kind_of(hint: Any) -> dict[str, Any]:
    """How ``add_argument`` is told a field's type; nothing where it needs a parser of its own."""
    known = [part for part in get_args(hint) if part is not NoneType]
    if NoneType in get_args(hint):
        return kind_of(known[0])
    if choices := choices_of(hint):
        return {"choices": choices}
    if get_origin(hint) is Mapping:
        return by_name(known[1])
    metavars = {int: "N", float: "X", str: "NAME"}
    return {"type": hint, "metavar": metavars[hint]} if hint in metavars else {}


def _help_texts(record: type) -> dict[str, str]:
    """By field, the first sentence that the docstring says of it, and its default."""
    section = (getdoc(record) or "").partition("Args:\n")[2]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    defaults = {field.name: field.default for field in fields(record)}
    return {name: _help(text, defaults.get(name, MISSING)) for name, text in found}


def _help(text: str, default: Any) -> str:
    words = " ".join(text.split()).replace("`", "")
    sentence = re.split(r"\.(?: |$)", words)[0].replace("%", "%%")
    sentence = sentence[:1].lower() + sentence[1:]
    is_told = default not in (MISSING, None, ())
    return f"{sentence} (default: {default})" if is_told else sentence
