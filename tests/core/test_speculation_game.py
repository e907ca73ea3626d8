"""Speculation against everything at once: two attempts of a task, deaths, kills, limits, memory, stops in any order.

Hypothesis plays with lanes that lie in wait (``fake_lane``); what is true in them is compared with what the core says.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from fake_lane import FakeLane
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from resilient_exec.core.machine import Core
from resilient_exec.core.messages import (
    Abandon,
    Command,
    Finish,
    KillAsked,
    Lagged,
    MachineMemory,
    ResultsDiffer,
    Send,
    Settle,
    ShutdownAsked,
    StartWorker,
    Stimulus,
    Submitted,
    TimePassed,
)
from resilient_exec.core.states import Limits, State
from resilient_exec.model.events import Event
from resilient_exec.model.memory_level import MemoryLevel
from resilient_exec.model.packed import Packed
from resilient_exec.model.task import Raised, Returned, Task

if TYPE_CHECKING:
    from resilient_exec.model.ports import Failure

KEYS = "abc"
FATES = ("returns", "returns", "raises", "hangs", "dies", "dies mute")
some = st.integers(0, 11)


class Policy:
    """Grants one more attempt for each delay; each attempt that is charged is one failure."""

    asks_user = False

    def __init__(self, delays: tuple[float, ...]) -> None:
        self.delays = delays

    def next_delay(self, failure: Failure) -> float | None:
        failures = sum(failure.counts.values())
        assert failures == failure.attempts, f"an attempt that its twin has outlived is charged: {failure}"
        return self.delays[failures - 1] if failures <= len(self.delays) else None


class Game(RuleBasedStateMachine):
    @initialize(
        lanes=st.integers(2, 5),
        most=st.sampled_from([None, None, 1, 3]),
        uncharged=st.integers(1, 3),
    )
    def begin(self, lanes: int, most: int | None, uncharged: int) -> None:
        self.now = 0.0
        self.limits = Limits(
            lanes,
            2,
            most,
            uncharged=uncharged,
            straggler_peers=1,
            straggler_floor=0.5,
            straggler_factor=1.0,
            kill_timeout=3.0,
        )
        self.core = Core(self.limits)
        self.lanes: dict[int, FakeLane] = {}
        self.tasks: dict[str, Task] = {}
        self.settled: dict[str, Settle] = {}
        self.is_finished = self.is_closing = False
        self.history: list[tuple[Stimulus, float, list[Any]]] = []
        self.submitted = 0
        self.submits(0, speculate=True, delays=(), timeout=None, soft=None)
        for _ in range(9):
            self.all_lanes_live(1, "returns")  # so it is known how long one takes
        assert not self.tasks

    # -- the shell -----------------------------------------------------------------------------------------------------

    def tell(self, stimulus: Stimulus) -> None:
        commands = self.core.handle(stimulus, self.now)
        self.history.append((stimulus, self.now, list(commands)))
        for command in commands:
            self.perform(command)
        if any(isinstance(one, Event) and one.kind == "speculated" for one in commands):
            assert not self.core.counts[State.QUEUED], f"a twin was sent while others wait: {commands}"

    def perform(self, command: Command) -> None:
        match command:
            case Event(kind="speculated"):
                assert self.tasks[command.key].speculate, f"{command} of a task that may not run twice"
            case Settle():
                self.settle(command)
            case Abandon():
                lane = self.lanes[command.lane]
                lane.abandoned, lane.calls, lane.running, lane.worker = True, [], False, "none"
            case Finish():
                self.is_finished = True
            case StartWorker():
                self.lanes.setdefault(command.lane, FakeLane(command.lane, lambda: self.now)).orders.append(command)
            case Event() | ResultsDiffer():
                pass
            case _:
                if isinstance(command, Send):
                    assert not self.holders(command.number) - {command.lane} or self.tasks[command.number].speculate
                self.lanes[command.lane].orders.append(command)

    def settle(self, command: Settle) -> None:
        key = command.number
        assert key in self.tasks, f"{key} settled twice"
        task = self.tasks.pop(key)
        assert not self.holders(key), f"{key} settled while an attempt of it runs"
        begun = [event.attempt for event in command.story if event.kind == "begun"]
        assert len(begun) == len(set(begun)) == command.attempts, f"{command}: {begun} have begun"
        assert task.speculate or not any(event.kind in ("speculated", "outrun") for event in command.story)
        evicted = sum(event.kind == "evicted" for event in command.story)
        granted = 1 + len(task.retry.delays) + evicted
        assert len(begun) <= (2 if task.speculate else 1) * granted, f"{key} began {len(begun)} times"
        self.check_winner(command)

    def check_winner(self, command: Settle) -> None:
        """What came back first is kept, whatever became of the other."""
        kinds = [event.kind for event in command.story]
        last = len(kinds) - 1 - kinds[::-1].index("backing_off") if "backing_off" in kinds else 0
        came = [event for event in command.story[last:] if event.kind in ("returned", "raised")]
        if came:
            assert isinstance(command.outcome, Returned if came[0].kind == "returned" else Raised), f"{came}: {command}"
        if came and isinstance(command.outcome, Returned):
            value = command.outcome.value
            assert value.data == f"{command.number}#{came[0].attempt}".encode(), f"{came}, and {value.data!r} was kept"

    def holders(self, key: Any) -> set[int]:
        """Lanes whose worker holds an attempt of that task."""
        return {n for n, lane in self.lanes.items() if any(call[0] == key for call in lane.calls)}

    def alive(self) -> list[FakeLane]:
        return [lane for lane in self.lanes.values() if not (lane.abandoned or lane.closed)]

    # -- moves ---------------------------------------------------------------------------------------------------------

    @rule(
        who=some,
        speculate=st.sampled_from([True, True, True, False]),
        delays=st.sampled_from([(), (0.0,), (1.0, 0.0)]),
        timeout=st.sampled_from([None, None, 1.0, 2.0]),
        soft=st.sampled_from([None, None, 0.8]),
    )
    def submits(
        self, who: int, speculate: bool, delays: tuple[float, ...], timeout: float | None, soft: float | None
    ) -> None:
        free = [key for key in KEYS if key not in self.tasks]
        if free and not self.is_closing:
            key = free[who % len(free)]
            limits = {"soft_timeout": soft, "speculate": speculate, "timed": speculate}
            self.tasks[key] = Task(key, Policy(delays), timeout, key=key, label="f", **limits)
            self.submitted += 1
            self.tell(Submitted(self.tasks[key]))

    @rule(seconds=st.sampled_from([0.0, 0.3, 0.6, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(TimePassed())

    @rule()
    def time_passes_until_due(self) -> None:
        self.now = max(self.now, self.core.next_due() or 0.0)
        self.tell(TimePassed())

    @precondition(lambda self: self.alive())
    @rule(who=some, steps=st.integers(1, 6), fate=st.sampled_from(FATES), hear=st.booleans())
    def a_lane_lives(self, who: int, steps: int, fate: str, hear: bool) -> None:
        lanes = self.alive()
        self.live(lanes[who % len(lanes)], steps, fate, hear=hear)

    @precondition(lambda self: self.alive())
    @rule(steps=st.integers(1, 6), fate=st.sampled_from(["hangs", "hangs", "returns"]))
    def all_lanes_live(self, steps: int, fate: str) -> None:
        for lane in self.alive():
            self.live(lane, steps, fate)

    @precondition(lambda self: not self.is_closing)
    @rule(
        who=some,
        begins=st.sampled_from([True, True, False]),
        then=st.sampled_from(["waits", "returns", "returns", "raises", "dies", "dies", "evicted"]),
        of=st.sampled_from(["the first", "the twin", "both"]),
        heard=st.booleans(),
    )
    def one_takes_too_long(self, who: int, begins: bool, then: str, of: str, heard: bool) -> None:
        """All return but one; that gets its twin, which ``begins`` or does not; ``then``: what becomes of these."""
        self.tell(MachineMemory(MemoryLevel.OK, 5))
        self.submits(who, speculate=True, delays=(0.0,) * (who % 3), timeout=(None, 1.5)[who % 2], soft=None)
        keys = [key for key, task in self.tasks.items() if task.speculate]
        if not keys:
            return
        key = keys[who % len(keys)]
        for _ in range(4):
            for lane in self.alive():
                is_it = lane.calls and lane.calls[0][0] == key
                self.live(lane, 3, "hangs" if is_it else "returns")
        self.time_passes(0.6)
        for _ in range(3):
            for lane in self.alive():
                if lane.orders or lane.worker == "starting" or (begins and not lane.running):
                    self.live(lane, len(lane.orders) or 1, "hangs")
        first, *twin = sorted(self.holders(key), key=lambda n: (not self.lanes[n].running, self.lanes[n].began_at)) or [
            -1
        ]
        chosen = {"the first": [first], "the twin": twin, "both": [first, *twin]}[of]
        if then == "evicted":
            self.tell(MachineMemory(MemoryLevel.CRITICAL, 5))
        elif then != "waits" and first >= 0:
            for number in chosen:
                self.live(self.lanes[number], 1, then, hear=heard)

    def live(self, lane: FakeLane, steps: int, fate: str, *, hear: bool = True) -> None:
        for _ in range(steps):
            if lane.abandoned or lane.closed:
                break
            if lane.running and fate in ("returns", "dies mute") and not lane.orders and not lane.closing:
                number, attempt = lane.calls[0]
                lane.end(Returned(Packed(f"{number}#{attempt}".encode(), bytes)))
            else:
                lane.step(fate)
            while hear and lane.words:
                self.tell(lane.words.popleft())

    @precondition(lambda self: any(lane.words for lane in self.lanes.values()))
    @rule(who=some)
    def a_word_arrives(self, who: int) -> None:
        lanes = [lane for lane in self.lanes.values() if lane.words]
        self.tell(lanes[who % len(lanes)].words.popleft())

    @precondition(lambda self: self.tasks)
    @rule(who=some, really=st.sampled_from([False, False, True]))
    def kills(self, who: int, really: bool) -> None:
        if really:
            keys = list(self.tasks)
            self.tell(KillAsked(keys[who % len(keys)]))
            assert all(
                record.state is State.DOOMED
                for lane in self.core._lanes
                for record in lane.holds
                if record.task.number == keys[who % len(keys)]
            ), "a kill has spared one of two attempts"

    @rule(level=st.sampled_from([MemoryLevel.OK, MemoryLevel.OK, MemoryLevel.LOW, MemoryLevel.CRITICAL]))
    def the_machine_tells_of_its_memory(self, level: MemoryLevel) -> None:
        self.tell(MachineMemory(level, 5))

    @rule(seconds=st.sampled_from([0.5, 5.0]), stopped=st.booleans())
    def this_process_was_stopped(self, seconds: float, stopped: bool) -> None:
        self.now += seconds
        self.tell(Lagged(seconds, stopped))

    @precondition(lambda self: self.submitted > 12)
    @rule(how=st.sampled_from([(False, False), (True, False), (False, True)]), really=st.sampled_from([False, True]))
    def shuts_down(self, how: tuple[bool, bool], really: bool) -> None:
        if really:
            self.is_closing = True
            self.tell(ShutdownAsked(*how))

    # -- laws ----------------------------------------------------------------------------------------------------------

    @invariant()
    def at_most_two_attempts_at_once(self) -> None:
        if not hasattr(self, "core"):
            return
        believed = Counter(record.task.number for lane in self.core._lanes for record in lane.holds)
        for key, task in self.tasks.items():
            most = 2 if task.speculate else 1
            assert len(self.holders(key)) <= most, f"{key} runs {len(self.holders(key))} times"
            assert believed[key] <= most, f"{key} is held {believed[key]} times"
        assert set(believed) <= set(self.tasks), "an attempt of a task that has settled runs"
        assert self.core._pairs == sum(number == 2 for number in believed.values())

    @invariant()
    def each_task_is_in_one_place_and_is_counted_once(self) -> None:
        if not hasattr(self, "core"):
            return
        core = self.core
        assert set(core.unsettled()) == set(self.tasks)
        held = [record for lane in core._lanes for record in lane.holds]
        for record in core._records.values():
            places = sum(record is one for one in held) + sum(
                record is one for one in core._backlog if one.state is State.QUEUED
            )
            assert places == (record.state is not State.BACKING_OFF), f"{record.task.number} is in {places} places"
            assert record.twins is None or record in record.twins.live
        twins = [record for record in held if core._records[record.task.number] is not record]
        states = Counter(record.state for record in [*core._records.values(), *twins])
        assert {state: number for state, number in core.counts.items() if number} == dict(states)
        counted = core.counted()
        assert sum(counted.values()) == len(self.tasks), f"{counted} of {len(self.tasks)}"
        watched = [*core._late.values(), *(one for peers in core._peers.values() for one in peers.running.values())]
        assert all(any(record is one for one in held) for record in watched), "what has ended is still watched"

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        self.drain()
        twin = Core(self.limits)
        for stimulus, now, commands in self.history:
            assert len(twin.handle(stimulus, now)) == len(commands), f"law 9: {stimulus}"

    def drain(self) -> None:
        """From here on everybody means well."""
        self.tell(MachineMemory(MemoryLevel.OK, 5))
        self.tell(ShutdownAsked())
        for _ in range(3000):
            moved = False
            for lane in list(self.lanes.values()):
                before = len(self.history)
                moved |= bool(lane.orders) and not (lane.abandoned or lane.closed)
                self.live(lane, 1, "returns")
                moved |= len(self.history) > before
            if self.is_finished:
                assert not self.tasks
                return
            if not moved:
                due = self.core.next_due()
                self.now = max(self.now, due if due is not None else self.now)
                self.tell(TimePassed())
        raise AssertionError(f"no end in sight: {list(self.tasks)}")


COMMON = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))


def test_two_attempts_at_once_obey_the_laws_in_any_order() -> None:
    run_state_machine_as_test(
        Game, settings=settings(COMMON, max_examples=200, stateful_step_count=50, derandomize=True)
    )
