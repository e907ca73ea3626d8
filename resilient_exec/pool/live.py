"""The pools of this process, and what is told of them when somebody knocks at its door (``resilient-exec dump``)."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from resilient_exec.process import door

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["live_pools", "register"]


T = TypeVar("T")

live_pools: weakref.WeakSet[Any] = weakref.WeakSet()
"""All that exist, those that are shut down as well."""


def register(pool: T, end: Callable[..., object], *args: Any) -> weakref.finalize[..., T]:
    """A pool is made; ``end(*args)`` is called when it is dropped, but not at the exit of the interpreter."""
    live_pools.add(pool)
    door.answer_with(_answer)
    finalizer = weakref.finalize(pool, end, *args)
    finalizer.atexit = False
    return finalizer


def _answer() -> dict[str, Any]:
    snapshots = [pool.snapshot() for pool in list(live_pools)]
    # A pool that is shut down and has ended has no lanes.
    return {"pools": [{**snapshot, "text": str(snapshot)} for snapshot in snapshots if snapshot["lanes"]]}
