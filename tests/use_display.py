"""A screen for tests: Xvfb, keys by xdotool. Skips where these (Debian packages) are missing."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from use_loopback import wait_for


def needs(*programs: str) -> None:
    if missing := [name for name in programs if not shutil.which(name)]:
        pytest.skip(f"needs {', '.join(missing)} (Debian packages of these names)")


class Screen:
    """An X server without hardware; `display` is its name."""

    def __init__(self) -> None:
        needs("Xvfb", "xdotool")
        reading, writing = os.pipe()
        self._server = subprocess.Popen(
            # Without -noreset it throws everyone out when its last client goes, as xdotool does ten
            # times a second: a program that is just opening its window would abort.
            ["Xvfb", "-noreset", "-displayfd", str(writing), "-screen", "0", "1400x900x24"],
            pass_fds=[writing],
            stderr=subprocess.DEVNULL,
        )
        os.close(writing)
        with os.fdopen(reading) as pipe:
            self.display = f":{pipe.readline().strip()}"

    @property
    def environment(self) -> dict[str, str]:
        quiet = {"QT_LOGGING_RULES": "*=false", "TF_CPP_MIN_LOG_LEVEL": "3"}
        return {**os.environ, **quiet, "DISPLAY": self.display}

    def window(self, title: str, owner: subprocess.Popen, patience: float = 120) -> str:
        """The id of a window that `owner` opens, once it is there."""

        def there() -> list[str] | bool:
            return self._do("search", "--name", f"^{title}$").split() or owner.poll() is not None

        found = wait_for(there, patience, f"a window {title!r}")
        if isinstance(found, list):
            return found[-1]
        raise RuntimeError(f"no window {title!r}; {owner.returncode}: {owner.communicate()[1]}")

    def press(self, window: str, key: str) -> None:
        self._do("key", "--window", window, key)

    def _do(self, *arguments: str) -> str:
        done = subprocess.run(
            ["xdotool", *arguments], capture_output=True, text=True, env=self.environment
        )
        return done.stdout

    def end(self) -> None:
        self._server.terminate()
        self._server.wait()
