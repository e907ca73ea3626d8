"""Ends every pool at the exit of the interpreter, before loky's own hook runs.

Pending work is finished first, as the standard library does.  loky's hook joins its manager threads, and ours are
busy with one call that never ends by itself: if loky's ran first, the interpreter would hang.  Hooks registered with
``threading._register_atexit`` run last in, first out, and loky registers its own at *every* start of an executor,
because its guard holds the return value of that function, which is ``None``.  So after each start we set the guard
to what it is meant to be, true, and are registered behind loky's last.

(With the guard set, a worker can still be replaced while pending work ends at exit: loky's registering, which
then raises, is not tried again.)

``threading._register_atexit`` is a private name, and loky's guard another; without them everything still ends by
``atexit``, later.
"""

from __future__ import annotations

import atexit
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Endable", "end_at_exit", "exiting", "run_before_loky"]


class Endable(Protocol):
    """What is to be ended at exit."""

    def end_at_exit(self) -> None:
        """Finish pending work, then end; Ctrl-C meanwhile kills what runs."""


_lock = threading.Lock()
_live: weakref.WeakSet[Endable] = weakref.WeakSet()
_exiting = False
_registrations = 0


def exiting() -> bool:
    """Whether the interpreter is on its way out: no pool takes tasks any more."""
    # CPython's own flag is set before its hooks run; a pool that is made afterwards could not end itself.
    return _exiting or bool(getattr(threading, "_SHUTTING_DOWN", False))


def end_at_exit(pool: Endable) -> None:
    """Have ``pool`` ended at exit, if it still lives then."""
    with _lock:
        _live.add(pool)
        if not _registrations:
            _register()


def run_before_loky() -> None:
    """To be called after each start of a loky executor: keep our hook ahead of loky's."""
    loky = sys.modules.get("loky.process_executor")
    if loky is None or exiting():
        return
    with _lock:
        if getattr(loky, "process_pool_executor_at_exit", None) is None:
            loky.process_pool_executor_at_exit = True  # type: ignore[attr-defined]
            _register()


def _register() -> None:
    global _registrations  # noqa: PLW0603  guarded by _lock
    register: Callable[[Callable[[], None]], object] = getattr(threading, "_register_atexit", atexit.register)
    try:
        register(_end_all)
        _registrations += 1
    except RuntimeError:  # the interpreter is already on its way out
        atexit.register(_end_all)


def _end_all() -> None:
    global _exiting  # noqa: PLW0603  set once, by the thread that exits
    _exiting = True
    for pool in list(_live):
        pool.end_at_exit()
