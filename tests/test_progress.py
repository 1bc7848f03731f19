"""Long work tells how far it is, on a terminal and in a log."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from faceattr import progress
from faceattr.progress import Bar


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def followed(clock, seconds_each, *, terminal, count=100):
    """What a bar shows of some items that take so many seconds each."""
    shown = Console(file=io.StringIO(), force_terminal=terminal, width=60, highlight=False)
    with Bar(console=shown) as bar:
        for _ in bar.follow(range(count), "baking"):
            clock.now += seconds_each
    return shown.file.getvalue()


def test_a_log_gets_a_line_every_two_minutes_and_no_bar(clock):
    lines = followed(clock, 30, terminal=False).splitlines()
    assert len(lines) == 100 * 30 / progress.EVERY
    assert lines[0].startswith("baking: 4 of 100, ")
    assert lines[0].endswith(" to go")


def test_short_work_leaves_nothing_in_a_log(clock):
    assert followed(clock, 1, terminal=False) == ""


def test_a_terminal_gets_a_bar_and_no_lines(clock):
    shown = followed(clock, 30, terminal=True)
    assert "━" in shown
    assert " of 100" not in shown


def test_every_item_comes_through():
    with Bar(console=Console(file=io.StringIO())) as bar:
        assert list(bar.follow("abc", "x")) == list("abc")
        assert list(bar.follow("", "x")) == []


QUIET_TWICE = """
import os
from faceattr.progress import suppress_stderr
one, other = suppress_stderr(), suppress_stderr()
one.__enter__(), other.__enter__()  # of two threads; the first one ends first
one.__exit__(None, None, None)
os.write(2, b"greeting")
other.__exit__(None, None, None)
os.write(2, b"afterwards")
"""


def test_standard_error_comes_back_after_the_last_of_two_threads():
    done = subprocess.run([sys.executable, "-c", QUIET_TWICE], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"afterwards")


def test_a_process_may_have_no_standard_error():
    code = "from faceattr.progress import suppress_stderr\nwith suppress_stderr(): print(1)"
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, stdout=subprocess.PIPE).stdout == b"1\n"
