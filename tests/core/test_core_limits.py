"""Limits: soft timeouts, memory of an attempt and of a worker, stalls, and a machine that runs out of memory."""

from __future__ import annotations

import itertools

import pytest
from core_play import DIED, GIB, RAISED, VALUE, Grant, Play

from resilient_exec.admission import Admission, MemoryLevel
from resilient_exec.errors import SoftTimeout
from resilient_exec.events import Event
from resilient_exec.messages import Kill, MachineMemory, MemoryExceeded, RaiseSoftTimeout, Stalled
from resilient_exec.policies import RetryPolicy
from resilient_exec.states import State
from resilient_exec.task import NO_EVIDENCE, Died, Evicted, Evidence, Killed, OutOfMemory, Raised, TimedOut

SOFT = Raised(SoftTimeout("5 s are over"), Evidence(traceback="File x.py"))
STACKS = Evidence(stacks="File x.py")


def _event(p: Play, kind: str) -> Event:
    (event,) = [c for c in p.commands if isinstance(c, Event) and c.kind == kind]
    return event


# -- soft timeouts -----------------------------------------------------------------------------------------------------


def test_a_soft_timeout_is_raised_in_the_task_when_its_time_is_over_and_not_before() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0)
    assert p.after(4.9) == []
    p.now = 5.0
    assert p.after(0) == ["soft_timeout a#1", "RaiseSoftTimeout L0 a#1"]
    assert p.commands[1] == RaiseSoftTimeout(0, "a", 1)
    assert _event(p, "soft_timeout").detail == {"limit": 5.0}
    assert p.state("a") is State.RUNNING


def test_a_soft_timeout_is_counted_from_the_begin_and_not_from_the_sending() -> None:
    p = Play()
    p.sent("a", soft_timeout=5.0)
    p.after(3)
    p.begun("a")
    assert p.core.next_due() == 8.0


def test_a_soft_timeout_without_a_hard_one_is_raised_once_and_waits_for_ever() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0)
    p.after(5)
    assert p.core.next_due() is None
    assert p.after(1e6) == []
    assert p.ended("a")[-1] == "Settle a returned 1"


def test_the_hard_timeout_is_counted_from_the_begin_and_not_from_the_soft_one() -> None:
    p = Play()
    p.sent("a", soft_timeout=5.0, timeout=8.0)
    p.after(1)
    p.begun("a")
    assert p.after(5) == ["soft_timeout a#1", "RaiseSoftTimeout L0 a#1"]
    assert p.core.next_due() == 9.0
    assert p.after(2.9) == []
    p.now = 9.0
    assert p.after(0) == ["doomed a#1", "Kill L0 a#1"]
    assert p.died("a")[-1] == "Settle a timed_out 1"
    assert p.settled["a"].outcome == TimedOut(8.0, DIED.pid)


def test_a_hard_timeout_is_not_put_off_by_a_soft_one_whose_word_came_late() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0, timeout=8.0)
    assert p.after(20) == ["soft_timeout a#1", "RaiseSoftTimeout L0 a#1", "doomed a#1", "Kill L0 a#1"]


def test_a_hard_timeout_before_the_soft_one_strikes_at_its_own_time() -> None:
    p = Play()
    p.running("a", soft_timeout=8.0, timeout=5.0)
    assert p.after(5) == ["doomed a#1", "Kill L0 a#1"]


def test_a_soft_timeout_at_the_time_of_the_hard_one_is_not_raised() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0, timeout=5.0)
    assert p.after(5) == ["doomed a#1", "Kill L0 a#1"]


def test_without_a_soft_timeout_none_is_raised() -> None:
    p = Play()
    p.running("a", timeout=5.0)
    assert p.after(5) == ["doomed a#1", "Kill L0 a#1"]


def test_a_task_that_puts_itself_in_order_and_returns_after_its_soft_timeout_has_returned() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0, timeout=8.0)
    p.after(5)
    assert p.ended("a")[:3] == ["returned a#1", "settled a#1", "Settle a returned 1"]
    assert p.core.next_due() is None


def test_a_soft_timeout_that_leaves_the_task_is_a_timeout_whose_cause_it_is() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0)
    p.after(5)
    assert p.ended("a", outcome=SOFT)[:3] == ["timed_out a#1", "settled a#1", "Settle a timed_out 1"]
    outcome = p.settled["a"].outcome
    assert outcome == TimedOut(5.0, 4000, "soft_timeout", SOFT.exception)
    assert outcome.evidence is SOFT.evidence
    told = p.settled["a"].story[-2]
    assert (told.detail["what"], told.evidence) == ("soft_timeout", SOFT.evidence)


