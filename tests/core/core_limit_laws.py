"""The laws about limits and memory, as checks on what the core was told and on what it ordered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core_facts import Facts, number_of

from resilient_exec.core.messages import (
    AttemptEnded,
    Command,
    Kill,
    MachineMemory,
    RaiseSoftTimeout,
    Send,
    Settle,
    Stalled,
    StartWorker,
    StopWorker,
    WorkerGone,
)
from resilient_exec.model.errors import SoftTimeout
from resilient_exec.model.events import Event
from resilient_exec.model.memory_level import MemoryLevel
from resilient_exec.model.task import Raised, Returned

if TYPE_CHECKING:
    from core_facts import Truth


class LimitLaws(Facts):
    """The checks."""

    # -- limits ------------------------------------------------------------------------------------------------------

    def check_soft_timeout(self, order: RaiseSoftTimeout) -> None:
        truth, attempt = self.truths[order.number], order.attempt
        assert self.held[order.lane][:1] == [(order.number, attempt)], f"{order} strikes another"
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
        if event.kind == "doomed" and event.detail["why"] == "memory_limit":
            assert truth.task.memory_limit is not None, f"{event} without a limit"
            assert event.attempt in truth.swollen, f"{event}, and nobody had said so"
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
        outcome, story = word.outcome, [e for e in commands if isinstance(e, Event) and number_of(e) == word.number]
        kinds = (outcome.kind, "timed_out", "out_of_memory", "evicted", "killed")
        (end,) = [e for e in story if e.kind in kinds]
        if not isinstance(outcome, Returned):
            assert end.evidence == outcome.evidence, f"the evidence of {word} was lost: {end}"
        if isinstance(outcome, Raised) and isinstance(outcome.exception, SoftTimeout):
            soft = truth.warned == word.attempt
            assert end.kind == ("timed_out" if soft else "raised"), f"{word} became {end}"
            for settle in commands:
                if soft and isinstance(settle, Settle) and settle.number == word.number:
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
        assert send.lane not in self.swollen, f"{send} to a worker that is unfit"

    def check_start(self, order: StartWorker) -> None:
        if self.level is not MemoryLevel.OK:
            assert not any(self.held.values()), f"memory is {self.level}: {order} beside {self.held}"
            assert self.core._lanes.starting <= 1, f"memory is {self.level}: {order}, and another is starting"

    def check_swollen(self, word: AttemptEnded) -> None:
        most = self.limits.max_memory_per_worker
        shaken = self.truths[word.number].warned == word.attempt
        if (shaken or (most is not None and word.memory > most)) and not self.held[word.lane]:
            self.swollen.add(word.lane)

    def no_swollen_worker_is_kept(self) -> None:
        assert not self.swollen, f"the workers of {self.swollen} hold too much, and were not told to end"

    def check_eviction(self, commands: list[Command]) -> None:
        """The youngest goes, when the memory is said to be critical: never the only one, and one at a time."""
        if not isinstance(self.stimulus, MachineMemory):
            return
        told = [c.kind for c in commands if isinstance(c, Event) and c.kind.startswith("memory_")]
        assert told == ([f"memory_{self.level}"] if self.level_changed else []), f"{self.stimulus} is told as {told}"
        ordered = [(c.number, c.attempt) for c in commands if isinstance(c, Kill)]
        heads = [calls[0] for calls in self.held.values() if calls]
        doomed = {(number_of(e), e.attempt) for t in self.truths.values() for e in t.events if e.kind == "doomed"}
        running = [(k, n) for k, n in heads if self.truths[k].begun == n and (k, n) not in doomed - set(ordered)]
        if self.level is MemoryLevel.CRITICAL and len(running) == len(heads) > 1:
            assert len(ordered) == 1, f"{ordered} are evicted of {running}"
            youngest = max(self.truths[k].begun_at for k, _ in running)
            assert self.truths[ordered[0][0]].begun_at == youngest, f"{ordered} is not the youngest of {running}"
        else:
            assert not ordered, f"memory is {self.level}: {ordered} is evicted of {heads}, of which {running} run"

    def an_evicted_task_is_queued_again(self, commands: list[Command]) -> None:
        settled = {c.number: c.story for c in commands if isinstance(c, Settle)}
        for event in commands:
            if not isinstance(event, Event) or event.kind != "evicted" or self.no_retries or self.core.broken:
                continue
            times = sum(e.kind == "evicted" for e in settled.get(number_of(event), ()))
            assert number_of(event) not in settled or times == self.limits.uncharged, f"{event} was the end of the task"
