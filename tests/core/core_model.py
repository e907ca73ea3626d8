"""What the core is played against at random: a shell that performs its commands and keeps the facts of the laws."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from core_facts import Truth, Unusable, number_of, told
from core_laws import Laws
from fake_lane import FakeLane

from resilient_exec.core.messages import (
    Abandon,
    Answered,
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
from resilient_exec.core.states import LaneState
from resilient_exec.model.events import Event
from resilient_exec.model.task import Returned, Task

if TYPE_CHECKING:
    from collections.abc import Hashable

    from resilient_exec.core.states import Limits
    from resilient_exec.model.ports import Failure


class Granting:
    """A policy that is a pure function of the failure, and reports who is charged."""

    def __init__(self, delays: tuple[float, ...], shell: Shell) -> None:
        self.delays = delays
        self.shell = shell
        self.asks_user = False

    def next_delay(self, failure: Failure) -> float | None:
        failures = sum(failure.counts.values())
        delay = self.delays[failures - 1] if failures <= len(self.delays) else None
        if not self.shell.over:
            self.shell.law_2_only_the_guilty_is_charged(failure, delay)
        return delay


class Shell(Laws):
    """Performs commands as the supervisor does, on lanes that it makes up."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.over = False  # the game is being replayed
        self.sound = True  # no check has failed
        self.cancels: list[Hashable] = []  # futures whose cancelling the core has not been told

    def submit(self, key: Hashable, delays: tuple[float, ...], problem: Any, **task: Any) -> None:
        for cancelled in [k for k in self.cancels if k == key]:  # one inbox: that word came first
            self.cancels.remove(cancelled)
            self.tell(CancelAsked(cancelled))
        self.submitted += 1
        truth = Truth(Task(key, Granting(delays, self), key=Unusable(key), **task), self.submitted)
        self.truths[key] = truth
        self.tell(Submitted(truth.task, problem))

    def tell(self, stimulus: Stimulus) -> list[Command]:
        """Tell the core, check what it answers, perform it."""
        self.sound = False
        self.stimulus = stimulus
        ends = self._ends(stimulus)
        came_back = self._note(stimulus)
        commands = told(self.core, stimulus, self.now)
        self.history.append((dataclasses.replace(stimulus), self.now, list(commands)))
        self.law_8_told_before_done(commands)
        self.check_order(commands)
        withheld = [command.number for command in commands if self._perform(command)]
        if came_back:
            self.law_5_what_came_back_is_kept(stimulus, commands)
        if ends is not None:
            self.check_end(stimulus, commands, ends)
        elif isinstance(stimulus, Stalled):
            self.check_stall(stimulus, commands)
        self.law_1_what_is_over_is_over()
        self.an_evicted_task_is_queued_again(commands)
        self.check_eviction(commands)
        for key in withheld:
            self.tell(CancelAsked(key))
            assert key not in self.truths, f"law 1: {key} was cancelled just when it was sent, and did not settle"
        self.sound = True
        return commands

    # -- what is told ------------------------------------------------------------------------------------------------

    def _ends(self, word: Stimulus) -> Truth | None:
        """The task of which an attempt ends with that word, if it is not a late one."""
        if isinstance(word, WorkerGone):
            ends = word.outcome is not None and word.lane in self.up and self._is_head(word)
        else:
            ends = isinstance(word, AttemptEnded) and self._is_head(word) and self._has_begun(word)
        return self.truths[word.number] if ends else None

    def _note(self, word: Stimulus) -> bool:
        """Note what the core is now told; whether it is a result that must be kept."""
        if isinstance(word, KillAsked):
            self.truths[word.number].killed = True
        elif isinstance(word, CancelAsked):
            self._note_cancel(word.number)
        elif isinstance(word, ShutdownAsked):
            self.shutdowns += 1
            self.no_retries |= word.cancel or word.kill
            for truth in self.truths.values():
                truth.killed |= word.kill
        elif isinstance(word, MachineMemory):
            self.level_changed, self.level = word.level is not self.level, word.level
        elif hasattr(word, "lane") and not self.lanes[word.lane].abandoned:
            return self._note_lane(word)
        return False

    def _note_cancel(self, number: Hashable) -> None:
        """A task that has not begun is gone with its cancel; one that was killed first ends by that."""
        truth = self.truths.get(number)
        doomed = truth is not None and any(event.kind == "doomed" for event in truth.events)
        if truth is not None and not truth.begun and not doomed:
            self._let_go_of(number)

    def _let_go_of(self, number: Hashable) -> None:
        for held in self.held.values():
            held[:] = [call for call in held if call[0] != number]

    def _note_lane(self, word: Any) -> bool:
        match word:
            case LaneReady() if not self.lanes[word.lane].closing:
                self.up.add(word.lane)
                self.failed_starts = 0
            case StartFailed():
                self.failed_starts += 1
            case Begun() if self._is_head(word):
                self._note_begin(word.number, word.attempt, word.at)
            case AttemptEnded() if self._is_head(word) and self._has_begun(word):
                if word.began is not None:
                    self._note_begin(word.number, word.attempt, word.began)
                del self.held[word.lane][0]
                self.check_swollen(word)
                return isinstance(word.outcome, Returned)
            case MemoryExceeded() if self._is_head(word):
                self.truths[word.number].swollen.add(word.attempt)
            case WorkerGone() if word.lane in self.up:
                if word.outcome is not None:
                    self._note_begin(word.number, word.attempt, word.at)
                self._let_go(word.lane)
            case TakenBack():
                self.held[word.lane] = [
                    call
                    for call in self.held.get(word.lane, [])
                    if (*call, 1) not in word.calls or self.truths[call[0]].begun == call[1]
                ]
            case Answered():
                self._note_answer(word)
            case LaneClosed():
                self.failed_starts += word.lane not in self.up
                self._let_go(word.lane)
        return False

    def _note_answer(self, word: Answered) -> None:
        """One that was cancelled before it was really sent is not there: the lane answers that it has nothing."""
        known = self.core._lanes.get(word.lane)
        is_heard = known is not None and known.order == word.order and known.state is LaneState.KILLING
        for call in self.held.get(word.lane, [])[:1]:
            truth = self.truths[call[0]]
            if is_heard and truth.cancelled and truth.begun != call[1] and call not in self.lanes[word.lane].calls:
                self.held[word.lane].remove(call)

    def _is_head(self, word: Begun | AttemptEnded | MemoryExceeded | WorkerGone) -> bool:
        return self.held.get(word.lane, [])[:1] == [(word.number, word.attempt)]

    def _has_begun(self, word: AttemptEnded) -> bool:
        return word.began is not None or self.truths[word.number].begun == word.attempt

    def _note_begin(self, key: Hashable, attempt: int, at: float | None) -> None:
        truth = self.truths[key]
        if truth.begun != attempt:
            truth.begun, truth.begun_at, truth.lost = attempt, self.now if at is None else at, 0

    def _let_go(self, lane: int) -> None:
        self.up.discard(lane)
        self.ending.discard(lane)
        self.swollen.discard(lane)
        self.held[lane] = []

    # -- what is ordered ---------------------------------------------------------------------------------------------

    def _perform(self, command: Command) -> bool:
        """Do it; whether it was a Send that is withheld, because the future was cancelled."""
        match command:
            case Event():
                self._observe(command)
            case Send():
                return self._send(command)
            case StartWorker():
                self._start(command)
            case Abandon():
                self._abandon(command)
            case Settle():
                self._settle(command)
            case Finish():
                self._finish()
            case RaiseSoftTimeout():
                self.check_soft_timeout(command)
                self.lanes[command.lane].orders.append(command)
            case TakeBack():
                self.check_taking_back(command)
                self.lanes[command.lane].orders.append(command)
            case Look():
                self.lanes[command.lane].orders.append(command)
            case Kill() | EndStart() | EndStop() | StopWorker() | CloseLane():
                self._order(command)
        return False

    def _observe(self, event: Event) -> None:
        if event.kind == "pool_broken":
            self.check_broken()
        if event.key is not None:
            truth = self.truths[number_of(event)]
            truth.events.append(event)
            truth.lost += event.kind == "lost"
            self.check_limit(event, truth)

    def _order(self, command: Kill | EndStart | EndStop | StopWorker | CloseLane) -> None:
        if isinstance(command, Kill):
            self.law_2_a_kill_names_the_head(command)
        if isinstance(command, StopWorker):
            self.check_stop(command)
            self.ending.add(command.lane)
            self.swollen.discard(command.lane)
        self.lanes[command.lane].orders.append(command)

    def _start(self, command: StartWorker) -> None:
        self.lanes.setdefault(command.lane, FakeLane(command.lane, lambda: self.now)).orders.append(command)
        self.check_start(command)
        assert command.lane not in self.up, "a worker was ordered for a lane that has one"
        alive = [number for number, lane in self.lanes.items() if not (lane.abandoned or lane.closed)]
        assert len(alive) <= self.limits.lanes, f"too many lanes: {alive}"

    def _send(self, send: Send) -> bool:
        truth = self.truths[send.number]
        self.law_2_nothing_is_repeated_unless_it_was_charged(truth, send)
        self.law_4_dead_before_replaced(send)
        self.check_admission(send)
        held = self.held.setdefault(send.lane, [])
        held.append((send.number, send.attempt))
        assert send.lane in self.up - self.ending, f"{send} to a lane without a worker, or with one that ends"
        assert len(held) <= self.limits.depth, f"{send} to a lane that is full"
        if truth.cancelled:
            held.remove((send.number, send.attempt))
            return True
        self.lanes[send.lane].orders.append(send)
        return False

    def _abandon(self, command: Abandon) -> None:
        """What the shell does from outside: whatever the lane holds is killed."""
        lane = self.lanes[command.lane]
        self.failed_starts += command.lane not in self.up and not lane.closing
        lane.abandoned = True
        lane.worker, lane.calls, lane.running = "none", [], False
        self._let_go(command.lane)

    def _settle(self, settle: Settle) -> None:
        assert settle.number in self.truths, f"law 1: {settle.number} settled twice"
        truth = self.truths.pop(settle.number)
        held = any(call[0] == settle.number for calls in self.held.values() for call in calls)
        cancelled = isinstance(self.stimulus, CancelAsked) and self.stimulus.number == settle.number
        assert cancelled or not held, f"law 1: {settle.number} settled while a lane held it"
        assert settle.attempts == truth.begun, f"{settle} after {truth.begun} attempts had begun"
        assert list(settle.story) == truth.events, f"law 8: the story of {settle.number} is not what was told"
        self.ended[settle.story[-1].detail["how"]] += 1

    def _finish(self) -> None:
        self.finished += 1
        assert self.finished == 1, "law 1: Finish came twice"
        assert not self.truths, f"law 1: Finish came while {list(self.truths)} had not settled"
        open_lanes = [number for number, lane in self.lanes.items() if not (lane.closed or lane.abandoned)]
        assert not open_lanes, f"law 7: Finish came while the lanes {open_lanes} were open"

    # -- the end of the game -----------------------------------------------------------------------------------------

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

    def replay(self) -> None:
        self.over = True
        self.law_9_the_same_stimuli_give_the_same_commands()
        self.a_core_that_tells_nothing_decides_and_remembers_the_same()
