"""Decides; never acts.  Stimuli go in, commands come out, and the shell performs them in order.

This module sees no clock, thread, file, process or random number (a test enforces it): the time is an
argument, so the same stimuli give the same commands, and everything here is tested without a process.

The table of a task's moves is in :mod:`resilient_exec.core.states`.  Three rules explain most of what follows:

* **Only what had begun is charged.**  Whatever else a worker held goes back to the queue at its old place.
* **A late word is ignored.**  A stimulus about an attempt that its lane does not hold comes from the past.
* **What came back before the death stands.**  A doomed attempt that returned after all keeps its value.

Longer than 400 lines: it is one state machine, and is not split in the middle of its table.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from resilient_exec.core.admission import Admission
from resilient_exec.core.backlog import Backlog
from resilient_exec.core.chunks import Group, covers, key_of_call, overloaded, part_of, spare_record
from resilient_exec.core.lane_table import Roster
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
    ItemsEnded,
    Kill,
    KillAsked,
    Lagged,
    LaneClosed,
    LaneReady,
    Look,
    MachineMemory,
    MemoryExceeded,
    PolicyAnswered,
    Progress,
    RaiseSoftTimeout,
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
from resilient_exec.core.restart_budget import Starts
from resilient_exec.core.states import LaneRecord, LaneState, Limits, LookTimer, Record, State
from resilient_exec.core.timers import Timers
from resilient_exec.core.verdicts import death_of, soft_limit, softened
from resilient_exec.model.errors import PoolBroken, PoolClosed, ResilientError
from resilient_exec.model.events import Event, Row, Story, event_of
from resilient_exec.model.evidence import NO_EVIDENCE, Evidence
from resilient_exec.model.memory_level import MemoryLevel
from resilient_exec.model.packed import Slice
from resilient_exec.model.ports import Failure
from resilient_exec.model.task import (
    Died,
    Evicted,
    Killed,
    Lost,
    Outcome,
    OutOfMemory,
    Raised,
    Returned,
    TimedOut,
    detail_of,
    evidence_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from resilient_exec.model.task import Task

__all__ = ["Core"]

_LONGEST_PAUSE = 0.5  # s, between two looks at a lane
# To look a member up in its class takes 0.2 us on Python 3.11: what each task does several times has these.
_NEW, _QUEUED, _SENT, _RUNNING, _SETTLED = State.NEW, State.QUEUED, State.SENT, State.RUNNING, State.SETTLED
_BUSY = LaneState.BUSY
_DONE = {"how": "done"}
_ASKED_AGAIN = 0.005  # s, until a lane is asked again to give calls of a chunk away
_OF_EACH = ("queued", "settled")


def _follows(record: Record, head: Record) -> bool:
    """Whether these calls come next in the chunk that the head is a call of: they go where it goes, unless they are
    wanted elsewhere.
    """
    return record.task.group is not None and record.task.group is head.task.group


class Core:
    """The state of one pool.  ``handle`` is the only way in, its commands the only way out."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.counts = dict.fromkeys(State, 0)  # unsettled tasks by state
        self.ended: Counter[str] = Counter()  # settled tasks: done, failed, cancelled
        self.broken: str | None = None  # why, once no worker can be started
        self.finished = False  # Finish has been given
        self._now = 0.0
        self._out: list[Command] = []
        self._records: dict[Hashable, Record] = {}
        self._backlog = Backlog()
        self._groups: dict[Hashable, Group] = {}  # of chunks, by the number of the first call
        self._surplus = dict.fromkeys(State, 0)  # calls of chunks, beyond the one for which the record counts
        self._elastic = 0  # of those that are queued, how many other lanes could be sent
        self._timers = Timers()
        self._lanes = Roster(limits, self._timers)
        self._starts = Starts(limits)
        self._admission = Admission()
        self._orders = 0
        self._serial = 0  # of the last order that is to be answered
        self._tells = limits.tell
        self._stopped = (0.0, float("-inf"))  # for how long this process was stopped last, and when it ran again
        self._closing = False
        self._no_retries = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            Submitted: self._submitted,
            CancelAsked: self._cancel_asked,
            KillAsked: self._kill_asked,
            LaneReady: self._lane_ready,
            StartFailed: self._start_failed,
            Progress: self._progress,
            Begun: self._attempt_begun,
            AttemptEnded: self._attempt_ended,
            ItemsEnded: self._items_ended,
            PolicyAnswered: self._policy_answered,
            TakenBack: self._taken_back,
            Answered: self._answered,
            MemoryExceeded: self._memory_exceeded,
            Stalled: self._stalled,
            MachineMemory: self._machine_memory,
            WorkerGone: self._worker_gone,
            LaneClosed: self._lane_closed,
            TimePassed: self._time_passed,
            Lagged: self._lagged,
            ShutdownAsked: self._shutdown_asked,
        }

    # -- the way in ------------------------------------------------------------------------------------------------

    def handle(self, stimulus: Stimulus, now: float) -> list[Command]:
        """Take one stimulus at ``now`` (s) and give the commands that follow from it, in order."""
        self._now = now
        commands: list[Command] = []
        self._out = commands
        self._handlers[type(stimulus)](stimulus)
        if self._backlog.size and (self._lanes.can_take() or not self.counts[_QUEUED]):
            self._fill()
        elif self._surplus[State.SENT]:
            self._share_out()
        if self._closing and not self._records:
            self._close_lanes()
        return commands

    def next_due(self) -> float | None:
        """When ``TimePassed`` is wanted next (s), or ``None``: nothing waits for the clock."""
        return self._timers.next_due()

    def story(self, number: Hashable) -> tuple[Event, ...]:
        """The events so far of an unsettled task; empty for one that is not known."""
        record = self._records.get(number)
        return tuple(Story(record.task.key, list(record.story))) if record is not None else ()

    def task(self, number: Hashable) -> Task | None:
        """An unsettled task, or the chunk that the call of that number is in; ``None``: there is none."""
        record = self._records.get(number)
        if record is not None:
            return record.task
        for group in list(self._groups.values()):
            for part in list(group.parts.values()):
                if covers(part.task, number):
                    return part.task
        return None

    @property
    def is_busy(self) -> bool:
        """Whether any task has not settled."""
        return bool(self._records)

    def counted(self) -> dict[str, int]:
        """Tasks that are ``pending`` (queued, or sent ahead to a worker that is at another), ``running``, and so on."""
        counts, ahead, surplus = self.counts, self._lanes.sent_ahead(), self._surplus
        return {
            "pending": counts[State.QUEUED] + ahead + sum(surplus.values()),
            "running": counts[State.SENT] + counts[State.RUNNING] + counts[State.DOOMED] - ahead,
            "backing_off": counts[State.BACKING_OFF],
        }

    def give_up(self) -> list[tuple[Task, list[Row]]]:
        """All unsettled tasks with the rows of their stories, which are forgotten: the shell has failed."""
        left = [(record.task, record.story) for record in self._records.values()]
        self._records.clear()
        return left

    def unsettled(self) -> tuple[Hashable, ...]:
        """Numbers of all tasks that have not settled."""
        return tuple(self._records)

    def lanes(self, now: float) -> list[dict[str, Any]]:
        """For each lane: its number, state and pid, the key it runs, which attempt, and for how long (s)."""
        return self._lanes.describe(now)

    # -- stimuli about tasks ---------------------------------------------------------------------------------------

    def _submitted(self, s: Submitted) -> None:
        self._orders += 1
        task = s.task
        record = Record(task, self._orders)
        if task.group is not None:
            self._groups[task.group.first] = task.group
        self._add(record)
        if s.problem is not None:
            self._settle(record, s.problem)
        elif self.broken is not None:
            self._settle(record, PoolBroken(self.broken))
        elif self._closing:
            self._settle(record, PoolClosed("the pool was shut down before this task came in"))
        else:
            self._tell("queued", record)
            self._enqueue(record)

    def _add(self, record: Record) -> None:
        task = record.task
        self._records[task.number] = record
        if task.group is not None:
            task.group.parts[task.number] = record
            self._weigh(record, 1)

    def _weigh(self, record: Record, sign: int) -> None:
        """Count the calls of a chunk in, or out, that a record has more than others."""
        more = record.task.calls - 1
        if more > 0:
            self._surplus[record.state] += sign * more
            if record.state is State.QUEUED and record.task.group.most:
                self._elastic += sign * more

    def _narrow(self, record: Record, task: Task) -> None:
        """Let a record of a chunk stand for some of its calls only."""
        parts = task.group.parts
        self._weigh(record, -1)
        del self._records[record.task.number], parts[record.task.number]
        record.task = task
        self._records[task.number] = parts[task.number] = record
        self._weigh(record, 1)

    def _split(self, record: Record, count: int) -> Record:
        """Take the first calls off a chunk: a record of theirs, in the same state and lane."""
        task = record.task
        first = spare_record(record, part_of(task, task.number, count))  # type: ignore[arg-type]
        self._narrow(record, part_of(task, task.number + count, task.calls - count))  # type: ignore[operator]
        if first.state is not State.NEW:
            self.counts[first.state] += 1
        self._add(first)
        return first

    def _single_out(self, chunk: Record, number: int) -> Record:
        """Make a record of its own of a call in a chunk that is at the head of a lane; it is there, then."""
        lane = chunk.lane
        skipped = number - chunk.task.number  # type: ignore[operator]
        if skipped and lane is not None:  # nobody has heard of these, which were before it: they have not begun
            lane.holds.insert(1, self._split(chunk, skipped))
        one = chunk
        if chunk.task.calls > 1:
            one = self._split(chunk, 1)
            if lane is not None:
                lane.holds.insert(0, one)
            chunk.lost = 0
        self._narrow(one, part_of(one.task, number, 0))
        return one

    def _cancel_chunk(self, group: Group) -> None:
        """Those of its calls that have not begun are not wanted any more."""
        group.is_wanted = False
        for part in list(group.parts.values()):
            if part.task.calls and part.state is State.QUEUED:
                self._settle(part, None)
            elif part.task.calls and part.state is State.SENT and part.lane is not None:
                self._out.append(TakeBack(part.lane.number, ((part.task.number, part.attempt),)))

    def _cancel_asked(self, s: CancelAsked) -> None:
        group = self._groups.get(s.number)
        if group is not None:
            self._cancel_chunk(group)
            return
        record = self._records.get(s.number)
        # A future can be cancelled only before its first attempt was sent, so this finds it queued; or sent,
        # where the shell found the future cancelled just when it was about to send it.
        if record is None or record.begun or record.state not in (State.QUEUED, State.SENT):
            return
        lane = record.lane
        if lane is not None:
            was_head = lane.holds[0] is record
            lane.holds.remove(record)
            self._out.append(TakeBack(lane.number, ((record.task.number, record.attempt),)))
            if lane.state is LaneState.BUSY:
                if was_head:
                    self._go_on(lane)
                else:
                    self._stay_busy(lane)  # it has room again
        self._settle(record, None)

    def _kill_asked(self, s: KillAsked) -> None:
        group = self._groups.get(s.number)
        if group is not None:
            for part in list(group.parts.values()):
                self._kill_one(part, s)
            return
        record = self._records.get(s.number)
        if record is not None:
            self._kill_one(record, s)

    def _kill_one(self, record: Record, s: KillAsked) -> None:
        if record.state is State.DOOMED:
            record.doom = Killed(s.why)  # beats the retry that a timeout would have been granted
        elif record.state in (State.SENT, State.RUNNING):
            self._doom(record, Killed(s.why), s.why)
        else:
            self._settle(record, Killed(s.why))

    # -- stimuli about attempts ------------------------------------------------------------------------------------

    def _head(self, lane_number: int, number: Hashable, attempt: int) -> Record | None:
        """The attempt at the head of that lane, if it is the one named; else the word is late, and is ignored."""
        lane = self._lanes.get(lane_number)
        if lane is None or not lane.holds:
            return None
        record = lane.holds[0]
        if record.attempt != attempt:
            return None
        if covers(record.task, number):
            return self._single_out(record, number)  # type: ignore[arg-type]
        return record if record.task.number == number else None

    def _progress(self, s: Progress) -> None:
        lane = self._lanes.get(s.lane)
        if lane is not None:
            lane.since = self._now

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
        if first is not None:
            if record.begun_at <= self._stopped[1]:
                self._pardon(record, *self._stopped)
            self._timers.set(record, record.begun_at + record.pardon + first)

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

    def _attempt_ended(self, s: AttemptEnded) -> None:
        record = self._head(s.lane, s.number, s.attempt)
        if record is None or record.lane is None:
            return
        lane = record.lane
        if record.state is _SENT and s.began is not None and type(s.outcome) is Returned and record.task.group is None:
            self._return_unseen(record, lane, s, s.began)
            return
        if s.began is not None:
            if record.begun != record.attempt:  # nobody had asked meanwhile
                self._begin(record, lane, lane.pid, s.began)
                if record.state is _SENT:
                    self._move(record, _RUNNING)
            took = (self._now if s.ended is None else s.ended) - s.began
            self._lanes.learn(lane, took)
            if record.task.group is not None:
                record.task.group.pace.learn(1, took)
        elif not record.has_begun:
            return
        lane.memory = s.memory
        # An exception out of nowhere may have left an import or a lock half-way: nobody else is to find that.
        lane.unfit = s.unfit or ("SoftTimeout was raised in it" if record.soft_told == record.attempt else "")
        del lane.holds[0]
        self._conclude(record, s.outcome)
        self._go_on(lane)

    def _return_unseen(self, record: Record, lane: LaneRecord, s: AttemptEnded, began: float) -> None:
        """It has returned before anybody has looked whether it had begun, as quick attempts do.

        This is all that is done about such an attempt elsewhere, in one piece, which takes half the time.
        """
        now, task, attempt = self._now, record.task, record.attempt
        lane.begun += 1
        lane.memory, lane.unfit = s.memory, s.unfit
        self._lanes.learn(lane, (now if s.ended is None else s.ended) - began)
        record.move(_SETTLED)
        self.counts[_SENT] -= 1
        self.ended["done"] += 1
        self._records.pop(task.number)
        rows: tuple[Row, ...] = (
            (began, "begun", attempt, lane.number, {"pid": lane.pid}, NO_EVIDENCE),
            (now, "returned", attempt, lane.number),
            (now, "settled", attempt, None, _DONE, NO_EVIDENCE),
        )
        record.story += rows
        if self._tells:
            self._out += [event_of(task.key, row) for row in rows]
        elapsed = now - (record.first_begun_at if record.begun else began)
        self._out.append(Settle(task.number, s.outcome, attempt, elapsed, Story(task.key, record.story), task))
        record.lane = None
        del lane.holds[0]
        lane.since, lane.slow = now, False
        if self.counts[_QUEUED] and self._admission.is_open and self._lanes.can_hold_more(lane):
            self._send(self._backlog.pop(), lane)  # as `_fill` would, but for the search: no other lane has room
        else:
            self._go_on(lane)

    def _items_ended(self, s: ItemsEnded) -> None:
        lane = self._lanes.get(s.lane)
        if lane is None or not lane.holds:
            return
        head, taken = lane.holds[0], 0
        lane.memory, lane.unfit = s.memory, lane.unfit or s.unfit
        while taken < s.count and lane.holds:
            record, values = lane.holds[0], Slice(s.batch, s.skip + taken, s.count - taken)
            if record.task.number != s.number + taken or record.attempt != s.attempt:
                break  # a late word
            if record.task.calls:
                taken += self._settle_calls(record, lane, values)
            else:
                taken += self._settle_one(record, lane, values, s.began)
        if taken and s.began is not None and s.ended is not None and head.task.group is not None:
            head.task.group.pace.learn(s.skip + s.count, s.ended - s.began)
        if not lane.holds or lane.holds[0] is not head:
            self._go_on(lane)
        elif taken and lane.state is LaneState.BUSY:
            lane.since = self._now
            self._stay_busy(lane, anew=True)
        if taken and self._lanes.is_overweight(lane):
            self._take_back(lane, lane.holds)

    def _settle_one(self, record: Record, lane: LaneRecord, values: Slice, began: float | None) -> int:
        """A call of a chunk that has a record of its own, at the head of a lane, has returned."""
        values.count = 1
        if not record.has_begun:
            self._begin(record, lane, lane.pid, began)
            if record.state is _SENT:
                self._move(record, _RUNNING)
        if record.soft_told == record.attempt:
            lane.unfit = lane.unfit or "SoftTimeout was raised in it"
        del lane.holds[0]
        self._conclude(record, Returned(values))
        return 1

    def _settle_calls(self, record: Record, lane: LaneRecord, values: Slice) -> int:
        """The first calls of a chunk at the head of a lane have returned; how many of them are in it."""
        count = values.count = min(values.count, record.task.calls)
        done = self._split(record, count) if count < record.task.calls else record
        if done is record:
            del lane.holds[0]
        record.lost = 0  # they had begun
        lane.begun += count
        done.begun = done.attempt
        self._settle(done, Returned(values))
        return count

    def _take_back(self, lane: LaneRecord, records: Iterable[Record]) -> None:
        """Have what has not begun of these not run there."""
        calls = tuple((record.task.number, record.attempt) for record in records if not record.has_begun)
        if calls:
            self._out.append(TakeBack(lane.number, calls))

    def _taken_back(self, s: TakenBack) -> None:
        lane = self._lanes.get(s.lane)
        if lane is None or not lane.holds:
            return
        head = lane.holds[0]
        named = [self._part_held(lane, *call) for call in s.calls]
        back = [part for record in named if record is not None for part in self._halves(record, lane.shared_from)]
        for record in back:
            if record in lane.holds:
                lane.holds.remove(record)
            if record.state is State.DOOMED:
                self._conclude(record, Died(None, lane.pid))
            else:
                self._tell("taken_back", record)
                record.lane = None
                self._enqueue_again(record)
        if back and lane.state is LaneState.BUSY:  # else the answer to its kill, which found nothing, is on its way
            if lane.holds and lane.holds[0] is head:
                self._stay_busy(lane)  # it has room again
            else:
                self._go_on(lane)

    @staticmethod
    def _is_named(record: Record, number: Hashable, attempt: int) -> bool:
        task = record.task
        return record.attempt == attempt and not record.has_begun and (task.number == number or covers(task, number))

    def _part_held(self, lane: LaneRecord, number: Hashable, attempt: int) -> Record | None:
        """What the lane holds of that number and has not begun: of a chunk, its calls from that one on."""
        record = next((r for r in lane.holds if self._is_named(r, number, attempt)), None)
        if record is None or record.task.number == number:
            return record
        before = self._split(record, number - record.task.number)  # type: ignore[operator]
        lane.holds.insert(lane.holds.index(record), before)
        return record

    def _halves(self, record: Record, middle: int) -> list[Record]:
        """What was to be shared out and comes back whole, as it had not begun, goes on in two parts."""
        if not covers(record.task, middle) or record.task.number == middle:
            return [record]
        return [self._split(record, middle - record.task.number), record]  # type: ignore[operator]

    def _enqueue_again(self, record: Record) -> None:
        """It was sent, and has not begun: back to the queue; calls that nobody wants any more end here."""
        if record.task.calls and (self._no_retries or not record.task.group.is_wanted):
            self._settle(record, None)
        else:
            self._enqueue(record)

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

    def _machine_memory(self, s: MachineMemory) -> None:
        if s.level is not self._admission.level:
            self._admission.level = s.level
            self._out.append(Event(self._now, f"memory_{s.level}", detail={"available": s.available}))
        if s.level is MemoryLevel.CRITICAL:
            self._slow_down_chunks()
        victim = self._admission.victim(record for lane in self._lanes for record in lane.holds[:1])
        if victim is not None:
            why = f"the machine had {s.available / 2**20:.0f} MiB of memory left"
            self._doom(victim, Evicted(why), why)

    def _slow_down_chunks(self) -> None:
        """Have each worker do no more of a chunk than the call that it is at, and tell of that."""
        for lane in self._lanes:
            if any(record.task.calls for record in lane.holds):
                self._take_back(lane, lane.holds)
                self._out.append(Look(lane.number))

    def _worker_gone(self, s: WorkerGone) -> None:
        lane = self._lanes.get(s.lane)
        if lane is None or lane.state in (LaneState.DOWN, LaneState.STARTING):
            return
        if s.outcome is not None:  # what ended had begun, even where the worker died before it could say so
            self._attempt_begun(Begun(s.lane, s.number, s.attempt, lane.pid or 0, s.at))
        self._tell_lane("lane_lost", lane, {"pid": lane.pid, "why": s.why})
        held = self._empty(lane)
        if held and s.outcome is not None and held[0].task.number == s.number and held[0].attempt == s.attempt:
            self._conclude(held.pop(0), s.outcome)
        self._release(held, lane, s.why)
        if lane.closing:
            self._lanes.set(lane, LaneState.CLOSING, self._now + self.limits.stop_timeout)
        else:
            self._lanes.set(lane, LaneState.DOWN)

    @staticmethod
    def _empty(lane: LaneRecord) -> list[Record]:
        held, lane.holds = lane.holds, []
        return held

    def _release(self, held: Iterable[Record], lane: LaneRecord, why: str) -> None:
        """The worker that held these is gone: conclude the one that had begun, queue the others again, uncharged."""
        for record in held:
            if record.has_begun or record.state is State.DOOMED:
                self._conclude(record, Died(None, lane.pid, why=why))
                continue
            record.lost += 1
            self._tell("lost", record, {"why": why})
            record.lane = None
            if record.lost >= self.limits.uncharged:
                self._settle(record, Lost(f"{record.lost} times in a row; {why}"))
            else:
                self._enqueue_again(record)

    # -- what becomes of a task ------------------------------------------------------------------------------------

    def _conclude(self, record: Record, outcome: Outcome) -> None:
        """One attempt is over: settle, or back off until the next."""
        if type(outcome) is Returned:  # which nothing makes into something else
            self._tell("returned", record)
            record.lane = record.doom = None
            self._settle(record, outcome)
            return
        outcome = softened(record, death_of(record, outcome))
        self._tell(outcome.kind, record, detail_of(outcome), evidence_of(outcome))
        record.lane = None
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
        failure = Failure(record.task.key, outcome.kind, record.failures, charged, elapsed, exception)
        failure = failure._replace(ordinary=ordinary, name=record.task.name)
        return failure if record.task.retry.asks_user else record.task.retry.next_delay(failure)

    def _enqueue(self, record: Record) -> None:
        self._move(record, _QUEUED)
        record.timer = 0
        self._backlog.add(record)

    def _settle(self, record: Record, outcome: Outcome | ResilientError | None) -> None:
        self._move(record, _SETTLED)
        record.timer = 0
        task = record.task
        del self._records[task.number]
        if task.group is not None:
            self._forget(task)
        detail = _DONE if type(outcome) is Returned else {"how": "cancelled" if outcome is None else "failed"}
        self.ended[detail["how"]] += task.calls or 1
        self._tell("settled", record, detail)
        elapsed = self._now - record.first_begun_at if record.begun else 0.0
        story = Story(task.key, record.story)
        self._out.append(Settle(task.number, outcome, record.begun, elapsed, story, task))

    def _forget(self, task: Task) -> None:
        group = task.group
        del group.parts[task.number]
        if not group.parts:
            self._groups.pop(group.first, None)

    def _doom(self, record: Record, doom: Outcome, why: str) -> None:
        self._move(record, State.DOOMED)
        record.doom, record.timer = doom, 0
        self._tell("doomed", record, {"why": why})
        lane = record.lane
        if lane is not None and lane.holds[0] is record:  # one that was sent ahead is killed when it becomes the head
            self._kill(lane, record)
        elif lane is not None:  # unless it can be taken back before
            self._out.append(TakeBack(lane.number, ((record.task.number, record.attempt),)))

    def _kill(self, lane: LaneRecord, record: Record, *, unless_begun: bool = False) -> None:
        order = self._await_answer(lane, record)
        self._out.append(Kill(lane.number, record.task.number, record.attempt, order, unless_begun, record.task.calls))

    def _await_answer(self, lane: LaneRecord, victim: Record | None = None) -> int:
        """The serial of an order that the lane is to answer; of which attempt it is the kill, if it is one."""
        self._serial += 1
        lane.order, lane.victim = self._serial, victim
        self._lanes.set(lane, LaneState.KILLING, self._now + self.limits.kill_timeout)
        return self._serial

    def _answered(self, s: Answered) -> None:
        """The kill was late: its lane goes on; what it had found was told before."""
        lane = self._lanes.get(s.lane)
        if lane is None or lane.state is not LaneState.KILLING or lane.order != s.order or lane.closing:
            return
        victim = lane.victim
        if victim is None:
            return  # a start or a stop that has ended of itself: the word of that is on its way
        held = lane.holds[:1] == [victim]  # else it was cancelled
        if held and (victim.state is State.DOOMED or not victim.has_begun):  # the lane does not have it
            del lane.holds[0]
            self._release([victim], lane, "its worker did not have it")
        self._go_on(lane)

    def _move(self, record: Record, state: State) -> None:
        before = record.state
        if record.task.calls:
            self._weigh(record, -1)
            record.move(state)
            self._weigh(record, 1 if state is not _SETTLED else 0)
        else:
            record.move(state)
        if before is not _NEW:
            self.counts[before] -= 1
        if state is not _SETTLED:
            self.counts[state] += 1

    # -- stimuli about lanes ---------------------------------------------------------------------------------------

    def _lane_ready(self, s: LaneReady) -> None:
        lane = self._lanes.get(s.lane)
        # `killing`: it became ready just when its start was given up; such a kill spares a worker that is ready.
        if lane is None or lane.closing or lane.holds or lane.state not in (LaneState.STARTING, LaneState.KILLING):
            return
        self._starts.succeeded()
        lane.pid = s.pid
        lane.begun = lane.memory = 0
        lane.unfit = ""
        self._lanes.renew(lane)
        self._tell_lane("lane_ready", lane, {"pid": s.pid})
        self._go_on(lane)

    def _start_failed(self, s: StartFailed) -> None:
        lane = self._lanes.get(s.lane)
        if lane is None or lane.closing or lane.state not in (LaneState.STARTING, LaneState.KILLING):
            return
        self._lanes.set(lane, LaneState.DOWN)
        self._tell_lane("lane_failed", lane, {"why": s.words})
        self._count_failed_start(s.words, lasting=s.lasting)

    def _count_failed_start(self, words: str, *, lasting: bool = False) -> None:
        hopeless = bool(self._records) and not self._lanes.alive()
        broken = self._starts.failed(self._now, words, hopeless=hopeless, lasting=lasting)
        if broken is None:
            self._wake(self._starts, self._starts.wait())
            return
        self.broken = broken
        self._out.append(Event(self._now, "pool_broken", detail={"why": words}))
        for record in list(self._records.values()):
            self._settle(record, PoolBroken(broken))

    def _lane_closed(self, s: LaneClosed) -> None:
        lane = self._lanes.get(s.lane)
        if lane is None:
            return
        was_starting = lane.pid is None and not lane.closing and lane.state is not LaneState.DOWN
        self._tell_lane("lane_closed", lane)
        self._lanes.remove(lane)
        self._release(self._empty(lane), lane, "its lane has ended")
        if was_starting:  # a lane that ends by itself on every start must not be replaced for ever
            self._count_failed_start("its lane ended while it was starting")

    def _go_on(self, lane: LaneRecord) -> None:
        """The head of the lane is free for what comes next."""
        if lane.holds:
            head = lane.holds[0]
            lane.since, lane.slow = self._now, False
            self._stay_busy(lane)
            if head.state is State.DOOMED:
                self._kill(lane, head)
        elif self._lanes.worn_out(lane):
            self._lanes.set(lane, LaneState.STOPPING, self._now + self.limits.stop_timeout)
            why = {"why": lane.unfit} if lane.unfit else {}
            self._tell_lane("lane_stopping", lane, {"pid": lane.pid, **why})
            self._out.append(StopWorker(lane.number))
        else:
            self._lanes.set(lane, LaneState.IDLE)

    def _stay_busy(self, lane: LaneRecord, *, anew: bool = False) -> None:
        """Its worker holds something: the lane is looked at soon, and again until nothing is left to be found out.

        ``anew``: it has just been heard of, and needs not be looked at as soon as was meant.
        """
        self._lanes.set(lane, _BUSY)
        look, first = lane.look, self.limits.look_interval
        if anew or not look.timer or look.pause > first:
            look.pause = first
            self._timers.set(look, self._now + first)

    def _fill(self) -> None:
        """Send what is queued to lanes that can take it; start lanes for what is left."""
        counts = self.counts
        room = self._admission.room(counts)
        if room and self._elastic and self._admission.level is MemoryLevel.OK:
            room += self._elastic
        while room and counts[_QUEUED] and (lane := self._lanes.pick(self._now)) is not None:
            room -= 1
            record = self._backlog.pop()
            self._send(self._cut(record, lane) if record.task.calls else record, lane)
        if not counts[_QUEUED]:
            self._backlog.clear()  # what is left in it was cancelled
            if self._surplus[_SENT]:
                self._share_out()
        elif not self._starts.timer and self._lanes.can_start():
            for _ in range(min(room, counts[_QUEUED] + self._elastic) - self._lanes.starting):
                if not self._start_lane():
                    break

    def _cut(self, chunk: Record, lane: LaneRecord) -> Record:
        """Those calls of a queued chunk, which has been taken off the queue, that the lane is sent now."""
        task = chunk.task
        size = self._lanes.allowance(lane, task.calls)
        if task.group.most:
            size = min(size, task.group.most, task.group.pace.size(self._elastic + 1, self.limits.lanes))
        if size >= task.calls:
            return chunk
        first = self._split(chunk, size)
        self._backlog.add(chunk, comes_back=True)
        return first

    def _share_out(self) -> None:
        """Let a lane that has nothing to do take calls of a chunk from one that has too many."""
        if not self._lanes.has_idle() or self._admission.level is not MemoryLevel.OK:
            return
        found = overloaded(self._lanes, self._now, self.limits.patience)
        if found is not None:
            lane, number = found
            lane.shared_at, lane.shared_from = self._now + _ASKED_AGAIN, number
            self._out.append(TakeBack(lane.number, ((number, lane.holds[-1].attempt),)))

    def _send(self, record: Record, lane: LaneRecord) -> None:
        self._move(record, _SENT)
        record.attempt = record.begun + 1
        record.lane = lane
        lane.holds.append(record)
        if lane.holds[0] is record:
            lane.since, lane.slow = self._now, False
        self._stay_busy(lane)
        self._tell("sent", record)
        self._out.append(Send(lane.number, record.task.number, record.attempt, record.task))

    def _start_lane(self) -> bool:
        lane = self._lanes.pick_down()
        if lane is None:
            return False
        lane.pid = None
        self._lanes.set(lane, LaneState.STARTING, self._now + self.limits.start_timeout)
        self._tell_lane("lane_starting", lane)
        self._out.append(StartWorker(lane.number))
        return True

    # -- the clock -------------------------------------------------------------------------------------------------

    def _wake(self, owner: Record | Starts, delay: float) -> None:
        self._timers.set(owner, self._now + delay)

    def _time_passed(self, _: TimePassed) -> None:
        while (owner := self._timers.pop_due(self._now)) is not None:
            if isinstance(owner, Record):
                self._task_due(owner)
            elif isinstance(owner, LookTimer):
                self._look_due(owner)
            elif isinstance(owner, LaneRecord):
                self._lane_due(owner)
            # else it was the starts': `_fill` finds them free

    def _lagged(self, s: Lagged) -> None:
        """Lanes are given back what they could not use either; attempts, too, but once, and only if all stood still."""
        for lane in self._lanes:
            lane.since += s.seconds
            if lane.timer:
                self._timers.set(lane, self._timers.due_of(lane) + s.seconds)
        for record in self._records.values():
            if record.asked is not None:
                self._wake(record, self.limits.policy_timeout)
            elif s.stopped and record.state is State.RUNNING and record.timer:
                due = self._timers.due_of(record)
                before = record.pardon
                self._pardon(record, s.seconds, self._now)
                self._timers.set(record, due + record.pardon - before)
        if s.stopped:
            self._stopped = (s.seconds, self._now)

    @staticmethod
    def _pardon(record: Record, seconds: float, ended: float) -> None:
        """It could not use what of those seconds, which have ``ended``, it had begun in; once in an attempt."""
        record.pardon = record.pardon or max(0.0, min(seconds, ended - record.begun_at))

    def _task_due(self, record: Record) -> None:
        if record.state is State.RUNNING:
            self._time_is_up(record)
        elif record.asked is not None:
            outcome, record.asked = record.asked, None
            self._tell("policy_late", record, {"limit": self.limits.policy_timeout})
            self._settle(record, outcome)
        elif record.state is State.BACKING_OFF:
            self._enqueue(record)

    def _look_due(self, look: LookTimer) -> None:
        lane = look.lane
        if lane.state is not LaneState.BUSY:
            return
        head, limits = lane.holds[0], self.limits
        if head.state is State.SENT and self._now >= lane.since + limits.begin_timeout:
            # The worker has not begun what it was sent: frozen, most likely. The task is not to blame.
            self._tell("frozen", head)
            self._kill(lane, head, unless_begun=True)
            return
        if head.has_begun and len(lane.holds) == 1:
            return  # it runs, and nobody is kept waiting
        self._out.append(Look(lane.number))
        if head.has_begun and self._now >= head.begun_at + limits.patience:
            lane.slow = True
            self._take_back(lane, [one for one in lane.holds[1:] if not _follows(one, head)])
        look.pause = min(2 * look.pause, _LONGEST_PAUSE)
        self._timers.set(look, self._now + look.pause)

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

    def _lane_due(self, lane: LaneRecord) -> None:
        if lane.state is LaneState.KILLING:
            self._abandon(lane)
        else:
            self._tell_lane("lane_overdue", lane, {"pid": lane.pid, "what": str(lane.state)})
            end = EndStart if lane.state is LaneState.STARTING else EndStop
            self._out.append(end(lane.number, self._await_answer(lane)))

    def _abandon(self, lane: LaneRecord) -> None:
        """The lane has not answered a kill: give it up, whatever it holds, and go on without it."""
        was_starting = lane.pid is None and not lane.closing
        self._tell_lane("lane_abandoned", lane, {"pid": lane.pid})
        self._lanes.remove(lane)
        self._out.append(Abandon(lane.number))
        self._release(self._empty(lane), lane, "its lane did not answer")
        if was_starting:
            self._count_failed_start(f"nothing within {self.limits.start_timeout:g} s, nor could the start be ended")

    # -- the end ---------------------------------------------------------------------------------------------------

    def _shutdown_asked(self, s: ShutdownAsked) -> None:
        if not self._closing:
            self._closing = True
            self._out.append(Event(self._now, "pool_closing", detail={"why": s.why}))
        if s.cancel or s.kill:
            self._no_retries = True
            for record in [r for r in self._records.values() if r.state in (State.QUEUED, State.BACKING_OFF)]:
                # None cancels. A future that was sent once can't be cancelled any more, only ended.
                self._settle(record, Killed(s.why) if record.attempt and not record.task.calls else None)
            for group in list(self._groups.values()):
                self._cancel_chunk(group)
        if s.kill:
            for record in list(self._records.values()):
                self._kill_one(record, KillAsked(record.task.number, s.why))

    def _close_lanes(self) -> None:
        for lane in self._lanes:
            if not lane.closing and lane.state is not LaneState.KILLING:
                lane.closing = True
                self._lanes.set(lane, LaneState.CLOSING, self._now + self.limits.stop_timeout)
                self._out.append(CloseLane(lane.number))
        if not len(self._lanes) and not self.finished:
            self.finished = True
            self._out.append(Finish())

    # -- telling ---------------------------------------------------------------------------------------------------

    def _tell(
        self,
        kind: str,
        record: Record,
        detail: dict[str, Any] | None = None,
        evidence: Evidence = NO_EVIDENCE,
        at: float | None = None,
    ) -> None:
        lane = record.lane.number if record.lane is not None else None
        row: Row
        if detail:
            row = (self._now if at is None else at, kind, record.attempt, lane, detail, evidence)
        else:
            row = (self._now if at is None else at, kind, record.attempt, lane)
        record.story.append(row)
        if self._tells:
            if record.task.calls:
                self._tell_calls(record.task, row)
            else:
                self._out.append(event_of(record.task.key, row))

    def _tell_calls(self, task: Task, row: Row) -> None:
        """Of a chunk: each call is queued and settled for itself; the rest is told of the first, with their number."""
        if row[1] in _OF_EACH:
            numbers = range(task.calls)
            self._out += [event_of(key_of_call(task, number), row) for number in numbers]
        else:
            event = event_of(task.key, row)
            event.detail = {**event.detail, "calls": task.calls}
            self._out.append(event)

    def _tell_lane(self, kind: str, lane: LaneRecord, detail: dict[str, Any] | None = None) -> None:
        if self._tells:
            self._out.append(Event(self._now, kind, lane=lane.number, detail=detail or {}))
