"""A task, and the outcomes of an attempt, as plain values.

An outcome is reported by the lane that ran the attempt, and describes that *one* attempt.  What it means for the task
(another attempt, or a settled future) is decided in :mod:`resilient_exec.core.attempts`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resilient_exec.model.errors import SoftTimeout
from resilient_exec.model.evidence import NO_EVIDENCE, Evidence
from resilient_exec.model.packed import Packed

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
    "Outrun",
    "Raised",
    "Returned",
    "Task",
    "TimedOut",
    "detail_of",
    "evidence_of",
]


# None of these is frozen: a frozen dataclass takes four times as long to make, and each attempt takes some.


@dataclass(slots=True)
class Task:
    """What the core knows about a submitted task; the pickled call itself stays with the supervisor.

    Attributes:
        number: identifies the task in its pool; nothing below the pool ever looks at the user's key.
        retry: decides about further attempts.
        timeout: seconds, for each attempt; ``None``: no limit.
        priority: larger goes first; equal ones go by their cost, then in the order of submission.
        label: for people: what the story and the errors call the task.
        soft_timeout: seconds after which ``SoftTimeout`` is raised inside the task; ``None``: never.
        memory_limit: bytes that the worker and its descendants may hold during an attempt; ``None``: no limit.
        key: what the user calls it, for events.
        name: the key as a text; empty where printing the key runs nobody's code.
        cost: relative; of equal priority the dearest goes first; ``None``: the seconds that others of its label take.
        cargo: what the shell needs to perform commands about the task; the core never looks at it.
        calls: of a chunk, so many calls, whose numbers begin with ``number``; 0: the task is one call by itself.
        group: what the core keeps in common for the calls of a chunk (:class:`resilient_exec.core.chunks.Group`).
        speculate: of one that is timed: whether a second attempt may be made beside one that takes far longer than
            others of its label.
        timed: whether it is learned how long its attempts take.
    """

    number: Hashable
    retry: Policy
    timeout: float | None = None
    priority: float = 0
    label: str = ""
    soft_timeout: float | None = None
    memory_limit: int | None = None
    key: Hashable = None
    name: str = ""
    cost: float | None = 0
    cargo: Any = field(default=None, compare=False)
    calls: int = 0
    group: Any = field(default=None, compare=False)
    speculate: bool = False
    timed: bool = False


@dataclass(slots=True)
class Returned:
    """The task returned ``value`` (which may be :class:`Packed`)."""

    value: Any
    kind = "returned"


@dataclass(slots=True)
class Raised:
    """The task raised ``exception``, of any type: ``SystemExit`` and ``KeyboardInterrupt`` are outcomes, too.

    Of one that is :class:`Packed` the worker has said what ``name`` its type has, whether it is an ``ordinary`` one (an
    ``Exception``), and whether it is a ``soft`` one (a ``SoftTimeout``, alone or in a group).
    """

    exception: BaseException | Packed
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)
    name: str = ""
    ordinary: bool = True
    soft: bool = False
    kind = "raised"

    def __post_init__(self) -> None:
        error = self.exception
        if not isinstance(error, Packed):
            self.name = type(error).__qualname__
            self.ordinary, self.soft = isinstance(error, Exception), _is_soft(error)


def _is_soft(error: BaseException) -> bool:
    """Also in a group: an ``asyncio.TaskGroup`` wraps what leaves it."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_soft, error.exceptions))
    return isinstance(error, SoftTimeout)


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
    """The attempt exceeded its limit of ``limit`` seconds.

    ``what`` is ``timeout`` or ``stall_timeout`` (its worker has been killed), or ``soft_timeout`` (``cause`` is the
    exception that then left the task).
    """

    limit: float
    pid: int | None = None
    what: str = "timeout"
    cause: BaseException | Packed | None = None
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
    """The attempt was ended because others needed memory (``why`` says for what); it is not charged to the task."""

    why: str
    pid: int | None = None
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)
    kind = "evicted"


@dataclass(slots=True)
class Killed:
    """The attempt was ended on request; ``why`` names the request, such as ``future.kill()``."""

    why: str
    pid: int | None = None
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)
    kind = "killed"


@dataclass(slots=True)
class Outrun:
    """The attempt was ended because its twin, another attempt at the same time, ended first (``why`` names that)."""

    why: str
    pid: int | None = None
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)
    kind = "outrun"


@dataclass(slots=True)
class NotSent:
    """The call (before any attempt) or the result (of an attempt) could not be pickled or unpickled."""

    message: str
    cause: BaseException | None = None
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)
    kind = "not_sent"


@dataclass(slots=True)
class Lost:
    """The worker was lost before the attempt began; it is not charged to the task."""

    why: str = ""
    kind = "lost"


Outcome = Returned | Raised | Died | TimedOut | OutOfMemory | Evicted | Killed | Outrun | NotSent | Lost


def detail_of(outcome: Outcome) -> dict[str, Any] | None:
    """The detail of an outcome's event, in plain values."""
    match outcome:
        case Returned():
            return None
        case Raised():
            return {"exception": outcome.name}
        case Died():
            return {"pid": outcome.pid, "exitcode": outcome.exitcode, "why": outcome.why}
        case TimedOut():
            return {"pid": outcome.pid, "limit": outcome.limit, "what": outcome.what}
        case OutOfMemory():
            return {"pid": outcome.pid, "limit": outcome.limit, "used": outcome.used}
        case Killed() | Evicted() | Outrun():
            return {"pid": outcome.pid, "why": outcome.why}
        case NotSent():
            return {"why": outcome.message}
        case Lost():
            return {"why": outcome.why}


def evidence_of(outcome: Outcome) -> Evidence:
    """The evidence of an outcome; empty for attempts that returned or never began."""
    return NO_EVIDENCE if isinstance(outcome, Returned | Lost) else outcome.evidence
