"""Keeps the resource trackers of loky and of multiprocessing from holding up a start.

Each start tells them about semaphores, through a pipe and with a lock held.  A tracker that is stopped reads nothing;
once its pipe is full every lane would stand in that write.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

__all__ = ["mend_trackers"]

_PATIENCE = 1.0  # s, for a tracker to make room in its pipe


def mend_trackers() -> None:
    """Kill a resource tracker that has not read for a second; loky and multiprocessing start another by themselves."""
    if sys.platform == "win32":
        return
    for name in ("loky.backend.resource_tracker", "multiprocessing.resource_tracker"):
        tracker = getattr(sys.modules.get(name), "_resource_tracker", None)
        fd, pid = getattr(tracker, "_fd", None), getattr(tracker, "_pid", None)
        if fd is not None and pid is not None and not _takes_more(fd):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _takes_more(fd: int) -> bool:
    """Whether a page can be written there, which is more than one start writes; waits a second for it."""
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return bool(poller.poll(_PATIENCE * 1000))
