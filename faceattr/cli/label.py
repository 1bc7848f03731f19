"""`faceattr label`."""

from __future__ import annotations

from faceattr.cli.options import add_flip, add_precision, by_name, command, duration, old_names


def add_command(commands) -> None:
    parser = command(commands, label, "label the faces of a folder of pictures")
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="PATH",
        help="folders (read recursively), pictures, videos, quoted patterns like 'a/**/*.jpg', "
        "text files of paths, or - for paths on standard input",
    )
    add("-o", "--output", required=True, metavar="TABLE", help=".csv, .jsonl or .parquet")
    add("--model", metavar="FILE", help="a file of `faceattr train` or `faceattr export`")
    add_precision(parser)
    add_flip(parser)
    add(
        "--detector",
        help="auto, yunet, centerface, mtcnn, none (each picture is one face) or "
        "the path of a YuNet .onnx file",
    )
    add("--offline", action="store_true", help="never download the detector's file")
    add(
        "--auto-rotate",
        action="store_true",
        help="pictures may lie on their sides or heads: find out and set faces upright",
    )
    add("--min-face", type=float, metavar="PIXELS", help="do not describe smaller faces")
    add(
        "--min-confidence",
        type=float,
        metavar="P",
        help="leave the answer empty where its probability is lower",
    )
    add(
        "--filter",
        **by_name(str),
        metavar="TASK=CLASS,…",
        help="faces that the model answers otherwise get the status rejected (is_face=yes)",
    )
    add("--every", metavar="TIME", help="distance between two frames of a video (1s)")
    add("--save-crops", metavar="DIR", help="write every face there")
    add("--annotate", metavar="DIR", help="write copies with boxes and answers there")
    add("--gallery", metavar="PAGE.html", help="write a page of faces by answer and confidence")
    add("--workers", type=int, metavar="N", help="threads that decode and detect")
    add("--batch-size", type=int, metavar="N", help="faces that go through the model at once")
    add(
        "--max-pixels",
        type=int,
        metavar="N",
        help="pictures with more pixels are unreadable (200000000)",
    )
    add("--resume", action="store_true", help="go on with the table of a job that was stopped")
    add(
        "--retry-unreadable",
        action="store_true",
        help="with --resume: try again what could not be read",
    )
    add("--overwrite", action="store_true", help="replace a table (and gallery) that is there")
    add(
        "--spreadsheet",
        action="store_true",
        help="the .csv is for a spreadsheet: a ' before texts that it would take for formulas",
    )
    add("--quiet", action="store_true", help="print errors only")
    old_names(parser, {"--upright": "--auto-rotate", "--require": "--filter"})


def label(**given) -> int:
    """Find the faces of many pictures and write a table of their attributes."""
    if "every" in given:
        given["every"] = duration(given["every"])
    from faceattr.inference.console import run

    return run(**given)
