"""`faceattr export`."""

from __future__ import annotations

from faceattr.cli.options import add_label_options, command, label_map_of, start_keras


def add_command(commands) -> None:
    parser = command(commands, export, "write a model for another runtime, with a proof")
    add = parser.add_argument
    targets = ("onnx", "litert", "openvino", "saved_model")
    add("model", help="a .keras file, or 'shipped'")
    add("--to", required=True, choices=targets, help="the runtime to write for")
    add("-o", "--output", metavar="FILE", help="by default the model's name with another ending")
    add(
        "--on",
        nargs="+",
        metavar="[TASK=]PATH",
        help="labelled faces to prove it on: manifest CSV or folder (made pictures)",
    )
    add("--int8", action="store_true", help="compute in 8 bits; needs --on")
    add("--rows", type=int, metavar="N", help="faces for each task in the proof (1000)")
    add("--cache", metavar="DIR", help="folder of the crop cache")
    add("--overwrite", action="store_true", help="replace an exported model that is there")
    add_label_options(parser)


def export(model, to, **given) -> int:
    """Write a model for another runtime. The file is kept only when it is proved to answer like
    the model; the proof stands beside it in FILE.json. `faceattr label --model` takes the file."""
    start_keras()
    from faceattr.exporting.export import export as run

    label_map = label_map_of(given)
    run(model, to, label_map=label_map, **given)
    return 0
