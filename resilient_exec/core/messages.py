"""The core's vocabulary: the stimuli it is told and the commands it gives.

None is frozen although none is ever changed: making a frozen dataclass costs four times as much, and each
task takes a dozen of these.

Longer than 400 lines: it is one vocabulary, and is looked up as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resilient_exec.model.events import Event

if TYPE_CHECKING:
    from collections.abc import Hashable

    from resilient_exec.model.errors import ResilientError
    from resilient_exec.model.events import Story
    from resilient_exec.model.evidence import Evidence
    from resilient_exec.model.memory_level import MemoryLevel
    from resilient_exec.model.packed import Batch
    from resilient_exec.model.ports import Failure, Policy
    from resilient_exec.model.task import NotSent, Outcome, Task

__all__ = [
    "Abandon",
    "Answered",
    "AskPolicy",
    "AttemptEnded",
    "Begun",
    "CancelAsked",
    "CloseLane",
    "Command",
    "EndStart",
    "EndStop",
    "Finish",
    "ItemsEnded",
    "Kill",
    "KillAsked",
    "Lagged",
    "LaneClosed",
    "LaneReady",
    "Look",
    "MachineMemory",
    "MemoryExceeded",
    "PolicyAnswered",
    "Progress",
    "RaiseSoftTimeout",
    "ResultsDiffer",
    "Send",
    "Settle",
    "ShutdownAsked",
    "Stalled",
    "StartFailed",
    "StartWorker",
    "Stimulus",
    "StopWorker",
    "Submitted",
    "TakeBack",
    "TakenBack",
    "TimePassed",
    "WorkerGone",
]

# -- stimuli: facts told to the core ---------------------------------------------------------------------------


@dataclass(slots=True)
class Submitted:
    """A task has come in; ``problem`` where its call could not be pickled."""

    task: Task
    problem: NotSent | None = None


@dataclass(slots=True)
class CancelAsked:
    """The task's future has been cancelled (which only succeeds before its first attempt is sent)."""

    number: Hashable


@dataclass(slots=True)
class KillAsked:
    """The task is to end for good, whatever it is doing."""

    number: Hashable
    why: str = "future.kill()"


@dataclass(slots=True)
class LaneReady:
    """The lane's new worker waits for its first attempt."""

    lane: int
    pid: int


@dataclass(slots=True)
class StartFailed:
    """The lane's worker did not come up: ``words`` say why, the worker's own where it could speak.

    ``lasting``: another one would not, either.
    """

    lane: int
    words: str
    lasting: bool = False


@dataclass(slots=True)
class Progress:
    """Bytes of the call are still flowing into the lane's worker."""

    lane: int


@dataclass(slots=True)
class Begun:
    """The worker has begun the attempt, at the time ``at`` (``None``: now)."""

    lane: int
    number: Hashable
    attempt: int
    pid: int
    at: float | None = None


@dataclass(slots=True)
class AttemptEnded:
    """The attempt ended and the worker lives (it also answers a kill that the result has beaten).

    ``memory``: bytes that the worker holds now, where the pool wants to know; ``unfit``: why it should run no more.
    ``began`` and ``ended`` are times, where the worker has told them: then the attempt had begun, told before or not.
    """

    lane: int
    number: Hashable
    attempt: int
    outcome: Outcome
    memory: int = 0
    unfit: str = ""
    began: float | None = None
    ended: float | None = None


@dataclass(slots=True)
class ItemsEnded:
    """So many calls of a chunk have returned, the first of which has that number; the worker lives.

    Their values are in ``batch`` behind as many as ``skip``, which were told before; ``began`` and ``ended`` are the
    times of the first in it and of the last, where they are known; ``unfit``: why the worker should run no more.
    """

    lane: int
    number: int
    attempt: int
    count: int
    batch: Batch
    skip: int = 0
    memory: int = 0
    began: float | None = None
    ended: float | None = None
    unfit: str = ""


@dataclass(slots=True)
class TakenBack:
    """These attempts, ``(number, attempt, calls)``, that were sent to the lane's worker will not run there.

    ``calls``: 1, or of a chunk or a bundle, so many of them from that number on.
    """

    lane: int
    calls: tuple[tuple[Hashable, int, int], ...]


@dataclass(slots=True)
class PolicyAnswered:
    """What the policy of a task says to the failure of that attempt: seconds until the next one, or ``None``."""

    number: Hashable
    attempt: int
    delay: float | None


@dataclass(slots=True)
class Answered:
    """The order of that serial is over, and the lane's worker, if it has one, runs on.

    The facts that it has brought about or found out were told before.
    """

    lane: int
    order: int


@dataclass(slots=True)
class MemoryExceeded:
    """The worker and its descendants hold ``used`` bytes, more than the attempt's limit.

    ``inherited``: bytes that earlier attempts had left in the worker, if without them it would be within the limit.
    """

    lane: int
    number: Hashable
    attempt: int
    used: int
    inherited: int = 0


@dataclass(slots=True)
class Stalled:
    """The attempt has used no CPU and done no I/O for ``idle`` seconds; where it stands is in ``evidence``."""

    lane: int
    number: Hashable
    attempt: int
    idle: float
    evidence: Evidence


