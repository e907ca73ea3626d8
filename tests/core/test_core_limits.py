"""Limits: the memory of an attempt and of a worker, and attempts that stall."""

from __future__ import annotations

import pytest
from core_play import DIED, GIB, RAISED, VALUE, Grant, Play

from resilient_exec.core.messages import AttemptEnded, MemoryExceeded, Stalled
from resilient_exec.core.states import State
from resilient_exec.model.errors import SoftTimeout
from resilient_exec.model.events import Event
from resilient_exec.model.evidence import NO_EVIDENCE, Evidence
from resilient_exec.model.policies import RetryPolicy
from resilient_exec.model.task import Died, Killed, OutOfMemory, Raised

SOFT = Raised(SoftTimeout("5 s are over"), Evidence(traceback="File x.py"))
STACKS = Evidence(stacks="File x.py")


def _event(p: Play, kind: str) -> Event:
    (event,) = [c for c in p.commands if isinstance(c, Event) and c.kind == kind]
    return event


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
    assert p.next_due() == 100.0
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
    before = (p.state("a"), p.next_due(), p.core.lanes(p.now))
    if (lane, key, attempt) == (0, "a", 2):
        assert p.swollen(key, attempt, lane)
        return
    assert p.tell(MemoryExceeded(lane, key, attempt, 2 * GIB)) == []
    assert p.tell(Stalled(lane, key, attempt, 9.0, NO_EVIDENCE)) == []
    assert (p.state("a"), p.next_due(), p.core.lanes(p.now)) == before


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
    assert p.ended("a", memory=2 * GIB)[-1] == "StopWorker L0"
    assert p.state("b") is State.QUEUED  # what it holds is known only when `a` is over


def test_a_late_end_does_not_say_what_the_worker_holds() -> None:
    p = Play(max_memory_per_worker=GIB)
    p.running("a")
    p.submit("b")
    p.ended("a")
    p.ended("a", memory=2 * GIB)
    p.begun("b")
    p.submit("c")
    assert p.ended("b")[-1] == "Send L0 c#1"


def test_a_worker_that_its_lane_calls_unfit_is_replaced() -> None:
    p = Play()
    p.running("a")
    p.submit("b")
    assert p.tell(AttemptEnded(0, "a", 1, VALUE, unfit="of what it left"))[-1] == "StopWorker L0"
    p.gone()
    assert p.ready()[-1] == "Send L0 b#1"


def test_an_attempt_that_is_over_its_limit_only_by_what_earlier_ones_left_is_not_charged() -> None:
    p = Play(2)
    p.running("a", memory_limit=GIB)
    assert p.tell(MemoryExceeded(0, "a", 1, 2 * GIB, GIB)) == ["doomed a#1", "Kill L0 a#1"]
    p.died("a")
    assert p.core.story("a")[-1].kind == "backing_off"
    assert "1024 MiB of earlier tasks" in p.core.story("a")[-2].detail["why"]
    assert p.core.story("a")[-2].kind == "evicted"
