"""How fast the live demo goes, measured while it goes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from faceattr.live.stream import Watch

PACE_SECONDS = 2.0


class Pace:
    """How fast it goes: frames shown and looked at a second, how late picture and answers are."""

    def __init__(self, watching: Watch) -> None:
        self._watching = watching
        self._shown: deque[float] = deque()
        self._looks: deque[tuple[float, int]] = deque()
        self._picture = 0.0
        self._answer = 0.0
        self._last_look = -1

    def tick(self, captured: float) -> None:
        """Count a frame that is being shown, captured at that moment of `time.monotonic`."""
        now = time.monotonic()
        self._shown.append(now)
        self._looks.append((now, self._watching.looks))
        while now - self._shown[0] > PACE_SECONDS:
            self._shown.popleft()
            self._looks.popleft()
        self._picture = 0.9 * self._picture + 0.1 * (now - captured)
        seen = self._watching.seen
        if seen is not None and seen.number != self._last_look:
            late = now - seen.captured
            self._answer = late if self._last_look < 0 else 0.8 * self._answer + 0.2 * late
            self._last_look = seen.number

    @property
    def frames_per_second(self) -> float:
        """Frames shown, over the last two seconds."""
        return _rate([(moment, number) for number, moment in enumerate(self._shown)])

    @property
    def looks_per_second(self) -> float:
        """Frames in which faces were looked for, over the last two seconds."""
        return _rate(list(self._looks))

    def line(self) -> str:
        """All of it in one line."""
        detector = self._watching.recogniser.attributes.detector.about["name"]
        return (
            f"{self.frames_per_second:.0f} frames/s   {self.looks_per_second:.0f} looks/s   "
            f"picture {1000 * self._picture:.0f} ms   answers {1000 * self._answer:.0f} ms   "
            f"{detector}"
        )


def _rate(counts: Sequence[tuple[float, int]]) -> float:
    if len(counts) < 2 or counts[-1][0] == counts[0][0]:
        return 0.0
    return (counts[-1][1] - counts[0][1]) / (counts[-1][0] - counts[0][0])