def test_a_soft_timeout_that_leaves_the_task_is_charged_to_the_timeouts() -> None:
    p = Play()
    policy = Grant(1.0)
    p.running("a", policy, soft_timeout=5.0)
    p.after(5)
    assert p.ended("a", outcome=SOFT) == ["timed_out a#1", "backing_off a#1"]
    assert policy.asked == [("timed_out", 1)]


def test_a_subclass_of_soft_timeout_counts_as_one() -> None:
    class Mine(SoftTimeout):
        pass

    p = Play()
    p.running("a", soft_timeout=5.0)
    p.after(5)
    assert p.ended("a", outcome=Raised(Mine("x")))[-1] == "Settle a timed_out 1"


def test_another_exception_after_a_soft_timeout_is_the_tasks_own() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0)
    p.after(5)
    assert p.ended("a", outcome=RAISED)[-1] == "Settle a raised 1"
    assert p.settled["a"].outcome is RAISED


def test_a_soft_timeout_out_of_a_task_that_has_none_is_its_own_exception() -> None:
    """It may come from a pool inside the task."""
    p = Play()
    p.running("a", timeout=9.0)
    assert p.ended("a", outcome=SOFT)[-1] == "Settle a raised 1"
    assert p.settled["a"].outcome is SOFT


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_soft_timeout_that_leaves_the_task_before_its_time_is_the_tasks_own_exception(attempt: int) -> None:
    p = Play()
    p.running("a", Grant(0.0), soft_timeout=5.0)
    if attempt == 2:
        p.after(5)
        p.ended("a", outcome=SOFT)
        p.after(0)
        p.begun("a", 2)
    p.after(4.9)
    assert p.ended("a", attempt, outcome=SOFT)[0] == f"raised a#{attempt}"


def test_a_second_attempt_gets_its_soft_timeout_anew() -> None:
    p = Play()
    p.running("a", Grant(1.0, 1.0), soft_timeout=5.0, timeout=8.0)
    for attempt in (1, 2, 3):
        assert p.after(5) == [f"soft_timeout a#{attempt}", f"RaiseSoftTimeout L0 a#{attempt}"]
        p.ended("a", attempt, outcome=SOFT)
        p.after(1)
        if attempt < 3:
            p.begun("a", attempt + 1)
            assert p.core.next_due() == p.now + 5
    assert p.settled["a"].attempts == 3


def test_a_soft_timeout_during_a_kill_is_not_raised() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0, timeout=8.0)
    p.kill("a")
    assert p.after(5) == []
    assert p.died("a")[-1] == "Settle a killed 1"


def test_a_soft_timeout_that_beats_the_kill_for_the_hard_one_stands() -> None:
    p = Play()
    p.running("a", Grant(1.0), soft_timeout=5.0, timeout=8.0)
    p.after(8)
    assert p.state("a") is State.DOOMED
    assert p.ended("a", outcome=SOFT)[:2] == ["timed_out a#1", "backing_off a#1"]
    (told,) = [event for event in p.core.story("a") if event.kind == "timed_out"]
    assert told.detail == {"pid": 4000, "limit": 5.0, "what": "soft_timeout"}


def test_a_death_after_the_soft_timeout_is_a_death() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0, timeout=8.0)
    p.after(5)
    assert p.died("a")[-1] == "Settle a died 1"


def test_a_begin_that_crosses_the_kill_of_the_frozen_has_its_whole_soft_timeout() -> None:
    p = Play()
    p.sent("a", soft_timeout=5.0, timeout=8.0)
    p.after(10)
    p.begun("a")
    assert p.core.next_due() == 15.0
    assert p.after(5) == ["soft_timeout a#1", "RaiseSoftTimeout L0 a#1"]


def test_one_that_begins_while_it_is_doomed_is_not_told_of_its_soft_timeout() -> None:
    p = Play(kill_timeout=50.0)
    p.sent("a", soft_timeout=5.0)
    p.kill("a")
    p.begun("a")
    assert p.after(10) == []


def test_the_soft_timeout_of_one_that_settled_in_time_does_not_strike_the_next() -> None:
    p = Play()
    p.running("a", soft_timeout=5.0)
    p.submit("b")
    p.ended("a")
    p.begun("b")
    assert p.after(100) == []


# -- the memory of an attempt ------------------------------------------------------------------------------------------


def _swollen(retry: object = Grant()) -> Play:
    """Lane 0 has been told to kill ``a``, which holds 2 GiB of the 1 GiB it may; ``b`` waits."""
    p = Play()
    p.running("a", retry, memory_limit=GIB)
    p.submit("b")
    assert p.swollen("a", used=2 * GIB) == ["doomed a#1", "Kill L0 a#1"]
    return p


