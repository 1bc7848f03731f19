"""How much one may ask of the server."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """What a request may have, and how many may wait.

    Args:
        max_bytes: Of a request's body.
        max_pixels: Of an image.
        max_faces: Of an image that are described; of more, the largest.
        max_images: Of a request.
        queue: Images that wait or are at work; whoever brings more is asked to come back.
        seconds: For a request, from its first byte to its answer.
    """

    max_bytes: int = 16_000_000
    max_pixels: int = 50_000_000
    max_faces: int = 100
    max_images: int = 32
    queue: int = 64
    seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name != "seconds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more. Received: {getattr(self, name)}")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"A request has more than 0 seconds. Received: {self.seconds:g}")
        if self.max_images > self.queue:
            raise ValueError(
                f"A request of {self.max_images} images never finds room in a queue of "
                f"{self.queue}: make the queue longer or allow fewer images."
            )

    @property
    def bytes_at_once(self) -> int:
        """Of all bodies that are held in memory; a longer queue of large ones is turned away."""
        return max(8 * self.max_bytes, 256_000_000)
