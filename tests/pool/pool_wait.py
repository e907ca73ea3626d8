"""How the pool's tests wait: for facts, with a deadline, never for a while."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time
from pathlib import Path

import pool_tasks
import pytest

# Python 3.12.0 and 3.12.1 start no thread any more when the main thread has ended (mended in 3.12.2), and a worker
# needs one of loky's: what has died by then cannot be replaced.
replaces_workers_at_exit = pytest.mark.skipif(
    sys.version_info[:3] in ((3, 12, 0), (3, 12, 1)), reason="this Python starts no thread at exit"
)


def until(predicate, seconds: float = 60, why: str = "it never came true"):
    """Wait for a fact; what the predicate gave."""
    deadline = time.monotonic() + seconds
    while not (value := predicate()):
        assert time.monotonic() < deadline, why
        time.sleep(0.005)
    return value


@contextlib.contextmanager
def held_up(pool):
    """The pool's loop handles nothing meanwhile: what is done in here it finds all at once."""
    gate = threading.Event()
    pool._supervisor.post(lambda: gate.wait(10) and None)
    try:
        yield
    finally:
        gate.set()


def lines(path) -> list[str]:
    """The lines that tasks have left in that file."""
    path = Path(path)
    return path.read_text().splitlines() if path.exists() else []


def wait_lines(path, count: int) -> list[str]:
    """Wait until tasks have left that many lines."""
    return until(lambda: (found := lines(path)) and len(found) >= count and found, why=f"{lines(path)} of {count}")


def is_freed(ref) -> bool:
    """Whether the object behind a weak reference goes away (the threads that bring results are perhaps still at it)."""

    def gone():
        gc.collect()
        return ref() is None

    until(gone, 20, f"still referred to by {gc.get_referrers(ref())!r:.500}")
    return True


def meet_all(pool, folder, count, fn=pool_tasks.meet_attempt):
    """Start tasks, one a lane, and wait until all run; their futures and the pids of their workers."""
    futures = [pool.submit(fn, str(folder / f"here{number}"), str(folder / "go")) for number in range(count)]
    pids = [int(wait_lines(folder / f"here{number}", 1)[0]) for number in range(count)]
    return futures, pids
