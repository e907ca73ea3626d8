"""One run at a time in a tournament's folder, by a file that names the run's process, and a kernel lock on that file.

Two runs of one tournament at the same time would run its worlds twice, and each would read the other's half-written
files.  So a run claims the folder first.  The claim is a file, ``resilient/lock``, with the host, pid and start time of
the holder.  The holder also keeps it locked (``flock``); the kernel releases the lock when the process ends.  Two
threads of one process exclude each other, too, since each opens the file separately.

Whether a claim that is found is still valid:

* The lock is held: its holder is alive.  Refused; the message has the content of the file.
* The lock is free, and the file names another host: this cannot be decided here, since locks do not work across every
  network file system.  Refused, unless the user states by ``take_over`` that no other host is at work there.
* The lock is free, and the file names a process of this host that is alive (same start time): the file system has no
  locks.  Refused.
* Otherwise the holder is gone (killed, or the machine was restarted): the claim is taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from contextlib import contextmanager
from socket import gethostname
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters import places
from resilient_exec.adapters.claims import FILE_NAME, is_holder_alive, read_claim
from resilient_exec.adapters.negmas.checks import CheckFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["FILE_NAME", "claim", "objection"]

_MAX_TRIES = 100  # a try fails only if another holder removes its file at the same time


@contextmanager
def claim(folder: Path, *, take_over: bool = False) -> Iterator[None]:
    """Hold the folder during a ``with`` block.

    Args:
        folder: of the tournament.
        take_over: whether to replace the claim of another host, of which it cannot be seen here whether it is alive.

    Raises:
        CheckFailed: another run holds the folder; the message names it, and the remedy.
    """
    path = places.to_write(folder, FILE_NAME)
    descriptor = _acquire(path, take_over=take_over)
    try:
        yield
    finally:
        # Removed before it is unlocked, so that whoever gets the lock next sees that the file is no longer at its path.
        if _is_same_file(path, descriptor):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, *, take_over: bool) -> int:
    for _ in range(_MAX_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            is_free = _lock(descriptor)
            if _is_same_file(path, descriptor):
                if _write_claim(path, descriptor, is_free=is_free, take_over=take_over):
                    return descriptor
                path.unlink(missing_ok=True)  # make a new file, which the other host does not remove if it is alive
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise CheckFailed(f"{path} is made and removed repeatedly: several runs of this tournament are starting; start one")


def _lock(descriptor: int) -> bool | None:
    """Try to lock the file; whether that succeeded.  ``None``: this file system has no locks."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_same_file(path: Path, descriptor: int) -> bool:
    """Whether the opened file is still the one at ``path``."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


def _write_claim(path: Path, descriptor: int, *, is_free: bool | None, take_over: bool) -> bool:
    """Write our claim into the file.  Returns ``False`` if the file is of another host, and has to be replaced instead.

    Raises:
        CheckFailed: the claim in the file is still valid.
    """
    holder = read_claim(descriptor)
    me = _own_claim()
    refusal = objection(holder, me, is_free=is_free, lives=is_holder_alive(holder), take_over=take_over)
    if refusal is not None:
        raise CheckFailed(f"{path.parent.parent} is in use: {refusal.format(path=path)}")
    if holder and holder.get("host") != me["host"]:
        return False
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(me).encode(), 0)
    return True


def objection(
    holder: dict[str, Any], me: dict[str, Any], *, is_free: bool | None, lives: bool, take_over: bool = False
) -> str | None:
    """Why the claim of ``holder`` is still valid, with the remedy; ``None``: it is not, or there is none.

    Args:
        holder: the content of the file; empty if it has none.
        me: the claim of this process.
        is_free: whether the kernel's lock could be taken; ``None`` if there are no locks.
        lives: whether the process that the file names is alive on this host.
        take_over: whether the user has stated that no other host is at work there.
    """
    pid, host, since = holder.get("pid", "unknown"), holder.get("host", "unknown"), holder.get("since", "unknown")
    who = f"process {pid} on {host} runs this tournament (since {since})"
    if is_free is False:
        if pid == me["pid"] and host == me["host"]:
            return "another thread of this very process runs this tournament; wait for it, or copy the folder"
        return f"{who}; wait until it has ended, or end it (then run this again: finished worlds are kept)"
    if not holder:
        return None
    if host != me["host"]:
        if take_over:
            return None
        return (
            f"{who}, by {{path}}; whether it still does cannot be seen from {me['host']}: if not, run this again with "
            "take_over=True (--take-over)"
        )
    if lives and (is_free is None or pid != me["pid"]):
        return f"{who}, by {{path}}; wait until it has ended, or end it (then run this again: finished worlds are kept)"
    return None


def _own_claim() -> dict[str, Any]:
    import psutil

    started = psutil.Process().create_time()
    return {
        "host": gethostname(),
        "pid": os.getpid(),
        "started": started,
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