@dataclass(slots=True)
class WorkerGone:
    """The lane's worker and its descendants are dead.

    Where an attempt had begun in it, ``number`` and ``attempt`` name it and ``outcome`` says how it ended;
    with ``number=None`` and ``outcome=None`` the worker held no attempt that had begun.
    """

    lane: int
    number: Hashable = None
    attempt: int = 0
    outcome: Outcome | None = None
    why: str = ""
    at: float | None = None  # when that attempt began


@dataclass(slots=True)
class LaneClosed:
    """The lane has ended, its worker too; ``failure``: of what it has, if it was not asked to."""

    lane: int
    failure: BaseException | None = None


@dataclass(slots=True)
class MachineMemory:
    """How the machine stands for memory: the level, and the bytes that are available."""

    level: MemoryLevel
    available: int


@dataclass(slots=True)
class TimePassed:
    """Nothing but the clock has moved."""


@dataclass(slots=True)
class Lagged:
    """This process did not run for ``seconds``: it was stopped, or (not ``stopped``) only busy."""

    seconds: float
    stopped: bool


@dataclass(slots=True)
class ShutdownAsked:
    """No more tasks; ``cancel`` drops those that wait, ``kill`` also ends those that run."""

    cancel: bool = False
    kill: bool = False
    why: str = "shutdown()"


Stimulus = (
    Submitted
    | CancelAsked
    | KillAsked
    | LaneReady
    | StartFailed
    | Progress
    | Begun
    | AttemptEnded
    | ItemsEnded
    | TakenBack
    | PolicyAnswered
    | Answered
    | MemoryExceeded
    | Stalled
    | WorkerGone
    | LaneClosed
    | MachineMemory
    | TimePassed
    | Lagged
    | ShutdownAsked
)

# -- commands: orders given by the core (an Event among them is the order to tell it) --------------------------------


@dataclass(slots=True)
class StartWorker:
    """Start a worker in the lane; a lane number not seen before is a new lane."""

    lane: int


@dataclass(slots=True)
class Send:
    """Send the attempt at ``task`` to the lane's worker; told by ``AttemptEnded``, ``TakenBack`` or ``WorkerGone``.

    Of a chunk ``ItemsEnded`` tells, too, and ``AttemptEnded`` tells of each call that did not simply return.
    """

    lane: int
    number: Hashable
    attempt: int
    task: Task


@dataclass(slots=True)
class Look:
    """Tell what the lane's worker is at by now: ``AttemptEnded`` for what has ended, ``Begun`` for what runs."""

    lane: int


@dataclass(slots=True)
class TakeBack:
    """Have the lane's worker not run these attempts, ``(number, attempt, calls)``.

    ``TakenBack`` tells of those that have not begun.
    ``calls``: 1, or of a bundle, so many of them from that number on; of a chunk all from that number on.
    """

    lane: int
    calls: tuple[tuple[Hashable, int, int], ...]


@dataclass(slots=True)
class AskPolicy:
    """Ask the policy, which runs the user's code, on a thread that supervises nothing; told by ``PolicyAnswered``."""

    number: Hashable
    attempt: int
    policy: Policy
    failure: Failure


@dataclass(slots=True)
class RaiseSoftTimeout:
    """Have ``SoftTimeout`` raised inside the attempt, if the lane's worker still runs it."""

    lane: int
    number: Hashable
    attempt: int


@dataclass(slots=True)
class Kill:
    """Kill the lane's worker if it still holds that attempt; told by ``WorkerGone``, else by ``Answered``.

    With ``unless_begun`` an attempt that has begun by then is left alone (and has told so by ``Begun``).
    ``calls``: of a chunk; it is killed if it holds any of them.
    """

    lane: int
    number: Hashable
    attempt: int
    order: int
    unless_begun: bool = False
    calls: int = 0


@dataclass(slots=True)
class EndStart:
    """End the lane's start that takes too long; told by ``StartFailed``, else by ``Answered``."""

    lane: int
    order: int


@dataclass(slots=True)
class EndStop:
    """Kill the lane's worker that does not end in peace; told by ``WorkerGone``, else by ``Answered``."""

    lane: int
    order: int


@dataclass(slots=True)
class StopWorker:
    """End the lane's idle worker in peace."""

    lane: int


@dataclass(slots=True)
class CloseLane:
    """End the lane and its idle worker, if any."""

    lane: int


@dataclass(slots=True)
class Abandon:
    """The lane did not answer in time: give it up."""

    lane: int


@dataclass(slots=True)
class Settle:
    """The task is over: hand the outcome to its future.

    Where ``task.calls`` is not 0 that many calls of a chunk are over, all in the same way.
    """

    number: Hashable
    outcome: Outcome | ResilientError | None  # an error of the pool's own; None: cancelled
    attempts: int
    elapsed: float
    story: Story
    task: Task


@dataclass(slots=True)
class ResultsDiffer:
    """Warn: two attempts at once have returned different results; that of ``kept`` is the task's."""

    task: Task
    kept: int
    other: int


@dataclass(slots=True)
class Finish:
    """Everything has settled and every lane is closed."""


Command = (
    Event
    | StartWorker
    | Send
    | Look
    | AskPolicy
    | TakeBack
    | RaiseSoftTimeout
    | Kill
    | EndStart
    | EndStop
    | StopWorker
    | CloseLane
    | Abandon
    | Settle
    | ResultsDiffer
    | Finish
)
