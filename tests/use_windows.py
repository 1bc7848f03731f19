"""What Windows refuses, refused here: a file that is open is neither moved nor deleted, and one
that is open for reading alone is not synced. It looks at the files of this process alone."""

import errno
import os
from pathlib import Path

import pytest


def _is_open(path: str) -> bool:
    own = os.path.realpath(path)
    maps = Path("/proc/self/maps").read_text("utf-8").splitlines()
    files = map(os.path.realpath, Path("/proc/self/fd").iterdir())
    return own in files or any(line.endswith(f" {own}") for line in maps)


@pytest.fixture
def as_on_windows(monkeypatch):
    """Meanwhile `os` refuses what it refuses on Windows; without /proc it changes nothing."""
    if not Path("/proc/self/maps").exists():
        return
    import fcntl

    fsync = os.fsync

    def synced(file):
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        fsync(file)

    def unless_open(call):
        def refused(*paths, dir_fd=None, **how):
            folder = "" if dir_fd is None else f"/proc/self/fd/{dir_fd}"
            if any(_is_open(os.path.join(folder, path)) for path in paths):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), paths[0])
            return call(*paths, **how, **({} if dir_fd is None else {"dir_fd": dir_fd}))

        return refused

    monkeypatch.setattr(os, "fsync", synced)
    for name in ("replace", "rename", "unlink", "remove"):
        monkeypatch.setattr(os, name, unless_open(getattr(os, name)))
