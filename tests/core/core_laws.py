"""The laws, as checks on a core, on what it was told and on what it ordered.

``Facts`` are the few things that the laws speak of: who holds what, what was told to have begun, who was charged.
``core_model.Shell`` keeps them; nothing here changes any.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resilient_exec.admission import MemoryLevel
from resilient_exec.core import Core
from resilient_exec.errors import ResilientError, SoftTimeout
from resilient_exec.events import Event
from resilient_exec.messages import (
    Abandon,
    AttemptEnded,
    Command,
    Kill,
    LaneClosed,
    MachineMemory,
    RaiseSoftTimeout,
    Send,
    Settle,
    ShutdownAsked,
    Stalled,
    StartWorker,
    Stimulus,
    StopWorker,
    Submitted,
    TimePassed,
    WorkerGone,
)
from resilient_exec.states import LaneRecord, LaneState, Limits, Record, State
from resilient_exec.task import Raised, Returned

if TYPE_CHECKING:
    from collections.abc import Hashable

    from fake_lane import Call, FakeLane

    from resilient_exec.ports import Failure
    from resilient_exec.task import Task


@dataclass
class Truth:
    """What has been told about one unsettled task."""

    task: Task
    order: int
    events: list[Event] = field(default_factory=list)
    begun: int = 0
    begun_at: float = 0.0
    charged: dict[int, bool] = field(default_factory=dict)  # attempt: whether another was granted
    causes: Counter[str] = field(default_factory=Counter)
    lost: int = 0  # in a row
    evicted: set[int] = field(default_factory=set)  # attempts
    swollen: set[int] = field(default_factory=set)  # attempts that were said to hold too much
    warned: int = 0  # the attempt in which SoftTimeout was last raised
    killed: bool = False  # by the user
    cancelled: bool = False  # its future
    sent: bool = False  # its future cannot be cancelled any more

    @property
    def rank(self) -> tuple[float, int]:
        return (-self.task.priority, self.order)


class Facts:
    """What the laws speak of."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.core = Core(limits)
        self.now = 0.0
        self.stimulus: Stimulus = TimePassed()
        self.history: list[tuple[Stimulus, float, list[Command]]] = []
        self.lanes: dict[int, FakeLane] = {}
        self.up: set[int] = set()  # lanes that have told of a worker, and not of its end
        self.ending: set[int] = set()  # lanes that were told to end their worker in peace
        self.held: dict[int, list[Call]] = {}  # by lane, as far as it has told
        self.truths: dict[Hashable, Truth] = {}
        self.ended: Counter[str] = Counter()
        self.submitted = 0
        self.shutdowns = 0
        self.no_retries = False
        self.failed_starts = 0  # in a row
        self.level = MemoryLevel.OK
        self.level_changed = False  # by the last word about it
        self.swollen: set[int] = set()  # lanes whose empty worker holds more than it may
        self.finished = 0


