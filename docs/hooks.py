"""What `mkdocs build` makes by itself: the command line's and the API's pages, and the pages whose
files lie elsewhere in the repository. They cannot fall behind the code."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# By page of the site, the file of the repository.
PAGES = {
    "card.md": "weights/README.md",
    "slim.md": "weights/SLIM.md",
    "history.md": "weights/HISTORY.md",
    "example-digits.md": "examples/digits/README.md",
    "example-is-face.md": "examples/is_face/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
# Beside the card; a page of the site links them by their names alone.
BESIDE = [*ROOT.glob("weights/*.png"), *ROOT.glob("weights/*.csv"), *ROOT.glob("weights/*.json")]
BESIDE += [ROOT / "weights/recipe.toml"]
FILES = {path.name: path for path in BESIDE} | {
    "digits.toml": ROOT / "examples/digits/recipe.toml",
    "quickstart.ipynb": ROOT / "examples/quickstart.ipynb",
}


def on_files(files: Files, config) -> Files:
    """Add the pages that are made here and the files that they show."""
    made = {"commands.md": commands_page(), "api.md": api_page()}
    for name, path in PAGES.items():
        made[name] = in_site((ROOT / path).read_text(encoding="utf-8"), Path(path))
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    for name, path in FILES.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page, **_: object) -> str:
    """Links out of docs/ lead to the page that shows the file."""
    return in_site(markdown, Path("docs", page.file.src_uri))


def on_page_content(html: str, **_: object) -> str:
    """Pictures that stand alone get their description as a caption, no line ends within an option,
    and cells get what a phone needs."""
    picture = r'<p>(<img alt="([^"]+)"(?![^>]*align=)[^>]*>)</p>'
    html = re.sub(picture, r"<figure>\1<figcaption>\2</figcaption></figure>", html)
    html = re.sub(r"(?<![\w-])--[a-z][\w-]*", r"<span class=whole>\g<0></span>", html)
    return re.sub(r"<(t[dh])([^>]*)>(.*?)</\1>", _for_phones, html, flags=re.DOTALL)


def _for_phones(cell: re.Match[str]) -> str:
    """No line ends before %, but after | , = and /; by a class style.css gives long texts width in
    which they can be read."""
    name, attributes, text = cell.groups()
    text = re.sub(r"(\d) %", r"\1&nbsp;%", text)
    is_long = len(re.sub("<.*?>", "", text)) > 40
    breaks = partial(re.sub, r"(<[^>]*>)|([|,=/])(?=.)", lambda at: at[1] or f"{at[2]}<wbr>")
    text = re.sub(r"(?<=<code>).*?(?=</code>)", lambda code: breaks(code[0]), text)
    return f"<{name}{attributes}{' class=long' * is_long}>{text}</{name}>"


def in_site(markdown: str, at: Path) -> str:
    """A page's text with the links that its file at `at` has, as links within the site."""

    def moved(link: re.Match[str]) -> str:
        path, anchor = link[2], link[3] or ""
        return f"{link[1]}{_in_site((ROOT / at.parent / path).resolve(), path)}{anchor}{link[4]}"

    return re.sub(r"(\]\(|src=\")([^)\s\"#:]+)(#[^)\s\"]*)?([)\"])", moved, markdown)


def _in_site(target: Path, as_written: str) -> str:
    for name, path in {**{n: ROOT / p for n, p in PAGES.items()}, **FILES}.items():
        if path == target:
            return name
    if target.is_relative_to(ROOT / "docs") and target.exists():
        return target.name  # docs/ is flat
    return as_written


def commands_page() -> str:
    """Every option of every command, out of the parsers."""
    from faceattr.cli import _parser

    parsers = _commands_of(_parser()).choices
    lines = [
        "# The commands",
        "",
        "`faceattr COMMAND --help` prints the same. Exit codes: 0 done, 1 failed or something was "
        "found, 2 wrong input, 130 interrupted by Ctrl-C, 143 asked to end (SIGTERM).",
        "",
    ]
    for name, parser in parsers.items():
        lines += _command(name, parser)
    return "\n".join(lines)


def _commands_of(parser: argparse.ArgumentParser) -> argparse._SubParsersAction:
    (found,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return found


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from (f"## faceattr {name}", "", " ".join((parser.description or "").split()), "")
    shown = [group for group in parser._action_groups if _options(group)]
    for group in shown:
        if group.title not in ("positional arguments", "options"):
            yield from (f"**{group.title}**", "")
        yield from ("| | |", "|---|---|")
        for action in _options(group):
            yield f"| {_names(action)} | {_cell(_help(parser, action))} |"
        yield ""


def _options(group) -> list[argparse.Action]:
    hidden = (argparse.SUPPRESS, "show this help message and exit")
    return [action for action in group._group_actions if action.help not in hidden]


def _names(action: argparse.Action) -> str:
    value = _value(action)
    if not action.option_strings:
        return f"`{value}`"
    spaced = f" {value}" if value else ""
    return ", ".join(f"`{name}{spaced}`" for name in action.option_strings)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices and not action.metavar:
        return "|".join(map(str, action.choices))
    name = action.metavar or action.dest.upper()
    more = {"+": " …", "*": " …", "?": ""}.get(str(action.nargs), "")
    return f"{name if isinstance(name, str) else ' '.join(name)}{more}"


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return " ".join(parser._get_formatter()._expand_help(action).split()) if action.help else ""


def _cell(text: str) -> str:
    """A text in a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def api_page() -> str:
    """The public names as `faceattr/__init__.py` groups them, each by its docstring."""
    from faceattr import _PLACES, __doc__

    lines = [
        "# Python",
        "",
        "`import faceattr` takes no time: a name is imported when it is used.",
        "",
    ]
    for title, names in re.findall(r"^(\w+): (.*?)\.$", __doc__ or "", re.M | re.S):
        lines += [f"## {title}", ""]
        for name in re.findall(r"`(\w+)`", names):
            if name in _PLACES and name != "read_image":
                lines += _entry(name, *_PLACES[name])
    lines += ["## Live", "", *_entry("watch", "live.stream", "watch", "faceattr.live.watch")]
    return "\n".join(lines)


def _entry(name: str, module: str, own_name: str, shown: str = "") -> list[str]:
    options = f'    options: {{heading: "{shown or f"faceattr.{name}"}", toc_label: "{name}"}}'
    return [f"::: faceattr.{module}.{own_name}", options, ""]
