"""A window on the screen, if there is a screen."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np

TITLE = "faceattr"
NO_KEY = -1
# Opens a window and is gone; what would abort this process aborts only that one.
ATTEMPT = "import cv2; cv2.namedWindow('…'); cv2.waitKey(1); cv2.destroyAllWindows()"
INSTEAD = "Use --headless with -o out.mp4 or -o faces.csv, or --web to watch in the browser."


def require_screen() -> None:
    """Make sure that a window can open: OpenCV ends the whole process where it cannot.

    Raises:
        OSError: There is no screen, or none that this process may use.
    """
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise OSError(
            "There is no screen for a window: neither DISPLAY nor WAYLAND_DISPLAY is set. "
            + INSTEAD
        )
    attempt = subprocess.run(
        [sys.executable, "-c", ATTEMPT], capture_output=True, timeout=60, check=False
    )
    if attempt.returncode != 0:
        raise OSError(f"No window can be opened on the screen {_screen()}. {INSTEAD}")


def _screen() -> str:
    return os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or "of this machine"


class Window:
    """A window that can be resized and says which keys were pressed.

    Raises:
        OSError: There is no screen.
    """

    def __init__(self, title: str = TITLE) -> None:
        self.title = title
        self._is_open = False

    def show(self, image: np.ndarray) -> None:
        """Viewer an RGB ``uint8`` image ``(h, w, 3)``."""
        if not self._is_open:
            flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
            cv2.namedWindow(self.title, flags)
            height, width = image.shape[:2]
            cv2.resizeWindow(self.title, width, height)
            self._is_open = True
        cv2.imshow(self.title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def key(self, patience: float = 0.001) -> str:
        """The key pressed within so many seconds, as text; ``""`` for none.

        Escape is ``"\\x1b"``, as is closing the window with the mouse.
        """
        if not self._is_open:
            return ""
        code = cv2.waitKey(max(1, round(1000 * patience)))
        if code == NO_KEY:
            return "" if self._is_visible() else "\x1b"
        return chr(code & 0xFF).lower()

    def _is_visible(self) -> bool:
        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:
            return False

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_open and self._is_visible():
            cv2.destroyWindow(self.title)
            cv2.waitKey(1)
