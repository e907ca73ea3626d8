"""What a running task can learn about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["TaskContext", "task_context"]


@dataclass(frozen=True, slots=True)
class TaskContext:
    """The attempt under way in this process.

    Attributes:
        key: the task's key in its pool; ``None`` outside a pool.
        attempt: 1 for the first attempt, 2 for the second, …; 1 outside a pool.
        previous_pids: process ids of the workers in which earlier attempts of this task began.  All of them were
            dead, with what they had started, before this attempt was sent.
    """

    key: Hashable = None
    attempt: int = 1
    previous_pids: tuple[int, ...] = ()


_current = TaskContext()


def task_context() -> TaskContext:
    """The attempt that runs in this worker; outside a pool, a first attempt without a key."""
    return _current


def enter(context: TaskContext) -> None:
    """Called by the worker at each attempt (and with a blank one between attempts)."""
    global _current  # noqa: PLW0603  one attempt runs in a process at a time
    _current = context
