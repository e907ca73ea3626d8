"""Lanes that lie in wait for the core: what is true in them, and the words that say it.

A ``FakeLane`` obeys its orders in the order in which they came, but when, and what its worker does meanwhile, is up
to whoever plays it; so is when its words reach the core.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from resilient_exec.core.messages import (
    Answered,
    AttemptEnded,
    Begun,
    CloseLane,
    Command,
    EndStart,
    EndStop,
    Kill,
    LaneClosed,
    LaneReady,
    Look,
    MemoryExceeded,
    Progress,
    RaiseSoftTimeout,
    Send,
    Stalled,
    StartFailed,
    StartWorker,
    Stimulus,
    StopWorker,
    TakeBack,
    TakenBack,
    WorkerGone,
)
from resilient_exec.model.errors import SoftTimeout
from resilient_exec.model.evidence import Evidence
from resilient_exec.model.task import Died, Outcome, Raised, Returned

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Call = tuple[Any, int]  # key, attempt
MARK = 1000  # bytes: what a worker may hold between two attempts
# What is secured about a failed attempt; its text is longer than a rendering may be.
EVIDENCE = Evidence("File x.py\n" * 99, "printed", "", ((0.5, 2**20), (1.0, 2**21)), 2**21, "", "seen by the kernel")


class FakeLane:
    """A lane and its worker.  ``words`` are on their way to the core, ``orders`` on their way from it."""

    def __init__(self, number: int, clock: Callable[[], float]) -> None:
        self.number = number
        self.clock = clock
        self.orders: deque[Command] = deque()
        self.words: deque[Stimulus] = deque()
        self.worker = "none"  # none starting up stopping
        self.calls: list[Call] = []  # what the worker holds; the first one runs if `running`
        self.running = False
        self.told = False  # SoftTimeout has been raised in the attempt that runs
        self.ran = 0  # attempts begun in this worker
        self.closing = self.closed = self.abandoned = False
        self.began_at = 0.0  # of the attempt that runs

    def obey(self) -> None:
        """Perform the next order."""
        match self.orders.popleft():
            case StartWorker():
                assert self.worker == "none", "a worker was ordered for a lane that has one"
                self.worker, self.ran = "starting", 0
            case Send() as send:
                if self.worker == "up":  # else it died meanwhile, and has said so
                    self.calls.append((send.number, send.attempt))
            case Look():
                if self.running:
                    self.words.append(Begun(self.number, *self.calls[0], 1, self.began_at))
            case TakeBack() as order:
                first = int(self.running)
                back = [call for call in self.calls[first:] if (*call, 1) in order.calls]
                self.calls = self.calls[:first] + [call for call in self.calls[first:] if call not in back]
                if back:
                    self.words.append(TakenBack(self.number, tuple((*call, 1) for call in back)))
            case RaiseSoftTimeout() as order:  # else it has ended meanwhile
                self.told |= self.running and self.calls[0] == (order.number, order.attempt)
            case Kill() as kill:
                self._kill(kill)
            case EndStart() as order:
                if self.worker == "starting":
                    self.start(well=False)
                else:
                    self.words.append(Answered(self.number, order.order))
            case EndStop() as order:
                if self.worker == "stopping" or (self.worker == "up" and self.closing):
                    self.die()
                else:
                    self.words.append(Answered(self.number, order.order))
            case StopWorker():
                if self.worker == "up":
                    assert not self.calls, "a worker was stopped in peace while it held attempts"
                    self.worker = "stopping"
            case CloseLane():
                assert not self.calls, "a lane was closed while it held attempts"
                self.closing = True

    def _kill(self, kill: Kill) -> None:
        if (kill.number, kill.attempt) in self.calls and not (kill.unless_begun and self.running):
            assert self.calls[0] == (kill.number, kill.attempt), "law 2: a kill would strike another task's attempt"
            self.die()
        else:
            if self.running:  # it has looked, and tells what it has found
                self.words.append(Begun(self.number, *self.calls[0], 1, self.began_at))
            self.words.append(Answered(self.number, kill.order))

    def start(self, *, well: bool) -> None:
        self.worker = "up" if well else "none"
        self.words.append(LaneReady(self.number, 1) if well else StartFailed(self.number, "no"))

    def begin(self, *, mute: bool = False) -> None:
        """It begins; ``mute``: nobody hears of that before somebody looks, or it has ended."""
        self.running, self.told, self.began_at = True, False, self.clock()
        self.ran += 1
        if not mute:
            self.words.append(Begun(self.number, *self.calls[0], 1))

    def end(self, outcome: Outcome, memory: int = 0) -> None:
        self.running = False
        times = (self.began_at, self.clock())
        self.words.append(AttemptEnded(self.number, *self.calls.pop(0), outcome, memory, False, *times))

    def swell(self, used: int) -> None:
        """The attempt that runs holds more than it may (the lane says so of those with a limit only)."""
        self.words.append(MemoryExceeded(self.number, *self.calls[0], used))

    def stall(self) -> None:
        self.words.append(Stalled(self.number, *self.calls[0], 60.0, EVIDENCE))

    def die(self, *, mute: bool = False) -> None:
        """The worker dies; ``mute``: in the moment between the register's begin and the telling of it."""
        if mute and self.calls and not self.running:
            self.running, self.began_at = True, self.clock()
            self.ran += 1
        named = self.calls[0] if self.running else (None, 0)
        outcome = Died(-11, 1, evidence=EVIDENCE) if self.running else None
        self.worker, self.calls, self.running = "none", [], False
        self.words.append(WorkerGone(self.number, *named, outcome, "it died", self.began_at if outcome else None))

    def close(self, *, tell: bool) -> None:
        """The lane ends, having said that its worker went, or not."""
        if tell and self.worker in ("up", "stopping"):
            self.die()
        self.worker, self.calls, self.running, self.closed = "none", [], False, True
        self.words.append(LaneClosed(self.number))

    def step(self, fate: str = "returns") -> bool:
        """Do what comes next; ``fate`` is what becomes of an attempt that runs.  Whether there was anything to do."""
        if self.abandoned or self.closed:
            return False
        if self.orders:
            self.obey()
        elif self.closing:
            self.close(tell=fate == "dies")
        elif self.worker == "starting":
            self.start(well=True)
        elif self.worker == "stopping" or (self.running and fate == "dies"):
            self.die()
        elif (self.running and fate == "hangs") or (self.calls and fate == "stalls"):
            return False
        elif self.running and self.told and fate == "raises":
            self.end(Raised(SoftTimeout(fate), EVIDENCE))
        elif self.running:
            outcome = Raised(ValueError(fate), EVIDENCE) if fate == "raises" else Returned(fate)
            self.end(outcome, memory=MARK + 1 if fate == "grows" else MARK)
        elif self.calls and fate == "dies mute":
            self.die(mute=True)
        elif self.calls:
            self.begin(mute=fate == "grows")
        else:
            return False
        return True


