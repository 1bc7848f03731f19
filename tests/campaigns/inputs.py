"""Any input has a row, a status and no traceback: ``faceattr label`` on files that are broken.

    python tests/campaigns/inputs.py --count 10000 --seed 1

Makes files of all formats, breaks most of them, adds bombs, odd names and things that are no
files, labels them all with one command (the shipped model and detector), and counts. Exit code
1 where a promise is broken.
"""

from __future__ import annotations

import io
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pandas as pd
from common import FACEATTR, main
from corrupt import corrupted
from PIL import Image
from skimage import data

GOOD_SHARE = 0.05
STATUSES = {"ok", "no_face", "unreadable", "too_small", "rejected"}
MOST_CRASHES = 30  # three at an input, before it is left unread
LARGEST_MEMORY = 4 << 30  # bytes: 2 GiB for images under way, the rest for the engine


def seeds() -> dict[str, list[bytes]]:
    """Whole files by suffix: a face of several sizes and kinds of pixels."""
    face = Image.fromarray(data.astronaut()[0:280, 100:380])
    found: dict[str, list[bytes]] = {}
    exif = Image.Exif()
    exif[0x0112] = 6
    for size in (96, 160):
        small = face.resize((size, size))
        grey, alpha, palette = small.convert("L"), small.convert("RGBA"), small.convert("P")
        deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        for suffix, image, how in (
            (".jpg", small, {"quality": 80}),
            (".jpg", small, {"progressive": True, "exif": exif}),
            (".jpg", grey, {}),
            (".jpg", small.convert("CMYK"), {}),
            (".png", small, {}),
            (".png", palette, {}),
            (".png", alpha, {}),
            (".png", deep, {}),
            (".webp", small, {}),
            (".webp", alpha, {"lossless": True}),
            (".gif", palette, {"save_all": True, "append_images": [palette] * 3}),
            (".tif", small, {"compression": "tiff_lzw"}),
            (".tif", deep, {}),
            (".tif", small, {"compression": "jpeg"}),
            (".bmp", small, {}),
            (".avif", small, {}),
            (".jp2", small, {}),
            (".tga", small, {}),
            (".ppm", small, {}),
        ):
            target = io.BytesIO()
            image.save(target, Image.registered_extensions()[suffix], **how)
            found.setdefault(suffix, []).append(target.getvalue())
    for suffix, codec in ((".mp4", "mpeg4"), (".mkv", "mpeg4"), (".avi", "mjpeg")):
        found[suffix] = [_video(np.asarray(face.resize((160, 160))), suffix, codec)]
    return found


