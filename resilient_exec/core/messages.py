"""The core's vocabulary: the stimuli it is told and the commands it gives.

None is frozen although none is ever changed: making a frozen dataclass costs four times as much, and each
task takes a dozen of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resilient_exec.model.events import Event

if TYPE_CHECKING:
    from collections.abc import Hashable

    from resilient_exec.model.errors import ResilientError
    from resilient_exec.model.evidence import Evidence
    from resilient_exec.model.memory_level import MemoryLevel
    from resilient_exec.model.task import NotSent, Outcome, Task

__all__ = [
    "Abandon",
    "AttemptEnded",
    "Begun",
    "CancelAsked",
    "CloseLane",
    "Command",
    "Finish",
    "Kill",
    "KillAsked",
    "LaneClosed",
    "LaneReady",
    "MachineMemory",
    "MemoryExceeded",
    "Progress",
    "RaiseSoftTimeout",
    "Send",
    "Settle",
    "ShutdownAsked",
    "Stalled",
    "StartFailed",
    "StartWorker",
    "Stimulus",
    "StopWorker",
    "Submitted",
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

    key: Hashable


@dataclass(slots=True)
class KillAsked:
    """The task is to end for good, whatever it is doing."""

    key: Hashable
    why: str = "future.kill()"


@dataclass(slots=True)
class LaneReady:
    """The lane's new worker waits for its first attempt."""

    lane: int
    pid: int


@dataclass(slots=True)
class StartFailed:
    """The lane's worker did not come up: ``words`` say why, the worker's own where it could speak."""

    lane: int
    words: str


@dataclass(slots=True)
class Progress:
    """Bytes of the call are still flowing into the lane's worker."""

    lane: int


@dataclass(slots=True)
class Begun:
    """The worker has begun the attempt."""

    lane: int
    key: Hashable
    attempt: int
    pid: int


@dataclass(slots=True)
class AttemptEnded:
    """The attempt ended and the worker lives (it also answers a kill that the result has beaten).

    ``memory``: bytes that the worker holds now, where the pool wants to know; ``unfit``: it should run no more.
    """

    lane: int
    key: Hashable
    attempt: int
    outcome: Outcome
    memory: int = 0
    unfit: bool = False


@dataclass(slots=True)
class MemoryExceeded:
    """The worker and its descendants hold ``used`` bytes, more than the attempt's limit.

    ``inherited``: bytes that earlier attempts had left in the worker, if without them it would be within the limit.
    """

    lane: int
    key: Hashable
    attempt: int
    used: int
    inherited: int = 0


@dataclass(slots=True)
class Stalled:
    """The attempt has used no CPU and done no I/O for ``idle`` seconds; where it stands is in ``evidence``."""

    lane: int
    key: Hashable
    attempt: int
    idle: float
    evidence: Evidence


@dataclass(slots=True)
class WorkerGone:
    """The lane's worker and its descendants are dead.

    Where an attempt had begun in it, ``key`` and ``attempt`` name it and ``outcome`` says how it ended;
    with ``key=None`` and ``outcome=None`` the worker held no attempt that had begun.
    """

    lane: int
    key: Hashable = None
    attempt: int = 0
    outcome: Outcome | None = None
    why: str = ""


@dataclass(slots=True)
class LaneClosed:
    """The lane has ended, its worker too."""

    lane: int


@dataclass(slots=True)
class MachineMemory:
    """How the machine stands for memory: the level, and the bytes that are available."""

    level: MemoryLevel
    available: int


@dataclass(slots=True)
class TimePassed:
    """Nothing but the clock has moved."""


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
    | MemoryExceeded
    | Stalled
    | WorkerGone
    | LaneClosed
    | MachineMemory
    | TimePassed
    | ShutdownAsked
)

# -- commands: orders given by the core (an Event among them is the order to tell it) --------------------------------


@dataclass(slots=True)
class StartWorker:
    """Start a worker in the lane; a lane number not seen before is a new lane."""

    lane: int


@dataclass(slots=True)
class Send:
    """Send the attempt to the lane's worker."""

    lane: int
    key: Hashable
    attempt: int


@dataclass(slots=True)
class RaiseSoftTimeout:
    """Have ``SoftTimeout`` raised inside the attempt, if the lane's worker still runs it."""

    lane: int
    key: Hashable
    attempt: int


@dataclass(slots=True)
class Kill:
    """Kill the lane's worker if it still holds that attempt (``key=None``: if it is still starting or stopping).

    With ``unless_begun`` an attempt that has begun by then is left alone (and has told so by ``Begun``).
    """

    lane: int
    key: Hashable = None
    attempt: int = 0
    unless_begun: bool = False


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
    """The task is over: hand the outcome to its future."""

    key: Hashable
    outcome: Outcome | ResilientError | None  # an error of the pool's own; None: cancelled
    attempts: int
    elapsed: float
    story: tuple[Event, ...]
    label: str


@dataclass(slots=True)
class Finish:
    """Everything has settled and every lane is closed."""


Command = Event | StartWorker | Send | RaiseSoftTimeout | Kill | StopWorker | CloseLane | Abandon | Settle | Finish