GHOSTLY = (LaneReady, StartFailed, Progress, Begun, AttemptEnded, MemoryExceeded, Stalled, WorkerGone, LaneClosed)
GHOSTLY = (*GHOSTLY, TakenBack, Answered)
LATE = (Progress, Begun, AttemptEnded, TakenBack, Answered, MemoryExceeded, Stalled, WorkerGone)


def ghost_word(kind: type, lane: int, key: Hashable, attempt: int) -> Stimulus:
    """A word of that kind that a lane which was given up may still say."""
    match kind.__name__:
        case "LaneReady":
            return LaneReady(lane, 1)
        case "StartFailed":
            return StartFailed(lane, "late")
        case "Begun":
            return Begun(lane, key, attempt, 1)
        case "AttemptEnded":
            return AttemptEnded(lane, key, attempt, Returned("late"))
        case "MemoryExceeded":
            return MemoryExceeded(lane, key, attempt, 9)
        case "Stalled":
            return Stalled(lane, key, attempt, 60.0, EVIDENCE)
        case "TakenBack":
            return TakenBack(lane, ((key, attempt, 1),))
        case "Answered":
            return Answered(lane, -1)
        case "WorkerGone":
            return WorkerGone(lane, key, attempt, Died(-9, 1))
    return kind(lane)