def _video(image: np.ndarray, suffix: str, codec: str) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format={".mkv": "matroska"}.get(suffix, suffix[1:])) as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height = image.shape[1], image.shape[0]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for shift in range(5):
            frame = av.VideoFrame.from_ndarray(np.roll(image, shift, 1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return target.getvalue()


def bombs() -> dict[str, bytes]:
    """Small files that claim or unpack to very much."""
    face = Image.fromarray(data.astronaut()[0:128, 150:278])
    many, target = io.BytesIO(), io.BytesIO()
    frames = [Image.new("P", (8, 8), i % 255) for i in range(3000)]
    frames[0].save(many, "GIF", save_all=True, append_images=frames[1:])
    face.save(target, "PNG")
    png = target.getvalue()
    profile = io.BytesIO()
    face.save(profile, "JPEG", icc_profile=bytes(20_000_000))
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    wordy = io.BytesIO()
    face.save(wordy, "JPEG", exif=exif)
    zeros = zlib.compress(bytes(300_000_000), 9)
    return {
        "pixels.png": _png(100_000, 100_000, zlib.compress(bytes(1000))),
        "just_too_many.png": _png(20_000, 20_000, zeros),
        "rows_missing.png": _png(10_000, 10_000, zlib.compress(bytes(1000))),
        "frames.gif": many.getvalue(),
        "text.png": png[:33] + _chunk(b"zTXt", b"a\0\0" + zeros) + png[33:],
        "profile.png": png[:33] + _chunk(b"iCCP", b"a\0\0" + zeros) + png[33:],
        "profile.jpg": profile.getvalue(),
        "exif.jpg": wordy.getvalue(),
        "zip.jpg": b"PK\3\4" + bytes(1000),
        "no_bytes.jpg": b"",
        "one_byte.png": b"\x89",
    }


def _png(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", pixels), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


ODD_NAMES = (
    b"with a space.jpg",
    b"-o.jpg",
    b"--help.jpg",
    "émoji 😀.jpg".encode(),
    b"line\nbreak.jpg",
    b'tab\tand;semi,comma".jpg',
    b"not \xff utf8.jpg",
    b"=cmd|calc.jpg",
    b"x" * 251 + b".jpg",
    b"UPPER.JPG",
    b"%s%n{}.jpg",
)


def make(folder: Path, count: int, seed: int) -> dict[str, str]:
    """Fill a folder with `count` inputs; by name as the table spells it, what each is."""
    rng, whole, kinds = np.random.default_rng(seed), seeds(), {}
    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    for name in ODD_NAMES:
        Path(os.fsdecode(os.fsencode(inputs) + b"/" + name)).write_bytes(whole[".jpg"][0])
        kinds[name.decode("utf-8", "backslashreplace")] = "good .jpg 0"
    for name, content in bombs().items():
        (inputs / name).write_bytes(content)
        kinds[name] = f"bomb {name}"
    kinds |= _no_files(inputs, whole[".jpg"][0])
    for suffix, contents in whole.items():
        for place, content in enumerate(contents):
            (inputs / f"whole{place}{suffix}").write_bytes(content)
            kinds[f"whole{place}{suffix}"] = f"good {suffix} {place}"
    suffixes = list(whole)
    for number in range(max(0, count - len(kinds))):
        suffix = suffixes[number % len(suffixes)]
        place = int(rng.integers(len(whole[suffix])))
        kind, content = f"good {suffix} {place}", whole[suffix][place]
        if rng.random() >= GOOD_SHARE:
            other = whole[str(rng.choice(suffixes))][0]
            kind, content = corrupted(content, other, rng)
        name = f"{number:06d}{suffix}"
        (inputs / name).write_bytes(content)
        kinds[name] = kind
    return kinds


def _no_files(inputs: Path, content: bytes) -> dict[str, str]:
    """Links, a pipe, a socket, a folder with the name of an image."""
    (inputs / "dangling.jpg").symlink_to("nowhere.jpg")
    (inputs / "loop_a.jpg").symlink_to("loop_b.jpg")
    (inputs / "loop_b.jpg").symlink_to("loop_a.jpg")
    (inputs / "circle").symlink_to(".")
    os.mkfifo(inputs / "pipe.jpg")
    here = os.getcwd()
    os.chdir(inputs)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    os.chdir(here)
    (inputs / "locked.jpg").write_bytes(content)
    (inputs / "locked.jpg").chmod(0)
    odd = ("dangling.jpg", "loop_a.jpg", "loop_b.jpg", "pipe.jpg", "socket.jpg")
    return dict.fromkeys(odd, "no file") | {"locked.jpg": "locked"}


@dataclass
class Ended:
    """How the command came to its end: exit code, standard error, most bytes it held, crashes."""

    code: int
    errors: str
    memory: int
    crashes: int = 0


def label(folder: Path, limit: float) -> Ended:
    """Run the command on the folder; where a library crashes, it is gone on with."""
    given = ["label", str(folder / "inputs"), "-o", str(folder / "table.csv")]
    ends = time.monotonic() + limit
    ended = _labelled(given, folder, ends)
    while ended.code < 0 and ended.crashes < MOST_CRASHES and time.monotonic() < ends:
        again = _labelled([*given, "--resume"], folder, ends)
        memory = max(ended.memory, again.memory)
        ended = Ended(again.code, ended.errors + again.errors, memory, ended.crashes + 1)
    return ended


def _labelled(given: list[str], folder: Path, ends: float) -> Ended:
    with (folder / "errors.txt").open("w+b") as errors:
        process = subprocess.Popen([*FACEATTR, *given], stdout=subprocess.DEVNULL, stderr=errors)
        memory = 0
        while process.poll() is None:
            memory = max(memory, peak_memory(process.pid))
            if time.monotonic() > ends:
                process.kill()
            time.sleep(0.02)
        errors.seek(0)
        return Ended(process.returncode, errors.read().decode("utf-8", "replace"), memory)


def judge(folder: Path, kinds: dict[str, str], code: int, errors: str, memory: int = 0) -> dict:
    """Counts, and what was promised and not kept."""
    table = pd.read_csv(folder / "table.csv", keep_default_na=False)
    table["name"] = [path[len(str(folder / "inputs")) + 1 :] for path in table.path]
    found = table.drop_duplicates("name").set_index("name").status.to_dict()
    unread = {name for name, kind in kinds.items() if kind == "no file"}
    broken = {
        "exit code": [code] * (code != 0),
        "tracebacks": [errors] * ("Traceback" in errors),
        "without a row": sorted(set(kinds) - set(found)),
        "rows of nothing": sorted(set(found) - set(kinds)),
        "unknown status": sorted(set(found.values()) - STATUSES),
        "read what is no file": sorted(n for n in unread if found.get(n) == "ok"),
        "same file, other answer": _differing(table, kinds),
        "memory": [memory] * (memory > LARGEST_MEMORY),
    }
    return {
        "inputs": len(kinds),
        "rows": len(table),
        "status": dict(Counter(found.values())),
        "peak_memory_MiB": memory >> 20,
        "broken": {name: of[:20] for name, of in broken.items() if of},
    }


def peak_memory(pid: int) -> int:
    """The most bytes that a running process has held; 0 once it has ended.

    `resource.getrusage` is no help: a child starts with the peak of the process that started it.
    """
    return status_of(pid, "VmHWM") << 10


def status_of(pid: int, name: str) -> int:
    """A number of ``/proc/PID/status``, 0 once the process has ended; sizes are in KiB."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(found[1]) if (found := re.search(rf"^{name}:\s+(\d+)", status, re.M)) else 0


def _differing(table: pd.DataFrame, kinds: dict[str, str]) -> list[str]:
    """Good files that are not answered as the same file under another name."""
    table = table.assign(kind=table.name.map(kinds))
    good = table[table.kind.str.startswith("good", na=False)]
    differing = []
    for kind, rows in good.groupby("kind"):
        answers = {
            of.drop(columns=["path", "name"]).to_csv(index=False) for _, of in rows.groupby("name")
        }
        if len(answers) > 1 or (kind == "good .jpg 0" and set(rows.status) != {"ok"}):
            differing.append(kind)
    return differing


def run(count: int, seed: int, limit: float = 3600) -> dict:
    """Make, label, judge; the record of the campaign."""
    with tempfile.TemporaryDirectory("-faceattr", ignore_cleanup_errors=True) as root:
        folder = Path(root)
        kinds = make(folder, count, seed)
        started = time.monotonic()
        ended = label(folder, limit)
        seconds = round(time.monotonic() - started)
        record = {"seed": seed, "seconds": seconds, "crashes": ended.crashes}
        return record | judge(folder, kinds, ended.code, ended.errors, ended.memory)


if __name__ == "__main__":
    sys.exit(main(__doc__, run, 10_000))
