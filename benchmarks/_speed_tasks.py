"""The tasks of `speed.py`: functions of a module, as every pool can send them.  Imports nothing that costs."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


def nothing(number: int = 0) -> int:
    """Cost what the pool itself costs."""
    return number


def last(seconds: float) -> float:
    """Last so long: asleep, or, below what a sleep can do, busy."""
    if seconds >= 0.001:
        time.sleep(seconds)
    elif seconds > 0:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
    return seconds


def faulty(folder: str, number: int, fault: str, seconds: float) -> int:
    """Leave one byte for each execution; the first one fails half-way: it dies by SIGKILL, or hangs."""
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
    """Say which process this is."""
    return os.getpid()


def array(size: int) -> Any:
    """Make a numpy array of so many bytes, each page of it touched."""
    import numpy as np

    return np.ones(size // 8)


def taken(values: Any) -> int:
    """Take an array, and give something small."""
    return len(values)