def test_an_attempt_over_its_memory_limit_is_killed_and_says_how_much_it_held() -> None:
    p = _swollen()
    assert p.died("a")[:4] == ["lane_lost L0", "out_of_memory a#1", "settled a#1", "Settle a out_of_memory 1"]
    assert p.settled["a"].outcome == OutOfMemory(GIB, 2 * GIB, DIED.pid)
    assert p.settled["a"].story[-2].detail == {"pid": DIED.pid, "limit": GIB, "used": 2 * GIB}


def test_the_evidence_secured_at_the_kill_goes_with_the_outcome() -> None:
    p = _swollen()
    p.died("a", outcome=Died(-9, 77, evidence=STACKS))
    assert (p.settled["a"].outcome.pid, p.settled["a"].outcome.evidence) == (77, STACKS)
    assert p.settled["a"].story[-2].evidence == STACKS


def test_memory_is_charged_to_a_budget_of_its_own() -> None:
    policy = RetryPolicy(deaths=0, timeouts=0, memory=1)
    p = _swollen(policy)
    assert "backing_off a#1" in p.died("a")
    assert _event(p, "out_of_memory").attempt == 1


def test_the_second_attempt_over_its_memory_limit_finds_the_budget_empty() -> None:
    p = Play()
    p.running("a", RetryPolicy(memory=1), memory_limit=GIB)
    p.swollen("a")
    p.died("a")
    p.after(30)
    p.ready()
    p.begun("a", 2)
    assert p.swollen("a", 2) == ["doomed a#2", "Kill L0 a#2"]
    assert p.died("a", 2)[-1] == "Settle a out_of_memory 2"


def test_a_result_that_beats_the_kill_for_memory_is_kept_and_the_worker_goes_on() -> None:
    p = _swollen()
    assert p.ended("a") == ["returned a#1", "settled a#1", "Settle a returned 1", "sent b#1", "Send L0 b#1"]
    assert p.settled["a"].outcome is VALUE


def test_an_exception_that_beats_the_kill_for_memory_is_the_outcome() -> None:
    p = _swollen()
    assert p.ended("a", outcome=RAISED)[2] == "Settle a raised 1"


def test_a_word_about_memory_after_the_result_is_ignored() -> None:
    p = Play()
    p.running("a", memory_limit=GIB)
    p.submit("b", memory_limit=GIB)
    p.ended("a")
    p.begun("b")
    assert p.swollen("a") == []
    assert p.state("b") is State.RUNNING


def test_a_word_about_the_memory_of_the_attempt_before_does_not_strike_the_present_one() -> None:
    p = Play()
    p.running("a", Grant(0.0), memory_limit=GIB)
    p.ended("a", outcome=RAISED)
    p.after(0)
    p.begun("a", 2)
    assert p.swollen("a", 1) == []
    assert p.state("a") is State.RUNNING
    assert p.swollen("a", 2) == ["doomed a#2", "Kill L0 a#2"]


def test_a_word_about_memory_before_the_begin_is_ignored() -> None:
    p = Play()
    p.sent("a", memory_limit=GIB)
    assert p.swollen("a") == []
    assert p.state("a") is State.SENT


def test_a_word_about_the_memory_of_a_task_without_a_limit_is_ignored() -> None:
    p = Play()
    p.running("a")
    assert p.swollen("a") == []
    assert p.state("a") is State.RUNNING


def test_a_second_word_about_memory_orders_no_second_kill() -> None:
    p = _swollen()
    assert p.swollen("a", used=3 * GIB) == []
    p.died("a")
    assert p.settled["a"].outcome.used == 2 * GIB


def test_a_word_about_memory_during_the_kill_for_a_timeout_changes_nothing() -> None:
    p = Play()
    p.running("a", timeout=2.0, memory_limit=GIB)
    p.after(2)
    assert p.swollen("a") == []
    assert p.died("a")[-1] == "Settle a timed_out 1"


def test_a_timeout_during_the_kill_for_memory_changes_nothing() -> None:
    p = Play()
    p.running("a", timeout=2.0, soft_timeout=1.0, memory_limit=GIB)
    p.swollen("a")
    assert p.after(3) == []
    assert p.died("a")[-1] == "Settle a out_of_memory 1"


def test_the_users_kill_during_the_kill_for_memory_beats_the_retry() -> None:
    p = _swollen(Grant(1.0))
    assert p.kill("a", "the user") == []
    p.died("a")
    assert p.settled["a"].outcome == Killed("the user", DIED.pid)


def test_a_lane_that_does_not_answer_a_kill_for_memory_settles_as_out_of_memory() -> None:
    p = _swollen()
    p.after(10)
    assert p.settled["a"].outcome == OutOfMemory(GIB, 2 * GIB, 4000)


# -- stalls ------------------------------------------------------------------------------------------------------------


