"""`faceattr live`."""

from __future__ import annotations

from contextlib import nullcontext

from rich.console import Console

from faceattr.cli.console import ERR, Aside, ctrl_c, on_stderr
from faceattr.cli.options import (
    INTERRUPTED,
    USUAL,
    add_describing,
    command,
    old_names,
    open_attributes,
    taken,
)
from faceattr.files import is_same_file


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
        help="write the image as drawn (.mp4, .mkv, .mov) or a timeline of all faces (.csv); "
        "may be given several times",
    )
    add("--headless", action="store_true", help="open no window; every frame of a file is used")
    add("--overwrite", action="store_true", help="replace outputs that are there")
    add_describing(parser, *USUAL)
    add("--rate", type=float, metavar="FPS", help="frames a second of a folder of frames (25)")
    add("--every-frame", action="store_true", help="show every frame of a file, however slowly")
    look = parser.add_argument_group("what is drawn (keys: b, p, m, h for help)")
    look.add_argument("--bars", action="store_true", help="bars for every class")
    look.add_argument("--blur", action="store_true", help="make faces unrecognisable")
    look.add_argument("--mirror", action="store_true", help="turn left and right round")
    look.add_argument("--snapshots", metavar="DIR", help="where key s saves images (here)")
    pace = parser.add_argument_group("inference budget and smoothing")
    add = pace.add_argument
    add("--detect-every", type=int, metavar="N", help="detect faces in every N-th frame (3)")
    add("--ask-at-once", type=int, metavar="N", help="most faces described in one frame (4)")
    averaged = "seconds over which answers are averaged (0.7)"
    add("--time-constant", type=float, metavar="S", help=averaged)
    add("--hysteresis", type=float, metavar="P", help="lead another answer needs (0.1)")
    web = parser.add_argument_group("in the browser")
    web.add_argument("--web", action="store_true", help="serve a page with camera and drop field")
    web.add_argument("--host", help="address to serve on (127.0.0.1: this machine only)")
    web.add_argument("--port", type=int, help="port to serve on (8760)")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    renamed = {"--memory": "--time-constant", "--margin": "--hysteresis"}
    old_names(parser, {"--engine": "--runtime", "--upright": "--auto-rotate", **renamed})


BROKE_OFF = 1
CANNOT = "--web has no use for {}: the page has the camera, the files and the buttons."
IN_A_WINDOW = ("source", "output", "headless", "every_frame", "rate", "snapshots", "overwrite")


def live(**given) -> int:
    """Watch faces live: boxes, answers averaged over each face's track, figures of the pace."""
    if given.pop("web", False):
        return _serve(**given)
    if typed := [f"--{name}" for name in ("host", "port") if name in given]:
        raise ValueError(f"Without --web nothing is served: {', '.join(typed)} asks for --web.")
    return _watch(**given)


def _watch(source="0", quiet=False, **given) -> int:
    from faceattr.images.camera import is_live, open_feed
    from faceattr.live.overlay import View
    from faceattr.live.stream import watch
    from faceattr.live.viewer import Outputs, Viewer

    console = on_stderr(quiet)
    outputs = Outputs(**taken(given, ("output", "headless", "overwrite", "snapshots")))
    view, how = View(**taken(given, ("bars", "blur", "mirror"))), _budget_and_smoothing(given)
    for path in outputs.output:
        if is_same_file(path, source):
            raise ValueError(f"{path} is the source itself. Choose another output.")
    every_frame = given.pop("every_frame", outputs.headless and not is_live(source))
    # What is typed wrongly shall be told before the seconds that a model takes to load.
    with open_feed(source, **taken(given, ("rate",))) as feed, ctrl_c() as stopped:
        attributes = open_attributes(given, Aside(console))
        status = console.status("watching") if outputs.headless else nullcontext()
        progress = LiveProgress(console, status)
        with watch(feed, attributes, every_frame=every_frame, **how) as watching, status:
            summary = Viewer(watching, outputs, view, progress).run(stopped)
    if summary.failure:
        Aside().show(f"faceattr: {summary.failure}. What was written so far stays.")
    console.print(f"{summary.frames} frames, {summary.people} people; {summary.figures}")
    for path in summary.written:
        console.print(f"  -> {path}")
    return BROKE_OFF if summary.failure else INTERRUPTED if summary.is_interrupted else 0


def _serve(quiet=False, **given) -> int:
    if typed := [name for name in IN_A_WINDOW if name in given]:
        raise ValueError(CANNOT.format(", ".join(typed)))
    from faceattr.live.web import PageAddress, serve
    from faceattr.serving.address import require_web

    require_web("The page", "websockets")
    how, switched_on = _budget_and_smoothing(given), taken(given, ("bars", "blur", "mirror"))
    address = PageAddress(**taken(given, ("host", "port")))
    console = on_stderr(quiet)
    attributes = open_attributes(given, Aside(console))
    # A token is told to the quiet, too: without it nobody gets in.
    serve(attributes, address, Aside(ERR if address.token else console), list(switched_on), **how)
    return 0


def _budget_and_smoothing(given: dict) -> dict:
    from faceattr.live.face_tracker import InferenceBudget
    from faceattr.live.tracking import Smoothing

    budget = taken(given, ("detect_every", "ask_at_once"))
    smoothing = taken(given, ("time_constant", "hysteresis", "min_confidence"))
    found = {"budget": InferenceBudget(**budget)} if budget else {}
    return found | ({"smoothing": Smoothing(**smoothing)} if smoothing else {})


class LiveProgress(Aside):
    """Lines on standard error and, where there is no window, a status that changes in place."""

    def __init__(self, console: Console, status) -> None:
        super().__init__(console)
        self._status = status

    def show(self, record: object) -> None:
        from faceattr.live.viewer import Status

        if isinstance(record, Status):
            self._status.update(record)
        else:
            super().show(record)
