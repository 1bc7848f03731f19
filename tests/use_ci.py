"""With FACEATTR_CI in the environment a skipped test is an error, but for a few reasons."""

from __future__ import annotations

import os

import pytest

# What a test's reason says, and why it may be skipped for it.
MAY_BE_SKIPPED = {
    "FER2013 is not on this machine": "its pictures are not ours to hand on",
    "no YuNet file at": "the user downloads it",
    "onnxruntime-web is not in the cache": "33 MB of npm, which tests do not fetch",
    "needs chromium": "a Debian package, where root may install it",
    "needs Xvfb": "the same",
    "needs xdotool": "the same",
    "PySpark is not installed": "it needs Java as well",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _not_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _not_skipped((yield))


def _not_skipped(report):
    """The same report, failed if it was skipped for want of what should be there."""
    if os.environ.get("FACEATTR_CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2]
        if not any(allowed in reason for allowed in MAY_BE_SKIPPED):
            report.outcome = "failed"
            report.longrepr = f"{reason}: no reason of MAY_BE_SKIPPED, so an error with FACEATTR_CI"
    return report