def test_a_stalled_attempt_is_reported_with_its_stacks_and_runs_on() -> None:
    p = Play()
    p.running("a", timeout=100.0)
    assert p.stalled("a", idle=60.0, evidence=STACKS) == ["stalled a#1"]
    assert (_event(p, "stalled").detail, _event(p, "stalled").evidence) == ({"idle": 60.0}, STACKS)
    assert p.state("a") is State.RUNNING
    assert p.core.next_due() == 100.0
    assert p.ended("a")[-1] == "Settle a returned 1"


def test_a_stall_is_reported_as_often_as_it_is_told() -> None:
    p = Play()
    p.running("a")
    assert p.stalled("a", idle=60.0) == p.stalled("a", idle=120.0) == ["stalled a#1"]


def test_a_stalled_attempt_is_killed_where_that_is_wanted_and_counts_as_a_timeout() -> None:
    p = Play(kill_stalled=True)
    policy = Grant(1.0)
    p.running("a", policy)
    assert p.stalled("a", idle=60.0, evidence=STACKS) == ["stalled a#1", "doomed a#1", "Kill L0 a#1"]
    assert p.died("a") == ["lane_lost L0", "timed_out a#1", "backing_off a#1"]
    assert policy.asked == [("timed_out", 1)]
    assert _event(p, "timed_out").detail == {"pid": DIED.pid, "limit": 60.0, "what": "stall_timeout"}


def test_a_result_that_beats_the_kill_of_the_stalled_is_kept() -> None:
    p = Play(kill_stalled=True)
    p.running("a")
    p.stalled("a")
    assert p.ended("a")[-1] == "Settle a returned 1"


@pytest.mark.parametrize("kill_stalled", [False, True])
def test_a_late_word_about_a_stall_is_ignored(kill_stalled: bool) -> None:
    p = Play(kill_stalled=kill_stalled)
    p.sent("a", Grant(0.0))
    assert p.stalled("a") == []  # not begun
    p.begun("a")
    p.ended("a", outcome=RAISED)
    p.after(0)
    p.begun("a", 2)
    assert p.stalled("a", 1) == []  # the attempt before
    p.kill("a")
    assert p.stalled("a", 2) == []  # doomed
    p.died("a", 2)
    assert p.stalled("a", 2) == []  # settled


# -- late words about lanes and tasks that are none --------------------------------------------------------------------


@pytest.mark.parametrize("lane", [0, 1, 7])
@pytest.mark.parametrize("key", ["a", "b", "nobody"])
@pytest.mark.parametrize("attempt", [0, 1, 2, 3])
def test_a_word_about_a_limit_strikes_only_the_attempt_that_it_names(lane: int, key: str, attempt: int) -> None:
    p = Play(lanes=2, kill_stalled=True)
    p.running("a", Grant(0.0), memory_limit=GIB, timeout=100.0)
    p.ended("a", outcome=RAISED)
    p.after(0)
    p.begun("a", 2)
    before = (p.state("a"), p.core.next_due(), p.core.lanes(p.now))
    if (lane, key, attempt) == (0, "a", 2):
        assert p.swollen(key, attempt, lane)
        return
    assert p.tell(MemoryExceeded(lane, key, attempt, 2 * GIB)) == []
    assert p.tell(Stalled(lane, key, attempt, 9.0, NO_EVIDENCE)) == []
    assert (p.state("a"), p.core.next_due(), p.core.lanes(p.now)) == before


# -- the memory of a worker --------------------------------------------------------------------------------------------


def test_a_worker_that_holds_too_much_between_two_attempts_is_replaced() -> None:
    p = Play(max_memory_per_worker=GIB)
    p.running("a")
    p.submit("b")
    assert p.ended("a", memory=GIB + 1) == [
        "returned a#1",
        "settled a#1",
        "Settle a returned 1",
        "lane_stopping L0",
        "StopWorker L0",
    ]
    assert p.gone() == ["lane_lost L0", "lane_starting L0", "StartWorker L0"]
    assert p.ready() == ["lane_ready L0", "sent b#1", "Send L0 b#1"]


def test_a_worker_at_its_mark_is_kept() -> None:
    p = Play(max_memory_per_worker=GIB)
    p.running("a")
    p.submit("b")
    assert p.ended("a", memory=GIB)[-1] == "Send L0 b#1"


def test_without_a_mark_a_worker_may_hold_what_it_will() -> None:
    p = Play()
    p.running("a")
    p.submit("b")
    assert p.ended("a", memory=2**60)[-1] == "Send L0 b#1"


def test_what_a_dead_worker_held_is_not_counted_against_the_next_one() -> None:
    p = Play(max_memory_per_worker=GIB)
    p.running("a")
    p.ended("a", memory=2 * GIB)
    p.gone()
    p.submit("b")
    assert p.ready()[-1] == "Send L0 b#1"


