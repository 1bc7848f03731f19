"""Files as a disk, a network or an enemy leaves them: bytes changed, cut off, exchanged."""

from __future__ import annotations

import numpy as np

INTERESTING = bytes([0, 1, 0x7F, 0x80, 0xFE, 0xFF])


def corrupted(content: bytes, other: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """A name of what was done, and the content after one to three such changes.

    Args:
        content: The bytes of a whole file.
        other: Another file, of which a piece may be put in.
        rng: Draws.
    """
    done = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        name = str(rng.choice(list(CHANGES)))
        content = CHANGES[name](content or b"\0", other, rng)
        done.append(name)
    return "+".join(done), content


def _flip(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, in the first kilobyte as often as anywhere."""
    changed = bytearray(content)
    reach = min(len(changed), 1024) if rng.random() < 0.5 else len(changed)
    for place in rng.integers(0, reach, int(rng.integers(1, 2 + min(28, len(changed) // 100)))):
        changed[place] = int(rng.integers(256))
    return bytes(changed)


def _extremes(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes in a row at the limits of what they can say, such as a length of 2**32 - 1."""
    place, length = _place(content, rng), int(rng.integers(1, 9))
    value = INTERESTING[int(rng.integers(len(INTERESTING)))]
    return content[:place] + bytes([value]) * length + content[place + length :]


def _truncate(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)]


def _remove(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    place = _place(content, rng)
    return content[:place] + content[place + int(rng.integers(1, 400)) :]


def _repeat(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    place = _place(content, rng)
    return content[:place] + content[max(0, place - int(rng.integers(1, 400))) :]


def _splice(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)] + other[_place(other, rng) :]


def _append(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return content + rng.integers(0, 256, int(rng.integers(1, 3000)), np.uint8).tobytes()


def _place(content: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(0, len(content) + 1))


CHANGES = {
    "flip": _flip,
    "extremes": _extremes,
    "truncate": _truncate,
    "remove": _remove,
    "repeat": _repeat,
    "splice": _splice,
    "append": _append,
}
