"""The pools of this process, and what is told of them when somebody knocks at its door (``resilient-exec dump``)."""

from __future__ import annotations

import weakref
from typing import Any

from resilient_exec.process import door

__all__ = ["live_pools", "register"]


live_pools: weakref.WeakSet[Any] = weakref.WeakSet()
"""All that exist, those that are shut down as well."""


def register(pool: Any) -> None:
    """A pool is made."""
    live_pools.add(pool)
    door.answer_with(_answer)


def _answer() -> dict[str, Any]:
    snapshots = [pool.snapshot() for pool in list(live_pools)]
    # A pool that is shut down and has ended has no lanes.
    return {"pools": [{**snapshot, "text": str(snapshot)} for snapshot in snapshots if snapshot["lanes"]]}
