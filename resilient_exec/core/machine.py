"""Decides; never acts.  Stimuli go in, commands come out, and the shell performs them in order.

This package sees no clock, thread, file, process or random number (a test enforces it): the time is an
argument, so the same stimuli give the same commands, and everything here is tested without a process.

The table of a task's moves is in :mod:`resilient_exec.core.states`.  The machine is one class, built in storeys: each
is a class in a module of its own, derived from the next one below, and calls go down only::

    machine        the way in; what each attempt takes: submitted, sent, ended; the clock; the end
    chunk_moves    the calls of chunks: ended, taken back, shared out
    lane_life      workers start, die, are replaced, given up, looked at
    attempts       one attempt: begun, limited, killed, concluded or tried again
    speculation    two attempts of one task at once
    lane_orders    start, run what is held, take back, kill, end
    ledger         all state: records, counts, stories

Objects that hold each other would cost one more look-up in each of the dozen calls of a decision; storeys cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient_exec.core.chunk_moves import ChunkMoves
from resilient_exec.core.messages import (
    Answered,
    AttemptEnded,
    Begun,
    CancelAsked,
    Command,
    ItemsEnded,
    KillAsked,
    Lagged,
    LaneClosed,
    LaneReady,
    MachineMemory,
    MemoryExceeded,
    PolicyAnswered,
    Progress,
    Send,
    Settle,
    ShutdownAsked,
    Stalled,
    StartFailed,
    Stimulus,
    Submitted,
    TakeBack,
    TakenBack,
    TimePassed,
    WorkerGone,
)
from resilient_exec.core.states import LaneRecord, LaneState, Limits, LookTimer, Record, State
from resilient_exec.core.stragglers import Peers
from resilient_exec.model.errors import PoolBroken, PoolClosed
from resilient_exec.model.events import Event, Story, ending, event_of
from resilient_exec.model.memory_level import MemoryLevel
from resilient_exec.model.task import Evicted, Killed, Returned

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Core"]

# To look a member up in its class takes 0.2 us on Python 3.11: what each task does several times has these.
_QUEUED, _SENT, _RUNNING, _SETTLED = State.QUEUED, State.SENT, State.RUNNING, State.SETTLED


class Core(ChunkMoves):
    """The state of one pool.  ``handle`` is the only way in, its commands the only way out."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
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

    # -- the way in ----------------------------------------------------------------------------------------------------

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
        if self._late:
            self._start_twins()
        if self._closing and not self._records:
            self._close_lanes()
        return commands

    # -- what each task takes ------------------------------------------------------------------------------------------

    def _submitted(self, s: Submitted) -> None:
        self._orders += 1
        task = s.task
        record = Record(task, self._orders)
        if task.group is not None:
            self._groups.add(task.group)
        self._add(record)
        if s.problem is None and self.broken is None and not self._closing and not self._tells:
            record.queued_at = self._now
            self._enqueue(record)
            return
        record.rows = []
        if s.problem is not None:
            self._settle(record, s.problem)
        elif self.broken is not None:
            self._settle(record, PoolBroken(self.broken))
        elif self._closing:
            self._settle(record, PoolClosed("the pool was shut down before this task came in"))
        else:
            self._tell("queued", record)
            self._enqueue(record)

    def _fill(self) -> None:
        """Send what is queued to lanes that can take it; start lanes for what is left."""
        counts = self.counts
        room = self._admission.room(counts)
        if room and self._elastic and self._admission.level is MemoryLevel.OK:
            room += self._elastic
        while room and counts[_QUEUED] and (lane := self._lanes.pick(self._now)) is not None:
            room -= 1
            self._send(self._next_for(lane), lane)
        if not counts[_QUEUED]:
            self._backlog.clear()  # what is left in it was cancelled
            if self._surplus[_SENT]:
                self._share_out()
        elif not self._starts.timer and self._lanes.can_start():
            for _ in range(min(room, counts[_QUEUED] + self._elastic) - self._lanes.starting):
                if not self._start_lane():
                    break

    def _next_for(self, lane: LaneRecord) -> Record:
        """What is first in the queue; of a chunk or a bundle, as many calls as the lane is to have."""
        record = self._backlog.pop()
        return self._cut(record, lane) if record.task.calls else record

    def _send(self, record: Record, lane: LaneRecord) -> None:
        self._move(record, _SENT)
        record.attempt = record.begun + 1
        record.lane = lane
        lane.holds.append(record)
        if lane.holds[0] is record:
            lane.since, lane.slow = self._now, False
        self._stay_busy(lane)
        if record.rows is None:
            record.sent_at = self._now
        else:
            self._tell("sent", record)
        self._out.append(Send(lane.number, record.task.number, record.attempt, record.task))

    def _start_twins(self) -> None:
        """Have attempts that take too long made a second time, where lanes have nothing to do, and nothing waits."""
        is_any_waiting = self.counts[_QUEUED] or self._surplus[_SENT]
        if is_any_waiting or self._no_retries or not self._admission.is_open:
            return
        for number, record in list(self._late.items()):
            lane = self._lanes.pick(self._now) if self._lanes.has_idle() else None
            if record.state is not _RUNNING:  # its end is on its way
                del self._late[number]
            elif lane is not None:
                del self._late[number]
                self._send(self._twin_of(record), lane)
            else:
                if not self._starts.timer and not self._lanes.starting:
                    self._start_lane()
                return

    def _attempt_ended(self, s: AttemptEnded) -> None:
        record = self._head(s.lane, s.number, s.attempt)
        if record is None or record.lane is None:
            return
        lane, group = record.lane, record.task.group
        is_by_itself = (group is None or group.bundled) and not record.task.timed
        if is_by_itself and record.state is _SENT and s.began is not None and type(s.outcome) is Returned:
            self._return_unseen(record, lane, s, s.began)
            return
        if s.began is not None:
            if record.begun != record.attempt:  # nobody had asked meanwhile
                self._begin(record, lane, lane.pid, s.began)
                if record.state is _SENT:
                    self._move(record, _RUNNING)
            took = (self._now if s.ended is None else s.ended) - s.began
            self._lanes.learn(lane, took)
            if group is not None:
                group.pace.learn(1, took)
        elif not record.has_begun:
            return
        lane.memory = s.memory
        # An exception out of nowhere may have left an import or a lock half-way: nobody else is to find that.
        lane.unfit = s.unfit or ("SoftTimeout was raised in it" if record.soft_told == record.attempt else "")
        del lane.holds[0]
        self._conclude(record, s.outcome)
        self._advance(lane)

    def _return_unseen(self, record: Record, lane: LaneRecord, s: AttemptEnded, began: float) -> None:
        """It has returned before anybody has looked whether it had begun, as quick attempts do.

        This is all that is done about such an attempt elsewhere, in one piece, which takes half the time.
        """
        now, task, attempt = self._now, record.task, record.attempt
        lane.begun += 1
        lane.memory, lane.unfit = s.memory, s.unfit
        took = (now if s.ended is None else s.ended) - began
        self._lanes.learn(lane, took)
        record.state = _SETTLED  # as from *sent* it may
        self.counts[_SENT] -= 1
        self.ended["done"] += 1
        self._records.pop(task.number)
        if task.group is not None:
            self._forget(task)
            task.group.pace.learn(1, took)
        story: Story
        if record.rows is None and record.sent_at is not None:
            story = Story(task.key, (record.queued_at, record.sent_at, began, now, lane.number, lane.pid))
        else:
            rows = ending(began, now, attempt, lane.number, lane.pid)
            record.story.extend(rows)
            if self._tells:
                self._out += [event_of(task.key, row) for row in rows]
            story = Story(task.key, record.story)
        elapsed = now - (record.first_begun_at if record.begun else began)
        self._out.append(Settle(task.number, s.outcome, attempt, elapsed, story, task))
        record.lane = None
        del lane.holds[0]
        lane.since, lane.slow = now, False
        if self.counts[_QUEUED] and self._admission.is_open and self._lanes.can_hold_more(lane):
            self._send(self._next_for(lane), lane)  # as `_fill` would, but for the search: no other lane has room
        else:
            self._advance(lane)

    def _cancel_asked(self, s: CancelAsked) -> None:
        chunk = self._groups.chunk(s.number)
        if chunk is not None:
            self._cancel_chunk(chunk)
            return
        record = self._part(s.number)
        # A future can be cancelled only before its first attempt was sent, so this finds it queued; or sent,
        # where the shell found the future cancelled just when it was about to send it.
        if record is None or record.begun or record.state not in (State.QUEUED, State.SENT):
            return
        record = self._isolate(record, s.number)  # type: ignore[arg-type]
        lane = record.lane
        if lane is not None:
            was_head = lane.holds[0] is record
            lane.holds.remove(record)
            self._out.append(TakeBack(lane.number, ((record.task.number, record.attempt, 1),)))
            if lane.state is LaneState.BUSY:
                if was_head:
                    self._advance(lane)
                else:
                    self._stay_busy(lane)  # it has room again
        self._settle(record, None)

    # -- the clock and the machine's memory ----------------------------------------------------------------------------

    def _time_passed(self, _: TimePassed) -> None:
        while (owner := self._timers.pop_due(self._now)) is not None:
            if isinstance(owner, Record):
                self._task_due(owner)
            elif isinstance(owner, LookTimer):
                self._look_due(owner)
            elif isinstance(owner, Peers):
                self._stragglers_due(owner)
            elif isinstance(owner, LaneRecord):
                self._lane_due(owner)
            # else it was the starts': `_fill` finds them free

    def _lagged(self, s: Lagged) -> None:
        """Lanes are given back what they could not use either; attempts, too, but once, and only if all stood still."""
        for lane in self._lanes:
            lane.since += s.seconds
            if lane.timer:
                self._timers.set(lane, self._timers.due_of(lane) + s.seconds)
        for task in self._records.values():
            for record in (task,) if task.twins is None else task.twins.live:
                if record.asked is not None:
                    self._wake(record, self.limits.policy_timeout)
                elif s.stopped and record.state is State.RUNNING:
                    before = record.pardon
                    self._pardon(record, s.seconds, self._now)
                    if record.timer:
                        self._timers.set(record, self._timers.due_of(record) + record.pardon - before)
        if s.stopped:
            self._stopped = (s.seconds, self._now)

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

    # -- the end -------------------------------------------------------------------------------------------------------

    def _shutdown_asked(self, s: ShutdownAsked) -> None:
        if not self._closing:
            self._closing = True
            self._out.append(Event(self._now, "pool_closing", detail={"why": s.why}))
        if s.cancel or s.kill:
            self._no_retries = True
            for record in [r for r in self._records.values() if r.state in (State.QUEUED, State.BACKING_OFF)]:
                # None cancels. A future that was sent once can't be cancelled any more, only ended.
                self._settle(record, Killed(s.why) if record.attempt and not record.task.calls else None)
            for chunk in self._groups.chunks():
                self._cancel_chunk(chunk)
        if s.kill:
            for record in list(self._records.values()):
                self._kill_one(record, KillAsked(record.task.number, s.why))
