"""One warm pool per process, kept between calls: named after loky's function."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from resilient_exec.model.errors import PoolBroken, PoolClosed
from resilient_exec.pool.options import seconds
from resilient_exec.pool.pool import ResilientPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_exec.supervisor.future import ResilientFuture

__all__ = ["get_reusable_pool"]

_lock = threading.RLock()  # a signal handler may come in between
_kept: _KeptPool | None = None


class _KeptPool(ResilientPool):
    """A pool that ends when nothing has been submitted to it, and nothing has run, for a while."""

    def __init__(self, arguments: dict[str, Any], idle_timeout: float) -> None:
        super().__init__(**arguments)
        self.arguments = arguments
        self.idle_timeout = idle_timeout
        self._used = time.monotonic()
        self._use_lock = threading.RLock()  # pickling runs the user's code, which may submit as well
        self._timer: threading.Timer | None = None
        self._watch(idle_timeout)

    def _watch(self, delay: float) -> None:
        timer = threading.Timer(delay, self._end_if_idle)
        timer.name, timer.daemon = "resilient-idle-timer", True
        self._timer = timer
        timer.start()

    def touch(self) -> None:
        self._used = time.monotonic()

    def _enqueue(self, *args: Any) -> ResilientFuture[Any]:
        with self._use_lock:  # so that it does not end between the check and the submission
            self.touch()
            return super()._enqueue(*args)

    def _end_if_idle(self) -> None:
        with self._use_lock:
            if self._shut:
                return
            snapshot = self._supervisor.core.unsettled()
            if snapshot:
                self.touch()
            left = self._used + self.idle_timeout - time.monotonic()
            if left <= 0:
                self.shutdown(wait=False)
            else:
                self._watch(left)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, kill: bool = False) -> None:  # noqa: FBT001, FBT002
        if self._timer is not None and self._timer is not threading.current_thread():
            self._timer.cancel()
        super().shutdown(wait, cancel_futures=cancel_futures, kill=kill)


def get_reusable_pool(
    max_workers: int | None = None,
    *,
    idle_timeout: float = 60,
    initializer: Callable[..., object] | None = None,
    **arguments: Any,
) -> ResilientPool:
    """The warm pool of this process: made at the first call, given again while it is asked for in the same way.

    Args:
        max_workers: lanes, as in :class:`ResilientPool`.
        idle_timeout: seconds without a task, after which it ends; the next call then makes a new one.
        initializer: as in :class:`ResilientPool`.
        **arguments: all others of :class:`ResilientPool`.

    A call with other arguments lets the kept pool finish its tasks, then end, and makes another.
    It also ends, after pending work, at the exit of the interpreter.  ``shutdown()`` ends it at once.
    """
    global _kept  # noqa: PLW0603  guarded by _lock
    if seconds("idle_timeout", idle_timeout) is None:
        raise TypeError(f"idle_timeout must be a number of seconds greater than 0; got {idle_timeout!r}")
    wanted = {"max_workers": max_workers, "initializer": initializer, **arguments}
    with _lock:
        pool = _kept
        if pool is not None and pool.idle_timeout == idle_timeout and _usable(pool) and _same(pool.arguments, wanted):
            pool.touch()
            return pool
        if pool is not None and pool._pid == os.getpid():
            pool.shutdown(wait=False)
        _kept = _KeptPool(wanted, idle_timeout)
        return _kept


def _usable(pool: _KeptPool) -> bool:
    try:
        pool._check_open()
    except (PoolBroken, PoolClosed):
        return False
    return True


def _same(kept: dict[str, Any], wanted: dict[str, Any]) -> bool:
    try:
        return kept == wanted
    except Exception:  # an array among the initargs does not compare to a truth value: take them for different
        return False
