"""What the end of an attempt is called: by what it was doomed to, or by what its soft timeout made of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from resilient_exec.core.states import State
from resilient_exec.model.task import Died, Evicted, Killed, OutOfMemory, Outrun, Raised, TimedOut

if TYPE_CHECKING:
    from resilient_exec.core.states import Record
    from resilient_exec.model.task import Outcome, Task

__all__ = ["death_of", "soft_limit", "softened"]


def death_of(record: Record, outcome: Outcome) -> Outcome:
    """A death is named by the reason for which it was ordered; what came back before it stands."""
    doom = record.doom
    if record.state is not State.DOOMED or not isinstance(outcome, Died):
        return outcome
    if isinstance(doom, TimedOut | OutOfMemory | Evicted | Killed | Outrun):
        return replace(doom, pid=outcome.pid, evidence=outcome.evidence)
    return outcome


def softened(record: Record, outcome: Outcome) -> Outcome:
    """A ``SoftTimeout`` that was raised in the attempt, and left it, counts as a timeout.

    Any other is the task's own exception: it may come from a pool inside the task.
    """
    limit, told = record.task.soft_timeout, record.soft_told == record.attempt
    if limit is None or not told or not isinstance(outcome, Raised) or not outcome.soft:
        return outcome
    pid = record.lane.pid if record.lane is not None else None
    return TimedOut(limit, pid, "soft_timeout", outcome.exception, outcome.evidence)


def soft_limit(task: Task) -> float | None:
    """After how long ``SoftTimeout`` is raised (s); one that would not come before the hard timeout is never raised."""
    soft, hard = task.soft_timeout, task.timeout
    return soft if soft is not None and (hard is None or soft < hard) else None