class Laws(Facts):
    """The checks."""

    # -- law 1: everything settles -----------------------------------------------------------------------------------

    def law_1_each_unsettled_task_is_in_one_place_and_something_will_move_it(self) -> None:
        core = self.core
        assert set(core.unsettled()) == set(self.truths), "law 1: a task was lost, or came back"
        dues = {id(owner): due for due, serial, owner in core._timers._heap if owner.timer == serial}
        queued = Counter(id(record) for record in core._queue if record.state is State.QUEUED)
        holders = Counter(id(record) for lane in core._lanes for record in lane.holds)
        for record in core._records.values():
            places = (queued[id(record)], int(record.state is State.BACKING_OFF), holders[id(record)])
            assert sorted(places) == [0, 0, 1], f"law 1: {record.task.key} ({record.state}) is in {places}"
            if record.state is State.BACKING_OFF:
                assert id(record) in dues, f"law 1: {record.task.key} backs off without a timer"
            elif not queued[id(record)]:
                self._check_watch(record, dues.get(id(record)))
        for lane in core._lanes:
            self._check_lane(lane, watched=id(lane) in dues)
        if queued:
            self._check_wake_up(len(queued), id(core._starts) in dues)

    def _check_watch(self, record: Record, due: float | None) -> None:
        key, lane = record.task.key, record.lane
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
            assert due is not None, f"law 1: nobody watches whether {key} begins"

    def _wanted(self, truth: Truth) -> float | None:
        """When the clock is to strike the attempt that runs: for its soft timeout once, then for the hard one."""
        soft, hard = truth.task.soft_timeout, truth.task.timeout
        limits = [soft, hard] if truth.warned != truth.begun else [hard]
        given = [limit for limit in limits if limit is not None]
        return truth.begun_at + min(given) if given else None

    def _check_lane(self, lane: LaneRecord, *, watched: bool) -> None:
        calls = [(record.task.key, record.attempt) for record in lane.holds]
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
            assert word.task.key not in self.truths, "law 1: a task was taken after the shutdown"
        if isinstance(word, ShutdownAsked) and (word.cancel or word.kill):
            held = {key for calls in self.held.values() for key, _ in calls}
            assert set(self.truths) <= held, "law 1: a shutdown with cancel forgot who waits"
        if isinstance(word, ShutdownAsked) and word.kill:
            alive = [t.task.key for t in left if self.core._records[t.task.key].state is not State.DOOMED]
            assert not alive, f"law 1: a shutdown with kill spared {alive}"

    # -- law 2: a death costs one attempt ----------------------------------------------------------------------------

    def law_2_only_the_guilty_is_charged(self, failure: Failure, delay: float | None) -> None:
        """Called by the policy that the core asks."""
        key, attempt, truth, word = failure.key, failure.attempts, self.truths[failure.key], self.stimulus
        assert attempt + len(truth.evicted) == truth.begun, f"law 2: attempt {attempt} of {key} is charged, of {truth}"
        attempt = truth.begun
        assert attempt not in truth.charged, f"law 2: attempt {attempt} of {key} is charged twice"
        assert not truth.killed, f"law 2: {key} was killed, and its policy is asked"
        assert not self.no_retries, f"law 2: {key} might be tried again after a shutdown with cancel"
        doomed = any(e.kind == "doomed" and e.attempt == attempt for e in truth.events)
        match word:
            case AttemptEnded() | WorkerGone():
                assert word.outcome is not None, f"law 2: {key} is charged for {word}"
                assert (word.key, word.attempt) == (key, attempt), f"law 2: {key} is charged for {word}"
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
        assert (kill.key, kill.attempt) == wanted, f"law 2: {kill} of a lane that holds {held}"

    # -- limits ------------------------------------------------------------------------------------------------------

    def check_soft_timeout(self, order: RaiseSoftTimeout) -> None:
        truth, attempt = self.truths[order.key], order.attempt
        assert self.held[order.lane][:1] == [(order.key, attempt)], f"{order} strikes another"
        assert truth.begun == attempt, f"{order} before its begin"
        assert truth.warned != attempt, f"{order} came twice"
        assert truth.task.soft_timeout is not None, f"{order} of a task without a soft timeout"
        assert self.now >= truth.begun_at + truth.task.soft_timeout, f"{order} came too early"
        truth.warned = attempt

    def check_limit(self, event: Event, truth: Truth) -> None:
        """An end is called after a limit only where there is one, and it was over."""
        assert event.kind != "backing_off" or not self.no_retries, f"{event} after a shutdown that cancels"
        if event.kind == "doomed" and event.detail["why"] == "timeout":
            soft, hard = truth.task.soft_timeout, truth.task.timeout
            assert hard is not None, f"{event} without a timeout"
            assert self.now >= truth.begun_at + hard, f"{event} came too early"
            assert truth.warned == truth.begun or soft is None or soft >= hard, f"{event} without a SoftTimeout before"
        if event.kind == "died":
            doomed = {e.attempt for e in truth.events if e.kind == "doomed"}
            assert event.attempt not in doomed, f"{event} although it was killed for a reason"
        if event.kind == "evicted":
            truth.evicted.add(event.attempt)
            assert len(truth.evicted) <= self.limits.uncharged, f"evicted too often: {event}"
        if event.kind == "out_of_memory":
            assert truth.task.memory_limit is not None, f"{event} without a limit"
            assert event.attempt in truth.swollen, f"{event}, and nobody had said so"
        if event.kind == "timed_out":
            limits = {"timeout": truth.task.timeout, "soft_timeout": truth.task.soft_timeout}
            limits["stall_timeout"] = 60.0 if self.limits.kill_stalled else None
            assert event.detail["limit"] == limits[event.detail["what"]] is not None, f"{event} has no such limit"

    def check_end(self, word: AttemptEnded | WorkerGone, commands: list[Command], truth: Truth) -> None:
        """What is told of the end of an attempt: its evidence, and whether it was its soft timeout that left it."""
        outcome, story = word.outcome, [e for e in commands if isinstance(e, Event) and e.key == word.key]
        kinds = (outcome.kind, "timed_out", "out_of_memory", "evicted", "killed")
        (end,) = [e for e in story if e.kind in kinds]
        if not isinstance(outcome, Returned):
            assert end.evidence == outcome.evidence, f"the evidence of {word} was lost: {end}"
        if isinstance(outcome, Raised) and isinstance(outcome.exception, SoftTimeout):
            soft = truth.warned == word.attempt
            assert end.kind == ("timed_out" if soft else "raised"), f"{word} became {end}"
            for settle in commands:
                if soft and isinstance(settle, Settle) and settle.key == word.key:
                    assert settle.outcome.cause is outcome.exception, f"{settle} has lost its cause"

    def check_stall(self, word: Stalled, commands: list[Command]) -> None:
        told = [e.evidence for e in commands if isinstance(e, Event) and e.kind == "stalled"]
        assert told in ([], [word.evidence]), f"the stacks of {word} are lost"
        killed = any(isinstance(c, Kill) for c in commands)
        assert killed == (self.limits.kill_stalled and bool(told)), f"{word} led to {commands}"

    def check_stop(self, order: StopWorker) -> None:
        most = self.limits.max_tasks_per_worker
        worn_out = most is not None and self.lanes[order.lane].ran >= most
        assert worn_out or order.lane in self.swollen, f"{order} for nothing"

    # -- the machine's memory ----------------------------------------------------------------------------------------

    def check_admission(self, send: Send) -> None:
        out = [call for calls in self.held.values() for call in calls]
        assert self.level is MemoryLevel.OK or not out, f"memory is {self.level}: {send} beside {out}"
        assert send.lane not in self.swollen, f"{send} to a worker that holds too much"

    def check_start(self, order: StartWorker) -> None:
        if self.level is not MemoryLevel.OK:
            assert not any(self.held.values()), f"memory is {self.level}: {order} beside {self.held}"
            assert self.core._lanes.starting <= 1, f"memory is {self.level}: {order}, and another is starting"

    def check_swollen(self, word: AttemptEnded) -> None:
        most = self.limits.max_memory_per_worker
        if most is not None and word.memory > most and not self.held[word.lane]:
            self.swollen.add(word.lane)

    def no_swollen_worker_is_kept(self) -> None:
        assert not self.swollen, f"the workers of {self.swollen} hold too much, and were not told to end"

    def check_eviction(self, commands: list[Command]) -> None:
        """The youngest goes, when the memory is said to be critical: never the only one, and one at a time."""
        if not isinstance(self.stimulus, MachineMemory):
            return
        told = [c.kind for c in commands if isinstance(c, Event) and c.kind.startswith("memory_")]
        assert told == ([f"memory_{self.level}"] if self.level_changed else []), f"{self.stimulus} is told as {told}"
        ordered = [(c.key, c.attempt) for c in commands if isinstance(c, Kill)]
        heads = [calls[0] for calls in self.held.values() if calls]
        doomed = {(e.key, e.attempt) for t in self.truths.values() for e in t.events if e.kind == "doomed"}
        running = [(k, n) for k, n in heads if self.truths[k].begun == n and (k, n) not in doomed - set(ordered)]
        if self.level is MemoryLevel.CRITICAL and len(running) == len(heads) > 1:
            assert len(ordered) == 1, f"{ordered} are evicted of {running}"
            youngest = max(self.truths[k].begun_at for k, _ in running)
            assert self.truths[ordered[0][0]].begun_at == youngest, f"{ordered} is not the youngest of {running}"
        else:
            assert not ordered, f"memory is {self.level}: {ordered} is evicted of {heads}, of which {running} run"

    def an_evicted_task_is_queued_again(self, commands: list[Command]) -> None:
        settled = {c.key: c.story for c in commands if isinstance(c, Settle)}
        for event in commands:
            if not isinstance(event, Event) or event.kind != "evicted" or self.no_retries or self.core.broken:
                continue
            times = sum(e.kind == "evicted" for e in settled.get(event.key, ()))
            assert event.key not in settled or times == self.limits.uncharged, f"{event} was the end of the task"

    # -- law 4: dead before replaced ---------------------------------------------------------------------------------

    def law_4_dead_before_replaced(self, send: Send) -> None:
        for lane in self.lanes.values():
            calls = lane.calls if not lane.abandoned else []
            assert send.key not in {key for key, _ in calls}, f"law 4: {send} while lane {lane.number} runs it"
            held = {key for key, _ in self.held.get(lane.number, [])}
            assert send.key not in held, f"law 4: {send} before lane {lane.number} said that it is over"

    # -- law 5: what is done is kept ---------------------------------------------------------------------------------

    def law_5_what_came_back_is_kept(self, word: AttemptEnded, commands: list[Command]) -> None:
        kept = [c.outcome for c in commands if isinstance(c, Settle) and c.key == word.key]
        assert kept, f"law 5: the result of {word.key} was dropped"
        assert kept[0] is word.outcome, f"law 5: {word.key} settled with something else than its result"

    # -- law 8: told before done -------------------------------------------------------------------------------------

    def law_8_told_before_done(self, commands: list[Command]) -> None:
        doomed = {(e.key, e.attempt) for t in self.truths.values() for e in t.events if e.kind == "doomed"}
        for before, command in zip([None, *commands], commands, strict=False):
            if isinstance(command, Event) and command.kind == "doomed":
                doomed.add((command.key, command.attempt))
            elif isinstance(command, Kill) and command.key is not None and not command.unless_begun:
                assert (command.key, command.attempt) in doomed, f"law 8: {command} was not told before"
            wanted = _event_before(command)
            lane = before.lane if isinstance(before, Event) and not isinstance(command, Settle) else None
            got = (before.kind, before.key, lane) if isinstance(before, Event) else None
            assert wanted is None or got == wanted, f"law 8: {command} came after {before}"

    # -- law 9: decisions are pure -----------------------------------------------------------------------------------

    def law_9_the_same_stimuli_give_the_same_commands(self) -> None:
        twin = Core(self.limits)
        for stimulus, now, commands in self.history:
            answer = twin.handle(stimulus, now)
            assert [_comparable(c) for c in answer] == [_comparable(c) for c in commands], f"law 9: {stimulus}"

    # -- beside the laws ---------------------------------------------------------------------------------------------

    def check_order(self, commands: list[Command]) -> None:
        """Whoever is sent goes before whoever still waits."""
        sent = [self.truths[c.key].rank for c in commands if isinstance(c, Send)]
        waiting = [self.truths[r.task.key].rank for r in self.core._records.values() if r.state is State.QUEUED]
        assert sent == sorted(sent), f"sent out of order: {commands}"
        assert not sent or not waiting or max(sent) < min(waiting), f"one that should wait was sent: {commands}"

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
            return ("sent", command.key, command.lane)
        case Settle():
            return ("settled", command.key, None)
        case RaiseSoftTimeout():
            return ("soft_timeout", command.key, command.lane)
        case StartWorker():
            return ("lane_starting", None, command.lane)
        case StopWorker():
            return ("lane_stopping", None, command.lane)
        case Abandon():
            return ("lane_abandoned", None, command.lane)
        case Kill(key=None):
            return ("lane_overdue", None, command.lane)
        case Kill(unless_begun=True):
            return ("frozen", command.key, command.lane)
    return None


def _comparable(command: Command) -> Command:
    """Two errors of the pool's own are equal if they say the same."""
    if isinstance(command, Settle) and isinstance(command.outcome, ResilientError):
        return dataclasses.replace(command, outcome=repr(command.outcome))
    return command
