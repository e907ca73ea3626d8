"""A core played by hand: stimuli go in by short methods, commands come out as short words.

``Play`` keeps the clock, so no test waits.  Its words: ``"sent a#1"`` is the event *sent* of the task ``a``, attempt 1;
``"lane_ready L0"`` the event of lane 0; ``"Send L0 a#1"`` a command; ``"Settle a died 4"`` the task ``a`` settled
with ``Died`` after four attempts.  The commands themselves are in ``Play.commands``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec.core.machine import Core
from resilient_exec.core.messages import (
    Abandon,
    Answered,
    AskPolicy,
    AttemptEnded,
    Begun,
    CancelAsked,
    CloseLane,
    Command,
    EndStart,
    EndStop,
    Finish,
    Kill,
    KillAsked,
    LaneClosed,
    LaneReady,
    Look,
    MachineMemory,
    MemoryExceeded,
    Progress,
    RaiseSoftTimeout,
    ResultsDiffer,
    Send,
    Settle,
    ShutdownAsked,
    Stalled,
    StartFailed,
    StartWorker,
    Stimulus,
    StopWorker,
    Submitted,
    TakeBack,
    TakenBack,
    TimePassed,
    WorkerGone,
)
from resilient_exec.core.states import LaneState, Limits, LookTimer, State
from resilient_exec.model.events import Event
from resilient_exec.model.evidence import NO_EVIDENCE, Evidence
from resilient_exec.model.memory_level import MemoryLevel
from resilient_exec.model.task import Died, NotSent, Outcome, Raised, Returned, Task

if TYPE_CHECKING:
    from collections.abc import Hashable

    from resilient_exec.model.ports import Failure

DIED = Died(-9, 4000, why="SIGKILL")
VALUE = Returned("value")
RAISED = Raised(ValueError("no"))
GIB = 2**30


class Grant:
    """A policy that grants one more attempt for each delay it was made with, whatever failed."""

    def __init__(self, *delays: float) -> None:
        self.delays = delays
        self.asked: list[tuple[str, int]] = []  # cause, attempts

    asks_user = False

    def next_delay(self, failure: Failure) -> float | None:
        self.asked.append((failure.cause, failure.attempts))
        failures = sum(failure.counts.values())
        return self.delays[failures - 1] if failures <= len(self.delays) else None


NEVER = Grant()


def words(command: Command) -> str:
    """One command in words (see above)."""
    match command:
        case Event(key=None, lane=None):
            return command.kind
        case Event(key=None):
            return f"{command.kind} L{command.lane}"
        case Event():
            return f"{command.kind} {_named(command)}"
        case Send() | RaiseSoftTimeout():
            return f"{type(command).__name__} L{command.lane} {_called(command)}"
        case TakeBack():
            return f"TakeBack L{command.lane} {' '.join(f'{number}#{attempt}' for number, attempt, _ in command.calls)}"
        case AskPolicy():
            return f"AskPolicy {_called(command)}"
        case EndStart() | EndStop() | Look():
            return f"{type(command).__name__} L{command.lane}"
        case Kill():
            return f"Kill L{command.lane} {_called(command)}{' unless begun' if command.unless_begun else ''}"
        case StartWorker() | StopWorker() | CloseLane() | Abandon():
            return f"{type(command).__name__} L{command.lane}"
        case Settle(outcome=None):
            return f"Settle {command.number} cancelled {command.attempts}"
        case Settle():
            how = getattr(command.outcome, "kind", type(command.outcome).__name__)
            return f"Settle {command.number} {how} {command.attempts}"
        case ResultsDiffer():
            return f"ResultsDiffer {command.task.key} kept {command.kept} not {command.other}"
        case Finish():
            return "Finish"
    raise AssertionError(command)


def _named(what: Event) -> str:
    return f"{what.key}#{what.attempt}" if what.attempt else str(what.key)


def _called(what: Send | RaiseSoftTimeout | Kill | AskPolicy) -> str:
    return f"{what.number}#{what.attempt}"


class Play:
    """A core whose clock is moved by hand.  Each method tells one stimulus and returns the words of the answer."""

    def __init__(self, lanes: int = 1, **limits: Any) -> None:
        self.core = Core(Limits(lanes, **limits))
        self.now = 0.0
        self.commands: list[Command] = []
        self.settled: dict[Hashable, Settle] = {}

    def tell(self, stimulus: Stimulus) -> list[str]:
        self.commands = self.core.handle(stimulus, self.now)
        for command in self.commands:
            if isinstance(command, Settle):
                assert command.number not in self.settled, f"{command.number} settled twice"
                self.settled[command.number] = command
        # A look changes nothing by itself: what it would have found out is told where a test wants it to be.
        return [words(command) for command in self.commands if not isinstance(command, Look)]

    # -- the user --------------------------------------------------------------------------------------------------

    def submit(self, key: Hashable, retry: Any = NEVER, *, problem: NotSent | None = None, **task: Any) -> list[str]:
        return self.tell(Submitted(Task(key, retry, key=key, **task), problem))

    def cancel(self, key: Hashable) -> list[str]:
        return self.tell(CancelAsked(key))

    def kill(self, key: Hashable, why: str = "future.kill()") -> list[str]:
        return self.tell(KillAsked(key, why))

    def shutdown(self, *, cancel: bool = False, kill: bool = False) -> list[str]:
        return self.tell(ShutdownAsked(cancel, kill))

    # -- the lanes -------------------------------------------------------------------------------------------------

    def ready(self, lane: int = 0) -> list[str]:
        return self.tell(LaneReady(lane, 4000 + lane))

    def start_failed(self, lane: int = 0, why: str = "no memory") -> list[str]:
        return self.tell(StartFailed(lane, why))

    def progress(self, lane: int = 0) -> list[str]:
        return self.tell(Progress(lane))

    def begun(self, key: Hashable, attempt: int = 1, lane: int = 0) -> list[str]:
        return self.tell(Begun(lane, key, attempt, 4000 + lane))

    def ended(
        self, key: Hashable, attempt: int = 1, lane: int = 0, outcome: Outcome = VALUE, memory: int = 0
    ) -> list[str]:
        return self.tell(AttemptEnded(lane, key, attempt, outcome, memory))

    def died(self, key: Hashable, attempt: int = 1, lane: int = 0, outcome: Outcome = DIED) -> list[str]:
        return self.tell(WorkerGone(lane, key, attempt, outcome, "SIGKILL"))

    def swollen(self, key: Hashable, attempt: int = 1, lane: int = 0, used: int = 2 * GIB) -> list[str]:
        return self.tell(MemoryExceeded(lane, key, attempt, used))

    def stalled(
        self, key: Hashable, attempt: int = 1, lane: int = 0, idle: float = 60.0, evidence: Evidence = NO_EVIDENCE
    ) -> list[str]:
        return self.tell(Stalled(lane, key, attempt, idle, evidence))

    def taken_back(self, key: Hashable, attempt: int = 1, lane: int = 0) -> list[str]:
        return self.tell(TakenBack(lane, ((key, attempt, 1),)))

    def answered(self, lane: int = 0) -> list[str]:
        """The last order to kill is over, and the worker runs on."""
        return self.tell(Answered(lane, self.core._serial))

    def gone(self, lane: int = 0) -> list[str]:
        return self.tell(WorkerGone(lane, why="gone"))

    def closed(self, lane: int = 0) -> list[str]:
        return self.tell(LaneClosed(lane))

    # -- the machine -----------------------------------------------------------------------------------------------

    def memory(self, level: str, available: int = GIB) -> list[str]:
        return self.tell(MachineMemory(MemoryLevel(level), available))

    # -- the clock -------------------------------------------------------------------------------------------------

    def after(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.tell(TimePassed())

    def when_due(self) -> list[str]:
        due = self.next_due()
        assert due is not None, "nothing waits for the clock"
        self.now = max(self.now, due)
        return self.tell(TimePassed())

    def next_due(self) -> float | None:
        """When something is decided by the clock; looks are passed over."""
        timers = self.core._timers
        left = [due for due, serial, one in timers._heap if one.timer == serial and not isinstance(one, LookTimer)]
        left += [
            lane.since + self.core.limits.begin_timeout
            for lane in self.core._lanes
            if lane.state is LaneState.BUSY and lane.holds[0].state is State.SENT
        ]
        return min(left, default=None)

    # -- short cuts ------------------------------------------------------------------------------------------------

    def sent(self, key: Hashable, retry: Any = NEVER, **task: Any) -> None:
        """Submit, and have lane 0 up."""
        self.submit(key, retry, **task)
        if self.lane()["state"] == LaneState.STARTING:
            self.ready()

    def running(self, key: Hashable, retry: Any = NEVER, **task: Any) -> None:
        """Submit, and have it begin in lane 0."""
        self.sent(key, retry, **task)
        self.begun(key)

    def all_running(self, *keys: Hashable, retry: Any = NEVER, apart: float = 1.0, **task: Any) -> None:
        """Submit these, and have each begin in a lane of its own, in this order, ``apart`` s after each other."""
        for lane, key in enumerate(keys):
            self.submit(key, retry, **task)
            self.ready(lane)
            self.begun(key, lane=lane)
            self.now += apart

    def state(self, key: Hashable) -> State:
        return self.core._records[key].state

    def lane(self, number: int = 0) -> dict[str, Any]:
        return next(lane for lane in self.core.lanes(self.now) if lane["lane"] == number)
