"""Ends every pool at the exit of the interpreter, before loky's own hook runs.

Pending work is finished first, as the standard library does.  loky's hook joins its manager threads, and ours are
busy with one call that never ends by itself: if loky's ran first, the interpreter would hang.  Hooks registered with
``threading._register_atexit`` run last in, first out, and loky registers its own at *every* start of an executor,
because its guard holds the return value of that function, which is ``None``.  So when the first pool is made we
register loky's hook ourselves, set the guard to what it is meant to be, true, and register ours behind it.

That also lets a worker be started or replaced while pending work ends at exit.  By then both importing loky and its
registering of a hook raise: the one has been done when the pool was made, the other is not tried.

``threading._register_atexit`` is a private name, and loky's hook and guard are others; without them everything still
ends by ``atexit``, later.
"""

from __future__ import annotations

import atexit
import importlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Endable", "end_at_exit", "exiting", "run_before_loky"]


class Endable(Protocol):
    """What is to be ended at exit."""

    def end_at_exit(self, *, kill: bool = False) -> None:
        """Finish pending work (or kill it), then end; Ctrl-C meanwhile kills what runs."""


_lock = threading.Lock()
_live: weakref.WeakSet[Endable] = weakref.WeakSet()
_exiting = False
_finalizing_pid = 0
_BEFORE_THE_JOIN = 100  # multiprocessing runs what has a priority of 0 or more before it joins its children


def exiting() -> bool:
    """Whether the interpreter is on its way out: no pool takes tasks any more."""
    # CPython's own flag is set before its hooks run; a pool that is made afterwards could not end itself.
    return _exiting or bool(getattr(threading, "_SHUTTING_DOWN", False))


def end_at_exit(pool: Endable) -> None:
    """Have ``pool`` ended at exit, if it still lives then."""
    run_before_loky()
    with _lock:
        _live.add(pool)
        _run_before_multiprocessing()


def run_before_loky() -> None:
    """Have loky's hook registered now and never again, and ours behind it; does so once."""
    if exiting():
        return
    loky: Any = importlib.import_module("loky.process_executor")
    with _lock:
        if getattr(loky, "process_pool_executor_at_exit", None) is None:
            _register(getattr(loky, "_python_exit", lambda: None))
            loky.process_pool_executor_at_exit = True
            _register(_end_all)
            atexit.register(_kill_rest)


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
