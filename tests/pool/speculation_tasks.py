"""Tasks that do one thing in their first attempt, and another in the twin of it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from resilient_exec import task_context


def quick(number):
    return number


def act(folder, first, twin="", result="same"):
    """Say that the attempt has begun, do what it is to do, and return its number, or what is the ``same`` for both."""
    attempt = task_context().attempt
    begin(folder, attempt)
    _do(folder, (first, twin)[attempt - 1])
    return attempt if result == "number" else result


def begin(folder, attempt):
    path = Path(folder) / f"{attempt}.part"
    path.write_text(f"{os.getpid()} {task_context().previous_pids}")
    path.rename(Path(folder) / str(attempt))


def _do(folder, what):
    if what == "hang":
        time.sleep(600)
    elif what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "raise":
        raise ValueError("no")
    elif what.startswith("await "):
        name, _, then = what.removeprefix("await ").partition(", ")
        await_file(Path(folder) / name)
        _do(folder, then)


def await_file(path):
    while not Path(path).exists():
        time.sleep(0.002)


def act_once(folder, number, odd):
    """A call of a ``map``, one of which hangs in its first attempt."""
    with (Path(folder) / f"ran {number}").open("a") as file:
        file.write(f"{task_context().attempt}\n")
    if number == odd and task_context().attempt == 1:
        time.sleep(600)
    time.sleep(0.01)
    return number
