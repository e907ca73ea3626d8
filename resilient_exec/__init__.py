"""A process pool that never hangs, never loses a task and always says what happened.

The names below are looked up when they are first used: importing the package costs next to nothing, which
matters because every worker imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resilient_exec.context import TaskContext, task_context
    from resilient_exec.dossier import AttemptReport, Dossier
    from resilient_exec.errors import (
        AttemptError,
        InternalError,
        MemoryLimitExceeded,
        NotSendable,
        PoolBroken,
        PoolClosed,
        ResilientError,
        SoftTimeout,
        TaskKilled,
        TaskTimeout,
        WorkerDied,
    )
    from resilient_exec.events import Event
    from resilient_exec.future import ResilientFuture, Settled
    from resilient_exec.policies import RetryPolicy
    from resilient_exec.pool import ResilientPool
    from resilient_exec.reusable import get_reusable_pool

__version__ = "0.1.0"

_HOME = {
    "AttemptError": "errors",
    "AttemptReport": "dossier",
    "Dossier": "dossier",
    "Event": "events",
    "InternalError": "errors",
    "MemoryLimitExceeded": "errors",
    "NotSendable": "errors",
    "PoolBroken": "errors",
    "PoolClosed": "errors",
    "ResilientError": "errors",
    "ResilientFuture": "future",
    "ResilientPool": "pool",
    "RetryPolicy": "policies",
    "Settled": "future",
    "SoftTimeout": "errors",
    "TaskContext": "context",
    "TaskKilled": "errors",
    "TaskTimeout": "errors",
    "WorkerDied": "errors",
    "get_reusable_pool": "reusable",
    "task_context": "context",
}

__all__ = [
    "AttemptError",
    "AttemptReport",
    "Dossier",
    "Event",
    "InternalError",
    "MemoryLimitExceeded",
    "NotSendable",
    "PoolBroken",
    "PoolClosed",
    "ResilientError",
    "ResilientFuture",
    "ResilientPool",
    "RetryPolicy",
    "Settled",
    "SoftTimeout",
    "TaskContext",
    "TaskKilled",
    "TaskTimeout",
    "WorkerDied",
    "get_reusable_pool",
    "task_context",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
