"""One attempt: its begin, its limits, its kill, and what its end makes of its task.

Three rules explain most of it:

* **A late word is ignored.**  A stimulus about an attempt that its lane does not hold comes from the past.
* **What came back before the death stands.**  A doomed attempt that returned after all keeps its value.
* **Each cause has its budget.**  The policy of the task says whether there is another attempt, and when.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from resilient_exec.core.chunks import covers
from resilient_exec.core.messages import (
    AskPolicy,
    Begun,
    KillAsked,
    MemoryExceeded,
    PolicyAnswered,
    RaiseSoftTimeout,
    Stalled,
)
from resilient_exec.core.speculation import Speculation
from resilient_exec.core.states import LaneRecord, LaneState, Record, State
from resilient_exec.core.verdicts import death_of, soft_limit, softened
from resilient_exec.model.ports import Failure
from resilient_exec.model.task import (
    Evicted,
    Killed,
    Outcome,
    OutOfMemory,
    Raised,
    Returned,
    TimedOut,
    detail_of,
    evidence_of,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Attempts"]


class Attempts(Speculation):
    """The stimuli about one attempt that runs, and what becomes of its task."""

    # -- begin ---------------------------------------------------------------------------------------------------------

    def _head(self, lane_number: int, number: Hashable, attempt: int) -> Record | None:
        """The attempt at the head of that lane, if it is the one named; else the word is late, and is ignored."""
        lane = self._lanes.get(lane_number)
        if lane is None or not lane.holds:
            return None
        record = lane.holds[0]
        if record.attempt != attempt:
            return None
        if record.task.calls and covers(record.task, number):
            return self._single_out(record, number)  # type: ignore[arg-type]
        return record if record.task.number == number else None

    def _attempt_begun(self, s: Begun) -> None:
        record = self._head(s.lane, s.number, s.attempt)
        if record is None or record.has_begun or record.lane is None:
            return
        self._begin(record, record.lane, s.pid, s.at)
        if record.state is State.DOOMED:
            return  # asked to be killed before it began: that kill is on its way
        self._move(record, State.RUNNING)
        if record.lane.state is LaneState.KILLING:  # was taken for frozen; that kill spares what has begun
            self._stay_busy(record.lane)
        soft = soft_limit(record.task)
        first = record.task.timeout if soft is None else soft
        if record.begun_at <= self._stopped[1]:
            self._pardon(record, *self._stopped)
        if first is not None:
            self._timers.set(record, record.begun_at + record.pardon + first)
        if record.task.speculate:
            self._watch(record)

    def _begin(self, record: Record, lane: LaneRecord, pid: int | None, at: float | None) -> None:
        """The attempt has begun, ``at`` a time that may be past."""
        record.begun = record.attempt
        record.lost = 0
        record.begun_at = at = self._now if at is None else at
        record.pardon = 0.0
        if record.begun == 1:
            record.first_begun_at = at
        lane.begun += 1
        self._tell("begun", record, {"pid": pid}, at=at)

    @staticmethod
    def _pardon(record: Record, seconds: float, ended: float) -> None:
        """It could not use what of those seconds, which have ``ended``, it had begun in; once in an attempt."""
        record.pardon = record.pardon or max(0.0, min(seconds, ended - record.begun_at))

    # -- limits --------------------------------------------------------------------------------------------------------

    def _task_due(self, record: Record) -> None:
        if record.state is State.RUNNING:
            self._time_is_up(record)
        elif record.asked is not None:
            outcome, record.asked = record.asked, None
            self._tell("policy_late", record, {"limit": self.limits.policy_timeout})
            self._settle(record, outcome)
        elif record.state is State.BACKING_OFF:
            self._enqueue(record)

    def _time_is_up(self, record: Record) -> None:
        task, lane, soft = record.task, record.lane, soft_limit(record.task)
        if soft is not None and record.soft_told != record.attempt and lane is not None:
            record.soft_told = record.attempt
            self._tell("soft_timeout", record, {"limit": soft})
            self._out.append(RaiseSoftTimeout(lane.number, task.number, record.attempt))
            self._take_back(lane, lane.holds[1:])  # that worker is not to run another
            if task.timeout is not None:
                self._timers.set(record, record.begun_at + record.pardon + task.timeout)
        elif task.timeout is not None:
            self._doom(record, TimedOut(task.timeout), "timeout")

    def _memory_exceeded(self, s: MemoryExceeded) -> None:
        record = self._head(s.lane, s.number, s.attempt)
        if record is None or record.state is not State.RUNNING or record.task.memory_limit is None:
            return
        if s.inherited:
            why = f"its worker still held {s.inherited / 2**20:.0f} MiB of earlier tasks"
            self._doom(record, Evicted(why), why)
        else:
            self._doom(record, OutOfMemory(record.task.memory_limit, s.used), "memory_limit")

    def _stalled(self, s: Stalled) -> None:
        record = self._head(s.lane, s.number, s.attempt)
        if record is None or record.state is not State.RUNNING:
            return
        self._tell("stalled", record, {"idle": s.idle}, s.evidence)
        if self.limits.kill_stalled:
            self._doom(record, TimedOut(s.idle, what="stall_timeout"), "stall_timeout")

    # -- kills ---------------------------------------------------------------------------------------------------------

    def _kill_asked(self, s: KillAsked) -> None:
        chunk = self._groups.chunk(s.number)
        if chunk is not None:
            for part in list(chunk.parts.values()):
                self._kill_one(part, s)
            return
        record = self._part(s.number)
        if record is not None:
            self._kill_one(self._isolate(record, s.number), s)  # type: ignore[arg-type]

    def _kill_one(self, record: Record, s: KillAsked) -> None:
        for one in (record,) if record.twins is None else tuple(record.twins.live):
            self._kill_attempt(one, s)

    def _kill_attempt(self, record: Record, s: KillAsked) -> None:
        if record.state is State.DOOMED:
            record.doom = Killed(s.why)  # beats the retry that a timeout would have been granted
        elif record.state in (State.SENT, State.RUNNING):
            self._doom(record, Killed(s.why), s.why)
        else:
            self._settle(record, Killed(s.why))

    # -- what becomes of a task ----------------------------------------------------------------------------------------

    def _conclude(self, record: Record, outcome: Outcome) -> None:
        """One attempt is over: settle, or back off until the next."""
        if type(outcome) is Returned:  # which nothing makes into something else
            self._tell("returned", record)
        else:
            outcome = softened(record, death_of(record, outcome))
            self._tell(outcome.kind, record, detail_of(outcome), evidence_of(outcome))
        record.lane = None
        if record.task.timed:
            decided = self._decided(record, outcome)
            if decided is None:
                return
            outcome = decided
        if type(outcome) is Returned:
            record.doom = None
            self._settle(record, outcome)
            return
        delay = self._next_delay(record, outcome)
        if delay is None:
            self._settle(record, outcome)
        elif isinstance(delay, Failure):
            self._move(record, State.BACKING_OFF)
            record.asked = outcome
            self._wake(record, self.limits.policy_timeout)
            self._out.append(AskPolicy(record.task.number, record.attempt, record.task.retry, delay))
        else:
            self._move(record, State.BACKING_OFF)
            self._back_off(record, delay)

    def _back_off(self, record: Record, delay: float) -> None:
        self._tell("backing_off", record, {"delay": delay})
        self._wake(record, delay)

    def _policy_answered(self, s: PolicyAnswered) -> None:
        record = self._records.get(s.number)
        if record is None or record.asked is None or record.attempt != s.attempt:
            return
        outcome, record.asked = record.asked, None
        if s.delay is None or self.broken is not None:
            self._settle(record, outcome)
        else:
            self._back_off(record, s.delay)

    def _next_delay(self, record: Record, outcome: Outcome) -> float | Failure | None:
        """Seconds until the next attempt; ``None``: there is none; a failure: its policy is to be asked elsewhere."""
        doom, record.doom = record.doom, None
        if isinstance(doom, Killed) or self._no_retries or self.broken is not None:
            return None
        if isinstance(outcome, Evicted):
            record.evictions += 1
            return None if record.evictions >= self.limits.uncharged else self._admission.delay(record.evictions)
        if record.failures is None:
            record.failures = Counter()
        record.failures[outcome.kind] += 1
        raised = outcome if isinstance(outcome, Raised) else None
        exception, ordinary = (raised.exception, raised.ordinary) if raised is not None else (None, False)
        elapsed, charged = self._now - record.first_begun_at, record.begun - record.evictions
        if record.twins is not None:
            charged -= record.twins.uncharged
        failure = Failure(record.task.key, outcome.kind, record.failures, charged, elapsed, exception)
        failure = failure._replace(ordinary=ordinary, name=record.task.name)
        return failure if record.task.retry.asks_user else record.task.retry.next_delay(failure)
