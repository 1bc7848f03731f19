"""`faceattr average`."""

from __future__ import annotations

from faceattr.cli.options import command, start_keras


def add_command(commands) -> None:
    parser = command(commands, average, "average the weights of several models")
    add = parser.add_argument
    a_model = "a .keras file, hf://user/model, shipped or shipped-slim"
    add("models", nargs="+", metavar="MODEL", help=a_model)
    add("-o", "--output", required=True, metavar="MODEL", help="the .keras file to write")
    add("--overwrite", action="store_true", help="replace a model that is already there")


def average(models, output, **given) -> int:
    """Write the mean of the weights of models that went on from one start. Nothing is measured:
    `faceattr evaluate` tells whether the mean is better than each of them."""
    start_keras()
    from faceattr.training.average import average

    average(models, output, **given)
    print(f"the mean of {len(models)} models: {output} (faceattr evaluate tells what it is worth)")
    return 0
