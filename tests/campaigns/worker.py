"""Commands of faceattr one after another in one process, each outcome a line of JSON.

A process that starts Keras once runs thousands of them. Where it dies, `outcomes` knows at which
command, and starts another one behind it.
"""

from __future__ import annotations

import contextlib
import io
import json
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

SLOWEST = 300.0  # seconds for one command; the first one imports TensorFlow


def outcomes(commands: Sequence[Sequence[str]], slowest: float = SLOWEST) -> Iterator[dict]:
    """By command: exit ``code``, ``out``, ``err``, and a ``traceback`` or None.

    The code is a signal's negative number where the process died, and "hangs" where it had to be
    killed.
    """
    done = 0
    while done < len(commands):
        for outcome in _one_process(commands[done:], slowest):
            done += 1
            yield outcome


def _one_process(commands: Sequence[Sequence[str]], slowest: float) -> Iterator[dict]:
    how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, __file__], text=True, **how)
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        for command in commands:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(command) + "\n")
                process.stdin.flush()
            try:
                line = lines.get(timeout=slowest)
            except queue.Empty:
                line = None
            if not line:  # it hangs, or it is dead
                code = "hangs" if line is None else process.wait()
                yield {"code": code, "out": "", "err": "", "traceback": None}
                return
            yield json.loads(line)
    finally:
        # Killed first: a pipe cannot be closed while the reader waits for it.
        process.kill()
        reader.join()
        process.communicate()


def _forward(lines: io.TextIOBase, target: queue.Queue[str]) -> None:
    for line in lines:
        if line.startswith("{"):
            target.put(line)
    target.put("")


def _run(command: Sequence[str]) -> dict:
    from faceattr.cli import main

    out, err, trace = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(command))
        except SystemExit as end:
            code = end.code
        except BaseException:
            code, trace = 1, traceback.format_exc()
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "traceback": trace}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    answers = sys.stdout
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), file=answers, flush=True)