def test_an_attempt_that_failed_leaves_its_memory_too() -> None:
    p = Play(max_memory_per_worker=GIB)
    p.running("a")
    assert p.ended("a", outcome=RAISED, memory=2 * GIB)[-1] == "StopWorker L0"


def test_a_worker_that_holds_too_much_is_sent_nothing_more_ahead() -> None:
    p = Play(depth=2, max_memory_per_worker=GIB)
    for key in "abc":
        p.submit(key)
    p.ready()
    p.begun("a")
    assert p.ended("a", memory=2 * GIB) == ["returned a#1", "settled a#1", "Settle a returned 1"]
    p.begun("b")
    assert p.ended("b", memory=2 * GIB)[-1] == "StopWorker L0"


def test_a_late_end_does_not_say_what_the_worker_holds() -> None:
    p = Play(max_memory_per_worker=GIB)
    p.running("a")
    p.submit("b")
    p.ended("a")
    p.ended("a", memory=2 * GIB)
    p.begun("b")
    p.submit("c")
    assert p.ended("b")[-1] == "Send L0 c#1"


# -- the machine's memory: what is told --------------------------------------------------------------------------------


def test_a_change_of_the_level_is_told_once() -> None:
    p = Play()
    assert p.memory("ok") == []
    assert p.memory("low", 5) == ["memory_low"]
    assert p.commands[0].detail == {"available": 5}
    assert p.memory("low", 4) == []
    assert p.memory("critical") == ["memory_critical"]
    assert p.memory("critical") == []
    assert p.memory("ok") == ["memory_ok"]


# -- the machine's memory: holding back --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["low", "critical"])
def test_while_memory_is_not_ok_no_attempt_is_sent_beside_another(level: str) -> None:
    p = Play(lanes=2)
    p.running("a")
    p.submit("b")
    assert p.memory(level) == [f"memory_{level}"]
    assert p.ready(1) == ["lane_ready L1"]
    p.submit("c")
    assert [p.state(key) for key in "abc"] == [State.RUNNING, State.QUEUED, State.QUEUED]


@pytest.mark.parametrize("level", ["low", "critical"])
def test_while_memory_is_not_ok_no_worker_is_started_beside_a_running_attempt(level: str) -> None:
    p = Play(lanes=3)
    p.running("a")
    p.memory(level)
    assert p.submit("b") == ["queued b"]


@pytest.mark.parametrize("level", ["low", "critical"])
def test_when_memory_is_low_for_ever_tasks_still_run_one_by_one(level: str) -> None:
    p = Play(lanes=3)
    p.memory(level)
    assert p.submit("a") == ["queued a", "lane_starting L0", "StartWorker L0"]
    assert p.submit("b") == ["queued b"]  # one worker is enough for one attempt
    assert p.submit("c") == ["queued c"]
    assert p.ready()[-1] == "Send L0 a#1"
    p.begun("a")
    assert p.memory(level) == []
    assert p.ended("a")[-1] == "Send L0 b#1"
    p.begun("b")
    assert p.died("b")[-2:] == ["lane_starting L0", "StartWorker L0"]
    assert p.ready()[-1] == "Send L0 c#1"
    p.begun("c")
    p.ended("c")
    assert [p.settled[key].outcome.kind for key in "abc"] == ["returned", "died", "returned"]


def test_when_memory_is_low_a_worker_that_cannot_be_started_is_tried_again() -> None:
    p = Play(lanes=2)
    p.memory("low")
    p.submit("a")
    assert p.start_failed() == ["lane_failed L0"]
    assert p.when_due() == ["lane_starting L0", "StartWorker L0"]


KILLED = "a kill is on its way"


@pytest.mark.parametrize("busy", [KILLED, "it has not begun"])
def test_one_that_is_not_gone_yet_still_takes_the_only_place(busy: str) -> None:
    p = Play(lanes=2)
    p.sent("a")
    p.submit("b")
    p.memory("low")
    p.ready(1)
    if busy == KILLED:
        p.begun("a")
        p.kill("a")
    assert p.state("b") is State.QUEUED
    assert [word for word in p.gone() if word.startswith("Send")] == [
        "Send L1 b#1" if busy == KILLED else "Send L1 a#1"
    ]


def test_when_memory_is_low_a_back_off_does_not_take_the_place() -> None:
    p = Play(lanes=2)
    p.running("a", Grant(5.0))
    p.memory("low")
    p.submit("b")
    assert p.ended("a", outcome=RAISED)[-1] == "Send L0 b#1"
    p.begun("b")
    assert p.after(5) == []
    assert p.ended("b")[-1] == "Send L0 a#2"


