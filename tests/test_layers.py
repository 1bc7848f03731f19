"""Imports point one way: each layer knows only the ones that stand before it."""

import ast
import re
from pathlib import Path

import faceattr

PACKAGE = Path(faceattr.__file__).parent
LAYERS = (
    "compatibility",
    "tasks",
    "progress",
    "files",
    "pages",
    "images",
    "detection",
    "model",
    "data",
    "evaluation",
    "auditing",
    "exporting",
    "training",
    "inference",
    "serving",
    "live",
    "doctor",
    "cli",
    "__main__",
)
LEARN = ("data", "evaluation", "auditing", "exporting", "training")
APART = {(use, learn) for use in ("inference", "serving", "live") for learn in LEARN}


def layer_of(module: str) -> str | None:
    """``faceattr.training.trainer`` is of layer training; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "faceattr" else None


def imported_modules(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (
                [f"faceattr.{alias.name}" for alias in node.names]
                if node.module == "faceattr"
                else [node.module]
            )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def edges():
    for path in PACKAGE.rglob("*.py"):
        layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for module in imported_modules(path):
            target = layer_of(module)
            if layer != "__init__" and target in LAYERS and target != layer:
                yield layer, target, path.name


def test_every_file_belongs_to_a_layer():
    found = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")
    }
    assert found - {"__init__"} == set(LAYERS)


def test_imports_point_one_way():
    wrong = [
        f"{name} ({layer}) imports {target}"
        for layer, target, name in edges()
        if LAYERS.index(target) > LAYERS.index(layer) or (layer, target) in APART
    ]
    assert not wrong
    assert ("data", "images") in {(layer, target) for layer, target, _ in edges()}


def test_the_page_about_the_code_names_what_there_is():
    page = (PACKAGE.parent / "docs/architecture.md").read_text(encoding="utf-8")
    for path in re.findall(r"`([a-z_]+/[a-z_/]+\.(?:py|js))`", page):
        assert (PACKAGE / path).is_file() or (PACKAGE.parent / path).is_file(), path
    named = re.findall(r"((?:`\w+`, )*`\w+`) in `([\w/]+\.py)`", page)
    assert len(named) > 10
    for names, path in named:
        text = (PACKAGE / path).read_text(encoding="utf-8")
        for name in re.findall(r"\w+", names):
            assert re.search(rf"^ *(?:class |def )?{name}\b[(:= ]", text, re.M), (name, path)
