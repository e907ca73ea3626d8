"""Who claims a tournament's folder: the file ``resilient/lock``, and whether the process that it names still lives."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from socket import gethostname
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FILE_NAME", "holder_of", "is_holder_alive", "read_claim"]

FILE_NAME = "lock"
_SAME_START = 1.0  # s by which two looks at a process's start may differ


def read_claim(descriptor: int) -> dict[str, Any]:
    """What the open file says; empty where it was cut short: its writer held the lock, so the lock alone judges."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def is_holder_alive(holder: dict[str, Any]) -> bool:
    """Whether the process that a claim names runs on this host."""
    pid, started = holder.get("pid"), holder.get("started")
    if holder.get("host") != gethostname() or not isinstance(pid, int) or not isinstance(started, int | float):
        return False
    import psutil

    try:
        process = psutil.Process(pid)
        is_same: bool = abs(process.create_time() - started) <= _SAME_START
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def holder_of(folder: Path) -> dict[str, Any] | None:
    """Who is at work in the folder of a tournament, for all that can be seen from here; ``None``: nobody.

    Nothing is changed.  A claim of another host is believed: from here nobody can tell.
    """
    path = places.to_read(folder, FILE_NAME)
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            claim = read_claim(descriptor)
            if not _is_free(descriptor) or is_holder_alive(claim) or claim.get("host", gethostname()) != gethostname():
                return claim
        finally:
            os.close(descriptor)
    return None


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no locks
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True
