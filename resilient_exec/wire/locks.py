"""The reducers by which plain locks travel as new, free ones: the opt-in ``fresh_locks``.

A lock guards against the other threads of its own process, and none of them travels: in the process where a copy
arrives nobody holds it.  So ``threading.Lock`` and ``threading.RLock`` arrive free, whoever holds them here; two
references to one lock stay two references to one.  A ``Condition`` travels without the threads that wait for it,
to whom a ``notify`` would be lost.  Event, Semaphore, Barrier, ``queue.Queue`` and logging handlers are made of
these, and keep their own state: flag, count, items.

Only these very types: a subclass says itself how it travels, and the locks of multiprocessing are shared between
processes on purpose.  They are our picklers' own (:mod:`pickling`); what the rest of the process pickles is as before.
"""

from __future__ import annotations

import copyreg
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LOCK_TYPES", "REDUCERS"]

LOCK_TYPES = (type(threading.Lock()), type(threading.RLock()))


def _reduce_lock(_lock: object) -> tuple[Any, ...]:
    return threading.Lock, ()


def _reduce_rlock(_lock: object) -> tuple[Any, ...]:
    return threading.RLock, ()


def _reduce_condition(condition: threading.Condition) -> tuple[Any, ...]:
    return copyreg.__newobj__, (threading.Condition,), {**vars(condition), "_waiters": deque()}  # type: ignore[attr-defined]


REDUCERS: dict[type, Callable[[Any], Any]] = {
    LOCK_TYPES[0]: _reduce_lock,
    LOCK_TYPES[1]: _reduce_rlock,
    threading.Condition: _reduce_condition,
}
