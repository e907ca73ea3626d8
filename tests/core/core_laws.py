"""The laws, as checks on a core, on what it was told and on what it ordered; nothing here changes any fact."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from core_facts import number_of, told
from core_limit_laws import LimitLaws

from resilient_exec.core.machine import Core
from resilient_exec.core.messages import (
    Abandon,
    AttemptEnded,
    Command,
    EndStart,
    EndStop,
    Kill,
    LaneClosed,
    Look,
    RaiseSoftTimeout,
    Send,
    Settle,
    ShutdownAsked,
    StartWorker,
    StopWorker,
    Submitted,
    TakeBack,
    TimePassed,
    WorkerGone,
)
from resilient_exec.core.states import LaneRecord, LaneState, Record, State
from resilient_exec.model.errors import ResilientError
from resilient_exec.model.events import Event
from resilient_exec.model.memory_level import MemoryLevel

if TYPE_CHECKING:
    from core_facts import Truth

    from resilient_exec.model.ports import Failure


class Laws(LimitLaws):
    """The checks."""

    # -- law 1: everything settles -----------------------------------------------------------------------------------

    def law_1_each_unsettled_task_is_in_one_place_and_something_will_move_it(self) -> None:
        core = self.core
        assert set(core.unsettled()) == set(self.truths), "law 1: a task was lost, or came back"
        dues = {id(owner): due for due, serial, owner in core._timers._heap if owner.timer == serial}
        queued = Counter(id(record) for record in core._backlog if record.state is State.QUEUED)
        holders = Counter(id(record) for lane in core._lanes for record in lane.holds)
        for record in core._records.values():
            places = (queued[id(record)], int(record.state is State.BACKING_OFF), holders[id(record)])
            assert sorted(places) == [0, 0, 1], f"law 1: {record.task.number} ({record.state}) is in {places}"
            if record.state is State.BACKING_OFF:
                assert id(record) in dues, f"law 1: {record.task.number} backs off without a timer"
            elif not queued[id(record)]:
                self._check_watch(record, dues.get(id(record)))
        for lane in core._lanes:
            self._check_lane(lane, watched=id(lane) in dues)
        if queued:
            self._check_wake_up(len(queued), id(core._starts) in dues)

    def _check_watch(self, record: Record, due: float | None) -> None:
        key, lane = record.task.number, record.lane
        assert lane is not None, f"law 1: {key} is {record.state} without a lane"
        assert record in lane.holds, f"law 1: {key} is not in the lane it is said to be in"
        if record is not lane.holds[0]:
            return  # it follows its head
        if record.state is State.RUNNING:
            assert lane.state is LaneState.BUSY, f"law 1: {key} runs in a lane that is {lane.state}"
            wanted = self._wanted(self.truths[key])
            assert due == wanted, f"law 1: {key} is due at {due} instead of {wanted}"
        elif lane.state is not LaneState.KILLING:  # else the lane's deadline counts
            assert record.state is State.SENT, f"law 1: nobody kills {key}, which is {record.state}"
            assert lane.look.timer, f"law 1: nobody watches whether {key} begins"
            assert lane.since <= self.now, f"law 1: {key} is waited for from {lane.since} on"

    def _wanted(self, truth: Truth) -> float | None:
        """When the clock is to strike the attempt that runs: for its soft timeout once, then for the hard one."""
        soft, hard = truth.task.soft_timeout, truth.task.timeout
        limits = [soft, hard] if truth.warned != truth.begun else [hard]
        given = [limit for limit in limits if limit is not None]
        return truth.begun_at + min(given) if given else None

    def _check_lane(self, lane: LaneRecord, *, watched: bool) -> None:
        calls = [(record.task.number, record.attempt) for record in lane.holds]
        assert calls == self.held.get(lane.number, []), f"law 1: lane {lane.number} is said to hold {calls}"
        if lane.state is LaneState.BUSY:
            assert calls, f"law 1: lane {lane.number} is busy with nothing"
        elif lane.state is not LaneState.KILLING:
            assert not calls, f"law 1: lane {lane.number} is {lane.state} and holds {calls}"
        quiet = lane.state in (LaneState.DOWN, LaneState.IDLE, LaneState.BUSY) and not lane.closing
        assert quiet or watched, f"law 3: lane {lane.number} is {lane.state} without a deadline"

    def _check_wake_up(self, queued: int, gate: bool) -> None:
        if self.level is not MemoryLevel.OK:
            if any(self.held.values()):
                return  # one is out: the others are held back until it has ended
            queued = 1
        lanes = list(self.core._lanes)
        assert not any(lane.state is LaneState.IDLE for lane in lanes), "law 1: a lane is idle while tasks wait"
        down = any(lane.state is LaneState.DOWN and not lane.closing for lane in lanes)
        starting = sum(lane.state is LaneState.STARTING for lane in lanes)
        enough = starting >= queued or (len(lanes) >= self.limits.lanes and not down)
        assert gate or enough, "law 1: tasks wait, and no worker is started for them"

    def law_1_what_is_over_is_over(self) -> None:
        """After the last word nothing may wait that it has ended."""
        word, left = self.stimulus, list(self.truths.values())
        assert not self.core.broken or not left, "law 1: the pool is broken, and tasks wait"
        if isinstance(word, Submitted) and self.shutdowns:
            assert word.task.number not in self.truths, "law 1: a task was taken after the shutdown"
        if isinstance(word, ShutdownAsked) and (word.cancel or word.kill):
            held = {key for calls in self.held.values() for key, _ in calls}
            assert set(self.truths) <= held, "law 1: a shutdown with cancel forgot who waits"
        if isinstance(word, ShutdownAsked) and word.kill:
            alive = [t.task.number for t in left if self.core._records[t.task.number].state is not State.DOOMED]
            assert not alive, f"law 1: a shutdown with kill spared {alive}"

    # -- law 2: a death costs one attempt ----------------------------------------------------------------------------

    def law_2_only_the_guilty_is_charged(self, failure: Failure, delay: float | None) -> None:
        """Called by the policy that the core asks."""
        key, attempt, truth, word = failure.key.number, failure.attempts, self.truths[failure.key.number], self.stimulus
        assert attempt + len(truth.evicted) == truth.begun, f"law 2: attempt {attempt} of {key} is charged, of {truth}"
        attempt = truth.begun
        assert attempt not in truth.charged, f"law 2: attempt {attempt} of {key} is charged twice"
        assert not truth.killed, f"law 2: {key} was killed, and its policy is asked"
        assert not self.no_retries, f"law 2: {key} might be tried again after a shutdown with cancel"
        doomed = any(e.kind == "doomed" and e.attempt == attempt for e in truth.events)
        match word:
            case AttemptEnded() | WorkerGone():
                assert word.outcome is not None, f"law 2: {key} is charged for {word}"
                assert (word.number, word.attempt) == (key, attempt), f"law 2: {key} is charged for {word}"
            case LaneClosed():
                pass
            case _:
                assert isinstance(word, TimePassed), f"law 2: {key} is charged for {word}"
                assert doomed, f"law 2: {key} is charged for a lane's silence"
        soft = truth.warned == attempt and truth.task.soft_timeout is not None
        assert doomed or soft or failure.cause != "timed_out", f"law 2: {key} timed out, and nobody had ordered it"
        assert failure.cause not in ("evicted", "killed", "lost"), f"law 2: {key} is charged for being {failure.cause}"
        truth.causes[failure.cause] += 1
        assert failure.counts == truth.causes, f"law 2: {failure.counts} are charged instead of {truth.causes}"
        truth.charged[attempt] = delay is not None

    def law_2_nothing_is_repeated_unless_it_was_charged(self, truth: Truth, send: Send) -> None:
        assert send.attempt == truth.begun + 1, f"law 2: {send} although {truth.begun} attempts have begun"
        if truth.begun and truth.begun not in truth.evicted:
            assert truth.charged.get(truth.begun), f"law 2: {send} although no other attempt was granted"
        assert len(truth.evicted) < self.limits.uncharged, f"law 2: {send} although it was evicted too often"
        assert truth.lost < self.limits.uncharged, f"law 2: {send} although it was lost {truth.lost} times in a row"
        assert not truth.killed, f"law 2: {send} after a kill"

    def law_2_a_kill_names_the_head(self, kill: Kill) -> None:
        held = self.held.get(kill.lane, [])
        wanted = held[0] if held else (None, 0)
        assert (kill.number, kill.attempt) == wanted, f"law 2: {kill} of a lane that holds {held}"

    # -- law 4: dead before replaced ---------------------------------------------------------------------------------

    def law_4_dead_before_replaced(self, send: Send) -> None:
        for lane in self.lanes.values():
            calls = lane.calls if not lane.abandoned else []
            assert send.number not in {key for key, _ in calls}, f"law 4: {send} while lane {lane.number} runs it"
            held = {key for key, _ in self.held.get(lane.number, [])}
            assert send.number not in held, f"law 4: {send} before lane {lane.number} said that it is over"

    # -- law 5: what is done is kept ---------------------------------------------------------------------------------

    def law_5_what_came_back_is_kept(self, word: AttemptEnded, commands: list[Command]) -> None:
        kept = [c.outcome for c in commands if isinstance(c, Settle) and c.number == word.number]
        assert kept, f"law 5: the result of {word.number} was dropped"
        assert kept[0] is word.outcome, f"law 5: {word.number} settled with something else than its result"

    # -- law 8: told before done -------------------------------------------------------------------------------------

    def law_8_told_before_done(self, commands: list[Command]) -> None:
        doomed = {(number_of(e), e.attempt) for t in self.truths.values() for e in t.events if e.kind == "doomed"}
        commands = [c for c in commands if not isinstance(c, Look | TakeBack)]
        for before, command in zip([None, *commands], commands, strict=False):
            if isinstance(command, Event) and command.kind == "doomed":
                doomed.add((number_of(command), command.attempt))
            elif isinstance(command, Kill) and not command.unless_begun:
                assert (command.number, command.attempt) in doomed, f"law 8: {command} was not told before"
            warned = isinstance(before, Event) and before.kind == "soft_timeout"
            assert not warned or isinstance(command, RaiseSoftTimeout), f"law 8: {before} was told, and not done"
            wanted = _event_before(command)
            lane = before.lane if isinstance(before, Event) and not isinstance(command, Settle) else None
            got = (before.kind, number_of(before), lane) if isinstance(before, Event) else None
            assert wanted is None or got == wanted, f"law 8: {command} came after {before}"

    # -- law 9: decisions are pure -----------------------------------------------------------------------------------

    def law_9_the_same_stimuli_give_the_same_commands(self) -> None:
        twin = Core(self.limits)
        for stimulus, now, commands in self.history:
            answer = told(twin, stimulus, now)
            assert [_comparable(c) for c in answer] == [_comparable(c) for c in commands], f"law 9: {stimulus}"

    def a_core_that_tells_nothing_decides_and_remembers_the_same(self) -> None:
        """Its stories are kept in short, and made when they are read."""
        quiet = Core(dataclasses.replace(self.limits, tell=False))
        for stimulus, now, commands in self.history:
            answer = told(quiet, stimulus, now)
            wanted = [_comparable(c) for c in commands if not isinstance(c, Event) or c.key is c.lane is None]
            assert [_comparable(c) for c in answer] == wanted, f"a quiet core: {stimulus}"

    # -- beside the laws ---------------------------------------------------------------------------------------------

    def check_order(self, commands: list[Command]) -> None:
        """Whoever is sent goes before whoever still waits."""
        sent = [self.truths[c.number].rank for c in commands if isinstance(c, Send)]
        waiting = [self.truths[r.task.number].rank for r in self.core._records.values() if r.state is State.QUEUED]
        assert sent == sorted(sent), f"sent out of order: {commands}"
        assert not sent or not waiting or max(sent) < min(waiting), f"one that should wait was sent: {commands}"

    def check_taking_back(self, order: TakeBack) -> None:
        """What is taken back has been sent there; what is known to have begun is let be."""
        for number, attempt, _ in order.calls:
            truth = self.truths.get(number)
            assert truth is None or truth.begun != attempt, f"{order} although {number} has begun"

    def check_broken(self) -> None:
        assert self.failed_starts >= self.limits.start_failures, f"broken by {self.failed_starts} failures in a row"
        assert not self.up, f"the pool broke while the lanes {self.up} had workers"

    def counts_are_consistent(self) -> None:
        states = Counter(record.state for record in self.core._records.values())
        assert {s: n for s, n in self.core.counts.items() if n} == dict(states)
        assert self.core.ended == self.ended
        assert sum(self.ended.values()) + len(self.truths) == self.submitted
        starting = sum(lane.state is LaneState.STARTING for lane in self.core._lanes)
        assert self.core._lanes.starting == starting

    def workers_run_no_more_than_they_may(self) -> None:
        most = self.limits.max_tasks_per_worker
        assert most is None or all(lane.ran <= most for lane in self.lanes.values()), "a worker was used too often"


def _event_before(command: Command) -> tuple[str, Any, int | None] | None:
    """Kind, key and lane of the event that must stand just before the command."""
    match command:
        case Send():
            return ("sent", command.number, command.lane)
        case Settle():
            return ("settled", command.number, None)
        case RaiseSoftTimeout():
            return ("soft_timeout", command.number, command.lane)
        case StartWorker():
            return ("lane_starting", None, command.lane)
        case StopWorker():
            return ("lane_stopping", None, command.lane)
        case Abandon():
            return ("lane_abandoned", None, command.lane)
        case EndStart() | EndStop():
            return ("lane_overdue", None, command.lane)
        case Kill(unless_begun=True):
            return ("frozen", command.number, command.lane)
    return None


def _comparable(command: Command) -> Command:
    """Two errors of the pool's own are equal if they say the same."""
    if isinstance(command, Settle) and isinstance(command.outcome, ResilientError):
        return dataclasses.replace(command, outcome=repr(command.outcome))
    return command