def test_when_memory_is_low_a_cancelled_task_does_not_take_the_place() -> None:
    p = Play()
    p.memory("low")
    p.sent("a")
    p.submit("b")
    assert p.cancel("a")[-1] == "Send L0 b#1"


def test_when_memory_is_low_nothing_is_sent_ahead() -> None:
    p = Play(depth=3)
    p.memory("low")
    p.running("a")
    assert p.submit("b") == ["queued b"]
    assert p.ended("a")[-1] == "Send L0 b#1"


def test_two_idle_lanes_are_both_used_when_memory_comes_back() -> None:
    p = Play(lanes=3)
    p.all_running("a", "b", "c")
    p.memory("low")
    for key in "defg":
        p.submit(key)
    assert p.ended("b", lane=1)[-1] == "Settle b returned 1"
    assert p.ended("c", lane=2)[-1] == "Settle c returned 1"
    assert p.memory("ok") == ["memory_ok", "sent d#1", "Send L2 d#1", "sent e#1", "Send L1 e#1"]


def test_workers_are_started_for_all_who_waited_when_memory_comes_back() -> None:
    p = Play(lanes=3)
    p.running("a")
    p.memory("low")
    p.submit("b")
    p.submit("c")
    assert [w for w in p.memory("ok") if w.startswith("Start")] == ["StartWorker L1", "StartWorker L2"]


def test_from_critical_to_low_nothing_is_let_in() -> None:
    p = Play(lanes=2)
    p.running("a")
    p.memory("critical")
    p.submit("b")
    assert p.memory("low") == ["memory_low"]


# -- the machine's memory: evictions -----------------------------------------------------------------------------------


def _short(*keys: str, retry: object = Grant(), **limits: object) -> Play:
    """These run in lanes of their own, the last one as the youngest, which has just been ordered to be evicted."""
    p = Play(lanes=len(keys), **limits)
    p.all_running(*keys, retry=retry)
    lane = len(keys) - 1
    assert p.memory("critical", 100 * 2**20) == [
        "memory_critical",
        f"doomed {keys[-1]}#1",
        f"Kill L{lane} {keys[-1]}#1",
    ]
    return p


def test_the_youngest_attempt_is_evicted_and_queued_again() -> None:
    p = _short("a", "b")
    assert p.died("b", lane=1) == ["lane_lost L1", "evicted b#1", "backing_off b#1"]
    assert _event(p, "evicted").detail == {"pid": DIED.pid, "why": "the machine had 100 MiB of memory left"}
    assert p.after(0.5) == []  # due again, and held back: memory is still critical, and `a` runs
    assert p.state("b") is State.QUEUED
    assert p.memory("ok") == ["memory_ok", "lane_starting L1", "StartWorker L1"]
    assert p.ready(1)[-1] == "Send L1 b#2"


def test_the_youngest_is_the_one_that_began_last_whatever_its_lane_and_place_in_the_queue() -> None:
    p = Play(lanes=3)
    for key in "abc":
        p.submit(key)
    for lane in range(3):
        p.ready(lane)
    for lane, key in ((1, "b"), (2, "c"), (0, "a")):
        p.begun(key, lane=lane)
        p.now += 1
    assert p.memory("critical")[1] == "doomed a#1"


def test_the_age_of_an_attempt_is_that_of_its_own_begin_and_not_of_its_tasks_first() -> None:
    p = Play(lanes=2)
    p.now = 1.0
    p.running("a", Grant(0.0))
    p.submit("b")
    p.ready(1)
    p.now = 2.0
    p.begun("b", lane=1)
    p.now = 3.0
    p.ended("a", outcome=RAISED)
    p.after(0)
    p.begun("a", 2)
    assert p.memory("critical")[1] == "doomed a#2"


def test_memory_that_is_only_low_evicts_nobody() -> None:
    p = Play(lanes=2)
    p.all_running("a", "b")
    assert p.memory("low") == ["memory_low"]


def test_the_only_running_attempt_is_never_evicted() -> None:
    p = Play(lanes=2)
    p.running("a")
    assert p.memory("critical") == ["memory_critical"]
    assert p.memory("critical") == []
    assert p.state("a") is State.RUNNING


def test_a_second_attempt_is_not_evicted_before_the_first_is_gone() -> None:
    p = _short("a", "b", "c")
    assert p.memory("critical") == []
    p.died("c", lane=2)
    assert p.memory("critical") == ["doomed b#1", "Kill L1 b#1"]
    p.died("b", lane=1)
    assert p.memory("critical") == []


