"""The tasks of `speed.py`: functions of a module, which every pool can pickle.  Its imports are fast."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any


def nothing(number: int = 0) -> int:
    """Do nothing, so that only the pool's own cost is measured."""
    return number


def stuck_once(seconds: float, path: str) -> float:
    """The same, but for 3 s if that file is there, which is removed: whoever comes next is quick again."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        time.sleep(3.0)
    return last(seconds)


def last(seconds: float) -> float:
    """Take that many seconds: by a sleep, or by a busy loop if they are too few for a sleep."""
    if seconds >= 0.001:
        time.sleep(seconds)
    elif seconds > 0:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
    return seconds


def faulty(folder: str, number: int, fault: str, seconds: float) -> int:
    """Write one byte to a file for each execution; the first one fails half-way: it dies by SIGKILL, or hangs."""
    file = os.open(os.path.join(folder, str(number)), os.O_CREAT | os.O_APPEND | os.O_RDWR)
    try:
        is_first = os.fstat(file).st_size == 0
        os.write(file, b"x")
    finally:
        os.close(file)
    if not fault or not is_first:
        time.sleep(seconds)
        return number
    time.sleep(seconds / 2)
    if fault == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3600)
    return number


def pid() -> int:
    """Return the pid of the worker."""
    return os.getpid()


def array(size: int) -> Any:
    """Make a numpy array of that many bytes, and write to each page of it."""
    import numpy as np

    return np.ones(size // 8)


def taken(values: Any) -> int:
    """Take an array, and return a small value."""
    return len(values)
