"""One warm pool per process, kept between calls: named after loky's function."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resilient_exec.model.errors import PoolBroken, PoolClosed
from resilient_exec.pool.options import seconds
from resilient_exec.pool.pool import ResilientPool
from resilient_exec.wire.script import find_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_exec.supervisor.future import ResilientFuture

__all__ = ["get_reusable_pool"]

_lock = threading.RLock()  # a signal handler may come in between
_kept: _KeptPool | None = None
_parents: _KeptPool | None = None  # in a forked child: the one that was kept before


class _KeptPool(ResilientPool):
    """A pool that ends when nothing has been submitted to it, and nothing has run, for a while."""

    def __init__(self, arguments: dict[str, Any], idle_timeout: float) -> None:
        super().__init__(**arguments)
        self.asked_for = _Asked(arguments)
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
            if self._engine is not None and self._engine.supervisor.core.unsettled():
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
    global _kept
    if seconds("idle_timeout", idle_timeout) is None:
        raise TypeError(f"idle_timeout must be a number of seconds greater than 0; got {idle_timeout!r}")
    wanted = {"max_workers": max_workers, "initializer": initializer, **arguments}
    with _lock:
        if (kept := _fitting(wanted, idle_timeout)) is not None:
            return kept
        made = _KeptPool(wanted, idle_timeout)  # what is wrong in the arguments is no reason to end the kept one
        if (kept := _fitting(wanted, idle_timeout)) is not None:  # made meanwhile by a signal handler, or by pickling
            made.shutdown(wait=False)
            return kept
        before, _kept = _kept, made
        if before is not None and before._pid == os.getpid():
            before.shutdown(wait=False)
        return made


def _fitting(wanted: dict[str, Any], idle_timeout: float) -> _KeptPool | None:
    pool = _kept
    if pool is None or pool.idle_timeout != idle_timeout or not _usable(pool) or not _is_as(pool, wanted):
        return None
    pool.touch()
    return pool


def _forget() -> None:
    """In a forked child: another thread may have been inside, and the kept pool is the parent's."""
    global _lock, _kept, _parents  # noqa: PLW0603  one thread is all there is
    _parents, _kept = _kept, None  # referred to, as its end is none of the child's business
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _usable(pool: _KeptPool) -> bool:
    try:
        pool._check_open()
    except (PoolBroken, PoolClosed):
        return False
    return True


def _is_as(pool: _KeptPool, wanted: dict[str, Any]) -> bool:
    try:
        # What "auto" comes to is another thing in front of a script's guard than behind it.
        return pool._script == find_script(wanted.get("main", "auto")) and pool.asked_for == _Asked(wanted)
    except Exception:
        return False


class _Asked:
    """Arguments as they were when they were given: what is changed in place afterwards makes another pool.

    ``initargs`` that are not equal are the same where their pickles are: workers get nothing else of them.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._values = {name: _kept_apart(value) for name, value in arguments.items()}
        initargs = self._values.pop("initargs", ())
        self._pickled = _digest(initargs)
        self._initargs = initargs if self._pickled is None else None  # what does not pickle is compared as it is

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


def _kept_apart(value: Any) -> Any:
    """The value, or a copy of a plain container."""
    if isinstance(value, list | tuple):
        return tuple(value)
    return dict(value) if isinstance(value, Mapping) else value


def _digest(value: Any) -> bytes | None:
    try:
        return hashlib.blake2b(pickle.dumps(value, protocol=5)).digest()
    except KeyboardInterrupt:
        raise
    except BaseException:  # a SystemExit in its __reduce__ is no reason to exit
        return None
