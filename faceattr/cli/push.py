"""`faceattr push`."""

from __future__ import annotations

from faceattr.cli.console import show
from faceattr.cli.options import command, start_keras


def add_command(commands) -> None:
    parser = command(commands, push, "put a model on the Hugging Face hub")
    add = parser.add_argument
    add("model", metavar="MODEL", help="a .keras file, shipped or shipped-slim")
    add("repo", metavar="USER/NAME", help="where on the hub; it is made where it is not there")
    add("--private", action="store_true", help="one that only you see, if it is made")
    add("--card", metavar="FILE", help="a Markdown file as the card (one out of the model)")
    add("--overwrite-card", action="store_true", help="replace a card that is there")


def push(model, repo, **given) -> int:
    """Put a model and its card on the Hugging Face hub, in one commit. Everywhere a model is taken,
    hf://USER/NAME takes it from there."""
    start_keras()
    from faceattr.exporting.push import push

    done = push(model, repo, **given)
    show(f"pushed {model} to {done.url}: load it as {done.model}")
    if not done.with_card:
        show("the card that is there was left alone; --overwrite-card replaces it")
    return 0