def test_nobody_is_evicted_while_another_has_been_sent_and_not_begun() -> None:
    p = Play(lanes=3)
    p.all_running("a", "b")
    p.submit("c")
    p.ready(2)
    assert p.memory("critical") == ["memory_critical"]
    p.begun("c", lane=2)
    assert p.memory("critical") == ["doomed c#1", "Kill L2 c#1"]


def test_nobody_is_evicted_while_a_kill_is_under_way() -> None:
    p = Play(lanes=3)
    p.all_running("a", "b", "c")
    p.kill("a")
    assert p.memory("critical") == ["memory_critical"]
    p.died("a")
    assert p.memory("critical") == ["doomed c#1", "Kill L2 c#1"]


def test_those_sent_ahead_of_an_evicted_attempt_are_queued_again_uncharged() -> None:
    p = Play(lanes=2, depth=2)
    policy = Grant(1.0)
    for key in "abcd":
        p.submit(key, policy)
    p.ready(0)
    p.begun("a")
    p.ready(1)
    p.now = 1.0
    p.begun("c", lane=1)
    assert p.memory("critical") == ["memory_critical", "doomed c#1", "Kill L1 c#1"]
    assert p.died("c", lane=1) == ["lane_lost L1", "evicted c#1", "backing_off c#1", "lost d#1"]
    assert policy.asked == []


def test_a_result_that_beats_the_eviction_is_kept() -> None:
    p = _short("a", "b")
    assert p.ended("b", lane=1) == ["returned b#1", "settled b#1", "Settle b returned 1"]
    assert p.memory("critical") == []


def test_an_exception_that_beats_the_eviction_is_charged_and_is_no_eviction() -> None:
    policy = Grant(1.0)
    p = _short("a", "b", retry=policy)
    assert p.ended("b", lane=1, outcome=RAISED) == ["raised b#1", "backing_off b#1"]
    assert policy.asked == [("raised", 1)]


def test_the_users_kill_during_an_eviction_ends_the_task_for_good() -> None:
    policy = Grant(1.0)
    p = _short("a", "b", retry=policy)
    assert p.kill("b", "the user") == []
    assert p.died("b", lane=1)[-1] == "Settle b killed 1"
    assert p.settled["b"].outcome == Killed("the user", DIED.pid)
    assert policy.asked == []


def test_a_timeout_during_an_eviction_changes_nothing() -> None:
    p = Play(lanes=2)
    p.all_running("a", "b", timeout=5.0, soft_timeout=4.0)
    p.memory("critical")
    assert [word for word in p.after(4) if "b#1" in word] == []
    assert "evicted b#1" in p.died("b", lane=1)


def test_a_word_about_its_own_memory_during_an_eviction_changes_nothing() -> None:
    p = Play(lanes=2)
    p.all_running("a", "b", memory_limit=GIB)
    p.memory("critical")
    assert p.swollen("b", lane=1) == []
    assert "evicted b#1" in p.died("b", lane=1)


def test_an_eviction_while_the_pool_shuts_down_in_peace_is_tried_again() -> None:
    p = _short("a", "b")
    assert p.shutdown() == ["pool_closing"]
    assert p.died("b", lane=1) == ["lane_lost L1", "evicted b#1", "backing_off b#1"]
    p.after(1)
    assert p.ended("a")[-1] == "Send L0 b#2"
    p.begun("b", 2)
    assert "Settle b returned 2" in p.ended("b", 2)


def test_an_eviction_after_a_shutdown_that_cancels_is_the_end_of_the_task() -> None:
    p = _short("a", "b")
    p.shutdown(cancel=True)
    assert p.died("b", lane=1)[-1] == "Settle b evicted 1"
    assert p.state("a") is State.RUNNING


def test_an_eviction_during_a_shutdown_that_kills_ends_as_killed() -> None:
    p = _short("a", "b")
    assert p.shutdown(kill=True) == ["pool_closing", "doomed a#1", "Kill L0 a#1"]
    assert p.died("b", lane=1)[-1] == "Settle b killed 1"


def test_a_shutdown_that_cancels_settles_an_evicted_task_that_waits() -> None:
    p = _short("a", "b")
    p.died("b", lane=1)
    assert p.shutdown(cancel=True) == ["pool_closing", "settled b#1", "Settle b killed 1"]


def test_a_lane_that_does_not_answer_an_eviction_is_given_up_and_the_task_queued_again() -> None:
    p = _short("a", "b")
    assert p.after(10) == ["lane_abandoned L1", "Abandon L1", "evicted b#1", "backing_off b#1"]
    p.memory("ok")
    assert p.after(1)[-1] == "StartWorker L2"


def _evict(p: Play, attempt: int) -> list[str]:
    """Have ``b`` begin beside ``a``, and evict it."""
    p.memory("ok")
    if p.state("b") is not State.RUNNING:
        while p.state("b") is State.BACKING_OFF:
            p.when_due()
        p.ready(1)
        p.begun("b", attempt, lane=1)
    assert p.memory("critical")[-1] == f"Kill L1 b#{attempt}"
    return p.died("b", attempt, lane=1)


