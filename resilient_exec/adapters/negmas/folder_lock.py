"""One runner at a time for a tournament's folder: a file that says who is at work there, and a kernel lock on it.

Two runs of one tournament at the same time would run its worlds twice, and each would take the other's half-written
files for its own.  So a run claims the folder first.  The claim is a file, ``resilient-lock``, with the holder's
host, process and its start; the holder also keeps it locked (``flock``), which ends with the holder, however that
ends.  Two threads of one process are told apart, too: each opens the file for itself.

Whether a claim that is found still holds:

* the lock is taken: somebody lives who has it.  Refused, with the words of the file.
* the lock is free, and the file names another host: nobody here can tell, since locks do not cross every network
  file system.  Refused; whoever knows that nobody is at work there says so by ``take_over``.
* the lock is free, and the file names a process of this host that still runs (same start): a file system without
  locks.  Refused.
* else the holder is gone (killed, or the machine was restarted): the claim is taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from contextlib import contextmanager
from socket import gethostname
from typing import TYPE_CHECKING, Any

from resilient_exec.adapters.negmas.checks import CheckFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["FILE_NAME", "claim", "objection"]

FILE_NAME = "resilient-lock"
_SAME_START = 1.0  # s by which two looks at a process's start may differ
_TRIES = 100  # each try fails only because another holder's file went away in between


@contextmanager
def claim(folder: Path, *, take_over: bool = False) -> Iterator[None]:
    """Hold the folder for the time of the block.

    Args:
        folder: of the tournament.
        take_over: also if another host claims it, of which nobody here can tell whether it lives.

    Raises:
        CheckFailed: somebody else holds it; says who, and the remedy.
    """
    path = folder / FILE_NAME
    descriptor = _take(path, take_over=take_over)
    try:
        yield
    finally:
        # Removed before it is unlocked: who waits for the lock then finds that the name is another file's, or free.
        if _is_at(path, descriptor):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path, *, take_over: bool) -> int:
    for _ in range(_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            is_free = _lock(descriptor)
            if _is_at(path, descriptor):
                if _judge(path, descriptor, is_free=is_free, take_over=take_over):
                    return descriptor
                path.unlink(missing_ok=True)  # a new one: should the old holder live, it must not remove ours
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise CheckFailed(f"{path} comes and goes: several runs of this tournament are being started; start one")


def _lock(descriptor: int) -> bool | None:
    """Whether the lock is ours now; ``None``: this file system has no locks."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the file that was opened is still the one of this name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


def _judge(path: Path, descriptor: int, *, is_free: bool | None, take_over: bool) -> bool:
    """Write our claim into the file; ``False``: the file is another host's, and to be replaced."""
    holder = _read(descriptor)
    me = _myself()
    refusal = objection(holder, me, is_free=is_free, lives=_lives(holder), take_over=take_over)
    if refusal is not None:
        raise CheckFailed(f"{path.parent} is in use: {refusal.format(path=path)}")
    if holder and holder.get("host") != me["host"]:
        return False
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(me).encode(), 0)
    return True


def objection(
    holder: dict[str, Any], me: dict[str, Any], *, is_free: bool | None, lives: bool, take_over: bool = False
) -> str | None:
    """Why the claim of ``holder`` still stands, with the remedy; ``None``: it does not, or there is none.

    Args:
        holder: what the file says; empty where it says nothing.
        me: what this process would write.
        is_free: whether the kernel's lock was to be had; ``None`` where there are no locks.
        lives: whether the process that the file names is alive on this host.
        take_over: whether somebody who knows has said that no other host is at work there.
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


def _read(descriptor: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
    except ValueError:
        return {}  # cut short by a crash: its writer held the lock, so the lock alone judges
    return holder if isinstance(holder, dict) else {}


def _myself() -> dict[str, Any]:
    import psutil

    started = psutil.Process().create_time()
    return {
        "host": gethostname(),
        "pid": os.getpid(),
        "started": started,
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _lives(holder: dict[str, Any]) -> bool:
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
