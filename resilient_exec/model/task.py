"""The values that are passed around: a task, and how one attempt at it can end.

An outcome is told by the lane that watched the attempt, and is the truth about *one* attempt; what it
means for the task (another attempt, or a settled future) is decided in :mod:`resilient_exec.core.machine`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resilient_exec.model.evidence import NO_EVIDENCE, Evidence

if TYPE_CHECKING:
    from collections.abc import Hashable

    from resilient_exec.model.ports import Policy

__all__ = [
    "Died",
    "Evicted",
    "Killed",
    "Lost",
    "NotSent",
    "OutOfMemory",
    "Outcome",
    "Raised",
    "Returned",
    "Task",
    "TimedOut",
    "detail_of",
    "evidence_of",
]


@dataclass(frozen=True, slots=True)
class Task:
    """What the core knows of what the user submitted; the pickled call itself stays with the supervisor.

    Attributes:
        key: identifies the task among the unsettled ones of its pool.
        retry: decides about further attempts.
        timeout: seconds, for each attempt; ``None``: no limit.
        soft_timeout: seconds after which ``SoftTimeout`` is raised inside the task; ``None``: never.
        memory_limit: bytes that the worker and its descendants may hold during an attempt; ``None``: no limit.
        priority: larger goes first; equal ones go in the order of submission.
        label: for people: what the story and the errors call the task.
    """

    key: Hashable
    retry: Policy
    timeout: float | None = None
    priority: float = 0
    label: str = ""
    soft_timeout: float | None = None
    memory_limit: int | None = None


# Not frozen: a frozen dataclass takes four times as long to make, and one outcome is made for each attempt.


@dataclass(slots=True)
class Returned:
    """The task returned ``value``."""

    value: Any
    kind = "returned"


@dataclass(slots=True)
class Raised:
    """The task raised ``exception`` (of whatever type: ``SystemExit`` and ``KeyboardInterrupt`` are outcomes too)."""

    exception: BaseException
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)
    kind = "raised"


@dataclass(slots=True)
class Died:
    """The worker ended during the attempt; ``exitcode`` is negative for a signal, ``None`` if not known."""

    exitcode: int | None = None
    pid: int | None = None
    why: str = ""
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)
    kind = "died"


@dataclass(slots=True)
class TimedOut:
    """The attempt was over its limit of ``limit`` seconds: ``what`` is ``timeout`` or ``stall_timeout`` (its worker has
    been killed), or ``soft_timeout`` (``cause`` is what then left the task).
    """

    limit: float
    pid: int | None = None
    what: str = "timeout"
    cause: BaseException | None = None
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)
    kind = "timed_out"


@dataclass(slots=True)
class OutOfMemory:
    """The worker and its descendants held ``used`` bytes, more than ``limit``, and have been killed."""

    limit: int
    used: int
    pid: int | None = None
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)
    kind = "out_of_memory"


@dataclass(slots=True)
class Evicted:
    """The attempt was ended for want of memory that was not its doing (``why`` says whose), and is not charged."""

    why: str
    pid: int | None = None
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)
    kind = "evicted"


@dataclass(slots=True)
class Killed:
    """The attempt was ended on request (``why``)."""

    why: str
    pid: int | None = None
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)
    kind = "killed"


@dataclass(slots=True)
class NotSent:
    """Something could not travel: the call (before any attempt) or the result (of an attempt)."""

    message: str
    cause: BaseException | None = None
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)
    kind = "not_sent"


@dataclass(slots=True)
class Lost:
    """The worker went away before the attempt began: nobody's fault, not charged."""

    why: str = ""
    kind = "lost"


Outcome = Returned | Raised | Died | TimedOut | OutOfMemory | Evicted | Killed | NotSent | Lost


def detail_of(outcome: Outcome) -> dict[str, Any] | None:
    """What of an outcome is worth telling in an event, in plain values."""
    match outcome:
        case Returned():
            return None
        case Raised():
            return {"exception": type(outcome.exception).__qualname__}
        case Died():
            return {"pid": outcome.pid, "exitcode": outcome.exitcode, "why": outcome.why}
        case TimedOut():
            return {"pid": outcome.pid, "limit": outcome.limit, "what": outcome.what}
        case OutOfMemory():
            return {"pid": outcome.pid, "limit": outcome.limit, "used": outcome.used}
        case Killed() | Evicted():
            return {"pid": outcome.pid, "why": outcome.why}
        case NotSent():
            return {"why": outcome.message}
        case Lost():
            return {"why": outcome.why}


def evidence_of(outcome: Outcome) -> Evidence:
    """The evidence that goes with an outcome; a return needs none."""
    return NO_EVIDENCE if isinstance(outcome, Returned | Lost) else outcome.evidence
