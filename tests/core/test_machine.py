"""The core against everything at once: submissions, lanes, deaths, kills, clocks and shutdowns in any order.

Hypothesis plays; ``core_model`` keeps the truth and checks the laws after each move, and at the end shuts the pool
down with everybody meaning well: then every task must have settled exactly once, and ``Finish`` must have come.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from core_model import Shell
from fake_lane import EVIDENCE, GHOSTLY, LATE, MARK, FakeLane, ghost_word
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from resilient_exec.core.messages import (
    AttemptEnded,
    Begun,
    CancelAsked,
    Kill,
    KillAsked,
    MachineMemory,
    MemoryExceeded,
    Progress,
    Send,
    ShutdownAsked,
    Stalled,
    TakenBack,
    TimePassed,
    WorkerGone,
)
from resilient_exec.core.states import LaneState, Limits, State
from resilient_exec.model.errors import SoftTimeout
from resilient_exec.model.memory_level import MemoryLevel
from resilient_exec.model.task import NotSent, Raised, Returned

KEYS = tuple("abcdefgh")
FATES = ("returns", "grows", "raises", "hangs", "stalls", "dies", "dies mute")
some = st.integers(0, 11)


def pick(things: list[Any], number: int) -> Any:
    return things[number % len(things)]


class Game(RuleBasedStateMachine):
    shell: Shell

    @initialize(
        lanes=st.integers(1, 3),
        depth=st.sampled_from([1, 2, 2, 3]),
        most=st.sampled_from([None, None, 1, 2]),
        stall=st.sampled_from([2.0, 6.0]),
        kill=st.sampled_from([1.0, 4.0]),
        failures=st.sampled_from([1, 2, 3, 4]),
        uncharged=st.integers(1, 3),
        open_for=st.integers(0, 60),
        mark=st.sampled_from([None, MARK]),
        kill_stalled=st.booleans(),
    )
    def begin(
        self,
        lanes: int,
        depth: int,
        most: int | None,
        stall: float,
        kill: float,
        failures: int,
        uncharged: int,
        open_for: int,
        mark: int | None,
        kill_stalled: bool,
    ) -> None:
        limits = Limits(
            lanes, depth, most, 20.0, stall, kill, 3.0, failures, uncharged, 0.5, 2.0, mark, kill_stalled=kill_stalled
        )
        self.shell = Shell(limits)
        self.open_for = open_for

    def lanes(self, *workers: str) -> list[FakeLane]:
        """Lanes that live, with a worker in one of these states."""
        alive = (lane for lane in self.shell.lanes.values() if not (lane.abandoned or lane.closed))
        return [lane for lane in alive if not workers or lane.worker in workers]

    # -- the user --------------------------------------------------------------------------------------------------

    @rule(
        who=some,
        delays=st.sampled_from([(), (0.0,), (1.0, 0.0, 3.0), (2.0,) * 9]),
        timeout=st.sampled_from([None, 0.5, 1.0, 4.0]),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        broken=st.sampled_from([False] * 9 + [True]),
        soft=st.sampled_from([None, None, 0.5, 2.0]),
        limit=st.sampled_from([None, 5]),
    )
    def submits(
        self,
        who: int,
        delays: tuple[float, ...],
        timeout: float | None,
        priority: int,
        broken: bool,
        soft: float | None,
        limit: int | None,
    ) -> None:
        free = [key for key in KEYS if key not in self.shell.truths]
        if free:
            problem = NotSent("a lock") if broken else None
            limits = {"timeout": timeout, "soft_timeout": soft, "memory_limit": limit}
            self.shell.submit(pick(free, who), delays, problem, priority=priority, **limits)

    @rule(who=some, at_once=st.booleans(), really=st.booleans())
    def cancels(self, who: int, at_once: bool, really: bool) -> None:
        """A future can be cancelled until its task has begun: where it was sent, the register decides."""
        can_be = [t for t in self.shell.truths.values() if not t.begun and not t.cancelled and self.take_back(t)]
        if not really or not can_be:
            return
        truth = pick(can_be, who)
        truth.cancelled = True
        self.take_back(truth, really=True)
        if at_once:
            self.shell.tell(CancelAsked(truth.task.number))
        else:
            self.shell.cancels.append(truth.task.number)

    def take_back(self, truth: Any, *, really: bool = False) -> bool:
        """Whether none of the lanes has begun it; ``really``: from here on none will."""
        number = truth.task.number
        for lane in self.shell.lanes.values():
            if any(isinstance(word, AttemptEnded | WorkerGone) and word.number == number for word in lane.words):
                return False  # it has begun, and is over: that is on its way
            if really:
                unsent = [order for order in lane.orders if isinstance(order, Send) and order.number == number]
                for order in unsent:
                    lane.orders.remove(order)
            for place, call in enumerate(lane.calls):
                if call[0] == number:
                    if place == 0 and lane.running:
                        return False
                    if really:  # the worker will pass over it, and say so before it says anything of the next
                        lane.calls.remove(call)
                        lane.words.append(TakenBack(lane.number, ((*call, 1),)))
                    return True
        return True

    @precondition(lambda self: self.shell.cancels)
    @rule()
    def the_word_of_a_cancel_arrives(self) -> None:
        self.shell.tell(CancelAsked(self.shell.cancels.pop(0)))

    @precondition(lambda self: self.shell.truths)
    @rule(who=some, really=st.booleans())
    def kills(self, who: int, really: bool) -> None:
        if really:  # not too often, or nothing else would ever happen
            self.shell.tell(KillAsked(pick(list(self.shell.truths), who), "the user"))

    @precondition(lambda self: len(self.shell.history) > self.open_for and self.shell.shutdowns < 2)
    @rule(how=st.sampled_from([(False, False), (True, False), (False, True), (True, True)]))
    def shuts_down(self, how: tuple[bool, bool]) -> None:
        self.shell.tell(ShutdownAsked(*how))

    # -- the clock -------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.shell.now += seconds
        self.shell.tell(TimePassed())

    @rule()
    def time_passes_until_due(self) -> None:
        self.pass_until_due()

    def pass_until_due(self) -> None:
        self.shell.now = max(self.shell.now, self.shell.core.next_due() or 0.0)
        self.shell.tell(TimePassed())

    # -- the machine -----------------------------------------------------------------------------------------------

    @rule(level=st.sampled_from([MemoryLevel.OK, MemoryLevel.OK, MemoryLevel.LOW, MemoryLevel.CRITICAL]))
    def the_machine_tells_of_its_memory(self, level: MemoryLevel) -> None:
        self.shell.tell(MachineMemory(level, 5))

    @precondition(lambda self: self.shell.limits.lanes > 1 and not self.shell.shutdowns)
    @rule(
        times=st.integers(1, 4),
        then=st.sampled_from(["hangs", "hangs", "returns", "raises", "killed", "cancel", "waits", "waits"]),
        again=st.booleans(),
    )
    def memory_runs_out_while_all_are_at_work(self, times: int, then: str, again: bool) -> None:
        """``then``: what comes between the order and the eviction; ``again``: memory comes back, and runs out again."""
        self.shell.tell(MachineMemory(MemoryLevel.OK, 5))
        self.all_set_to_work()
        for _ in range(times):
            self.shell.tell(MachineMemory(MemoryLevel.CRITICAL, 5))
            for lane in self.racing():
                self.evicted(lane, then)
            if again:
                self.shell.tell(MachineMemory(MemoryLevel.OK, 5))
                self.pass_until_due()
                self.all_set_to_work()

    def evicted(self, lane: FakeLane, then: str) -> None:
        if then == "cancel" and not self.shell.shutdowns:
            self.shell.tell(ShutdownAsked(cancel=True))
        elif then == "killed" and lane.calls[0][0] in self.shell.truths:
            self.shell.tell(KillAsked(lane.calls[0][0], "the user"))
        elif then in ("returns", "raises") and lane.running:
            problem = Raised(ValueError(), EVIDENCE)
            lane.end(Returned(len(self.shell.history)) if then == "returns" else problem)
        if then != "waits":
            self.live(lane, len(lane.orders), "hangs")

    def all_set_to_work(self, *, few: bool = False) -> None:
        """Each lane has something to do (or ``few``), and nothing is on its way any more."""
        for _ in range(0 if few else self.shell.limits.lanes - len(self.shell.truths)):
            self.submits(0, delays=(1.0,), timeout=None, priority=0, broken=False, soft=None, limit=None)
        for _ in range(3):
            for lane in self.lanes():
                self.live(lane, 3, "hangs")

    # -- the lanes -------------------------------------------------------------------------------------------------

    @precondition(lambda self: any(lane.orders for lane in self.lanes()))
    @rule(who=some, all_of_them=st.booleans())
    def a_lane_obeys(self, who: int, all_of_them: bool) -> None:
        lane = pick([lane for lane in self.lanes() if lane.orders], who)
        for _ in range(len(lane.orders) if all_of_them else 1):
            lane.obey()

    @precondition(lambda self: any(lane.words for lane in self.shell.lanes.values()))
    @rule(who=some, all_of_them=st.booleans())
    def a_word_arrives(self, who: int, all_of_them: bool) -> None:
        """Also from a lane that was given up after it had said it."""
        lane = pick([lane for lane in self.shell.lanes.values() if lane.words], who)
        for _ in range(len(lane.words) if all_of_them else 1):
            self.hear(lane)

    def hear(self, lane: FakeLane) -> None:
        commands = self.shell.tell(lane.words.popleft())
        assert not (lane.abandoned and commands), f"a lane that was given up was heard: {commands}"

    @precondition(lambda self: self.lanes("starting"))
    @rule(who=some, well=st.sampled_from([True, True, True, False]))
    def a_start_ends(self, who: int, well: bool) -> None:
        pick(self.lanes("starting"), who).start(well=well)

    @precondition(lambda self: any(lane.calls for lane in self.lanes("up")))
    @rule(
        who=some,
        act=st.sampled_from(
            ["end", "end", "end", "raise", "raise", "die", "die mute", "progress", "begin", "begin", "begin mute"]
        ),
        memory=st.sampled_from([0, MARK, MARK + 1]),
    )
    def a_worker_works(self, who: int, act: str, memory: int) -> None:
        lane = pick([lane for lane in self.lanes("up") if lane.calls], who)
        if act.startswith("die"):
            lane.die(mute=act == "die mute")
        elif not lane.running:
            if act == "progress":
                lane.words.append(Progress(lane.number))
            else:
                lane.begin(mute=act == "begin mute")
        elif act in ("end", "raise"):
            problem = SoftTimeout() if lane.told or memory == MARK else ValueError()
            lane.end(Returned(len(self.shell.history)) if act == "end" else Raised(problem, EVIDENCE), memory)

    @precondition(lambda self: not self.shell.shutdowns)
    @rule(
        who=some,
        what=st.sampled_from(["it stalls", "it holds too much", "its soft timeout"]),
        then=st.sampled_from(["waits", "hangs", "hangs", "raises", "returns", "dies"]),
        limit=st.sampled_from([5, 5, 5, None]),
    )
    def a_limit_is_over(self, who: int, what: str, then: str, limit: int | None) -> None:
        """``then``: what becomes of it while the order that follows, if one does, is on its way."""
        delays = (1.0, 0.0, 3.0)
        self.submits(who, delays, timeout=4.0, priority=2, broken=False, soft=2.0, limit=limit)
        self.all_set_to_work(few=True)
        running = [lane for lane in self.lanes("up") if lane.running]
        if not running:
            return
        lane = pick(running, who)
        if what == "its soft timeout":
            self.pass_until_due()
        else:
            for _ in range(2):
                lane.stall() if what == "it stalls" else lane.swell(9)
        if then in ("returns", "raises", "dies"):
            self.live(lane, len(lane.orders) if what == "its soft timeout" else 0, then)
            lane.step(then)
        if then != "waits":
            self.live(lane, 3, "hangs")

    @precondition(lambda self: any(self.shell.held.values()))
    @rule(who=some, by=st.sampled_from(["the user", "the clock", "the clock"]))
    def an_attempt_is_to_end(self, who: int, by: str) -> None:
        held = [call for calls in self.shell.held.values() for call in calls]
        if by == "the user":
            self.shell.tell(KillAsked(pick(held, who)[0], by))
        else:
            self.pass_until_due()

    @precondition(lambda self: self.racing())
    @rule(who=some, act=st.sampled_from(["begin", "end", "end", "raise", "die", "be killed again"]))
    def something_is_quicker_than_a_kill(self, who: int, act: str) -> None:
        lane = pick(self.racing(), who)
        if act == "be killed again":
            if lane.calls[0][0] in self.shell.truths:
                self.shell.tell(KillAsked(lane.calls[0][0], "the user again"))
        elif act == "die":
            lane.die()
        elif not lane.running:
            lane.begin()
        elif act != "begin":
            lane.end(Returned(len(self.shell.history)) if act == "end" else Raised(ValueError()))

    def racing(self) -> list[FakeLane]:
        """Lanes in which a kill is on its way to an attempt that they hold."""
        return [
            lane for lane in self.lanes("up") if lane.calls and any(isinstance(order, Kill) for order in lane.orders)
        ]

    @precondition(lambda self: any(not lane.calls for lane in self.lanes("up", "stopping")))
    @rule(who=some)
    def an_idle_worker_ends(self, who: int) -> None:
        pick([lane for lane in self.lanes("up", "stopping") if not lane.calls], who).die()

    @precondition(lambda self: any(lane.closing and not lane.orders for lane in self.lanes()))
    @rule(who=some, tell=st.booleans())
    def a_lane_closes(self, who: int, tell: bool) -> None:
        pick([lane for lane in self.lanes() if lane.closing and not lane.orders], who).close(tell=tell)

    @precondition(lambda self: self.lanes())
    @rule(who=some, steps=st.integers(1, 8), fate=st.sampled_from(FATES))
    def a_lane_lives(self, who: int, steps: int, fate: str) -> None:
        self.live(pick(self.lanes(), who), steps, fate)

    @precondition(lambda self: self.lanes())
    @rule(steps=st.integers(1, 8), fate=st.sampled_from(FATES))
    def all_lanes_live(self, steps: int, fate: str) -> None:
        for lane in self.lanes():
            self.live(lane, steps, fate)

    def live(self, lane: FakeLane, steps: int, fate: str) -> None:
        """It obeys, works and is heard: the game gets somewhere."""
        for _ in range(steps):
            lane.step(fate)
            while lane.words:
                self.hear(lane)

    @precondition(lambda self: any(lane.abandoned for lane in self.shell.lanes.values()))
    @rule(who=some, kind=st.sampled_from(GHOSTLY), key=st.sampled_from(KEYS), attempt=st.integers(1, 3))
    def a_ghost_speaks(self, who: int, kind: type, key: str, attempt: int) -> None:
        lane = pick([lane for lane in self.shell.lanes.values() if lane.abandoned], who)
        lane.words.append(ghost_word(kind, lane.number, key, attempt))
        while lane.words:
            self.hear(lane)

    @precondition(lambda self: self.lanes())
    @rule(who=some, kind=st.sampled_from(LATE), attempt=st.integers(1, 3), key=st.sampled_from([None, None, *KEYS]))
    def a_late_word_arrives(self, who: int, kind: type, attempt: int, key: str | None) -> None:
        """About what its lane does not hold, or no longer; ``None``: about the task that the lane does hold."""
        lane = pick(self.lanes(), who)
        held = self.shell.held.get(lane.number, [])
        if key is None and held:
            key = held[0][0]
        word = ghost_word(kind, lane.number, key, attempt)
        if self.is_late(word, lane, held):
            assert self.shell.tell(word) == [], f"{word} was believed"

    def is_late(self, word: Any, lane: FakeLane, held: list[Any]) -> bool:
        match word:
            case WorkerGone():
                known = self.shell.core._lanes.get(lane.number)
                return known.state in (LaneState.DOWN, LaneState.STARTING)
            case AttemptEnded():
                begun = word.number in self.shell.truths and self.shell.truths[word.number].begun == word.attempt
                return (word.number, word.attempt) not in held or not begun
            case TakenBack():
                ((number, attempt, _),) = word.calls
                return (number, attempt) not in held or self.shell.truths[number].begun == attempt
            case Begun():
                return (word.number, word.attempt) not in held[:1] or self.shell.truths[
                    word.number
                ].begun == word.attempt
            case MemoryExceeded() | Stalled():
                record = self.shell.core._records.get(word.number)
                running = record is not None and record.state is State.RUNNING
                return (word.number, word.attempt) not in held[:1] or not running
        return True

    @precondition(lambda self: self.lanes())
    @rule(who=some, really=st.sampled_from([False, False, True]))
    def a_lane_ends_by_itself(self, who: int, really: bool) -> None:
        if really:
            pick(self.lanes(), who).close(tell=False)

    # -- after each move -------------------------------------------------------------------------------------------

    @invariant()
    def law_1(self) -> None:
        self.shell.law_1_each_unsettled_task_is_in_one_place_and_something_will_move_it()

    @invariant()
    def counts_are_consistent(self) -> None:
        self.shell.counts_are_consistent()

    @invariant()
    def workers_run_no_more_than_they_may(self) -> None:
        self.shell.workers_run_no_more_than_they_may()
        self.shell.no_swollen_worker_is_kept()

    def teardown(self) -> None:
        if not hasattr(self, "shell") or not self.shell.sound:
            return  # a check has failed: that is what is to be seen
        self.shell.drain()
        self.law_1()
        self.counts_are_consistent()
        assert self.shell.core.finished
        self.shell.replay()


# A game that went wrong is made as short as possible, which takes long: whoever only asks *whether* it does says no.
SHRINKS = os.environ.get("CORE_GAME_SHRINKS", "1") != "0"
COMMON = settings(
    database=None,
    deadline=None,
    phases=(Phase.generate, Phase.shrink) if SHRINKS else (Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


def test_the_laws_hold_in_any_order() -> None:
    """The same games each time, so that a red test stays red."""
    run_state_machine_as_test(
        Game, settings=settings(COMMON, max_examples=250, stateful_step_count=50, derandomize=True)
    )


@pytest.mark.slow
def test_the_laws_hold_in_any_order_for_long() -> None:
    """Other games each time."""
    run_state_machine_as_test(
        Game, settings=settings(COMMON, max_examples=4000, stateful_step_count=120, print_blob=True)
    )
