"""A process pool that never hangs, never loses a task and always says what happened.

The names below are looked up when they are first used: importing the package costs next to nothing, which
matters because every worker imports it.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from resilient_exec.model.dossier import AttemptReport, Dossier
    from resilient_exec.model.errors import (
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
    from resilient_exec.model.events import Event, TaskStory
    from resilient_exec.model.policies import RetryPolicy
    from resilient_exec.pool.pool import ResilientPool
    from resilient_exec.pool.reusable import get_reusable_pool
    from resilient_exec.supervisor.future import ResilientFuture
    from resilient_exec.supervisor.settled import Settled
    from resilient_exec.worker.context import TaskContext, task_context

__version__ = "0.1.0"

_HOME = {
    "AttemptError": "model.errors",
    "AttemptReport": "model.dossier",
    "Dossier": "model.dossier",
    "Event": "model.events",
    "InternalError": "model.errors",
    "MemoryLimitExceeded": "model.errors",
    "NotSendable": "model.errors",
    "PoolBroken": "model.errors",
    "PoolClosed": "model.errors",
    "ResilientError": "model.errors",
    "ResilientFuture": "supervisor.future",
    "ResilientPool": "pool.pool",
    "RetryPolicy": "model.policies",
    "Settled": "supervisor.settled",
    "SoftTimeout": "model.errors",
    "TaskContext": "worker.context",
    "TaskKilled": "model.errors",
    "TaskStory": "model.events",
    "TaskTimeout": "model.errors",
    "WorkerDied": "model.errors",
    "get_reusable_pool": "pool.reusable",
    "task_context": "worker.context",
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
    "TaskStory",
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
