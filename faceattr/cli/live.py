"""`faceattr live`."""

from __future__ import annotations

from faceattr.cli.options import add_precision, command, old_names


def add_command(commands) -> None:
    parser = command(commands, live, "watch faces in a camera, video, stream or in the browser")
    add = parser.add_argument
    add(
        "source",
        nargs="?",
        help="camera number (0), video file, stream URL (rtsp://, http://) or folder of frames",
    )
    add(
        "-o",
        "--output",
        action="append",
        metavar="FILE",
        help="write the picture as drawn (.mp4, .mkv, .mov) or a timeline of all faces (.csv); "
        "may be given several times",
    )
    add("--headless", action="store_true", help="open no window; every frame of a file is used")
    add("--overwrite", action="store_true", help="replace outputs that are there")
    add("--model", metavar="FILE", help="a file of `faceattr train` or `faceattr export`")
    add("--detector", help="auto, yunet, centerface, mtcnn, none or a YuNet .onnx file")
    add_precision(parser)
    add("--offline", action="store_true", help="never download the detector's file")
    add("--auto-rotate", action="store_true", help="search faces on their sides and heads as well")
    add("--min-face", type=float, metavar="PIXELS", help="do not describe smaller faces")
    add("--min-confidence", type=float, metavar="P", help="say 'unsure' below this probability")
    add("--rate", type=float, metavar="FPS", help="frames a second of a folder of frames (25)")
    add("--every-frame", action="store_true", help="show every frame of a file, however slowly")
    look = parser.add_argument_group("what is drawn (keys: b, p, m, h for help)")
    look.add_argument("--bars", action="store_true", help="bars for every class")
    look.add_argument("--blur", action="store_true", help="make faces unrecognisable")
    look.add_argument("--mirror", action="store_true", help="turn left and right round")
    look.add_argument("--snapshots", metavar="DIR", help="where key s saves pictures (here)")
    pace = parser.add_argument_group("inference budget and smoothing")
    add = pace.add_argument
    add("--detect-every", type=int, metavar="N", help="search faces in every N-th frame (3)")
    add("--ask-at-once", type=int, metavar="N", help="most faces described in one frame (4)")
    add(
        "--time-constant",
        type=float,
        metavar="S",
        help="seconds over which answers are averaged (0.7)",
    )
    add("--hysteresis", type=float, metavar="P", help="lead another answer needs (0.1)")
    web = parser.add_argument_group("in the browser")
    web.add_argument("--web", action="store_true", help="serve a page with camera and drop field")
    web.add_argument("--host", help="address to serve on (127.0.0.1: this machine only)")
    web.add_argument("--port", type=int, help="port to serve on (8760)")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    renamed = {"--memory": "--time-constant", "--margin": "--hysteresis"}
    old_names(parser, {"--upright": "--auto-rotate", **renamed})


def live(**given) -> int:
    """Watch faces live: boxes, answers averaged over each face's track, figures of the pace."""
    if given.pop("web", False):
        from faceattr.live.web import run as serve

        return serve(**given)
    if typed := [f"--{name}" for name in ("host", "port") if name in given]:
        raise ValueError(f"Without --web nothing is served: {', '.join(typed)} asks for --web.")
    from faceattr.live.viewer import run

    return run(**given)
