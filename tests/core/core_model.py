"""What the core is played against at random: a shell that performs its commands and checks the laws.

``Shell`` performs commands as the supervisor does, on lanes that it makes up (``fake_lane``).  It keeps the few facts
that the laws speak of (who holds what, what was told to have begun, who was charged), and checks each list of
commands against them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fake_lane import Call, FakeLane

from resilient_exec.core import Core
from resilient_exec.errors import ResilientError
from resilient_exec.events import Event
from resilient_exec.messages import (
    Abandon,
    AttemptEnded,
    Begun,
    CancelAsked,
    CloseLane,
    Command,
    Finish,
    Kill,
    LaneClosed,
    LaneReady,
    Send,
    Settle,
    ShutdownAsked,
    StartWorker,
    Stimulus,
    StopWorker,
    Submitted,
    TimePassed,
    WorkerGone,
)
from resilient_exec.states import LaneState, Limits, Record, State
from resilient_exec.task import Returned, Task

if TYPE_CHECKING:
    from collections.abc import Hashable

    from resilient_exec.ports import Failure


class Granting:
    """A policy that is a pure function of the failure, and reports who is charged."""

    def __init__(self, delays: tuple[float, ...], shell: Shell) -> None:
        self.delays = delays
        self.shell = shell

    def next_delay(self, failure: Failure) -> float | None:
        failures = sum(failure.counts.values())
        delay = self.delays[failures - 1] if failures <= len(self.delays) else None
        if not self.shell.replaying:
            self.shell.law_2_only_the_guilty_is_charged(failure, delay)
        return delay


@dataclass
class Truth:
    """What has been told about one task."""

    task: Task
    order: int
    events: list[Event] = field(default_factory=list)
    begun: int = 0
    charged: dict[int, bool] = field(default_factory=dict)  # attempt: whether another was granted
    cancelled: bool = False  # its future
    sent: bool = False  # its future cannot be cancelled any more


class Shell:
    """Performs what the core orders, and checks the laws."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.core = Core(limits)
        self.now = 0.0
        self.replaying = False
        self.sound = True  # no check has failed
        self.shutdowns = 0
        self.finished = 0
        self.history: list[tuple[Stimulus, float, list[Command]]] = []
        self.lanes: dict[int, FakeLane] = {}
        self.up: set[int] = set()  # lanes that have told of a worker, and not of its end
        self.held: dict[int, list[Call]] = {}  # by lane, as far as it has told
        self.truths: dict[Hashable, Truth] = {}  # of unsettled tasks
        self.ended: Counter[str] = Counter()
        self.submitted = 0
        self.cancels: list[Hashable] = []  # futures whose cancelling the core has not been told
        self.stimulus: Stimulus = TimePassed()

    def submit(self, key: Hashable, delays: tuple[float, ...], problem: Any, **task: Any) -> None:
        for cancelled in [k for k in self.cancels if k == key]:  # one inbox: that word came first
            self.cancels.remove(cancelled)
            self.tell(CancelAsked(cancelled))
        self.submitted += 1
        truth = Truth(Task(key, Granting(delays, self), **task), self.submitted)
        self.truths[key] = truth
        self.tell(Submitted(truth.task, problem))

    def tell(self, stimulus: Stimulus) -> list[Command]:
        """Tell the core, check what it answers, perform it."""
        self.sound = False
        self.stimulus = stimulus
        expected = self._note(stimulus)
        commands = self.core.handle(stimulus, self.now)
        self.history.append((dataclasses.replace(stimulus), self.now, list(commands)))
        self.law_8_told_before_done(commands)
        self._check_order(commands)
        withheld = []
        for command in commands:
            if self._perform(command):
                withheld.append(command.key)
        if expected is not None:
            self.law_5_what_came_back_is_kept(stimulus, expected, commands)
        self.sound = True
        for key in withheld:
            self.tell(CancelAsked(key))
        return commands

    # -- the facts -------------------------------------------------------------------------------------------------

    def _note(self, stimulus: Stimulus) -> Truth | None:
        """Note what the core is now told; the task that must settle with this word, if any."""
        match stimulus:
            case LaneReady() if not self.lanes[stimulus.lane].abandoned:
                self.up.add(stimulus.lane)
            case Begun() if self._is_head(stimulus):
                self.truths[stimulus.key].begun = stimulus.attempt
            case AttemptEnded() if self._is_head(stimulus):
                truth = self.truths[stimulus.key]
                if truth.begun == stimulus.attempt:
                    del self.held[stimulus.lane][0]
                    return truth if isinstance(stimulus.outcome, Returned) else None
            case WorkerGone() if not self.lanes[stimulus.lane].abandoned:
                if stimulus.outcome is not None:
                    self.truths[stimulus.key].begun = stimulus.attempt
                self._let_go(stimulus.lane)
            case LaneClosed():
                self._let_go(stimulus.lane)
            case ShutdownAsked():
                self.shutdowns += 1
        return None

    def _is_head(self, word: Begun | AttemptEnded) -> bool:
        return self.held.get(word.lane, [])[:1] == [(word.key, word.attempt)]

    def _let_go(self, lane: int) -> None:
        self.up.discard(lane)
        self.held[lane] = []

    def _perform(self, command: Command) -> bool:
        """Do it; whether it was a Send that is withheld, because the future was cancelled."""
        match command:
            case Event(key=None):
                pass
            case Event():
                self.truths[command.key].events.append(command)
            case Send():
                return self._send(command)
            case StartWorker():
                lane = self.lanes.setdefault(command.lane, FakeLane(command.lane))
                lane.orders.append(command)
                assert command.lane not in self.up, "a worker was ordered for a lane that has one"
                alive = [n for n, other in self.lanes.items() if not (other.abandoned or other.closed)]
                assert len(alive) <= self.limits.lanes, f"too many lanes: {alive}"
            case Abandon():
                self._abandon(command)
            case Settle():
                self._settle(command)
            case Finish():
                self._finish()
            case Kill() | StopWorker() | CloseLane():
                self.lanes[command.lane].orders.append(command)
        return False

    def _send(self, send: Send) -> bool:
        truth = self.truths[send.key]
        self.law_2_nothing_is_repeated_unless_it_was_charged(truth, send)
        self.law_4_dead_before_replaced(send)
        held = self.held.setdefault(send.lane, [])
        held.append((send.key, send.attempt))
        assert send.lane in self.up, f"{send} to a lane without a worker"
        assert len(held) <= self.limits.depth, f"{send} to a lane that is full"
        if truth.cancelled and not truth.sent:
            held.remove((send.key, send.attempt))
            return True
        truth.sent = True
        self.lanes[send.lane].orders.append(send)
        return False

    def _abandon(self, command: Abandon) -> None:
        """What the shell does from outside: whatever the lane holds is killed."""
        lane = self.lanes[command.lane]
        lane.abandoned = True
        lane.worker, lane.calls, lane.running = "none", [], False
        self._let_go(command.lane)

    def _settle(self, settle: Settle) -> None:
        assert settle.key in self.truths, f"law 1: {settle.key} settled twice"
        truth = self.truths.pop(settle.key)
        assert not any(call[0] == settle.key for calls in self.held.values() for call in calls), (
            f"law 1: {settle.key} settled while a lane held it"
        )
        assert settle.attempts == truth.begun, f"{settle} after {truth.begun} attempts had begun"
        assert list(settle.story) == truth.events, f"law 8: the story of {settle.key} is not what was told"
        self.ended[settle.story[-1].detail["how"]] += 1

    def _finish(self) -> None:
        self.finished += 1
        assert self.finished == 1, "law 1: Finish came twice"
        assert not self.truths, f"law 1: Finish came while {list(self.truths)} had not settled"
        open_lanes = [n for n, lane in self.lanes.items() if not (lane.closed or lane.abandoned)]
        assert not open_lanes, f"law 7: Finish came while the lanes {open_lanes} were open"

    def drain(self) -> None:
        """From here on everybody means well: the pool is shut down, and must come to its end."""
        if not self.shutdowns:
            self.tell(ShutdownAsked())
        for _ in range(5000):
            moved = False
            while self.cancels:
                self.tell(CancelAsked(self.cancels.pop(0)))
            for lane in list(self.lanes.values()):
                moved |= lane.step()
                while lane.words:
                    moved = True
                    self.tell(lane.words.popleft())
            if self.finished:
                return
            if not moved:
                due = self.core.next_due()
                assert due is not None, f"law 1: nothing moves, nothing is due, unsettled: {list(self.truths)}"
                self.now = max(self.now, due)
                self.tell(TimePassed())
        raise AssertionError(f"law 1: no end in sight, unsettled: {list(self.truths)}")

    # -- the laws --------------------------------------------------------------------------------------------------

    def law_1_each_unsettled_task_is_in_one_place_and_something_will_move_it(self) -> None:
        core = self.core
        assert set(core.unsettled()) == set(self.truths), "law 1: a task was lost, or came back"
        waits = {id(entry[2]) for entry in core._timers._heap if entry[2].timer == entry[1]}
        queued = Counter(id(record) for record in core._queue if record.state is State.QUEUED)
        holders = Counter(id(record) for lane in core._lanes for record in lane.holds)
        for record in core._records.values():
            places = (queued[id(record)], int(record.state is State.BACKING_OFF), holders[id(record)])
            assert sorted(places) == [0, 0, 1], f"law 1: {record.task.key} ({record.state}) is in {places}"
            if record.state is State.BACKING_OFF:
                assert id(record) in waits, f"law 1: {record.task.key} backs off without a timer"
            elif not queued[id(record)]:
                self._check_watch(record, waits)
        for lane in core._lanes:
            if lane.state not in (LaneState.DOWN, LaneState.IDLE, LaneState.BUSY):
                assert id(lane) in waits, f"law 3: lane {lane.number} is {lane.state} without a deadline"
        if queued:
            self._check_wake_up(len(queued), id(core._gate) in waits)

    def _check_watch(self, record: Record, waits: set[int]) -> None:
        lane = record.lane
        assert lane is not None, f"law 1: {record.task.key} is {record.state} without a lane"
        assert record in lane.holds, f"law 1: {record.task.key} is not in the lane it is said to be in"
        assert lane.state in (LaneState.BUSY, LaneState.KILLING), f"law 1: a lane that is {lane.state} holds a task"
        if record is not lane.holds[0] or lane.state is LaneState.KILLING:
            return  # it follows its head; the lane's deadline counts
        if record.state is State.RUNNING:
            wanted = record.task.timeout is not None
            assert (id(record) in waits) == wanted, f"law 1: {record.task.key} runs, its timer is not what it should be"
        else:
            assert record.state is State.SENT, f"law 1: nobody kills {record.task.key}, which is {record.state}"
            assert id(record) in waits, f"law 1: nobody watches whether {record.task.key} begins"

    def _check_wake_up(self, queued: int, gate: bool) -> None:
        lanes = list(self.core._lanes)
        assert not any(lane.state is LaneState.IDLE for lane in lanes), "law 1: a lane is idle while tasks wait"
        startable = len(lanes) < self.limits.lanes or any(
            lane.state is LaneState.DOWN and not lane.closing for lane in lanes
        )
        starting = sum(lane.state is LaneState.STARTING for lane in lanes)
        assert gate or not startable or starting >= queued, "law 1: tasks wait, and no worker is started for them"

    def law_2_only_the_guilty_is_charged(self, failure: Failure, delay: float | None) -> None:
        """Called by the policy that the core asks."""
        truth = self.truths[failure.key]
        attempt = failure.attempts
        assert attempt == truth.begun, f"law 2: attempt {attempt} of {failure.key} is charged, and never began"
        assert attempt not in truth.charged, f"law 2: attempt {attempt} of {failure.key} is charged twice"
        assert sum(failure.counts.values()) == len(truth.charged) + 1, "law 2: the budgets were charged for another"
        word = self.stimulus
        match word:
            case AttemptEnded() | WorkerGone():
                assert word.outcome is not None, f"law 2: {failure.key} is charged for {word}"
                assert (word.key, word.attempt) == (failure.key, attempt), f"law 2: {failure.key} charged for {word}"
            case _:
                assert isinstance(word, TimePassed), f"law 2: {failure.key} is charged for {word}"
                assert truth.events[-1].kind == "doomed", f"law 2: {failure.key} is charged for a lane's silence"
        if failure.cause == "timed_out":
            assert any(e.kind == "doomed" and e.attempt == attempt for e in truth.events), "law 2: charged unasked"
        truth.charged[attempt] = delay is not None

    def law_2_nothing_is_repeated_unless_it_was_charged(self, truth: Truth, send: Send) -> None:
        assert send.attempt == truth.begun + 1, f"law 2: {send} although {truth.begun} attempts have begun"
        if truth.begun:
            assert truth.charged.get(truth.begun), f"law 2: {send} although no other attempt was granted"
        assert "killed" not in {event.kind for event in truth.events}, f"law 2: {send} after a kill"

    def law_4_dead_before_replaced(self, send: Send) -> None:
        for lane in self.lanes.values():
            calls = lane.calls if not lane.abandoned else []
            assert send.key not in {key for key, _ in calls}, f"law 4: {send} while lane {lane.number} runs it"
            assert send.key not in {key for key, _ in self.held.get(lane.number, [])}, (
                f"law 4: {send} before lane {lane.number} said that it is over"
            )

    def law_5_what_came_back_is_kept(self, word: AttemptEnded, truth: Truth, commands: list[Command]) -> None:
        kept = [c for c in commands if isinstance(c, Settle) and c.key == truth.task.key]
        assert len(kept) == 1, f"law 5: the result of {word.key} was dropped"
        assert kept[0].outcome is word.outcome, f"law 5: {word.key} settled with something else than its result"

    def law_8_told_before_done(self, commands: list[Command]) -> None:
        told: set[tuple[str, Hashable, int]] = set()
        doomed = {(key, e.attempt) for key, truth in self.truths.items() for e in truth.events if e.kind == "doomed"}
        for before, command in zip([None, *commands], commands, strict=False):
            match command:
                case Event():
                    told.add((command.kind, command.key, command.attempt))
                    continue
                case Send():
                    wanted: Any = ("sent", command.key, command.attempt, command.lane)
                case Settle():
                    wanted = ("settled", command.key, None, None)
                case StartWorker():
                    wanted = ("lane_starting", None, 0, command.lane)
                case StopWorker():
                    wanted = ("lane_stopping", None, 0, command.lane)
                case Abandon():
                    wanted = ("lane_abandoned", None, 0, command.lane)
                case Kill(key=key, unless_begun=False) if key is not None:
                    call = (command.key, command.attempt)
                    assert call in doomed or ("doomed", *call) in told, f"law 8: {command} was not told before"
                    continue
                case _:
                    continue
            assert isinstance(before, Event), f"law 8: {command} was not told before"
            got = (before.kind, before.key, before.attempt, before.lane)
            if isinstance(command, Settle):
                got = (*got[:2], None, None)
            assert got == wanted, f"law 8: {command} came after {before}"

    def law_9_the_same_stimuli_give_the_same_commands(self) -> None:
        self.replaying = True
        twin = Core(self.limits)
        for stimulus, now, commands in self.history:
            answer = twin.handle(stimulus, now)
            assert [_comparable(c) for c in answer] == [_comparable(c) for c in commands], f"law 9: {stimulus}"

    # -- beside the laws -------------------------------------------------------------------------------------------

    def _check_order(self, commands: list[Command]) -> None:
        """Whoever is sent goes before whoever still waits."""
        rank = lambda truth: (-truth.task.priority, truth.order)
        sent = [rank(self.truths[c.key]) for c in commands if isinstance(c, Send)]
        waiting = [(-record.task.priority, record.order) for record in self.core._queue if record.state is State.QUEUED]
        assert sent == sorted(sent), f"sent out of order: {commands}"
        assert not sent or not waiting or max(sent) < min(waiting), f"one that should wait was sent: {commands}"

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


def _comparable(command: Command) -> Command:
    """Two errors of the pool's own are equal if they say the same."""
    if isinstance(command, Settle) and isinstance(command.outcome, ResilientError):
        return dataclasses.replace(command, outcome=repr(command.outcome))
    return command
