"""Ends every pool at the exit of the interpreter.

Pending work is finished first, as the standard library does, and workers may be started or replaced meanwhile.
``threading._register_atexit`` is a private name: its hooks run before the interpreter waits for threads.  Without it
everything still ends by ``atexit``, later.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Endable(Protocol):
        """What is to be ended at exit."""

        def end_at_exit(self, *, kill: bool = False) -> None:
            """Finish pending work (or kill it), then end; Ctrl-C meanwhile kills what runs."""


__all__ = ["Endable", "end_at_exit", "exiting"]


_lock = threading.RLock()  # a signal handler may make or end a pool in between
_live: weakref.WeakSet[Endable] = weakref.WeakSet()
_exiting = False
_is_registered = False
_finalizing_pid = 0
_BEFORE_THE_JOIN = 100  # multiprocessing runs what has a priority of 0 or more before it joins its children


def exiting() -> bool:
    """Whether the interpreter is on its way out: no pool takes tasks any more."""
    # CPython's own flag is set before its hooks run; a pool that is made afterwards could not end itself.
    return _exiting or bool(getattr(threading, "_SHUTTING_DOWN", False))


def end_at_exit(pool: Endable) -> None:
    """Have ``pool`` ended at exit, if it still lives then."""
    global _is_registered  # noqa: PLW0603  guarded by _lock
    with _lock:
        if not _is_registered and not exiting():
            _is_registered = True
            _register(_end_all)
            atexit.register(_kill_rest)
        _live.add(pool)
        _run_before_multiprocessing()


def _run_before_multiprocessing() -> None:
    """In a child process of multiprocessing, which joins its own children, our workers too, before any hook is run."""
    global _finalizing_pid  # noqa: PLW0603  guarded by _lock
    from multiprocessing import process, util

    if process.parent_process() is not None and _finalizing_pid != os.getpid():
        _finalizing_pid = os.getpid()  # a fork forgets the finalizers of its parent
        util.Finalize(None, _end_all, exitpriority=_BEFORE_THE_JOIN)


def _register(hook: Callable[[], object]) -> None:
    register: Callable[[Callable[[], object]], object] = getattr(threading, "_register_atexit", atexit.register)
    try:
        register(hook)
    except RuntimeError:  # the interpreter is already on its way out
        atexit.register(hook)


def _end_all() -> None:
    global _exiting  # noqa: PLW0603  set once, by the thread that exits
    _exiting = True
    for pool in list(_live):
        pool.end_at_exit()


def _kill_rest() -> None:
    """Behind all hooks: a Ctrl-C in a wrong moment may have kept them from ending what runs."""
    for pool in list(_live):
        pool.end_at_exit(kill=True)


def _forget() -> None:
    """In a forked child: another thread may have held the lock, and none of the pools is the child's."""
    global _lock, _live
    _lock, _live = threading.RLock(), weakref.WeakSet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