def test_an_eviction_is_not_charged_to_any_budget_of_the_task() -> None:
    policy = RetryPolicy(deaths=0, timeouts=0, memory=0, total=2)
    p = Play(lanes=2)
    p.all_running("a", "b", retry=policy)
    for attempt in range(1, 6):
        assert _evict(p, attempt)[-1] == f"backing_off b#{attempt}"
    p.memory("ok")
    p.after(30)
    p.ready(1)
    p.begun("b", 6, lane=1)
    assert p.ended("b", 6, lane=1)[-1] == "Settle b returned 6"


def test_an_eviction_is_not_counted_among_the_attempts_in_all() -> None:
    policy = RetryPolicy(deaths=5, total=2)
    p = Play(lanes=2)
    p.all_running("a", "b", retry=policy)
    for attempt in (1, 2, 3):
        _evict(p, attempt)
    p.memory("ok")
    for attempt, ends in ((4, "backing_off b#4"), (5, "Settle b died 5")):
        p.after(30)
        p.ready(1)
        p.begun("b", attempt, lane=1)
        assert p.died("b", attempt, lane=1)[-1] == ends


def test_an_eviction_does_not_lengthen_the_wait_after_a_failure() -> None:
    asked = []

    class Policy:
        def next_delay(self, failure: object) -> float:
            asked.append((dict(failure.counts), failure.attempts))
            return 1.0

    p = Play(lanes=2)
    p.all_running("a", "b", retry=Policy())
    _evict(p, 1)
    p.memory("ok")
    p.after(1)
    p.ready(1)
    p.begun("b", 2, lane=1)
    p.died("b", 2, lane=1)
    assert asked == [({"died": 1}, 1)]


def test_a_task_that_is_evicted_ten_times_ends() -> None:
    p = Play(lanes=2)
    p.all_running("a", "b")
    for attempt in range(1, 10):
        assert _evict(p, attempt)[-1] == f"backing_off b#{attempt}"
    assert _evict(p, 10) == ["lane_lost L1", "evicted b#10", "settled b#10", "Settle b evicted 10"]
    assert p.settled["b"].outcome == Evicted("the machine had 1024 MiB of memory left", DIED.pid)
    assert p.state("a") is State.RUNNING


def test_evictions_are_counted_in_all_and_not_in_a_row() -> None:
    p = Play(lanes=2, uncharged=2)
    p.all_running("a", "b", retry=Grant(0.0))
    _evict(p, 1)
    p.memory("ok")
    p.after(1)
    p.ready(1)
    p.begun("b", 2, lane=1)
    p.died("b", 2, lane=1)
    p.after(0)
    assert _evict(p, 3)[-1] == "Settle b evicted 3"


def test_an_evicted_task_waits_longer_each_time_but_never_longer_than_half_a_minute() -> None:
    delays = [Admission.delay(n) for n in range(1, 100)]
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert all(before <= after for before, after in itertools.pairwise(delays))
    assert delays[-1] == 30.0


def test_when_memory_is_critical_for_ever_all_tasks_still_come_to_their_end() -> None:
    """The guard evicts down to one attempt, then lets them through one by one."""
    p = Play(lanes=3)
    p.all_running("a", "b", "c")
    for key, lane in (("c", 2), ("b", 1)):
        assert p.memory("critical")[-1] == f"Kill L{lane} {key}#1"
        p.died(key, lane=lane)
    p.after(100)
    assert p.ended("a")[-1] == "Send L0 b#2"
    for key, then in (("b", "Send L0 c#2"), ("c", "Settle c returned 2")):
        p.begun(key, 2)
        assert p.memory("critical") == []
        assert p.ended(key, 2)[-1] == then


def test_an_evicted_task_comes_back_to_its_old_place_in_the_queue() -> None:
    p = _short("a", "b")
    p.submit("c")
    p.died("b", lane=1)
    p.after(0.5)
    assert p.ended("a")[-1] == "Send L0 b#2"


def test_a_kill_for_an_eviction_names_its_attempt_and_does_not_spare_what_has_begun() -> None:
    p = _short("a", "b")
    (kill,) = [c for c in p.commands if isinstance(c, Kill)]
    assert kill == Kill(1, "b", 1, unless_begun=False)


def test_the_level_is_taken_as_it_is_told_even_by_a_pool_that_has_ended() -> None:
    p = Play()
    p.shutdown()
    assert p.core.finished
    assert p.tell(MachineMemory(MemoryLevel.LOW, 5)) == ["memory_low"]
